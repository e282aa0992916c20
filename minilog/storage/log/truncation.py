"""CuttableLog: the ways in which a log loses its end, or all of it.

Owns: the order of steps of a cut, which survives a crash at any of them: copy the tail to
quarantine, note the cut in ``truncations``, remove later segments newest first, cut the file, sync.
Until the cut itself is done the log merely still has its old tail, which the leader will point out
again.

Invariants:
* Whatever leaves the end of a log goes through ``_cut``, which quarantines and counts what is not
  known to be committed (R65).
* ``truncations`` remembers the last cuts: recovery never believes in a recovery point that a later
  truncation has overtaken.
* Epochs and producers are cut, and begun anew, with the log (R3, R32).
* A log that is cut below what compaction went by begins anew: older values are missing from it.
  Where it is not known what that was, or damage hides where to cut, the cut is refused and the
  replica is damaged (R53): records that count may lie behind.
"""

from __future__ import annotations

from contextlib import suppress

from minilog.errors import CorruptRange, DiskFull, StorageFailed
from minilog.storage.log.cutting import Border, border_at, keep
from minilog.storage.log.log_state import STATE_FILE, LogState
from minilog.storage.log.stored_log import StoredLog
from minilog.storage.segment.scan import BadBatch
from minilog.storage.segment.segment import Segment

DIVERGED = "diverged from the leader"
OVERTAKEN = "the leader's log begins behind it, and it is not known to be committed"


class CuttableLog(StoredLog):
    def truncate(self, end_offset: int) -> int:
        """As in ``ReplicaLog``. The cut is durable on return. Raises DiskFull when the tail cannot
        be quarantined, CorruptRange when nobody can tell what has to go. Then this is damaged."""
        assert end_offset >= self.start_offset
        if end_offset >= self.end_offset:
            return self.end_offset
        segment = self._segment_at(end_offset)
        border = Border(segment, *segment.border(end_offset))
        self._refuse_unsure(border.offset)
        # Older values went because of what is cut, so all is to be fetched again; or nothing is
        # left of the log.
        if border.offset < max(self.swept_end, self.start_offset):
            self._begin_anew(self.start_offset, self.start_epoch, border, DIVERGED)
            return self.end_offset
        self._cut(border, border, self.state.after_cut(border.offset, self.start_offset), DIVERGED)
        if self.producers.table.end_offset > self.end_offset:
            self._restore_producers_after_cut()
        return self.end_offset

    def _refuse_unsure(self, offset: int) -> None:
        if offset >= self.state.unsure_end:
            return
        self.unsure = offset, self.end_offset
        raise CorruptRange(
            f"{self.place.directory} cannot be cut to offset {offset}: it was compacted, its {STATE_FILE} file was damaged, "
            "and older values may be missing. Move the directory away to have it copied again from its leader",
            start_offset=offset,
            end_offset=self.end_offset,
        )

    def reset(self, start_offset: int, start_epoch: int = -1) -> None:
        """As in ``ReplicaLog``, durably. Raises DiskFull: the log is as before, or empty where it
        began."""
        if start_offset > self.end_offset:
            lost_from, reason = self._high_watermark, OVERTAKEN
        elif self.end_offset < self.swept_end:
            lost_from, reason = self.end_offset, DIVERGED  # the mark says that more than this was committed
        else:
            lost_from, reason = self.start_offset, DIVERGED
        self._begin_anew(start_offset, start_epoch, border_at(self._segment_at(lost_from), lost_from), reason)

    def _begin_anew(self, start_offset: int, start_epoch: int, lost_from: Border, reason: str) -> None:
        first = self._segments[0]
        beginning = Border(first, first.base_offset, 0)
        # Not the new start yet: what is appended after a crash before the rename would lie below
        # it. And nothing is left, not even of what the first segment holds below the start: a
        # recovery point that spoke of it would miss it.
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
        begun = self.state.begun(start_offset, is_empty=True)
        self.state = begun._replace(next_start=start_offset, next_epoch=start_epoch)
        with suppress(DiskFull):  # what was noted before says the same while the log is empty
            self._note_begun()

    def _note_begun(self) -> None:
        """Nothing may come into an emptied log before this: what was noted when that began speaks
        of the log before it.

        Raises DiskFull."""
        if self.state.next_start >= 0:
            self._save(self.state.begun(self.start_offset, is_empty=True))

    def _begin_at(self, offset: int) -> None:
        self.start_offset = offset
        self._end_at(offset)
        self._high_watermark = offset

    def _cut(self, at: Border, lost_from: Border, state: LogState, reason: str) -> None:
        """The one way in which records leave the end of a log. What nobody is known to have
        besides, everything behind ``lost_from``, lies in quarantine and is counted. ``state``, of
        after the cut, is noted for recovery.

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
        self.missing = self.unsure = None
        self.end_offset = self.durable_end = offset
        self.written.cut(offset)
        self.cleaned.cut(offset)
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
        return keep(self.place, reason, lost_from, self._segments)

    def _begin_generation(self, state: LogState) -> None:
        """From here on no flush job, and after a crash no recovery point, speaks for more than what
        is left."""
        self._sync_directories()
        self._save(state)
        self._epochs.truncate_end(state.cuts[-1][1])

    def _remove_after(self, segment: Segment) -> None:
        """Remove the segments after this one, newest first, each durably before the next: a file
        system may make removals durable in any order, and a power cut must not leave a gap."""
        while self._segments[-1] is not segment:
            removed = self._segments.pop()
            self._readers.pop(self._bases.pop(), None)
            removed.remove()
            self._disk.fsync_dir(self.place.directory)
        self._readers.pop(segment.base_offset, None)
