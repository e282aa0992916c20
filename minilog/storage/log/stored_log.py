"""StoredLog: what is in a partition's log, how it is read, and how it becomes durable. The half of
``PartitionLog`` (log.py) that lets nothing in and nothing out.

Owns: the parts of a log in memory (segments, epochs, producers, state), which sealed segments are
open, and the durable end.

Invariants:
* Sealed segments are contiguous and durable. Only the active (last) one has bytes that are not
  synced yet.
* ``durable_end`` only moves to an end that was captured before the sync which covered it began.
* ``producers`` is what the batches from start to end say (R32).
* ``generation`` grows with each truncation. A flush that began in an older generation proves
  nothing.
* Compaction leaves no gap: what it takes away is stood for by batches without records (rewrite.py),
  so everything here goes on relying on contiguous offsets.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from minilog.config import TopicSettings
from minilog.storage.log.epochs import EpochCache, recompute
from minilog.storage.log.flush_job import FlushJob
from minilog.storage.log.log_place import LogPlace, Recovered, RecoveryPoint
from minilog.storage.log.log_state import LogState
from minilog.storage.log.producer_snapshots import SNAPSHOT_BYTES, ProducerStates
from minilog.storage.log.producers import WrittenBatch
from minilog.storage.log.watched_ages import Ages, Span, WatchedAges, cut_ages
from minilog.storage.segment.damage import noted
from minilog.storage.segment.segment import Segment
from minilog.wire.batch import Batch, filler, is_filler, peek

OPEN_SEALED_MAX = 8
"""Sealed segments of one log that are kept open for readers."""


class StoredLog:
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
        self.unsure: tuple[int, int] | None = None
        """Offsets that a cut would have taken, and it is not known what is missing below."""
        self.start_offset = segments[0].base_offset
        self.garbage: list[str] = []
        """Files that are no part of the log any more: to be removed by whoever has time (recovery,
        at the latest)."""
        self.end_offset = segments[-1].end_offset
        self.durable_end = self.end_offset
        self._high_watermark = self.start_offset
        self._settings = settings
        self._disk = place.disk
        self._segments = segments
        self._bases = [segment.base_offset for segment in segments]
        self._epochs = epochs
        self.producers = ProducerStates(place.disk, place.directory, settings.producer_id_expiration_ms)
        """What the batches say of their producers (R32). Its ``table.last_batches`` says what
        compaction must keep."""
        self.written = WatchedAges(Span.of(settings.age_limits_ms))
        """How long the records have been here, by no wall clock (R40)."""
        self.cleaned = WatchedAges(Span.of([settings.delete_retention_ms]))
        """How long they have been clean: for so long tombstones could be read at least."""
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
    def swept_end(self) -> int:
        state = self.state  # only what is committed is ever swept for
        return max(state.swept_end, state.doubt_end, min(state.unsure_end, self._high_watermark))

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
    def bad_ranges(self) -> list[tuple[int, int]]:
        """Known damaged offset ranges, ends exclusive. A missing durable tail counts until it is
        durable again, and what lies below the start counts for nothing. A log
        that cannot be cut does not fit its leader's, so it is damaged as well."""
        ranges = [
            bad
            for segment in self._segments
            for bad in segment.bad_ranges
            if max(bad[0], bad[1] - 1) >= self.start_offset
        ]
        if self.missing is not None and self.durable_end < self.missing[1]:
            ranges.append(self.missing)
        if self.unsure is not None:
            ranges.append(self.unsure)
        return ranges if self.missing_head is None else [self.missing_head, *ranges]

    @property
    def is_damaged(self) -> bool:
        """Something that was durable cannot be read: this replica must not be elected nor count as
        in sync."""
        return bool(self.bad_ranges)

    def note_damage(self) -> None:
        """Damage was found: the next start looks there, or at all of the log (R53). Raises
        DiskFull."""
        ranges = noted([*self.state.bad_ranges, *self.bad_ranges]) or ((self.start_offset, self.end_offset),)
        if ranges != self.state.bad_ranges:
            self._save(self.state._replace(bad_ranges=ranges))

    def note_damage_at(self, offset: int) -> None:
        """A thread has met damage in a segment, not below the start: it is known as if a reader had
        met it."""
        self._segment_at(offset).note_at(offset)

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
        """``epoch_entries`` as a full scan finds them (R3: both agree). Raises BadBatch on a
        damaged log."""
        found = EpochCache(recompute(self._headers(self.start_offset)))
        found.truncate_start(self.start_offset, self.end_offset)
        return found.entries

    def configure(self, settings: TopicSettings) -> None:
        self._settings = settings
        self.producers.table.expiration_ms = settings.producer_id_expiration_ms
        self.written.span, self.cleaned.span = Span.of(settings.age_limits_ms), Span.of([settings.delete_retention_ms])

    def load_ages(self, written: Ages, cleaned: Ages) -> None:
        """As the recovery point has them."""
        self.written.load(cut_ages(written, self.end_offset))
        self.cleaned.load(cut_ages(cleaned, self.state.cleaned_end))

    def look(self, now_ms: int) -> None:
        self.written.look(now_ms, self.end_offset)
        self.cleaned.look(now_ms, self.state.cleaned_end)

    def written_at(self, offset: int) -> tuple[int, int] | None:
        return self.written.of(offset)

    def note_written(self, end_offset: int, ms_ago: int) -> None:
        self.written.note_age(min(end_offset, self.end_offset), ms_ago)

    def find_written(self, batches: Sequence[Batch]) -> list[WrittenBatch | None]:
        return self.producers.table.find_written(batches)

    @property
    def segments(self) -> Sequence[Segment]:
        """Oldest first. The last one is active."""
        return self._segments

    @property
    def settings(self) -> TopicSettings:
        return self._settings

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
        """A job that makes everything appended so far durable. Nothing to do in ``run`` when that
        is so already."""
        if self.durable_end == self.end_offset:
            return FlushJob(self._disk, None, self.generation, self.end_offset)
        handle = self._disk.duplicate(self._segments[-1].handle)
        return FlushJob(self._disk, handle, self.generation, self.end_offset, self._unsynced)

    def complete(self, job: FlushJob) -> bool:
        """Take back a job that has run. False when a truncation came between: it proves nothing
        then."""
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
        """Save the index, so that a restart scans less. The caller keeps the returned point durably
        afterwards."""
        self._segments[-1].maybe_save_index()
        self._snapshot_producers(SNAPSHOT_BYTES)
        return self.recovery_point()

    def recovery_point(self, *, is_last: bool = False) -> RecoveryPoint:
        written = cut_ages(self.written.saved(is_exact=is_last), self.durable_end)
        marks, epochs = (self.durable_end, self._high_watermark), tuple(self._epochs.entries)
        return RecoveryPoint(*marks, self.generation, epochs, written, self.cleaned.saved(is_exact=is_last))

    def _snapshot_producers(self, bytes_min: int = 0) -> None:
        self.producers.save(self.end_offset, self.last_epoch, self._high_watermark, bytes_min)

    def restore_producers(self) -> None:
        """Make the producers' state that of this log's batches again: after it was opened, or cut.
        Raises BadBatch."""
        start = self.producers.load(self.start_offset, self.end_offset, self.epoch_at)
        self.producers.replay(self._headers(start))

    def _headers(self, offset: int) -> Iterator[Batch]:
        """Every batch from ``offset``, a batch border, as a checked header. Raises BadBatch."""
        if offset < self.end_offset:
            for base_offset in self._bases[bisect_right(self._bases, offset) - 1 :]:
                for found in self._segment_at(base_offset).scan(max(offset, base_offset)):
                    yield found.batch

    def _save(self, state: LogState) -> None:
        """Raises DiskFull: the old state stays in force."""
        state.save(self._disk, self.place.directory)
        self.state = state
