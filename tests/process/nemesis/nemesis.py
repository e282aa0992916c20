"""What a nemesis is: a function of a ``Scene`` that breaks something, lets it last, and puts it
right again, whatever happens in between. ``@nemesis`` enters it into the catalogue (catalogue.py)
with what it needs of the cluster.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.process.nemesis.scene import Scene

Act = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Nemesis:
    name: str
    act: Act
    needs_network: bool = False
    needs_volumes: bool = False
    hurts_disk: bool = False
    """Must not run beside another one."""
    open_problem: str = ""
    """Why minilog is known not to survive it yet; kept out of soaks unless asked for by name."""


ENTERED: dict[str, Nemesis] = {}


def nemesis(
    *, needs_network: bool = False, needs_volumes: bool = False, hurts_disk: bool = False, open_problem: str = ""
) -> Callable[[Act], Act]:
    def enter(act: Act) -> Act:
        name = act.__name__
        ENTERED[name] = Nemesis(name, act, needs_network, needs_volumes, hurts_disk, open_problem)
        return act

    return enter
