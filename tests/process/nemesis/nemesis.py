"""What a nemesis is: a function of a ``Scene`` that breaks something, lets it last, and puts it
right again, whatever happens in between. ``@nemesis`` enters it into the catalogue (catalogue.py)
with what it needs of the cluster.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.process.nemesis.scene import Scene

Act = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Nemesis:
    name: str
    act: Act
    needs_network: bool = False
    needs_volumes: bool = False
    needs_slow_syncs: bool = False
    needs_clocks: bool = False
    hurts_disk: bool = False
    """Must not run beside another one."""
    open_problem: str = ""
    """Why minilog is known not to survive it yet; kept out of soaks unless asked for by name."""

    def lacks(self, missing: Mapping[str, str]) -> str | None:
        """The reason when it needs something that is missing (rig/equipment.py)."""
        needed = {
            "network": self.needs_network,
            "volumes": self.needs_volumes,
            "slow_syncs": self.needs_slow_syncs,
            "clocks": self.needs_clocks,
        }
        return next((reason for name, reason in missing.items() if needed[name]), None)


ENTERED: dict[str, Nemesis] = {}


def nemesis(**needs: Any) -> Callable[[Act], Act]:
    """``needs``: fields of Nemesis."""

    def enter(act: Act) -> Act:
        ENTERED[act.__name__] = Nemesis(act.__name__, act, **needs)
        return act

    return enter
