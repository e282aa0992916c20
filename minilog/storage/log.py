"""PartitionLog: one partition's log on this broker; satisfies ``core.ports.ReplicaLog``.

Owns: the directory ``<topic>-<partition>`` with its segments and ``truncations``, and the durable end.

Invariants:
* Sealed segments are contiguous and durable; only the active (last) one has bytes that are not synced yet.
* ``durable_end`` only moves to an end that was captured before the sync which covered it began.
* ``truncations`` remembers the last cuts: recovery never believes in a recovery point that a later truncation has
  overtaken.
* ``generation`` grows with each truncation; a flush that began in an older generation proves nothing.

Truncation in an order that survives a crash at any step: copy the tail to quarantine, record the cut, remove later segments newest first, cut the file, sync. Until the cut itself is done the log merely still has
its old tail, which the leader will point out again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from minilog.config import TopicSettings
from minilog.errors import CorruptBatch, CorruptRange
from minilog.storage import checkpoint
from minilog.storage.disk import Disk
from minilog.storage.epochs import EpochCache, recompute
from minilog.storage.quarantine import Piece, Quarantine
from minilog.storage.scan import BadBatch
from minilog.storage.segment import SEGMENT_SIZE_MAX, Damage, Segment
from minilog.wire.batch import LOG_APPEND_TIME, Batch, peek
from minilog.wire.records import decode_batch

TRUNCATIONS_FILE = "truncations"
OPEN_SEALED_MAX = 8
"""Sealed segments of one log that are kept open for readers."""
CUTS_KEPT = 16
_RELATIVE_OFFSET_MAX = 2**31 - 1


class RecoveryPoint(NamedTuple):
    """What the store's checkpoint knows of a log: its durable end, high watermark and generation at that time.

    ``epochs`` holds (leader epoch, start offset) of every epoch, so that recovery has to derive only what lies above
    ``offset``. They are kept here, with the points of all logs, because a file for each log would
    cost two syncs for each leader change.
    """

    offset: int
    high_watermark: int
    generation: int
    epochs: tuple[tuple[int, int], ...] = ()


class Recovered(NamedTuple):
    """What recovery found: bytes cut as torn, and damage in the active segment."""

    torn_bytes: int
    damages: tuple[Damage, ...]


class FlushJob:
    """One sync to come. ``run`` may be called in a thread; ``PartitionLog.complete`` takes it back on the loop.

    It holds a file handle of its own, so rolling, truncating or deleting the log meanwhile cannot make it sync, or
    close, a file that is not its own.
    """

    __slots__ = ("_directories", "_disk", "_handle", "end_offset", "generation")

    def __init__(
        self, disk: Disk, handle: int | None, generation: int, end_offset: int, directories: tuple[str, ...] = ()
    ) -> None:
        """``handle`` None: everything was durable already. ``directories`` are synced with the file."""
        self._disk = disk
        self._handle = handle
        self._directories = directories
        self.generation = generation
        self.end_offset = end_offset

    def run(self) -> None:
        """Blocks. Raises StorageFailed: the process must stop."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        try:
            self._disk.fdatasync(handle)
        finally:
            self._disk.close(handle)
        for path in self._directories:
            with suppress(FileNotFoundError):  # moved to trash meanwhile: nobody waits for it any more
                self._disk.fsync_dir(path)


class LogPlace(NamedTuple):
    """Where a log lives; ``name`` is ``<topic>-<partition>``."""

    disk: Disk
    directory: str
    name: str
    quarantine: Quarantine
    unsynced: tuple[str, ...] = ()
    """Directories with entries of this log that are not durable yet: the first flush syncs them, not the creation,
    because a topic with hundreds of partitions is made in one turn of the broker."""


class PartitionLog:
    def __init__(self, place: LogPlace, settings: TopicSettings, segments: list[Segment], epochs: EpochCache) -> None:
        """For recovery.py's ``open_log`` only: the parts in an agreed state, everything durable."""
        self.name = place.name
        self.place = place
        self.generation = 0
        self.records_lost = [0, 0, 0, 0]
        """Records cut by truncation since the start, by acks level (quarantine.ACKS_NAMES)."""
        self.recovered = Recovered(0, ())
        self.missing: tuple[int, int] | None = None
        """Offsets that were durable once and are gone from the end of the log."""
        self.cuts: list[tuple[int, int]] = []
        """(generation, end offset) of the last truncations."""
        self.start_offset = segments[0].base_offset
        self.end_offset = segments[-1].end_offset
        self.durable_end = self.end_offset
        self._high_watermark = self.start_offset
        self._settings = settings
        self._disk = place.disk
        self._segments = segments
        self._bases = [segment.base_offset for segment in segments]
        self._epochs = epochs
        self._unsynced = place.unsynced
        self._readers: dict[int, Segment] = {}
        """Sealed segments that are open, by base offset, least recently used first."""

    # ---- what the core reads

    @property
    def last_epoch(self) -> int:
        return self._epochs.last_epoch

    @property
    def high_watermark(self) -> int:
        return self._high_watermark

    @high_watermark.setter
    def high_watermark(self, value: int) -> None:
        assert self.start_offset <= value <= self.end_offset
        self._high_watermark = value

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def segment_count(self) -> int:
        return len(self._segments)

    @property
    def bad_ranges(self) -> list[tuple[int, int]]:
        """Known damaged offset ranges, ends exclusive; a missing durable tail counts until it is durable again."""
        ranges = [bad for segment in self._segments for bad in segment.bad_ranges]
        if self.missing is not None and self.durable_end < self.missing[1]:
            ranges.append(self.missing)
        return ranges

    @property
    def is_damaged(self) -> bool:
        """Something that was durable cannot be read: this replica must not be elected nor count as in sync."""
        return bool(self.bad_ranges)

    def epoch_end(self, epoch: int) -> tuple[int, int]:
        return self._epochs.end_of(epoch, self.end_offset)

    def epoch_at(self, offset: int) -> int:
        if not self.start_offset <= offset < self.end_offset:
            return -1
        return self._epochs.epoch_at(offset)

    @property
    def epoch_entries(self) -> list[tuple[int, int]]:
        """(leader epoch, start offset) of every epoch in the log."""
        return self._epochs.entries

    def recompute_epochs(self) -> list[tuple[int, int]]:
        """``epoch_entries`` as a full scan finds them (I3: both agree). Raises BadBatch on a damaged log."""
        segments = (self._segment_at(base_offset) for base_offset in self._bases)
        return recompute(found.batch for segment in segments for found in segment.scan(segment.base_offset))

    def configure(self, settings: TopicSettings) -> None:
        self._settings = settings

    # ---- append

    def append(self, batches: Sequence[Batch]) -> None:
        assert batches
        expected, epoch, bytes_total = self.end_offset, self._epochs.last_epoch, 0
        for batch in batches:
            assert batch.base_offset == expected, (
                f"{self.name}: batch at {batch.base_offset}, the log ends at {expected}"
            )
            assert batch.leader_epoch >= epoch, f"{self.name}: epoch {batch.leader_epoch} after {epoch} (I6)"
            expected, epoch = batch.end_offset, batch.leader_epoch
            bytes_total += batch.bytes_total
        active = self._segments[-1]
        if not self._fits(active, bytes_total, expected):
            active = self._roll()
        active.append(batches)
        if epoch != self._epochs.last_epoch:
            for batch in batches:
                self._epochs.observe(batch.leader_epoch, batch.base_offset)
        self.end_offset = expected

    def _fits(self, active: Segment, bytes_total: int, end_offset: int) -> bool:
        assert bytes_total <= SEGMENT_SIZE_MAX
        if active.size_bytes == 0:
            return True
        size_bytes = active.size_bytes + bytes_total
        return size_bytes <= self._settings.segment_bytes and end_offset - active.base_offset <= _RELATIVE_OFFSET_MAX

    def _roll(self) -> Segment:
        """Seal the active segment and start a new one; the old is durable before the new exists."""
        self._segments[-1].seal()
        self._sync_directories()
        self.durable_end = self.end_offset
        active = Segment.create(self._disk, self.place.directory, self.end_offset)
        self._used(self._segments[-1])
        self._segments.append(active)
        self._bases.append(active.base_offset)
        return active

    # ---- read

    def read(self, offset: int, max_bytes: int, end_offset: int) -> bytes:
        assert self.start_offset <= offset <= self.end_offset
        end_offset = min(end_offset, self.end_offset)
        if offset >= end_offset:
            return b""
        segment = self._segment_at(offset)
        data = segment.read(offset, max_bytes, end_offset)
        if data:
            self._check_epoch(segment, peek(data))
        return data

    def _segment_at(self, offset: int) -> Segment:
        segment = self._segments[bisect_right(self._bases, offset) - 1]
        if segment is not self._segments[-1]:
            self._used(segment)
        return segment

    def _used(self, segment: Segment) -> None:
        """Keep only the sealed segments open that were read last."""
        self._readers.pop(segment.base_offset, None)
        self._readers[segment.base_offset] = segment
        if len(self._readers) > OPEN_SEALED_MAX:
            self._readers.pop(next(iter(self._readers))).close()

    def _check_epoch(self, segment: Segment, header: Batch) -> None:
        epoch = self._epochs.epoch_at(header.base_offset)
        if header.leader_epoch != epoch:
            raise CorruptRange(
                f"the batch at offset {header.base_offset} of {segment.path} says leader epoch {header.leader_epoch}, "
                f"the log's epochs say {epoch}",
                start_offset=header.base_offset,
                end_offset=header.end_offset,
            )

    def offset_at(self, timestamp_ms: int) -> tuple[int, int] | None:
        for segment in self._segments:
            if segment.size_bytes == 0 or segment.max_timestamp < timestamp_ms:
                continue
            self._segment_at(segment.base_offset)
            start = min(segment.index.times.scan_from(timestamp_ms), segment.end_offset)
            try:
                for found in segment.scan(start):
                    if found.batch.max_timestamp >= timestamp_ms:
                        return _first_record(segment.batch_at(found), timestamp_ms)
            except BadBatch as bad:
                raise CorruptRange(f"{segment.path} is damaged {bad}", start_offset=bad.offset) from bad
        return None

    # ---- durability

    def flush_job(self) -> FlushJob:
        """A job that makes everything appended so far durable; nothing to do in ``run`` when that is so already."""
        if self.durable_end == self.end_offset:
            return FlushJob(self._disk, None, self.generation, self.end_offset)
        handle = self._disk.duplicate(self._segments[-1].handle)
        return FlushJob(self._disk, handle, self.generation, self.end_offset, self._unsynced)

    def complete(self, job: FlushJob) -> bool:
        """Take back a job that has run. False when a truncation came between: it proves nothing then."""
        if job.generation != self.generation:
            return False
        assert job.end_offset <= self.end_offset
        if job.end_offset > self.durable_end:
            self.durable_end = job.end_offset
            self._unsynced = ()
        return True

    def flush(self) -> None:
        """Make everything durable now, in the calling thread."""
        if self.durable_end < self.end_offset:
            self._segments[-1].sync()
            self._sync_directories()
            self.durable_end = self.end_offset

    def _sync_directories(self) -> None:
        for path in self._unsynced:
            self._disk.fsync_dir(path)
        self._unsynced = ()

    def checkpoint(self) -> RecoveryPoint:
        """Save the index, so that a restart scans less; the caller keeps the returned point durably afterwards."""
        self._segments[-1].maybe_save_index()
        return RecoveryPoint(self.durable_end, self._high_watermark, self.generation, tuple(self._epochs.entries))

    # ---- cutting

    def truncate(self, end_offset: int) -> int:
        """As in ``ReplicaLog``; the cut is durable on return. Raises DiskFull when the tail cannot be quarantined."""
        assert end_offset >= self.start_offset
        if end_offset >= self.end_offset:
            return self.end_offset
        segment, end_offset, position = self._border(end_offset)
        lost = self._quarantine(segment, end_offset, position)
        self._begin_generation(end_offset)
        self.records_lost = [a + b for a, b in zip(self.records_lost, lost, strict=True)]
        self._remove_after(segment)
        segment.truncate(end_offset, position)
        self.missing = None
        self.end_offset = self.durable_end = end_offset
        self._high_watermark = min(self._high_watermark, end_offset)
        return end_offset

    def _border(self, offset: int) -> tuple[Segment, int, int]:
        """(segment, offset, position) of the last batch border at or before ``offset`` that can be cut at."""
        segment = self._segment_at(offset)
        known = segment.bad_range_at(offset)
        try:
            return segment, *segment.find(known[0] if known else offset)
        except BadBatch:
            segment.rebuild()
        known = segment.bad_range_at(offset)
        try:
            return segment, *segment.find(known[0] if known else offset)
        except BadBatch as bad:
            return segment, bad.offset, bad.position

    def _quarantine(self, segment: Segment, offset: int, position: int) -> tuple[int, int, int, int]:
        """Copy what is about to be cut; returns its records by acks level."""
        pieces = [Piece(segment.log_bytes(), position, offset)]
        later = self._segments[self._segments.index(segment) + 1 :]
        pieces.extend(Piece(removed.log_bytes(), 0, removed.base_offset) for removed in later)
        if not any(piece.log.size > piece.position for piece in pieces):
            return 0, 0, 0, 0
        return self.place.quarantine.save(
            self.name, "diverged from the leader", self.end_offset, pieces
        ).records_by_acks

    def _begin_generation(self, end_offset: int) -> None:
        """From here on no flush job, and after a crash no recovery point, speaks for more than ``end_offset``."""
        self._sync_directories()
        generation = self.generation + 1
        cuts = [*self.cuts[1 - CUTS_KEPT :], (generation, end_offset)]
        path = f"{self.place.directory}/{TRUNCATIONS_FILE}"
        checkpoint.save(self._disk, path, {"generation": generation, "cuts": cuts})
        self.generation, self.cuts = generation, cuts
        self._epochs.truncate_end(end_offset)

    def _remove_after(self, segment: Segment) -> None:
        """Remove the segments after this one, newest first, so that what is left has no gap."""
        keep = self._segments.index(segment) + 1
        if keep == len(self._segments):
            return
        while len(self._segments) > keep:
            removed = self._segments.pop()
            self._readers.pop(self._bases.pop(), None)
            removed.remove()
        self._disk.fsync_dir(self.place.directory)
        self._readers.pop(segment.base_offset, None)

    def reset(self, start_offset: int) -> None:
        """As in ``ReplicaLog``, durably. Raises DiskFull: the log is as before, or empty where it began."""
        self._begin_generation(min(self.start_offset, start_offset))
        assert self._epochs.last_epoch == -1
        first = self._segments[0]
        self._remove_after(first)
        first.truncate(first.base_offset, 0)
        self.missing = None
        self._begin_at(first.base_offset)
        if start_offset != first.base_offset:
            self._segments[0] = first.rename(start_offset)
            self._bases[0] = start_offset
            self._disk.fsync_dir(self.place.directory)
            self._begin_at(start_offset)

    def _begin_at(self, offset: int) -> None:
        self.start_offset = self.end_offset = self.durable_end = self._high_watermark = offset

    def drop_before(self, offset: int) -> int:
        """Remove the sealed segments that lie wholly below ``offset`` (retention); returns the new start offset."""
        assert offset <= self._high_watermark
        drop = max(bisect_right(self._bases, offset) - 1, 0)
        if drop == 0:
            return self.start_offset
        for segment in self._segments[:drop]:
            self._readers.pop(segment.base_offset, None)
            segment.remove()
        self._disk.fsync_dir(self.place.directory)
        del self._segments[:drop]
        del self._bases[:drop]
        self.start_offset = self._bases[0]
        self._epochs.truncate_start(self.start_offset, self.end_offset)
        return self.start_offset

    # ---- end of life

    def close(self) -> RecoveryPoint:
        """Make everything durable and release the files; the returned point is the caller's to keep."""
        self.flush()
        point = self.checkpoint()
        self.abandon()
        return point

    def abandon(self) -> None:
        """Release the files as they are."""
        for segment in self._segments:
            segment.close()
        self._readers.clear()


def _first_record(batch: Batch, timestamp_ms: int) -> tuple[int, int]:
    """(offset, timestamp) of the first record of ``batch`` at or after ``timestamp_ms``, to the record if that is cheap."""
    if batch.codec == 0 and batch.timestamp_type != LOG_APPEND_TIME:
        try:
            records = decode_batch(batch)
        except CorruptBatch:  # a producer's own fault, under a good CRC: the batch is as exact as it gets
            records = []
        for record in records:
            if record.timestamp >= timestamp_ms:
                return record.offset, record.timestamp
    return batch.base_offset, batch.max_timestamp
