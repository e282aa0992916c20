"""Where records go that a replica must cut: copied and counted before they leave the log, so that
no loss is silent.

Owns: ``<data>/quarantine/<topic>-<partition>/<epoch>-<base>-<end>.log`` (the bytes as they stood in
the log) and the ``.json`` beside it. The JSON is written last: a ``.log`` without one is a copy
that was interrupted, and worthless.

Counts are by the acks level kept in each batch, because that says which promise was broken: acks=1
promised one copy, ``many`` is what must never appear here unless an unclean election was forced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from minilog.errors import CorruptRange, DiskFull
from minilog.storage import checkpoint
from minilog.storage.disk import Disk
from minilog.storage.segment.scan import CHUNK_BYTES, BadBatch, Found, LogBytes, next_batch, scan
from minilog.wire.batch import Batch
from minilog.wire.records import first_timestamp

ACKS_NAMES = ("unknown", "acks_0", "acks_1", "acks_many")


class Piece(NamedTuple):
    """The bytes of one segment from ``position`` on, where the batch with base offset ``offset``
    starts."""

    log: LogBytes
    position: int
    offset: int


class CutTail(msgspec.Struct, frozen=True):
    """The JSON beside a quarantined tail. Timestamps are ms; -1 when no readable batch was in it.

    ``records_by_acks`` counts in the order of ``ACKS_NAMES``; bytes that are no whole batch are in
    ``unreadable_bytes``.
    """

    partition: str
    reason: str
    cut_at_ms: int
    base_offset: int
    end_offset: int
    first_epoch: int
    last_epoch: int
    bytes: int
    batches: int
    records: int
    records_by_acks: tuple[int, int, int, int]
    unreadable_bytes: int
    first_timestamp: int
    last_timestamp: int
    topic_id: str = ""
    """"" where an older version has cut it."""


class Quarantine:
    def __init__(self, disk: Disk, directory: str, now_ms: Callable[[], int]) -> None:
        self._disk = disk
        self._directory = directory
        self._now_ms = now_ms
        self._stems: set[str] = set()
        """Of what this process has cut."""
        self._untaken: list[CutTail] = []
        self.records_lost = [0, 0, 0, 0]
        """Of this process, in the order of ``ACKS_NAMES``."""

    def take(self) -> list[CutTail]:
        """What was cut since this was last asked."""
        untaken, self._untaken = self._untaken, []
        return untaken

    def save(
        self, partition: str, reason: str, end_offset: int, pieces: Sequence[Piece], topic_id: str = ""
    ) -> CutTail:
        """Copy ``pieces``, the tail that is about to be cut, durably. Raises DiskFull or
        StorageFailed.

        A cut that was interrupted, by a crash or a full disk, comes again: a tail that is kept
        already is not kept twice.
        """
        tail = self._describe(partition, reason, end_offset, pieces, topic_id)
        directory = f"{self._directory}/{partition}"
        self._disk.mkdir(directory)
        self._disk.fsync_dir(self._directory)
        stem, is_kept = self._stem(directory, tail, pieces)
        if is_kept:
            self._disk.fsync_dir(directory)  # its name may not be durable yet
        else:
            try:
                self._copy(stem + ".log", pieces)
                checkpoint.save(self._disk, stem + ".json", msgspec.to_builtins(tail), keep_previous=False)
            except (DiskFull, CorruptRange):
                self._discard(stem)
                raise
        self._count(stem, tail)
        return tail

    def _count(self, stem: str, tail: CutTail) -> None:
        if stem not in self._stems:
            self._stems.add(stem)
            self._untaken.append(tail)
            self.records_lost = [a + b for a, b in zip(self.records_lost, tail.records_by_acks, strict=True)]

    def _discard(self, stem: str) -> None:
        """Half a copy is worthless, and takes the room that others need."""
        for path in (f"{stem}.log", f"{stem}.json{checkpoint.TEMPORARY}"):
            with suppress(FileNotFoundError):
                self._disk.remove(path)

    def _describe(
        self, partition: str, reason: str, end_offset: int, pieces: Sequence[Piece], topic_id: str
    ) -> CutTail:
        by_acks = [0, 0, 0, 0]
        batches: list[Batch] = []
        good_bytes, first_ms = 0, -1
        for log, found in readable(pieces):
            batch = found.batch
            if not batches:
                first_ms = _first_timestamp(log, found)
            by_acks[batch.acks_level] += batch.record_count
            good_bytes += batch.bytes_total
            batches.append(batch)
        bytes_total = sum(piece.log.size - piece.position for piece in pieces)
        return CutTail(
            partition=partition,
            reason=reason,
            cut_at_ms=self._now_ms(),
            base_offset=pieces[0].offset,
            end_offset=end_offset,
            first_epoch=batches[0].leader_epoch if batches else -1,
            last_epoch=batches[-1].leader_epoch if batches else -1,
            bytes=bytes_total,
            batches=len(batches),
            records=sum(by_acks),
            records_by_acks=(by_acks[0], by_acks[1], by_acks[2], by_acks[3]),
            unreadable_bytes=bytes_total - good_bytes,
            first_timestamp=first_ms,
            last_timestamp=max((batch.max_timestamp for batch in batches), default=-1),
            topic_id=topic_id,
        )

    def _stem(self, directory: str, tail: CutTail, pieces: Sequence[Piece]) -> tuple[str, bool]:
        """A file name without suffix, and whether these very bytes are kept under it. If not, no
        earlier cut has it.

        The same offsets may be cut twice in one epoch, with other records.
        """
        names = self._disk.list(directory)
        stem = f"{directory}/{max(tail.first_epoch, 0)}-{tail.base_offset}-{tail.end_offset}"
        candidate, number = stem, 1
        while f"{candidate.rpartition('/')[2]}.json" in names:
            if self._is_of(candidate + ".json", tail.topic_id) and self._holds(candidate + ".log", pieces):
                return candidate, True
            number += 1
            candidate = f"{stem}-{number}"
        return candidate, False

    def _is_of(self, path: str, topic_id: str) -> bool:
        """The JSON at ``path`` can be read, and tells of that very topic."""
        known = checkpoint.load_dispensable(self._disk, path)
        return bool(known) and (not topic_id or known.get("topic_id", "") in ("", topic_id))

    def _holds(self, path: str, pieces: Sequence[Piece]) -> bool:
        """The file at ``path`` is a copy of ``pieces``, byte for byte."""
        size = sum(piece.log.size - piece.position for piece in pieces)
        try:
            if self._disk.size(path) != size:
                return False
            handle = self._disk.open(path)
        except FileNotFoundError:
            return False
        try:
            position = 0
            for data in _chunks(pieces):
                if self._disk.pread(handle, position, len(data)) != data:
                    return False
                position += len(data)
        except CorruptRange:
            return False
        finally:
            self._disk.close(handle)
        return True

    def _copy(self, path: str, pieces: Sequence[Piece]) -> None:
        handle = self._disk.create(path)
        try:
            position = 0
            for data in _chunks(pieces):
                self._disk.append(handle, position, [data])
                position += len(data)
            self._disk.fdatasync(handle)
        finally:
            self._disk.close(handle)


def _chunks(pieces: Sequence[Piece]) -> Iterator[bytes]:
    for piece in pieces:
        for start in range(piece.position, piece.log.size, CHUNK_BYTES):
            yield piece.log.pread(start, CHUNK_BYTES)


def _first_timestamp(log: LogBytes, found: Found) -> int:
    try:
        data = log.pread(found.position, found.batch.bytes_total)
    except CorruptRange:
        return found.batch.max_timestamp
    return first_timestamp(found.batch._replace(buffers=(data,)))


def readable(pieces: Sequence[Piece]) -> Iterator[tuple[LogBytes, Found]]:
    """Every whole batch of the tail and where it lies, stepping over what is damaged."""
    for log, position, offset in pieces:
        while True:
            try:
                for found in scan(log, position, offset):
                    yield log, found
                break
            except BadBatch as bad:
                resume = next_batch(log, bad, -1)
            if resume is None:
                break
            position, offset = resume.position, resume.batch.base_offset
