"""Both indexes of one segment together, and their two files.

Owns: ``<base>.index`` and ``<base>.timeindex``. The files are appended to at checkpoints, not
synced before ``seal``, and simply removed when in doubt: the segment rebuilds what is missing. Of a
segment that gets no more batches ``seal`` is the only way to write them, because nobody reads such
a segment again to find what they leave out.

Invariant: when an entry for a batch is made, the time index already speaks for everything before
that batch. A scan that begins at an index entry therefore restores the time index exactly.
"""

from __future__ import annotations

from contextlib import suppress

from minilog.errors import CorruptRange, DiskFull
from minilog.storage.checkpoint import read_file
from minilog.storage.disk import Disk
from minilog.storage.segment.sparse_index import ENTRY_BYTES, INTERVAL_BYTES, TIME_ENTRY_BYTES, OffsetIndex, TimeIndex
from minilog.wire.batch import Batch

INDEX_SUFFIX, TIME_SUFFIX = ".index", ".timeindex"
UNSAVED_MAX = 64
"""Entries that a checkpoint leaves unsaved: 256 KiB of log, which a restart reads again in less
than a millisecond."""


class SegmentIndex:
    def __init__(self, disk: Disk, stem: str, base_offset: int) -> None:
        """Empty indexes. ``stem`` is the path of the files without suffix."""
        self.offsets = OffsetIndex(base_offset)
        self.times = TimeIndex(base_offset)
        self._disk = disk
        self._stem = stem
        self._latest = (-1, base_offset)
        """(latest timestamp so far, last offset of the batch that has it)"""
        self._saved = 0
        self._times_saved = 0
        self._rewound = False
        """The files may hold entries beyond the saved ones."""
        self._exists = False
        """Both files are there."""

    @classmethod
    def load(cls, disk: Disk, stem: str, base_offset: int, size_bytes: int) -> SegmentIndex | None:
        """The indexes from their files, for a log of ``size_bytes``; None when a file is missing,
        bad or unreadable."""
        try:
            data, times_data = read_file(disk, stem + INDEX_SUFFIX), read_file(disk, stem + TIME_SUFFIX)
        except CorruptRange:
            return None
        if data is None or times_data is None:
            return None
        offsets, times = OffsetIndex.decode(data, base_offset, size_bytes), TimeIndex.decode(times_data, base_offset)
        if offsets is None or times is None:
            return None
        index = cls(disk, stem, base_offset)
        index.offsets, index.times = offsets, times
        index._saved, index._times_saved = len(offsets), len(times)
        index._latest = times.last
        index._exists = True
        return index

    @property
    def max_timestamp(self) -> int:
        return self._latest[0]

    def note(self, position: int, batch: Batch) -> None:
        """The batch at ``position`` follows everything noted so far."""
        if position - self.offsets.last_position >= INTERVAL_BYTES:
            self.note_border(position, batch.base_offset)
        if batch.max_timestamp > self._latest[0]:
            self._latest = (batch.max_timestamp, batch.end_offset - 1)

    def note_border(self, position: int, offset: int) -> None:
        """Index the border at ``position`` although the interval is not over: the place after a
        damaged stretch."""
        if position > self.offsets.last_position and offset > self.offsets.last_offset:
            self._note_time()
            self.offsets.add(offset, position)

    def _note_time(self) -> None:
        timestamp, last_offset = self._latest
        if timestamp >= 0:
            self.times.maybe_add(timestamp, last_offset)

    def rewind(self, position: int, offset: int) -> None:
        """Forget the batches from ``position`` and ``offset``, a border, on."""
        self.offsets.truncate(max(position, 1))
        self.times.truncate(offset)
        self._latest = self.times.last
        self._saved, self._times_saved = min(self._saved, len(self.offsets)), min(self._times_saved, len(self.times))
        self._rewound = True

    def seal(self) -> None:
        """No more batches will come: make the time index speak for all of them, and the files
        durable.

        Durable, because retention goes by the last entry: a time index cut short would let records
        go too early."""
        self._note_time()
        self.save()
        for suffix in (INDEX_SUFFIX, TIME_SUFFIX):
            with suppress(FileNotFoundError):  # removed, on a full disk
                self._sync(self._stem + suffix)

    def _sync(self, path: str) -> None:
        handle = self._disk.open(path)
        try:
            self._disk.fdatasync(handle)
        finally:
            self._disk.close(handle)

    def maybe_save(self) -> None:
        """Save when it spares a restart more reading than it costs now."""
        if len(self.offsets) - self._saved >= UNSAVED_MAX:
            self.save()

    def save(self) -> None:
        """Append the new entries to the files. On a full disk, and where a file could not hold
        them, the files are removed instead: then the log file has to tell."""
        if not self.times.fits_file:
            self.remove_files()
            return
        is_saved = len(self.offsets) == self._saved and len(self.times) == self._times_saved
        if is_saved and self._exists and not self._rewound:
            return
        try:
            self._write(INDEX_SUFFIX, self._saved * ENTRY_BYTES, self.offsets.encode(self._saved))
            self._write(TIME_SUFFIX, self._times_saved * TIME_ENTRY_BYTES, self.times.encode(self._times_saved))
        except DiskFull:
            self.remove_files()
            return
        self._saved, self._times_saved = len(self.offsets), len(self.times)
        self._rewound, self._exists = False, True

    def _write(self, suffix: str, position: int, data: bytes) -> None:
        path = self._stem + suffix
        handle = self._disk.open(path) if position else self._disk.create(path)
        try:
            if self._rewound and position:
                self._disk.truncate(handle, position)
            if data:
                self._disk.append(handle, position, [data])
        finally:
            self._disk.close(handle)

    def remove_files(self) -> None:
        self._saved = self._times_saved = 0
        self._exists = False
        for suffix in (INDEX_SUFFIX, TIME_SUFFIX):
            with suppress(FileNotFoundError):
                self._disk.remove(self._stem + suffix)
