"""PartitionLog: one partition's log on this broker; satisfies ``core.ports.ReplicaLog``.

Owns: the directory ``<topic>-<partition>`` with its segments and ``truncations``. What is in it and
how that is read and made durable is in stored_log.py, how it is cut in truncation.py. Here it
grows, loses its beginning and is cleaned.

Invariants:
* A sealed segment is durable before the next one exists.
* No cleaned segment of an older generation is taken in.
* ``start_offset`` is durable before anything below it goes. It may lie inside the first segment: a
  follower takes over its leader's start, and its segments end elsewhere.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress

from minilog.errors import DiskFull
from minilog.storage.log.cutting import runs
from minilog.storage.log.log_place import RecoveryPoint
from minilog.storage.log.retention import Clocks, expired_end
from minilog.storage.log.truncation import CuttableLog
from minilog.storage.segment.segment import SEGMENT_SIZE_MAX, SEGMENT_SPAN_MAX, Segment
from minilog.storage.segment.segment_swap import Swap
from minilog.wire.batch import Batch

ROLL_BYTES_MIN = 1024 * 1024
"""A segment that holds less, or less than half of what it may, is not sealed because of a time that
a producer gives. Otherwise a producer could have a segment made of every batch, which takes several
syncs each."""


class PartitionLog(CuttableLog):
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
        self._note_begun()
        if expected - batches[0].base_offset <= SEGMENT_SPAN_MAX:
            self._append(batches, bytes_total)
            return
        for run in runs(batches):
            self._append(run, sum(batch.bytes_total for batch in run))

    def _append(self, batches: Sequence[Batch], bytes_total: int) -> None:
        """Batches that one segment can hold. Nothing behind the write may raise: it has
        happened."""
        active, end_offset = self._segments[-1], batches[-1].end_offset
        has_room = active.has_room(bytes_total, end_offset, self._settings.segment_bytes)
        is_worth_it = active.size_bytes >= min(ROLL_BYTES_MIN, self._settings.segment_bytes // 2)
        if not has_room or (is_worth_it and self._is_old(active, batches[0].max_timestamp)):
            active = self._roll()
        active.append(batches)
        if batches[-1].leader_epoch != self._epochs.last_epoch:
            for batch in batches:
                self._epochs.observe(batch.leader_epoch, batch.base_offset)
        self.producers.observe(batches, bytes_total)
        self.end_offset = end_offset

    def _is_old(self, active: Segment, now_ms: int) -> bool:
        """``now_ms`` is the time of what comes next, as in Kafka, or the wall clock's."""
        return active.size_bytes > 0 and 0 <= active.first_timestamp < now_ms - self._settings.roll_ms

    def maybe_roll(self, wall_ms: int | None) -> bool:
        """Seal an active segment that time has passed over, so that retention and compaction get at
        an idle log. Also one that begins with a time that lies in the future."""
        active = self._segments[-1]
        if active.size_bytes == 0 or self.durable_end < self.end_offset or active.bad_ranges:
            return False
        is_old = wall_ms is not None and self._is_old(active, wall_ms)
        is_old = is_old or self.written.end_before(self._settings.roll_ms) > active.base_offset
        if not (is_old or self._is_expired(active, Clocks(wall_ms, self.written.end_before))):
            return False
        self._roll()
        return True

    def _is_expired(self, active: Segment, clocks: Clocks) -> bool:
        settings = self._settings
        if not settings.is_deleted or settings.retention_ms < 0:
            return False
        return clocks.are_past(active.max_timestamp, active.end_offset, settings.retention_ms, settings)

    def _roll(self) -> Segment:
        """Seal the active segment and start a new one. The old is durable before the new exists."""
        self._segments[-1].seal()
        self._sync_directories()
        self.durable_end = self.end_offset
        self._snapshot_producers()
        active = Segment.create(self._disk, self.place.directory, self.end_offset)
        self._used(self._segments[-1])
        self._segments.append(active)
        self._bases.append(active.base_offset)
        return active

    # ---- retention and compaction

    def expired_end(self, wall_ms: int | None) -> int:
        """Where the log may start by the topic's retention settings. ``start_offset`` when nothing
        is to go."""
        clocks = Clocks(wall_ms, self.written.end_before)
        return max(self.start_offset, expired_end(self._segments, self._settings, self._high_watermark, clocks))

    def advance_start(self, offset: int) -> None:
        """Forget what lies below ``offset``: first durably, then the sealed segments wholly below
        it go.

        Raises DiskFull when even the note of the new start finds no room. Nothing has changed then.
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
        self.written.begin(offset)
        self.cleaned.begin(offset)
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

    def note_copied(self, swept_end: int) -> None:
        """As in ``ReplicaLog``. Raises DiskFull."""
        self._note_begun()
        if swept_end > self.swept_end:
            self._save(self.state.starting_at(self.start_offset)._replace(doubt_end=swept_end))

    def replace(self, old: Sequence[Segment], new: Swap) -> bool:
        """Let the cleaned segment take the place of ``old``; False when they are not all of this
        log any more.

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
        """Make everything durable and release the files. The returned point is the caller's to
        keep."""
        self.flush()
        self._snapshot_producers()
        self._segments[-1].maybe_save_index()
        point = self.recovery_point(is_last=True)
        self.abandon()
        return point

    def abandon(self) -> None:
        """Release the files as they are."""
        self.is_closed = True
        for segment in self._segments:
            segment.close()
        self._readers.clear()
