"""What cleaning keeps of each batch, and the file that results: the half of compaction that only
reads and writes.

A record stays when no later one of its key is known (``OffsetMap``, filled from the part that is
not clean yet), when it has no key (only a topic that was not compacted before can hold such), or
when it lies at or beyond the end of what the map speaks for. A *tombstone* (a key without value)
that stays gets a delete horizon, written into its batch: from then on it may go, and everybody who
reads the log within ``delete.retention.ms`` has been told of the deletion (KIP-534).

Invariants:
* Nothing moves. A batch that loses records keeps its base offset, its span, its producer's sequence
  and its epoch.
* No gap: a run of batches that lose everything becomes one *filler*, a batch without records over
  the same offsets, of 61 bytes. Kafka leaves a gap instead, and then contiguity can be checked
  nowhere. Here a missing batch is still told from a removed one by recovery, by followers, and by
  whoever reads. A run ends where the leader epoch changes, so the epochs of a cleaned log are those
  of the log before. A reader or follower that stands inside a filler is shown the rest of it
  (``PartitionLog.read``): every border in a cleaned log was one before, so nobody stands inside
  anything else.
* The last batch of a live producer stays, if need be without records: its header is where its
  sequence is found (R32).
* What cannot be decoded is kept as it is: its CRC says that it is what its producer sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from minilog.errors import CorruptBatch
from minilog.storage.compaction.offset_map import OffsetMap
from minilog.storage.disk import Buffer, Disk
from minilog.storage.log.producers import Lasts
from minilog.storage.segment.scan import LogBytes, pread, scan
from minilog.storage.segment.segment import SEGMENT_SPAN_MAX
from minilog.storage.segment.segment_index import SegmentIndex
from minilog.storage.segment.segment_swap import Swap
from minilog.wire.batch import Batch, filler
from minilog.wire.cleaned_batch import retain
from minilog.wire.records import Record, decode_batch

WRITE_BYTES = 256 * 1024
Throttle = Callable[[int], None]
"""Called in the thread with the bytes just read or written; waits as long as it likes, raises to
stop the round."""


class CleaningFigures(msgspec.Struct):
    """What cleaning has done; counters grow for ever. ``map_bytes_max`` is the largest map so
    far."""

    rounds: int = 0
    cancelled: int = 0
    segments_replaced: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    records_read: int = 0
    records_removed: int = 0
    tombstones_removed: int = 0
    batches_unreadable: int = 0
    map_bytes_max: int = 0
    seconds: float = 0.0


class LogGone(Exception):
    """The log has been closed, moved or cut since the round began: what lies at its paths now may
    be another's."""


class Source(NamedTuple):
    """A sealed segment as the thread sees it: opened to be read, by a handle of its own, and closed
    then."""

    base_offset: int
    end_offset: int
    size_bytes: int
    disk: Disk
    path: str
    check: Callable[[], None]
    """Raises LogGone when the log has gone meanwhile; asked once a file is open or made, which then
    was the log's."""

    def open(self) -> int:
        """A handle on the file. Raises LogGone, or FileNotFoundError when retention has let it
        go."""
        handle = self.disk.open(self.path)
        try:
            self.check()
        except LogGone:
            self.disk.close(handle)
            raise
        return handle

    def batches(self) -> Iterator[Batch]:
        """Every batch, checked and whole. Raises BadBatch, and as ``open``."""
        log = LogBytes(self.disk, self.open(), self.size_bytes)
        try:
            for found in scan(log, 0, self.base_offset):
                data = pread(log, found.position, found.batch.bytes_total, found.batch.base_offset)
                yield found.batch._replace(buffers=(data,))
        finally:
            self.disk.close(log.handle)


def fill_map(
    sources: Sequence[Source], start_offset: int, latest: OffsetMap, throttle: Throttle, figures: CleaningFigures
) -> int:
    """Note the keys from ``start_offset`` on; returns where the map's knowledge ends: where it was
    full, or at the end."""
    end_offset = start_offset
    for source in sources:
        if source.end_offset <= start_offset:
            continue
        for batch in source.batches():
            if batch.end_offset <= start_offset:
                continue
            if latest.is_full:
                return end_offset
            for record in _decoded(batch) or ():
                if record.key is not None:
                    latest.put(record.key, record.offset)
            end_offset = batch.end_offset
            figures.bytes_read += batch.bytes_total
            throttle(batch.bytes_total)
    return end_offset


def _decoded(batch: Batch) -> list[Record] | None:
    """None for what has no keys to go by: control batches, and what cannot be decoded."""
    if batch.is_control:
        return None
    try:
        return decode_batch(batch)
    except CorruptBatch:
        return None


class Horizons(NamedTuple):
    """When tombstones may go: when the time that is written in their batch has come, and when they
    were clean for ``delete_retention_ms`` of watched time (R40)."""

    now_ms: int | None
    """None: the time is not known for sure."""
    delete_retention_ms: int
    ripe_end: int
    """What lies below was clean for so long."""

    @property
    def next_ms(self) -> int | None:
        """Of tombstones that are cleaned now."""
        return None if self.now_ms is None else self.now_ms + self.delete_retention_ms

    def is_over(self, batch: Batch) -> bool:
        horizon_ms = batch.delete_horizon_ms
        if self.now_ms is None or horizon_ms is None:
            return False
        return horizon_ms <= self.now_ms and batch.end_offset <= self.ripe_end


class Sieve:
    """Decides batch by batch. ``horizon_ms``: when the last tombstone that stayed may go; -1
    without any."""

    def __init__(
        self,
        latest: OffsetMap,
        end_offset: int,
        lasts: Lasts,
        horizons: Horizons,
        figures: CleaningFigures,
    ) -> None:
        """``latest`` speaks for what lies below ``end_offset``. ``lasts`` are batches to keep
        (R32)."""
        self.latest = latest
        self.end_offset = end_offset
        self.lasts = lasts
        self.horizons = horizons
        self.horizon_ms = -1
        self.figures = figures

    def keep(self, batch: Batch) -> Batch | None:
        """The batch itself, what is left of it, or None when nothing need be left."""
        if batch.base_offset >= self.end_offset or batch.is_control:
            return batch
        if batch.record_count == 0:
            return batch if self.lasts.has(batch) else None
        records = _decoded(batch)
        if records is None:
            self.figures.batches_unreadable += 1
            return batch
        kept = self._select(batch, records)
        tombstones = any(record.value is None and record.key is not None for record in kept)
        horizon_ms = self.horizons.next_ms if tombstones and batch.delete_horizon_ms is None else None
        self.figures.records_read += len(records)
        self.figures.records_removed += len(records) - len(kept)
        if not kept and not self.lasts.has(batch):
            return None
        left = batch if len(kept) == len(records) and horizon_ms is None else retain(batch, kept, horizon_ms)
        if tombstones and left.delete_horizon_ms is not None:  # without one they stay for good, and nothing is due
            self.horizon_ms = max(self.horizon_ms, left.delete_horizon_ms)
        return left

    def _select(self, batch: Batch, records: Sequence[Record]) -> list[Record]:
        latest = self.latest.latest
        kept = [record for record in records if record.key is None or record.offset >= latest(record.key)]
        if not self.horizons.is_over(batch):
            return kept
        alive = [record for record in kept if record.key is None or record.value is not None]
        self.figures.tombstones_removed += len(kept) - len(alive)
        return alive


class Writer:
    """The ``.cleaned`` file of one swap, with its indexes."""

    def __init__(self, disk: Disk, swap: Swap) -> None:
        self._disk = disk
        self._swap = swap
        self._index = SegmentIndex(disk, swap.stem, swap.base_offset)
        self._handle = disk.create(swap.cleaned)
        self._position = 0
        self._buffers: list[Buffer] = []
        self._buffered_bytes = 0
        self._gone: Batch | None = None
        """The filler to come, as a header: everything up to its end has been removed."""
        self.end_offset = swap.base_offset
        self.batches = 0

    @property
    def bytes_total(self) -> int:
        return self._position + self._buffered_bytes

    def add(self, batch: Batch) -> None:
        self._fill()
        self._write(batch)

    def remove(self, batch: Batch) -> None:
        """Leave out the whole batch, but for its offsets."""
        gone = self._gone
        if (
            gone is None
            or gone.leader_epoch != batch.leader_epoch
            or batch.end_offset - gone.base_offset > SEGMENT_SPAN_MAX
        ):
            self._fill()
            self._gone = batch
        else:
            span = batch.last_offset - gone.base_offset
            latest = max(gone.max_timestamp, batch.max_timestamp)
            self._gone = gone._replace(last_offset_delta=span, max_timestamp=latest)

    def _fill(self) -> None:
        gone, self._gone = self._gone, None
        if gone is not None:
            self._write(filler(gone, gone.base_offset))

    def _write(self, batch: Batch) -> None:
        assert batch.base_offset == self.end_offset, f"{batch.base_offset} after {self.end_offset}"
        self._index.note(self.bytes_total, batch)
        self._buffers += batch.buffers
        self._buffered_bytes += batch.bytes_total
        self.end_offset = batch.end_offset
        self.batches += 1
        if self._buffered_bytes >= WRITE_BYTES:
            self._drain()

    def _drain(self) -> None:
        if self._buffers:
            self._disk.append(self._handle, self._position, self._buffers)
        self._position += self._buffered_bytes
        self._buffers, self._buffered_bytes = [], 0

    def complete(self) -> None:
        """Make the file whole and durable under its name."""
        self._fill()
        assert self.end_offset == self._swap.end_offset, f"cleaned to {self.end_offset}, not {self._swap.end_offset}"
        self._drain()
        self._disk.fdatasync(self._handle)
        self._index.seal()
        self._disk.fsync_dir(self._swap.directory)

    def close(self) -> None:
        self._disk.close(self._handle)


def clean(disk: Disk, swap: Swap, sources: Sequence[Source], sieve: Sieve, throttle: Throttle) -> bool:
    """Write ``sources``, sieved, into the swap's ``.cleaned`` file; False when nothing is gained
    and there is none.

    Raises BadBatch, CorruptRange, DiskFull or StorageFailed, and what ``throttle`` raises."""
    writer = Writer(disk, swap)
    read, changed = 0, len(sources) > 1
    try:
        for source in sources:
            for batch in source.batches():
                kept = sieve.keep(batch)
                if kept is None:
                    writer.remove(batch)
                    changed = changed or batch.record_count > 0
                else:
                    writer.add(kept)
                    changed = changed or kept is not batch
                read += 1
                sieve.figures.bytes_read += batch.bytes_total
                throttle(2 * batch.bytes_total)
        if changed or writer.batches + 1 < read:
            writer.complete()
            sieve.figures.bytes_written += writer.bytes_total
            return True
        swap.discard(disk)
        return False
    except BaseException:
        swap.discard(disk)
        raise
    finally:
        writer.close()
