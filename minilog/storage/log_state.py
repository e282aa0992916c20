"""What a log must remember and no batch says: its last cuts, where it starts, how far it is cleaned, what damage took.

Owns: the file ``truncations`` (named after what it held first), replaced as a whole, so that the parts always fit
together. It is written only when one of them changes: at a truncation, when the log start moves, after a round of
cleaning, when recovery has found that something durable is gone.
"""

from __future__ import annotations

from typing import NamedTuple

from minilog.storage import checkpoint
from minilog.storage.disk import Disk

STATE_FILE = "truncations"
CUTS_KEPT = 16


class LogState(NamedTuple):
    """``cuts``: (generation, end offset) of the last truncations, oldest first. ``generation`` grows with each.

    Below ``cleaned_end`` no key has two values. ``horizon_ms``: when the last tombstone that cleaning has met may go.
    ``swept_end``: whatever cleaning has taken away, it did because of a record below it.
    ``start_epoch``: leader epoch of the last batch before ``start_offset``, -1 when it is not known.
    ``missing_end``: the log was durable up to here; while it ends before, damage has taken something that counts.
    """

    generation: int = 0
    cuts: tuple[tuple[int, int], ...] = ()
    start_offset: int = 0
    cleaned_end: int = 0
    horizon_ms: int = -1
    swept_end: int = 0
    missing_end: int = 0
    start_epoch: int = -1

    def after_cut(self, end_offset: int, start_offset: int) -> LogState:
        """A generation begins: the log was cut to ``end_offset`` and starts at ``start_offset``."""
        generation = self.generation + 1
        cuts = (*self.cuts[1 - CUTS_KEPT :], (generation, end_offset))
        return self._replace(
            generation=generation,
            cuts=cuts,
            start_offset=start_offset,
            cleaned_end=min(self.cleaned_end, end_offset),
            swept_end=min(self.swept_end, end_offset),
            missing_end=0,
            start_epoch=self.start_epoch if start_offset == self.start_offset else -1,
        )

    def save(self, disk: Disk, directory: str) -> None:
        """Durable on return. Raises DiskFull (the old state stays in force) or StorageFailed."""
        checkpoint.save(disk, f"{directory}/{STATE_FILE}", self._asdict())


class LoadedState(NamedTuple):
    """``damaged``: the present file is bad, and ``state`` is the one before it or nothing known."""

    state: LogState
    damaged: bool


def load_state(disk: Disk, directory: str) -> LoadedState:
    body, damaged = checkpoint.load(disk, f"{directory}/{STATE_FILE}")
    body = body or {}
    cuts = tuple((int(generation), int(end_offset)) for generation, end_offset in body.pop("cuts", ()))
    known = {name: int(value) for name, value in body.items() if name in LogState._fields}
    return LoadedState(LogState(cuts=cuts, **known), damaged)
