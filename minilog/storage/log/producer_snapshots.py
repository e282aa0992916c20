"""Snapshots of a log's producers: ``<offset>.producers`` beside the segments, so that a restart or
a truncation reads only the batches above the newest snapshot that is still below the log's end.

Owns: the files, in the envelope of checkpoint.py, replaced by one rename. They are derived data and
are not synced: one that a power cut has damaged or lost is ignored, and an older one or the log
itself takes its place.

Invariants:
* A snapshot of offset ``o`` is what the batches below ``o`` say, or it is not there: before
  anything below ``o`` is cut the file is removed, durably, so it cannot return beside other
  batches.
* Kept are all above the high watermark, which a truncation may fall short of, and the two newest at
  or below it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import msgspec

from minilog.errors import CorruptRange, DiskFull
from minilog.storage import checkpoint
from minilog.storage.disk import Disk
from minilog.storage.log.producers import Producer, ProducerTable
from minilog.wire.batch import Batch

SUFFIX = ".producers"
KEPT = 2
SNAPSHOT_BYTES = 1024 * 1024
"""Between rolls a checkpoint makes a new one when at least so much was appended since the last."""
_NAME = re.compile(r"(\d{20})\.producers")


class Snapshot(msgspec.Struct):
    """``last_epoch`` is the leader epoch of the batch before ``offset`` (-1: none): a second proof
    that it belongs here."""

    offset: int
    last_epoch: int
    producers: list[tuple[int, Producer]]


class ProducerStates:
    """The producers of one log, in memory and in their snapshots."""

    def __init__(self, disk: Disk, directory: str, expiration_ms: int) -> None:
        """Nothing is known before ``open``."""
        self.table = ProducerTable(expiration_ms)
        self._disk = disk
        self._directory = directory
        self._offsets: list[int] = []
        """Of the snapshots on the disk, ascending."""
        self._bytes_since = 0

    def _path(self, offset: int) -> str:
        return f"{self._directory}/{offset:020d}{SUFFIX}"

    # ---- while the log grows

    def observe(self, batches: Iterable[Batch], bytes_total: int) -> None:
        """Batches were appended."""
        self._bytes_since += bytes_total
        for batch in batches:
            if batch.producer_id >= 0:
                self.table.observe(batch)

    def replay(self, batches: Iterable[Batch]) -> None:
        """Batches that were in the log already."""
        for batch in batches:
            self.observe((batch,), batch.bytes_total)

    def save(self, offset: int, last_epoch: int, high_watermark: int, bytes_min: int = 0) -> None:
        """Snapshot the state at ``offset``, the log's end, if ``bytes_min`` were appended since the
        last one.

        Without room there is none: it only spares reading.
        """
        if self._bytes_since < bytes_min or (self._offsets and self._offsets[-1] == offset):
            return
        snapshot = Snapshot(offset, last_epoch, self.table.items())
        path = self._path(offset)
        with suppress(DiskFull):
            self._write(path, checkpoint.encode(msgspec.structs.asdict(snapshot)))
            self._offsets.append(offset)
            self._bytes_since = 0
            self._prune(high_watermark)

    def _write(self, path: str, data: bytes) -> None:
        handle = self._disk.create(path + checkpoint.TEMPORARY)
        try:
            self._disk.append(handle, 0, [data])
        finally:
            self._disk.close(handle)
        self._disk.rename(path + checkpoint.TEMPORARY, path)

    def _prune(self, high_watermark: int) -> None:
        committed = [offset for offset in self._offsets if offset <= high_watermark]
        self._remove(committed[:-KEPT])

    def _remove(self, offsets: Iterable[int]) -> None:
        for offset in list(offsets):
            with suppress(FileNotFoundError):
                self._disk.remove(self._path(offset))
            self._offsets.remove(offset)

    # ---- when it is opened or cut

    def forget_above(self, offset: int) -> bool:
        """Remove the snapshots above ``offset``; True when there were any: the caller syncs the
        directory before it lets anything be written there."""
        above = [known for known in self._offsets if known > offset]
        self._remove(above)
        return bool(above)

    def open(self, end_offset: int) -> None:
        """Find the snapshots on the disk, and remove for good those above the log's end."""
        names = self._disk.list(self._directory)
        self._offsets = sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)
        for name in names:
            if name.endswith(SUFFIX + checkpoint.TEMPORARY):
                with suppress(FileNotFoundError):
                    self._disk.remove(f"{self._directory}/{name}")
        if self.forget_above(end_offset):
            self._disk.fsync_dir(self._directory)

    def load(self, start_offset: int, end_offset: int, epoch_at: Callable[[int], int]) -> int:
        """Begin anew with the newest good snapshot between the log's start and end; returns the
        offset from which the batches have to be observed. ``epoch_at`` gives the leader epoch of an
        offset in the log."""
        for offset in self._offsets[::-1]:
            if start_offset <= offset <= end_offset:
                snapshot = self._read(offset)
                if snapshot is None or (offset > start_offset and snapshot.last_epoch != epoch_at(offset - 1)):
                    self._remove([offset])
                    continue
                self._restart(snapshot.producers)
                return offset
        self._restart([])
        return start_offset

    def _restart(self, producers: list[tuple[int, Producer]]) -> None:
        self.table = ProducerTable(self.table.expiration_ms, producers)
        self._bytes_since = 0

    def _read(self, offset: int) -> Snapshot | None:
        """None when it is damaged, gone, or not of this offset."""
        try:
            data = checkpoint.read_file(self._disk, self._path(offset))
            snapshot = msgspec.convert(_as_today(None if data is None else checkpoint.decode(data)), Snapshot)
        except (CorruptRange, msgspec.ValidationError):
            return None
        return snapshot if snapshot.offset == offset else None


def _as_today(body: dict[str, Any] | None) -> dict[str, Any] | None:
    """Snapshots used to hold a time, and with each producer the time that was when it wrote
    last."""
    if body is not None and "time_ms" in body:
        for _, producer in body["producers"]:
            del producer[2]
    return body
