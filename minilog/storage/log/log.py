"""PartitionLog: one partition's log on this broker; satisfies ``core.ports.ReplicaLog``.

Owns: the directory ``<topic>-<partition>`` with its segments and ``truncations``, and the durable end.

Invariants:
* Sealed segments are contiguous and durable; only the active (last) one has bytes that are not synced yet.
* ``durable_end`` only moves to an end that was captured before the sync which covered it began.
* ``truncations`` remembers the last cuts: recovery never believes in a recovery point that a later truncation has
  overtaken.
* ``producers`` is what the batches from start to end say (R32); it is cut and begun anew with the log.
* ``generation`` grows with each truncation; a flush that began in an older generation proves nothing, and no cleaned
  segment of an older one is taken in.
* ``start_offset`` is durable before anything below it goes. It may lie inside the first segment: a follower takes over
  its leader's start, and its segments end elsewhere.
* Compaction leaves no gap: what it takes away is stood for by batches without records (compaction.py), so everything
  here goes on relying on contiguous offsets.

Truncation in an order that survives a crash at any step: copy the tail to quarantine, record the cut, remove later segments newest first, cut the file, sync. Until the cut itself is done the log merely still has
its old tail, which the leader will point out again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress

from minilog.config import TopicSettings
from minilog.errors import DiskFull, StorageFailed
from minilog.storage.log.cutting import Border, border_at, runs, tail
from minilog.storage.log.epochs import EpochCache, recompute
from minilog.storage.log.flush_job import FlushJob
from minilog.storage.log.log_place import LogPlace, Recovered, RecoveryPoint
from minilog.storage.log.log_state import LogState
from minilog.storage.log.producer_snapshots import SNAPSHOT_BYTES, ProducerStates
from minilog.storage.log.producers import WrittenBatch
from minilog.storage.log.retention import expired_end
from minilog.storage.segment.scan import BadBatch
from minilog.storage.segment.segment import SEGMENT_SIZE_MAX, SEGMENT_SPAN_MAX, Segment
from minilog.storage.segment.segment_swap import Swap
from minilog.wire.batch import Batch, filler, is_filler, peek

OPEN_SEALED_MAX = 8
"""Sealed segments of one log that are kept open for readers."""
DIVERGED = "diverged from the leader"
OVERTAKEN = "the leader's log begins behind it, and it is not known to be committed"


class PartitionLog:
    def __init__(self, place: LogPlace, settings: TopicSettings, segments: list[Segment], epochs: EpochCache) -> None:
        """For recovery.py's ``open_log`` only: the parts in an agreed state, everything durable."""
        self.name = place.name
        self.place = place
        self.state = LogState()
        self.is_closed = False
        self.records_lost = [0, 0, 0, 0]
        """Records cut by truncation since the start, by acks level (quarantine.ACKS_NAMES)."""
        self.recovered = Recovered(0, ())
        self.missing: tuple[int, int] | None = None
        """Offsets that were durable once and are gone from the end of the log."""
        self.missing_head: tuple[int, int] | None = None
        """Offsets that are gone from the beginning, where nobody has let them go."""
        self.start_offset = segments[0].base_offset
        self.garbage: list[str] = []
        """Files that are no part of the log any more: to be removed by whoever has time (recovery, at the latest)."""
        self.end_offset = segments[-1].end_offset
        self.durable_end = self.end_offset
        self._high_watermark = self.start_offset
        self._settings = settings
        self._disk = place.disk
        self._segments = segments
        self._bases = [segment.base_offset for segment in segments]
        self._epochs = epochs
        self.producers = ProducerStates(place.disk, place.directory, settings.producer_id_expiration_ms)
        """What the batches say of their producers (R32); its ``table.last_batches`` says what compaction must keep."""
        self._unsynced = place.unsynced
        self._readers: dict[int, Segment] = {}
        """Sealed segments that are open, by base offset, least recently used first."""

    # ---- what the core reads

    @property
    def generation(self) -> int:
        return self.state.generation

    @property
    def start_epoch(self) -> int:
        return self.state.start_epoch if self.state.start_offset == self.start_offset else -1

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
        """Known damaged offset ranges, ends exclusive; a missing durable tail counts until it is durable again, and what lies
        below the start counts for nothing."""
        ranges = [
            bad
            for segment in self._segments
            for bad in segment.bad_ranges
            if max(bad[0], bad[1] - 1) >= self.start_offset
        ]
        if self.missing is not None and self.durable_end < self.missing[1]:
            ranges.append(self.missing)
        return ranges if self.missing_head is None else [self.missing_head, *ranges]

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
        """``epoch_entries`` as a full scan finds them (R3: both agree). Raises BadBatch on a damaged log."""
        found = EpochCache(recompute(self._headers(self.start_offset)))
        found.truncate_start(self.start_offset, self.end_offset)
        return found.entries

    def configure(self, settings: TopicSettings) -> None:
        self._settings = settings
        self.producers.table.expiration_ms = settings.producer_id_expiration_ms

    def find_written(self, batches: Sequence[Batch]) -> list[WrittenBatch | None]:
        return self.producers.table.find_written(batches)

    # ---- append

    def append(self, batches: Sequence[Batch]) -> None:
        assert batches
        expected, epoch, bytes_total = self.end_offset, self._epochs.last_epoch, 0
        for batch in batches:
            assert batch.base_offset == expected, (
                f"{self.name}: batch at {batch.base_offset}, the log ends at {expected}"
            )
            assert batch.leader_epoch >= epoch, f"{self.name}: epoch {batch.leader_epoch} after {epoch} (R6)"
            expected, epoch = batch.end_offset, batch.leader_epoch
            bytes_total += batch.bytes_total
        assert bytes_total <= SEGMENT_SIZE_MAX
        if expected - batches[0].base_offset <= SEGMENT_SPAN_MAX:
            self._append(batches, bytes_total)
            return
        for run in runs(batches):
            self._append(run, sum(batch.bytes_total for batch in run))

    def _append(self, batches: Sequence[Batch], bytes_total: int) -> None:
        """Batches that one segment can hold. Nothing behind the write may raise: it has happened."""
        active, end_offset = self._segments[-1], batches[-1].end_offset
        has_room = active.has_room(bytes_total, end_offset, self._settings.segment_bytes)
        if not has_room or self._is_old(active, batches[0].max_timestamp):
            active = self._roll()
        active.append(batches)
        if batches[-1].leader_epoch != self._epochs.last_epoch:
            for batch in batches:
                self._epochs.observe(batch.leader_epoch, batch.base_offset)
        self.producers.observe(batches, bytes_total)
        self.end_offset = end_offset

    def _is_old(self, active: Segment, now_ms: int) -> bool:
        """By record time, as Kafka does: ``now_ms`` is the time of what comes next."""
        return active.size_bytes > 0 and 0 <= active.first_timestamp < now_ms - self._settings.roll_ms

    def maybe_roll(self, now_ms: int) -> bool:
        """Seal an active segment that time has passed over, so that retention and compaction get at an idle log."""
        active, settings = self._segments[-1], self._settings
        if active.size_bytes == 0 or self.durable_end < self.end_offset or active.bad_ranges:
            return False
        expired = settings.is_deleted and settings.retention_ms >= 0
        expired = expired and 0 <= active.max_timestamp < now_ms - settings.retention_ms
        if not (expired or self._is_old(active, now_ms)):
            return False
        self._roll()
        return True

    def _roll(self) -> Segment:
        """Seal the active segment and start a new one; the old is durable before the new exists."""
        self._segments[-1].seal()
        self._sync_directories()
        self.durable_end = self.end_offset
        self._snapshot_producers()
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
        data = segment.read(offset, max_bytes, end_offset, self._epoch_span)
        if data:
            first = peek(data)
            if first.base_offset < offset and is_filler(first):
                data = filler(first, offset).tobytes() + data[first.bytes_total :]
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

    def _epoch_span(self, offset: int) -> tuple[int, int | None]:
        return self._epochs.span_at(max(offset, self.start_offset))  # a filler may begin below the start

    def offset_at(self, timestamp_ms: int) -> tuple[int, int] | None:
        for segment in self._segments:
            if segment.size_bytes and segment.max_timestamp >= timestamp_ms:
                found = self._segment_at(segment.base_offset).offset_at(timestamp_ms, self.start_offset)
                if found is not None:
                    return found
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
        self._snapshot_producers(SNAPSHOT_BYTES)
        return self.recovery_point()

    def recovery_point(self) -> RecoveryPoint:
        return RecoveryPoint(self.durable_end, self._high_watermark, self.generation, tuple(self._epochs.entries))

    def _snapshot_producers(self, bytes_min: int = 0) -> None:
        self.producers.save(self.end_offset, self.last_epoch, self._high_watermark, bytes_min)

    def restore_producers(self) -> None:
        """Make the producers' state that of this log's batches again: after it was opened, or cut. Raises BadBatch."""
        start = self.producers.load(self.start_offset, self.end_offset, self.epoch_at)
        self.producers.replay(self._headers(start))

    def _headers(self, offset: int) -> Iterator[Batch]:
        """Every batch from ``offset``, a batch border, as a checked header. Raises BadBatch."""
        if offset < self.end_offset:
            for base_offset in self._bases[bisect_right(self._bases, offset) - 1 :]:
                for found in self._segment_at(base_offset).scan(max(offset, base_offset)):
                    yield found.batch

    # ---- cutting

    def truncate(self, end_offset: int) -> int:
        """As in ``ReplicaLog``; the cut is durable on return. Raises DiskFull when the tail cannot be quarantined."""
        assert end_offset >= self.start_offset
        if end_offset >= self.end_offset:
            return self.end_offset
        border = border_at(self._segment_at(end_offset), end_offset)
        # Older values went because of what is cut, so all is to be fetched again; or nothing is left of the log.
        if border.offset < max(self.state.swept_end, self.start_offset):
            self._begin_anew(self.start_offset, self.start_epoch, border, DIVERGED)
            return self.end_offset
        self._cut(border, border, self.state.after_cut(border.offset, self.start_offset), DIVERGED)
        if self.producers.table.end_offset > self.end_offset:
            self._restore_producers_after_cut()
        return self.end_offset

    def reset(self, start_offset: int, start_epoch: int = -1) -> None:
        """As in ``ReplicaLog``, durably. Raises DiskFull: the log is as before, or empty where it began."""
        if start_offset > self.end_offset:
            lost_from, reason = self._high_watermark, OVERTAKEN
        else:
            lost_from, reason = self.start_offset, DIVERGED
        self._begin_anew(start_offset, start_epoch, border_at(self._segment_at(lost_from), lost_from), reason)

    def _begin_anew(self, start_offset: int, start_epoch: int, lost_from: Border, reason: str) -> None:
        first = self._segments[0]
        beginning = Border(first, first.base_offset, 0)
        # Not the new start yet: what is appended after a crash before the rename would lie below it. And nothing is left,
        # not even of what the first segment holds below the start: a recovery point that spoke of it would miss it.
        state = self.state.after_cut(min(first.base_offset, start_offset), first.base_offset)
        self._cut(beginning, lost_from, state._replace(next_start=start_offset, next_epoch=start_epoch), reason)
        assert self._epochs.last_epoch == -1
        self._begin_at(first.base_offset)
        self.restore_producers()
        if start_offset != first.base_offset:
            self._segments[0] = first.rename(start_offset)
            self._bases[0] = start_offset
            self._disk.fsync_dir(self.place.directory)
            self._begin_at(start_offset)
        self.state = self.state.begun(start_offset)
        with suppress(DiskFull):  # what was noted before says the same of a log that begins here
            self._save(self.state)

    def _begin_at(self, offset: int) -> None:
        self.start_offset = offset
        self._end_at(offset)
        self._high_watermark = offset

    def _cut(self, at: Border, lost_from: Border, state: LogState, reason: str) -> None:
        """The one way in which records leave the end of a log. What nobody is known to have besides, everything behind
        ``lost_from``, lies in quarantine and is counted. ``state``, of after the cut, is noted for recovery.

        Raises DiskFull: the log is as before.
        """
        lost = self._quarantine(lost_from, reason)
        self.producers.forget_above(at.offset if at is lost_from else -1)
        self._begin_generation(state)
        self.records_lost = [a + b for a, b in zip(self.records_lost, lost, strict=True)]
        self._remove_after(at.segment)
        at.segment.truncate(at.offset, at.position)
        self._end_at(at.offset)

    def _end_at(self, offset: int) -> None:
        self.missing = None
        self.end_offset = self.durable_end = offset
        self._high_watermark = min(self._high_watermark, offset)

    def _restore_producers_after_cut(self) -> None:
        try:
            self.restore_producers()
        except BadBatch as bad:  # without them repeated batches would be written again (R32): not in this process
            raise StorageFailed(
                f"{self.place.directory} was cut to offset {self.end_offset}, and what is left of it is damaged {bad}"
            ) from bad

    def _quarantine(self, lost_from: Border, reason: str) -> tuple[int, int, int, int]:
        """Copy what is about to be lost; returns its records by acks level."""
        pieces = tail(lost_from, self._segments)
        if not pieces:
            return 0, 0, 0, 0
        return self.place.quarantine.save(self.name, reason, self.end_offset, pieces).records_by_acks

    def _begin_generation(self, state: LogState) -> None:
        """From here on no flush job, and after a crash no recovery point, speaks for more than what is left."""
        self._sync_directories()
        self._save(state)
        self._epochs.truncate_end(state.cuts[-1][1])

    def _save(self, state: LogState) -> None:
        """Raises DiskFull: the old state stays in force."""
        state.save(self._disk, self.place.directory)
        self.state = state

    def _remove_after(self, segment: Segment) -> None:
        """Remove the segments after this one, newest first, each durably before the next: a file system may make removals
        durable in any order, and a power cut must not leave a gap."""
        while self._segments[-1] is not segment:
            removed = self._segments.pop()
            self._readers.pop(self._bases.pop(), None)
            removed.remove()
            self._disk.fsync_dir(self.place.directory)
        self._readers.pop(segment.base_offset, None)

    # ---- retention and compaction

    @property
    def segments(self) -> Sequence[Segment]:
        """Oldest first; the last one is active."""
        return self._segments

    @property
    def settings(self) -> TopicSettings:
        return self._settings

    def expired_end(self, now_ms: int) -> int:
        """Where the log may start by the topic's retention settings; ``start_offset`` when nothing is to go."""
        return max(self.start_offset, expired_end(self._segments, self._settings, self._high_watermark, now_ms))

    def advance_start(self, offset: int) -> None:
        """Forget what lies below ``offset``: first durably, then the sealed segments wholly below it go.

        Raises DiskFull when even the note of the new start finds no room; nothing has changed then.
        """
        assert self.start_offset <= offset <= min(self._high_watermark, self.durable_end)
        if offset == self.start_offset:
            return
        drop = max(bisect_right(self._bases, offset) - 1, 0)
        self._snapshot_producers()  # the batches that go may be all that tells of a producer
        state = self.state.starting_at(offset, self.epoch_at(offset - 1))
        try:
            self._save(state)
        except DiskFull:  # the very moment when deleting is wanted: what can be made anew makes room for the note
            for segment in self._segments[:drop]:
                segment.remove_index()
            self._save(state)
        self.start_offset = offset
        self._epochs.truncate_start(offset, self.end_offset)
        with suppress(DiskFull):  # what cannot be moved away now goes next time
            for _ in range(drop):
                self.garbage.append(self._segments[0].discard())
                self._readers.pop(self._bases.pop(0), None)
                del self._segments[0]

    def note_sweep(self, end_offset: int) -> None:
        """Records are about to go because of others below ``end_offset``. Raises DiskFull."""
        if end_offset > self.state.swept_end:
            self._save(self.state.starting_at(self.start_offset)._replace(swept_end=end_offset))

    def replace(self, old: Sequence[Segment], new: Swap) -> bool:
        """Let the cleaned segment take the place of ``old``; False when they are not all of this log any more.

        Raises DiskFull (nothing has changed) or StorageFailed.
        """
        first = bisect_right(self._bases, new.base_offset) - 1
        if first < 0 or self._segments[first : first + len(old)] != list(old) or self._segments[-1] in old:
            return False
        for segment in old:
            self._readers.pop(segment.base_offset, None)
            segment.close()
        self.garbage += new.perform(self._disk)
        segment = Segment(self._disk, self.place.directory, new.base_offset, new.end_offset)
        self._segments[first : first + len(old)] = [segment]
        self._bases[first : first + len(old)] = [segment.base_offset]
        return True

    def note_cleaned(self, end_offset: int, horizon_ms: int) -> None:
        """A round of cleaning is complete up to here. Raises DiskFull."""
        end_offset = max(end_offset, self.state.cleaned_end)
        state = self.state.starting_at(self.start_offset)
        self._save(state._replace(cleaned_end=end_offset, horizon_ms=horizon_ms))

    # ---- end of life

    def close(self) -> RecoveryPoint:
        """Make everything durable and release the files; the returned point is the caller's to keep."""
        self.flush()
        self._snapshot_producers()
        point = self.checkpoint()
        self.abandon()
        return point

    def abandon(self) -> None:
        """Release the files as they are."""
        self.is_closed = True
        for segment in self._segments:
            segment.close()
        self._readers.clear()
