"""One segment: a stretch of the log in one file, named by its base offset, with its sparse indexes.

Owns: ``<base>.log``. Opens it at its first use and loads the indexes at the first lookup, so that a
restart does not touch sealed segments.

Invariants:
* ``size_bytes`` is the size of the file, a batch border. ``end_offset`` is the offset after its
  last record.
* A damaged stretch is in ``bad_ranges`` from the moment it is noticed, whoever noticed it, and
  stays there (R53). No byte of it is ever returned.
* Whatever an index says is checked against the batches it leads to. An index that misleads is
  rebuilt once. So is the last entry of a time index before retention goes by it: the files have no
  checksum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from minilog.errors import CorruptBatch, CorruptRange
from minilog.storage.disk import Disk
from minilog.storage.segment import reading
from minilog.storage.segment.damage import Damage, Range, WrongEpoch, merged
from minilog.storage.segment.reading import EpochSpan, Place
from minilog.storage.segment.scan import BadBatch, Found, LogBytes, next_batch, pread, scan
from minilog.storage.segment.segment_index import SegmentIndex
from minilog.wire.batch import HEADER_BYTES, Batch, peek
from minilog.wire.records import first_record_at

LOG_SUFFIX = ".log"
DELETED_SUFFIX = ".deleted"
SEGMENT_SIZE_MAX = 2**31 - 1
SEGMENT_SPAN_MAX = 2**31
"""Offsets of one segment: its indexes count from its base, and any single batch fits."""
_HINTS_MAX = 64


class Segment:
    def __init__(self, disk: Disk, directory: str, base_offset: int, end_offset: int) -> None:
        """A segment whose file exists. Recovery finds ``end_offset`` of the active one with
        ``walk``."""
        self.base_offset = base_offset
        self.end_offset = end_offset
        self.bad_ranges: list[Range] = []
        self._disk = disk
        self._stem = f"{directory}/{base_offset:020d}"
        self.path = self._stem + LOG_SUFFIX
        self.size_bytes = disk.size(self.path)
        self._handle: int | None = None
        self._index: SegmentIndex | None = None
        self._index_is_checked = False
        """The index was made by a scan in this process: what it leads to is where the batches
        were."""
        self._max_timestamp: int | None = None
        self._first_timestamp: int | None = None
        self._hints: dict[int, int] = {}
        """Positions of borders where reads ended: sequential readers come back there."""

    @classmethod
    def create(cls, disk: Disk, directory: str, base_offset: int, *, sync: bool = True) -> Segment:
        """A new, empty segment, durable with ``sync``. Raises DiskFull, and then leaves nothing
        behind."""
        handle = disk.create(f"{directory}/{base_offset:020d}{LOG_SUFFIX}")
        if sync:
            disk.fdatasync(handle)
            disk.fsync_dir(directory)
        segment = cls(disk, directory, base_offset, base_offset)
        segment._handle = handle
        segment._new_index()
        return segment

    def has_room(self, bytes_total: int, end_offset: int, bytes_max: int) -> bool:
        """For batches that end at ``end_offset``. An empty segment takes any batch, but not any
        number of them."""
        if end_offset - self.base_offset > SEGMENT_SPAN_MAX:
            return False
        return self.size_bytes == 0 or self.size_bytes + bytes_total <= bytes_max

    @property
    def handle(self) -> int:
        if self._handle is None:
            self._handle = self._disk.open(self.path)
        return self._handle

    @property
    def is_open(self) -> bool:
        return self._handle is not None

    @property
    def index(self) -> SegmentIndex:
        if self._index is None and not (self._load_index() and self._tells_latest_time()):
            self.rebuild()
        assert self._index is not None
        return self._index

    def _load_index(self) -> bool:
        self._index = SegmentIndex.load(self._disk, self._stem, self.base_offset, self.size_bytes)
        return self._index is not None

    def _tells_latest_time(self) -> bool:
        return self._is_true(self.index.times.last)

    def _is_true(self, entry: tuple[int, int]) -> bool:
        """The time index's entry, if it is one, is what the batch says that ends there."""
        if entry[0] < 0 or not self.base_offset <= entry[1] < self.end_offset:
            return entry[0] < 0
        try:
            base_offset, position = self.find(entry[1])
            header = peek(self._pread(position, HEADER_BYTES, base_offset))
        except (BadBatch, CorruptBatch):
            return False
        return (header.max_timestamp, header.last_offset) == entry

    @property
    def max_timestamp(self) -> int:
        """Latest timestamp in the segment, -1 when it is empty."""
        if self._index is not None:
            self._max_timestamp = self._index.max_timestamp
        elif self._max_timestamp is None:
            self._max_timestamp = self.index.max_timestamp
            self.close()
        return self._max_timestamp

    @property
    def first_timestamp(self) -> int:
        """Latest timestamp of the first batch, -1 when there is none: how old the segment is."""
        if self.size_bytes == 0:
            return -1
        if self._first_timestamp is None:
            was_open = self.is_open
            try:
                self._first_timestamp = peek(self._pread(0, HEADER_BYTES, self.base_offset)).max_timestamp
            except (BadBatch, CorruptBatch):
                self.note_at(self.base_offset)
                return -1
            finally:
                if not was_open:
                    self.close()
        return self._first_timestamp

    def log_bytes(self) -> LogBytes:
        return LogBytes(self._disk, self.handle, self.size_bytes)

    # ---- writing

    def append(self, batches: Sequence[Batch]) -> None:
        """Write batches that continue the segment, in one call. Raises DiskFull (unchanged) or
        StorageFailed."""
        assert batches[0].base_offset == self.end_offset
        index, position = self.index, self.size_bytes
        self._disk.append(self.handle, position, [buffer for batch in batches for buffer in batch.buffers])
        for batch in batches:
            index.note(position, batch)
            position += batch.bytes_total
        self.size_bytes = position
        self.end_offset = batches[-1].end_offset

    def sync(self) -> None:
        self._disk.fdatasync(self.handle)

    def reload(self, offset: int) -> None:
        """Make everything durable, and let later reads of what lies from ``offset`` on tell what is
        on the medium."""
        self._disk.reload(self.handle, self.index.offsets.floor(offset)[1])

    def seal(self) -> None:
        """Make everything durable and complete the index files: no more appends."""
        self.sync()
        self.index.seal()

    def truncate(self, end_offset: int, position: int) -> None:
        """Cut at a batch border and make the cut durable."""
        assert self.base_offset <= end_offset <= self.end_offset
        assert position <= self.size_bytes
        index = self.index
        index.remove_files()
        self._disk.truncate(self.handle, position)
        self._disk.fdatasync(self.handle)
        self.size_bytes = position
        self._first_timestamp = None
        known = [(start, min(end, end_offset)) for start, end in self.bad_ranges if start < end_offset]
        self.walk(end_offset, lambda batch: None)
        self._ends_at(end_offset)
        self.bad_ranges = merged([*known, *self.bad_ranges])

    # ---- reading

    def read(self, offset: int, max_bytes: int, end_offset: int, epoch_span: EpochSpan) -> bytes:
        """Whole verified batches from the one that holds ``offset``; sizes and errors as in
        ``ReplicaLog.read``."""
        assert self.base_offset <= offset < min(end_offset, self.end_offset)
        self._refuse_bad(offset)
        try:
            return self._read(offset, max_bytes, end_offset, epoch_span)
        except BadBatch as bad:
            if self._index_is_checked or isinstance(bad, WrongEpoch):
                raise self._noted(bad) from bad
        self.rebuild()
        try:
            return self._read(offset, max_bytes, end_offset, epoch_span)
        except BadBatch as bad:
            raise self._noted(bad) from bad

    def _read(self, offset: int, max_bytes: int, end_offset: int, epoch_span: EpochSpan) -> bytes:
        place = self.find(offset)
        data, next_place = reading.read(self.log_bytes(), self.index.offsets, place, max_bytes, end_offset, epoch_span)
        self._remember(*next_place)
        return data

    def find(self, offset: int) -> Place:
        """The batch that holds ``offset``, or the segment's end. Raises BadBatch as
        ``reading.find``."""
        assert self.base_offset <= offset <= self.end_offset
        if offset == self.end_offset:
            return Place(offset, self.size_bytes)
        hint = self._hints.get(offset)
        return reading.find(self.log_bytes(), self.index.offsets, offset) if hint is None else Place(offset, hint)

    def border(self, offset: int) -> Place:
        """As ``find``, with every check on the batches before it: to cut there. Raises CorruptRange
        where damage hides the border, noted by then."""
        try:
            return self._border(offset)
        except BadBatch:
            self.rebuild()
        try:
            return self._border(offset)
        except BadBatch as bad:
            raise self._noted(bad) from bad

    def _border(self, offset: int) -> Place:
        if offset in (self.base_offset, self.end_offset):
            return Place(offset, 0 if offset == self.base_offset else self.size_bytes)
        known = self.bad_range_at(offset)
        if known is not None and known[0] < offset:
            raise self._refusal(known, "found damaged before")
        base_offset, position = self.index.offsets.floor(offset if self._index_is_checked else offset - 1)
        if base_offset == offset:
            return Place(offset, position)
        for found in scan(self.log_bytes(), position, base_offset):
            position = found.position + found.batch.bytes_total
            if found.batch.end_offset == offset:
                return Place(offset, position)
            if found.batch.end_offset > offset:
                return Place(found.batch.base_offset, found.position)
            base_offset = found.batch.end_offset
        raise BadBatch(position, base_offset, f"the file ends, and not with offset {self.end_offset - 1}")

    def _pread(self, position: int, size: int, offset: int) -> bytes:
        return pread(self.log_bytes(), position, size, offset)

    def scan(self, offset: int) -> Iterator[Found]:
        """All batches from the one that holds ``offset``. Raises BadBatch. That damage is noted by
        then."""
        may_mislead = not self._index_is_checked
        while True:
            try:
                base_offset, position = self.find(offset)
                for found in scan(self.log_bytes(), position, base_offset):
                    may_mislead = False
                    yield found
                return
            except BadBatch as bad:
                if not may_mislead:
                    self._noted(bad)
                    raise
            self.rebuild()
            may_mislead = False

    def offset_at(self, timestamp_ms: int, start_offset: int) -> tuple[int, int] | None:
        """(offset, timestamp) of the first record at or after ``timestamp_ms``, of batches that end
        after ``start_offset``.

        Raises CorruptRange."""
        try:
            for found in self.scan(self._scan_from(timestamp_ms)):
                if found.batch.max_timestamp >= timestamp_ms and found.batch.end_offset > start_offset:
                    record = first_record_at(self.batch_at(found), timestamp_ms)
                    if record is not None:
                        return record
        except BadBatch as bad:
            raise self._noted(bad) from bad
        return None

    def _scan_from(self, timestamp_ms: int) -> int:
        """Before it no record is as late."""
        entry = self.index.times.before(timestamp_ms)
        if not (self._index_is_checked or self._is_true(entry)):
            self.rebuild()
            entry = self.index.times.before(timestamp_ms)
        return self.base_offset if entry[0] < 0 else entry[1] + 1

    def batch_at(self, found: Found) -> Batch:
        """The whole batch whose header a scan found; raises BadBatch."""
        data = self._pread(found.position, found.batch.bytes_total, found.batch.base_offset)
        return found.batch._replace(buffers=(data,))

    def _remember(self, offset: int, position: int) -> None:
        hints = self._hints
        hints[offset] = position
        if len(hints) > _HINTS_MAX:
            del hints[next(iter(hints))]

    # ---- damage

    def walk(self, offset: int, on_batch: Callable[[Batch], None], power_loss: bool = False) -> list[Damage]:
        """Read and check everything from the last index entry at or before ``offset``, and index it
        anew.

        ``on_batch`` gets each good batch in order. Sets ``end_offset`` and notes bad ranges. The
        file stays as it is. After a ``power_loss`` the time index may lack its end and not so the
        other: then all behind its last entry is read.
        """
        if self._index is None and not self._load_index():
            self._new_index()
        index = self._index
        assert index is not None
        base_offset, position = index.offsets.floor(min(offset, index.times.last[1]) if power_loss else offset)
        index.rewind(position, base_offset)
        if position < self.size_bytes:  # the border, which may be the only way past a damaged stretch
            index.note_border(position, base_offset)
        self._hints.clear()
        self._max_timestamp = None
        self.end_offset = base_offset
        self.bad_ranges = [bad for bad in self.bad_ranges if bad[1] <= base_offset]
        if not (self._index_is_checked or self._tells_latest_time()):
            self._new_index()
            return self.walk(offset, on_batch, power_loss)
        damages: list[Damage] = []
        epoch = -1
        while True:
            try:
                for found in scan(self.log_bytes(), position, base_offset, epoch):
                    index.note(found.position, found.batch)
                    self.end_offset, epoch = found.batch.end_offset, found.batch.leader_epoch
                    on_batch(found.batch)
                return damages
            except BadBatch as bad:
                if not self._index_is_checked and not damages and self.end_offset == bad.offset == base_offset:
                    self._new_index()  # the first step went wrong: it may be the index that is, so do without it
                    return self.walk(offset, on_batch, power_loss)
                resume = next_batch(self.log_bytes(), bad, epoch)
                damages.append(Damage.of(bad, resume, self.size_bytes))
            if resume is None:
                return damages
            base_offset, position = resume.batch.base_offset, resume.position
            self.bad_ranges.append((damages[-1].offset, base_offset))
            index.note_border(position, base_offset)

    def rebuild(self) -> None:
        """Make the indexes anew from the log file, and note what is damaged besides what is known
        already."""
        end_offset, known = self.end_offset, self.bad_ranges
        self._new_index()
        self.walk(self.base_offset, lambda batch: None)
        self._ends_at(end_offset)
        self.bad_ranges = merged([*known, *self.bad_ranges])

    def _ends_at(self, end_offset: int) -> None:
        """It does, so what a walk has not found before that is damaged."""
        if self.end_offset < end_offset:
            self.bad_ranges.append((self.end_offset, end_offset))
        self.end_offset = end_offset

    def _new_index(self) -> None:
        self._index = SegmentIndex(self._disk, self._stem, self.base_offset)
        self._index.remove_files()
        self._index_is_checked = True

    def bad_range_at(self, offset: int) -> Range | None:
        """The known damaged range that holds ``offset``."""
        return next((bad for bad in self.bad_ranges if bad[0] <= offset < bad[1]), None)

    def _refuse_bad(self, offset: int) -> None:
        known = self.bad_range_at(offset)
        if known is not None:
            raise self._refusal(known, "found damaged before")

    def _refusal(self, known: Range, reason: str) -> CorruptRange:
        start, end = known
        return CorruptRange(
            f"offsets {start} to {end} of {self.path} are damaged: {reason}", start_offset=start, end_offset=end
        )

    def _noted(self, bad: BadBatch) -> CorruptRange:
        """Note how far the damage at ``bad`` goes, and the error that says so."""
        if isinstance(bad, WrongEpoch):
            self.note_range(bad.offset, bad.end_offset)
        return self._refusal(self.note_at(bad.offset), str(bad))

    def note_at(self, offset: int) -> Range:
        """Damage was met at ``offset``: how far it goes is looked for, and is known from here
        on."""
        if self.bad_range_at(offset) is None:
            self.rebuild()
        known = self.bad_range_at(offset)
        if known is None:  # the medium reads differently each time: trust the bad news
            known = offset, offset + 1
            self.note_range(*known)
        return known

    def note_range(self, start: int, end: int) -> None:
        self.bad_ranges = merged([*self.bad_ranges, (start, end)])

    # ---- end of life

    def maybe_save_index(self) -> None:
        """Of the active segment, which a restart reads from the last entry on."""
        if self._index is not None:
            self._index.maybe_save()

    def close(self) -> None:
        """Release file and indexes. The next use opens them again."""
        if self._index is not None:  # what was noted before may be of when it was still written to
            self._max_timestamp = self._index.max_timestamp
        if self._handle is not None:
            self._disk.close(self._handle)
        self._handle = self._index = None
        self._index_is_checked = False
        self._hints.clear()

    def rename(self, base_offset: int) -> Segment:
        """The same file, which is empty, as the segment that begins at ``base_offset``. The name is
        not synced yet."""
        assert self.size_bytes == 0
        directory = self.path.rpartition("/")[0]
        self._disk.rename(self.path, f"{directory}/{base_offset:020d}{LOG_SUFFIX}")
        self.close()
        return Segment(self._disk, directory, base_offset, base_offset)

    def discard(self) -> str:
        """Take the file out of the log without the cost of freeing it; returns the path it waits
        at."""
        self._disk.rename(self.path, self.path + DELETED_SUFFIX)
        self.close()
        self.remove_index()
        return self.path + DELETED_SUFFIX

    def remove_index(self) -> None:
        """The index files. What is in memory stays good."""
        SegmentIndex(self._disk, self._stem, self.base_offset).remove_files()

    def remove(self) -> None:
        self.close()
        self._disk.remove(self.path)
        self.remove_index()
