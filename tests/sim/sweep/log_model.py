"""What a log of the disk sweep must hold and may hold, in plain lists, and how what it does hold is
judged."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from minilog.storage.log.log import PartitionLog
from minilog.wire.batch import Batch, is_filler, split
from minilog.wire.records import Record, decode_batch
from tests.unit.storage.batches import everything

UNBOUNDED = 2**31


class Broken(AssertionError):
    """A promise of the storage was broken."""


def check(holds: bool, promise: str) -> None:
    if not holds:
        raise Broken(promise)


class Expected(NamedTuple):
    """What a log may hold when it is opened next: a run of ``batches`` from a start in ``starts``
    on.

    It ends at ``written_end`` or later, or, if unsynced writes may be missing, at ``durable_end``
    or later; or else it is empty and begins at one of ``empty_at``.
    """

    batches: tuple[Batch, ...]
    starts: range
    durable_end: int
    written_end: int
    empty_at: tuple[int, ...] = ()
    cleaned: bool = False
    """Compaction may have been at it."""
    tombstones_go: bool = False
    """The time of the tombstones in it is up."""
    swept_end: int = 0
    """What is missing from it went because of records below this: while it ends before and is not
    empty, it says so."""


class LogModel:
    def __init__(self, topic: str, topic_id: str) -> None:
        self.topic, self.topic_id = topic, topic_id
        self.start = self.durable_end = self.high_watermark = 0
        self.batches: tuple[Batch, ...] = ()
        self.gone: tuple[Batch, ...] = ()
        """What retention has let go."""
        self.cut: list[Batch] = []
        """What a truncation has cut or may have cut: in the log or in quarantine."""
        self.wanted_end: int | None = None
        """Of a truncation that was interrupted: the leader asks for it again."""
        self.lossy = False
        """Unsynced writes may be missing: the process did not simply end."""
        self.exists = False
        """Something in it was durable, so its directory is."""
        self.expected = Expected((), range(1), 0, 0)

    @property
    def end(self) -> int:
        return self.batches[-1].end_offset if self.batches else self.start

    def settle(self, start: int, batches: tuple[Batch, ...], durable_end: int) -> None:
        """Nothing is under way: exactly this is in the log."""
        self.start, self.batches, self.durable_end = start, batches, durable_end
        self.exists = self.exists or durable_end > start
        self.expected = Expected(batches, range(start, start + 1), durable_end, self.end)


def held_by(log: PartitionLog) -> tuple[Batch, ...]:
    return tuple(split(everything(log), UNBOUNDED, stored=True))


def as_bytes(batches: Sequence[Batch]) -> bytes:
    return b"".join(batch.tobytes() for batch in batches)


def check_cleaned(found: Sequence[Batch], written: Sequence[Batch], *, tombstones_go: bool) -> None:
    """``found`` is ``written`` but for records that a later one of their key has overtaken, and
    tombstones if they may go."""
    borders = {batch.end_offset for batch in written}
    check(all(a.end_offset == b.base_offset for a, b in pairwise(found)), f"a gap in {found}")
    check(all(batch.end_offset in borders for batch in found), "a batch ends where none was written to end")
    truth = {record.offset: record for batch in written for record in _records(batch)}
    kept = {record.offset: record for batch in found for record in _records(batch)}
    check(all(truth.get(offset) == record for offset, record in kept.items()), "there is what was never written there")
    latest = {record.key: record.offset for record in truth.values()}
    for offset, record in truth.items():
        overtaken = latest[record.key] > offset
        check(
            offset in kept or overtaken or (tombstones_go and record.value is None),
            f"offset {offset}, the last of key {record.key!r}, is gone",
        )


def check_clean(log: PartitionLog, found: Sequence[Batch]) -> None:
    """Below ``cleaned_end`` no key has two values."""
    keys = [record.key for batch in found for record in _records(batch) if record.offset < log.state.cleaned_end]
    check(len(keys) == len(set(keys)), f"clean below {log.state.cleaned_end}, and a key is there twice: {keys}")


def _records(batch: Batch) -> list[Record]:
    return [] if is_filler(batch) else decode_batch(batch)
