"""What an incident is: an act that breaks something, waits until somebody is paged, and mends it;
and what minilog has to say about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.process.incidents.play import Play

Act = Callable[["Play"], Awaitable[None]]
PAGED_S: Final = 60.0
FAILOVER: Final = "failover"


@dataclass(frozen=True)
class Incident:
    name: str
    act: Act
    what: str
    """In a few words, for the table."""
    page: str = ""
    """The alert that is right; "": nothing is refused or lost, so nobody is woken."""
    also: frozenset[str] = frozenset()
    """Alerts that may come with it."""
    within_s: float = PAGED_S
    events: tuple[str, ...] = ()
    """Kinds. Each must be there, and one of them must name the place."""
    says: str = ""
    """Words of one of their sentences: the cause."""
    logged: str = ""
    """Words that the log of the broker must have: of what it cannot tell anybody else."""
    finding: str = ""
    """Of health, while it lasts; "": it is well all the time."""
    how_long: tuple[str, str] | str = ""
    """Two kinds of events that tell begin and end, or ``failover``; "": nothing lasts."""
    loses: bool = False
    """Acknowledged records are lost, so a rating without losses would have seen nothing."""
    stays: str = ""
    """A finding that is rightly left when all is mended."""
    panels: tuple[str, ...] = ()
    """Of the dashboards: those that must show it."""
    needs: tuple[str, ...] = ()
    """Of the machine (rig/equipment.py)."""
    overrides: tuple[str, ...] = ()
    topic: Mapping[str, Any] = field(default_factory=lambda: {"replication_factor": 3, "min_isr": 2})


ENTERED: dict[str, Incident] = {}


def incident(what: str, **fields: Any) -> Callable[[Act], Act]:
    """``fields`` of Incident."""

    def enter(act: Act) -> Act:
        ENTERED[act.__name__] = Incident(act.__name__, act, what, **fields)
        return act

    return enter
