"""What this machine has for faults beyond signals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tests.process.rig import faulty_disk, network, slow_syncs, wall_clock

KINDS: Final[Mapping[str, Callable[[], str | None]]] = {
    "network": network.unavailable,
    "volumes": faulty_disk.unavailable,
    "slow_syncs": slow_syncs.unavailable,
    "clocks": wall_clock.unavailable,
}


def missing() -> dict[str, str]:
    """Why, by the name of what there is not here."""
    return {name: reason for name, unavailable in KINDS.items() if (reason := unavailable()) is not None}
