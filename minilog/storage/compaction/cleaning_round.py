"""One round of compaction over one log: when it is due, and its steps, some for a thread and some
for the loop.

    survey, is_due          loop      how much of the log is dirty
    Round(log, ...)         loop      notes which sealed segments there are
      .prepare()            thread    reads the dirty part into the offset map
      .clean(group)         thread    writes the ``.cleaned`` file of neighbouring segments
      .install(group)       loop      swaps it in, unless the log was cut or trimmed meanwhile
      .complete()           loop      notes how far the log is clean now
      .close()              thread    releases the last handle: what was replaced is freed

The *dirty* part lies between ``cleaned_end`` and the first segment that may not be cleaned: the
active one, one that reaches above the high watermark, one with a record younger than
``min.compaction.lag.ms``, a damaged one. A round always begins with the oldest segment, because
that is where the values are that the dirty part has overtaken. The oldest are swapped first, so a
tombstone never goes, nor begins to count its time, before what it deletes. When the keys do not fit
into the map, a round ends where the map was full and the next one goes on from there.

A follower cleans its own log on its own, as far as its own high watermark. Only an unclean election
can cut a log below that. What was removed because of a record that is cut then is missed, so such a
log is fetched anew (``swept_end``, R94). Removed is what a later record of the same key has
overtaken, and a batch without records when its producer has written another one: so a sweep is
noted up to where either was looked for.

The thread opens one segment at a time, and keeps the one that the swap replaces until its space is
to be freed. A log may be closed, cut or deleted meanwhile, and another one have its directory: a
round that meets this in any form is over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from minilog.config import TopicSettings
from minilog.errors import CorruptRange, DiskFull, StorageFailed
from minilog.storage.compaction.offset_map import OffsetMap
from minilog.storage.compaction.rewrite import (
    CleaningFigures,
    Horizons,
    LogGone,
    Sieve,
    Source,
    Throttle,
    clean,
    fill_map,
)
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.retention import Clocks
from minilog.storage.segment.scan import BadBatch
from minilog.storage.segment.segment import SEGMENT_SPAN_MAX, Segment
from minilog.storage.segment.segment_swap import Swap

MAP_BYTES_MAX = 64 * 1024 * 1024
_FAILURES = (FileNotFoundError, CorruptRange, DiskFull, StorageFailed)


class Dirt(NamedTuple):
    """``end_offset``: what lies below may be cleaned. ``oldest_ms``: age of the dirty part, -1
    without any."""

    clean_bytes: int
    dirty_bytes: int
    end_offset: int
    oldest_ms: int

    @property
    def ratio(self) -> float:
        return self.dirty_bytes / max(self.clean_bytes + self.dirty_bytes, 1)


def survey(log: PartitionLog, now_ms: int | None) -> Dirt:
    clean_bytes = dirty_bytes = 0
    end_offset, oldest_ms = log.segments[0].base_offset, -1
    for segment in _cleanable(log, now_ms):
        end_offset = segment.end_offset
        if end_offset <= log.state.cleaned_end:
            clean_bytes += segment.size_bytes
        else:
            dirty_bytes += segment.size_bytes
            oldest_ms = segment.first_timestamp if oldest_ms < 0 else oldest_ms
    return Dirt(clean_bytes, dirty_bytes, end_offset, oldest_ms)


def _cleanable(log: PartitionLog, now_ms: int | None) -> Iterator[Segment]:
    for segment in log.segments[:-1]:
        if segment.end_offset > log.high_watermark or segment.bad_ranges:
            return
        if segment.end_offset > log.state.cleaned_end and _is_young(log, segment, now_ms):
            return
        yield segment


def _is_young(log: PartitionLog, segment: Segment, now_ms: int | None) -> bool:
    """By the time in its records, or by the time for which they have been here (R40)."""
    lag_ms, clocks = log.settings.min_compaction_lag_ms, Clocks(now_ms, log.written.end_before)
    return lag_ms > 0 and not clocks.are_past(segment.max_timestamp, segment.end_offset, lag_ms - 1, log.settings)


def ripe_end(log: PartitionLog) -> int:
    """What lies below was clean long enough for everybody to have read its tombstones (R40)."""
    return log.cleaned.end_before(log.settings.delete_retention_ms - 1)


def is_due(log: PartitionLog, dirt: Dirt, now_ms: int | None) -> bool:
    """Enough of it is dirty, or some for too long, or the last tombstone's time is up."""
    settings = log.settings
    if not settings.is_compacted:
        return False
    is_up = now_ms is not None and 0 <= log.state.horizon_ms <= now_ms
    if is_up and ripe_end(log) >= log.state.cleaned_end and dirt.end_offset > log.start_offset:
        return True
    if dirt.dirty_bytes == 0:
        return False
    overdue = now_ms is not None and 0 <= dirt.oldest_ms < now_ms - settings.max_compaction_lag_ms
    overdue = overdue or log.written.end_before(settings.max_compaction_lag_ms) > log.state.cleaned_end
    return overdue or dirt.ratio >= settings.min_cleanable_dirty_ratio


class Group(NamedTuple):
    """Neighbouring segments that become one."""

    swap: Swap
    segments: tuple[Segment, ...]
    sources: tuple[Source, ...]


class Round:
    def __init__(
        self,
        log: PartitionLog,
        end_offset: int,
        now_ms: int | None,
        figures: CleaningFigures,
        throttle: Throttle = lambda bytes_total: None,
        map_bytes_max: int = MAP_BYTES_MAX,
    ) -> None:
        """Clean what lies below ``end_offset``, as ``survey`` says. ``now_ms`` None: the time is
        not known for sure, and tombstones stay as they are."""
        self.log = log
        self.figures = figures
        self._disk = log.place.disk
        self._generation = log.generation
        self._settings: TopicSettings = log.settings
        self._throttle = throttle
        self._dirty_from = max(log.state.cleaned_end, log.start_offset)
        self._latest = OffsetMap(map_bytes_max)
        self._segments = [segment for segment in log.segments[:-1] if segment.end_offset <= end_offset]
        self._sources = [self._source(segment) for segment in self._segments]
        self.is_cancelled = False
        self._held: int | None = None
        """Handle of the segment that the present group's swap replaces."""
        self._lasts_end = min(end_offset, log.high_watermark)
        self._sieve = Sieve(
            self._latest,
            self._dirty_from,
            log.producers.table.last_batches(self._lasts_end),
            Horizons(now_ms, self._settings.delete_retention_ms, ripe_end(log)),
            figures,
        )

    def _source(self, segment: Segment) -> Source:
        return Source(
            segment.base_offset, segment.end_offset, segment.size_bytes, self._disk, segment.path, self._check_log
        )

    @property
    def _is_over(self) -> bool:
        return self.log.is_closed or self.log.generation != self._generation

    def _check_log(self) -> None:
        if self._is_over:
            raise LogGone

    def prepare(self) -> list[Group]:
        """Thread. Fill the map; returns what to clean, oldest first: nothing when the log has gone
        meanwhile.

        Raises CorruptRange for a damaged segment."""
        self.figures.rounds += 1
        try:
            end_offset = fill_map(self._sources, self._dirty_from, self._latest, self._throttle, self.figures)
        except (*_FAILURES, LogGone, BadBatch) as error:
            self._cancel(error)
            return []
        self._sieve.end_offset = end_offset
        self.figures.map_bytes_max = max(self.figures.map_bytes_max, self._latest.bytes_used)
        return list(self._groups(end_offset))

    def _groups(self, end_offset: int) -> Iterator[Group]:
        """Neighbours as long as together they make no more than one segment."""
        run: list[int] = []
        for index, source in enumerate(self._sources):
            if source.base_offset >= end_offset:
                break
            size_bytes = sum(self._sources[i].size_bytes for i in [*run, index])
            span = source.end_offset - self._sources[run[0] if run else index].base_offset
            if run and (size_bytes > self._settings.segment_bytes or span > SEGMENT_SPAN_MAX):
                yield self._group(run)
                run = []
            run.append(index)
        if run:
            yield self._group(run)

    def _group(self, run: Sequence[int]) -> Group:
        sources = tuple(self._sources[i] for i in run)
        swap = Swap(self.log.place.directory, sources[0].base_offset, sources[-1].end_offset)
        return Group(swap, tuple(self._segments[i] for i in run), sources)

    def clean(self, group: Group) -> bool:
        """Thread. True when there is a cleaned segment to install. Not when the log has gone
        meanwhile.

        Raises CorruptRange, DiskFull or StorageFailed."""
        try:
            self._release()
            self._held = group.sources[0].open()
            written = clean(self._disk, group.swap, group.sources, self._sieve, self._throttle)
            self._check_log()
            return written
        except (*_FAILURES, LogGone, BadBatch) as error:
            group.swap.discard(self._disk)
            self._cancel(error)
            return False

    def _cancel(self, error: Exception) -> None:
        """The round is over when the log has gone. Otherwise the error is what it says."""
        if isinstance(error, LogGone | FileNotFoundError) or (self._is_over and not isinstance(error, StorageFailed)):
            self.is_cancelled = True
            self.figures.cancelled += 1
            return
        if isinstance(error, BadBatch):
            raise self._damaged(error) from error
        raise error

    def install(self, group: Group) -> bool:
        """Loop. False when the log has changed under the round, which is over then. Raises
        DiskFull, StorageFailed."""
        try:
            if not self._is_over:
                # A batch goes because of a later one of its key, or of its producer: those were
                # asked for further up.
                self.log.note_sweep(max(self._sieve.end_offset, self._lasts_end))
                if self.log.replace(group.segments, group.swap):
                    self.figures.segments_replaced += len(group.segments)
                    return True
        except DiskFull:
            group.swap.discard(self._disk)
            raise
        group.swap.discard(self._disk)
        self.figures.cancelled += 1
        return False

    def complete(self) -> bool:
        """Loop. Every group is in place, if no step was cancelled. Raises DiskFull: the next round
        does it all again."""
        is_whole = not self._is_over and not self.is_cancelled
        if is_whole:
            self.log.note_cleaned(self._sieve.end_offset, self._sieve.horizon_ms)
        return is_whole

    def close(self) -> None:
        """Thread."""
        self._release()

    def _release(self) -> None:
        handle, self._held = self._held, None
        if handle is not None:
            self._disk.close(handle)

    def _damaged(self, bad: BadBatch) -> CorruptRange:
        return CorruptRange(f"a segment of {self.log.place.directory} is damaged {bad}", start_offset=bad.offset)
