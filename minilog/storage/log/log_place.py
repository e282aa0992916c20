"""What a log is opened with, and what its opening found."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from minilog.storage.disk import Disk
from minilog.storage.log.quarantine import Quarantine
from minilog.storage.log.watched_ages import Ages, cut_ages
from minilog.storage.segment.damage import Damage


class RecoveryPoint(NamedTuple):
    """What the store's checkpoint knows of a log: its durable end, high watermark and generation at
    that time.

    ``epochs`` holds (leader epoch, start offset) of every epoch, so that recovery has to derive
    only what lies above ``offset``. They are kept here, with the points of all logs, because a file
    for each log would cost two syncs for each leader change. ``written`` and ``cleaned``: how
    long ago that was done to what lies below an offset (watched_ages.py).
    """

    offset: int
    high_watermark: int
    generation: int
    epochs: tuple[tuple[int, int], ...] = ()
    written: Ages = ()
    cleaned: Ages = ()

    def cut_to(self, end_offset: int) -> RecoveryPoint:
        """What it still says of a log that was cut there since: all of it speaks for what lies
        below, and no more."""
        epochs = tuple(entry for entry in self.epochs if entry[1] < end_offset)
        marks = min(self.offset, end_offset), min(self.high_watermark, end_offset)
        ages = cut_ages(self.written, end_offset), cut_ages(self.cleaned, end_offset)
        return RecoveryPoint(*marks, self.generation, epochs, *ages)


class Recovered(NamedTuple):
    """What recovery found: bytes cut as torn, and damage in the active segment."""

    torn_bytes: int
    damages: tuple[Damage, ...]


class LogPlace(NamedTuple):
    """Where a log lives. ``name`` is ``<topic>-<partition>``."""

    disk: Disk
    directory: str
    name: str
    quarantine: Quarantine
    unsynced: tuple[str, ...] = ()
    """Directories with entries of this log that are not durable yet: the first flush syncs them,
    not the creation, because a topic with hundreds of partitions is made in one turn of the
    broker."""
    ask: Callable[[], None] = lambda: None
    """Asked between segments while the log is checked. What it raises ends the opening, as a crash
    would."""
    topic_id: str = ""
