"""Walking the batches of a log file with every check on: used by recovery, index rebuilds, scrubbing and inspection.

Owns: the decision whether bytes at a position are the batch that belongs there. A batch belongs when it is whole, its
CRC matches, its base offset is the end of the batch before it and its leader epoch is not lower.

A checksum failure is never taken for the end of the log here: ``scan`` says where it is, ``next_batch`` looks for what
follows, and recovery.py decides what that means.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from crc32c import crc32c

from minilog.errors import CorruptBatch, CorruptRange, RecordTooLarge
from minilog.storage.disk import Disk
from minilog.wire.batch import CRC_START, HEADER_BYTES, MAGIC, PREFIX_BYTES, Batch, batch_at, peek

CHUNK_BYTES = 1024 * 1024
BATCH_BYTES_MAX = 2**31 - 1
_MAGIC_POSITION = 16
_MAGIC = re.compile(rb"\x02")
_unpack_checks = struct.Struct(">qiibIHi").unpack_from
"""Base offset, length, leader epoch, magic, CRC, attributes, last offset delta: all that ``step`` checks."""
_EPOCH_STEP_MAX = 2**20
_OFFSET_STEP_MAX = 2**31


class Found(NamedTuple):
    """``batch`` is the header; its bytes have been checked and are not kept."""

    position: int
    batch: Batch


class BadBatch(Exception):
    """The bytes at ``position`` are not the batch that belongs there."""

    def __init__(self, position: int, offset: int, reason: str) -> None:
        super().__init__(f"at byte {position}, where offset {offset} belongs: {reason}")
        self.position = position
        self.offset = offset
        self.reason = reason


class LogBytes(NamedTuple):
    """A readable stretch of one log file: bytes 0 to ``size`` behind ``handle``."""

    disk: Disk
    handle: int
    size: int

    def pread(self, position: int, size: int) -> bytes:
        return self.disk.pread(self.handle, position, min(size, self.size - position))


def scan(log: LogBytes, position: int, offset: int, epoch: int = -1) -> Iterator[Found]:
    """All batches from ``position``, where the one with base offset ``offset`` starts, to the end of the file.

    Raises BadBatch at the first place where the bytes are not what belongs there.
    """
    chunk_bytes = CHUNK_BYTES
    while position < log.size:
        view = memoryview(_pread(log, position, chunk_bytes, offset))
        at = 0
        while True:
            bytes_total = step(view, at, len(view), offset, epoch, position + at)
            if bytes_total == 0:
                break
            batch = peek(view, at)
            yield Found(position + at, batch)
            at += bytes_total
            offset, epoch = batch.end_offset, batch.leader_epoch
        position += at
        chunk_bytes = CHUNK_BYTES if at else _large_batch(log, view, position, offset, chunk_bytes)


def step(view: memoryview, at: int, end: int, offset: int, epoch: int, position: int) -> int:
    """Size of the batch at ``view[at]`` if all of it lies before ``end``, else 0; ``position`` is its place in the file.

    Raises BadBatch when it is not a good batch that can stand at ``offset`` after a batch of ``epoch``. Written out
    instead of built on ``batch_at``, which takes four times as long: reads are made of this.
    """
    if end - at < HEADER_BYTES:
        return 0
    base_offset, length, leader_epoch, magic, crc, _, delta = _unpack_checks(view, at)
    stop: int = at + PREFIX_BYTES + length
    if stop > end and magic == MAGIC:
        return 0
    if (
        magic == MAGIC
        and length >= HEADER_BYTES - PREFIX_BYTES
        and base_offset == offset
        and leader_epoch >= epoch
        and delta >= 0
        and crc32c(view[at + CRC_START : stop]) == crc
    ):
        return stop - at
    raise BadBatch(position, offset, _reason(view, at, offset, epoch))


def _reason(view: memoryview, at: int, offset: int, epoch: int) -> str:
    try:
        batch = batch_at(view, at, BATCH_BYTES_MAX, True)
    except (CorruptBatch, RecordTooLarge) as error:
        return error.detail
    return check_place(batch, offset, epoch) or "it is not what belongs there"


def check_place(batch: Batch, offset: int, epoch: int) -> str | None:
    """Why ``batch`` cannot stand where ``offset`` follows a batch of ``epoch``; None when it can (R6)."""
    if batch.base_offset != offset:
        return f"its base offset is {batch.base_offset}"
    if batch.leader_epoch < epoch:
        return f"its leader epoch is {batch.leader_epoch}, the batch before it has {epoch}"
    return None


def next_batch(log: LogBytes, bad: BadBatch, epoch: int) -> Found | None:
    """The first good batch after a bad place; None when there is none up to the end of the file.

    The bad batch's own length is tried first, so that a batch carried inside a record is not taken for one of the log.
    """
    return _after_length(log, bad, epoch) or _search(log, bad, epoch)


def check_readable(log: LogBytes, position: int) -> None:
    """Raises CorruptRange when something from ``position`` on cannot be read."""
    while position < log.size:
        position += len(log.pread(position, CHUNK_BYTES))


def _pread(log: LogBytes, position: int, size: int, offset: int) -> bytes:
    try:
        return log.pread(position, size)
    except CorruptRange as error:
        raise BadBatch(position, offset, error.detail) from error


def _large_batch(log: LogBytes, view: memoryview, position: int, offset: int, read_bytes: int) -> int:
    """Size of the batch that starts ``view`` and does not end in it; raises BadBatch when the file ends first.

    ``read_bytes`` is what was asked for: a batch within that which is not in ``view`` is beyond the file's real end.
    """
    left = log.size - position
    if len(view) < HEADER_BYTES:
        raise BadBatch(position, offset, f"{left} bytes are left, a header takes {HEADER_BYTES}")
    bytes_total = peek(view).bytes_total
    if bytes_total > left or bytes_total <= read_bytes:
        raise BadBatch(position, offset, f"its length field claims {bytes_total} bytes, {left} are left in the file")
    return bytes_total


def _after_length(log: LogBytes, bad: BadBatch, epoch: int) -> Found | None:
    try:
        header = peek(log.pread(bad.position, HEADER_BYTES))
        position = bad.position + header.bytes_total
        if not header.last_offset_delta >= 0 or position >= log.size:
            return None
        follower = next(scan(log, position, bad.offset + header.last_offset_delta + 1, epoch), None)
    except (CorruptBatch, CorruptRange, BadBatch):
        return None
    return follower


def _search(log: LogBytes, bad: BadBatch, epoch: int) -> Found | None:
    position = bad.position
    while position + HEADER_BYTES <= log.size:
        try:
            data = log.pread(position, CHUNK_BYTES)
        except CorruptRange:
            position += 512
            continue
        for match in _MAGIC.finditer(data, _MAGIC_POSITION):
            found = _candidate(log, data, match.start() - _MAGIC_POSITION, position, bad.offset, epoch)
            if found is not None:
                return found
        position += len(data) - HEADER_BYTES + 1
    return None


def _candidate(log: LogBytes, data: bytes, at: int, start: int, offset: int, epoch: int) -> Found | None:
    """The batch at ``data[at]`` if it is a good one that can follow ``offset`` and ``epoch``."""
    try:
        header = peek(data, at)
        plausible = (
            0 <= header.base_offset - offset < _OFFSET_STEP_MAX
            and epoch <= header.leader_epoch < epoch + _EPOCH_STEP_MAX
            and header.bytes_total <= log.size - start - at
        )
        if not plausible:
            return None
        whole = memoryview(log.pread(start + at, header.bytes_total))
        batch_at(whole, 0, BATCH_BYTES_MAX, True)
        return Found(start + at, header)
    except (CorruptBatch, CorruptRange, RecordTooLarge):
        return None
