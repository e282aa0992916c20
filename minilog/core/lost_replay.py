"""Lost replay: which batch of a lost tail is written again next. Pure.

Records go in the order in which they lay, with their keys, values, headers and times, and three
headers more that say where each was. What another tail has claimed is left out, and so is what
cannot be read or has no room in any batch, which is counted.

Why the batch is made again from the tail each time, and not kept: whoever asks first notes durably
where the batch ends. The same batch comes out after a crash, with the same sequence, and the
leader's memory of producers (R31) writes it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from minilog.errors import CorruptBatch, InvalidRecord, RecordTooLarge
from minilog.wire.batch import Batch
from minilog.wire.messages import LostRun
from minilog.wire.records import BatchBuilder, Record, SealedBatch, decode_batch

PARTITION_HEADER = "minilog-lost-partition"
OFFSET_HEADER = "minilog-lost-offset"
EPOCH_HEADER = "minilog-lost-leader-epoch"
BATCH_BYTES_ENOUGH = 1024 * 1024
"""A batch of so much takes no more records, however large batches may be. One record may be
larger."""


class Step(NamedTuple):
    """``batch`` is None when nothing was left to write. ``next_offset`` is behind the last record
    that was looked at, ``position`` and ``base_offset`` where the batch that holds it, or the next
    one, begins."""

    batch: SealedBatch | None
    next_offset: int
    position: int
    base_offset: int
    skipped: int
    is_last: bool


class _Entry(NamedTuple):
    """One record, or so many ``unreadable`` ones that are claimed, up to ``end_offset``."""

    position: int
    base_offset: int
    end_offset: int
    leader_epoch: int
    record: Record | None
    unreadable: int = 0


def runs_of(batches: Iterable[Batch]) -> list[LostRun]:
    """What can be read of a tail, by leader epoch. Who claimed more than that would keep others
    from writing what only they can read."""
    runs: list[LostRun] = []
    for batch in batches:
        if runs and (runs[-1].leader_epoch, runs[-1].end_offset) == (batch.leader_epoch, batch.base_offset):
            runs[-1] = msgspec.structs.replace(runs[-1], end_offset=batch.end_offset)
        else:
            runs.append(LostRun(batch.leader_epoch, batch.base_offset, batch.end_offset))
    return runs


def without(runs: Iterable[LostRun], taken: Iterable[LostRun]) -> list[LostRun]:
    """What is left of ``runs`` once ``taken`` has gone from them."""
    left = list(runs)
    for gone in taken:
        left = [part for run in left for part in _cut(run, gone)]
    return left


def _cut(run: LostRun, gone: LostRun) -> list[LostRun]:
    if run.leader_epoch != gone.leader_epoch:
        return [run]
    before = LostRun(run.leader_epoch, run.base_offset, min(run.end_offset, gone.base_offset))
    after = LostRun(run.leader_epoch, max(run.base_offset, gone.end_offset), run.end_offset)
    return [part for part in (before, after) if part.base_offset < part.end_offset]


def next_step(
    batches: Iterable[tuple[int, Batch]],
    partition: str,
    runs: Sequence[LostRun],
    next_offset: int,
    batch_bytes_max: int,
    pending_end: int = -1,
) -> Step:
    """``batches``: (position, batch) from where ``next_offset`` lies. ``pending_end``: take the
    records up to there and no more, because that was noted, with the ``batch_bytes_max`` of
    then."""
    builder = BatchBuilder(batch_bytes_max)
    skipped, place = 0, (0, -1)
    for entry in _entries(batches, next_offset, runs):
        place = entry.position, entry.base_offset
        if 0 <= pending_end < entry.end_offset or builder.bytes_total >= BATCH_BYTES_ENOUGH:
            return _step(builder, next_offset, place, skipped)
        skipped += entry.unreadable
        if entry.record is not None and _is_claimed(entry, runs):
            try:
                has_room = _add(builder, partition, entry, entry.record) > 0
            except InvalidRecord:  # its time and the first one's are too far apart for one batch
                has_room = False
            except RecordTooLarge:
                has_room, skipped = True, skipped + 1
            if not has_room:
                return _step(builder, next_offset, place, skipped)
        next_offset = entry.end_offset
    return _step(builder, next_offset, place, skipped, is_last=True)


def _step(
    builder: BatchBuilder, next_offset: int, place: tuple[int, int], skipped: int, *, is_last: bool = False
) -> Step:
    return Step(builder.seal() if builder.record_count else None, next_offset, *place, skipped, is_last)


def _entries(batches: Iterable[tuple[int, Batch]], next_offset: int, runs: Sequence[LostRun]) -> Iterator[_Entry]:
    """What lies between two batches was damaged since it was claimed."""
    read_to, position = next_offset, 0
    for position, batch in batches:
        if batch.end_offset <= next_offset:
            continue
        base, end, epoch = batch.base_offset, batch.end_offset, batch.leader_epoch
        if missing := _claimed_within(runs, read_to, base):
            yield _Entry(position, base, base, epoch, None, missing)
        read_to = end
        if batch.is_control or not _touches(batch, runs):
            continue
        try:
            records = decode_batch(batch, from_offset=next_offset)
        except CorruptBatch:
            yield _Entry(position, base, end, epoch, None, _claimed_within(runs, max(base, next_offset), end))
            continue
        for record in records:
            yield _Entry(position, base, record.offset + 1, epoch, record)
    end = max((run.end_offset for run in runs), default=0)
    if missing := _claimed_within(runs, read_to, end):
        yield _Entry(0, -1, end, -1, None, missing)


def _claimed_within(runs: Iterable[LostRun], start: int, end: int) -> int:
    return sum(max(0, min(run.end_offset, end) - max(run.base_offset, start)) for run in runs)


def _touches(batch: Batch, runs: Iterable[LostRun]) -> bool:
    return any(
        run.leader_epoch == batch.leader_epoch
        and run.base_offset < batch.end_offset
        and batch.base_offset < run.end_offset
        for run in runs
    )


def _is_claimed(entry: _Entry, runs: Iterable[LostRun]) -> bool:
    return any(
        run.leader_epoch == entry.leader_epoch and run.base_offset < entry.end_offset <= run.end_offset for run in runs
    )


def _add(builder: BatchBuilder, partition: str, entry: _Entry, record: Record) -> int:
    headers = (
        *record.headers,
        (PARTITION_HEADER, partition.encode()),
        (OFFSET_HEADER, b"%d" % record.offset),
        (EPOCH_HEADER, b"%d" % entry.leader_epoch),
    )
    return builder.append(record.key, record.value, headers, record.timestamp)
