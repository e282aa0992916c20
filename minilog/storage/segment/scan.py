"""Walking the batches of a log file with every check on: used by recovery, index rebuilds,
scrubbing and inspection.

Owns: the decision whether bytes at a position are the batch that belongs there. A batch belongs
when it is whole, its CRC matches, its base offset is the end of the batch before it and its leader
epoch is not lower.

A checksum failure is never taken for the end of the log here: ``scan`` says where it is,
``next_batch`` looks for what follows, and recovery.py decides what that means.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from crc32c import crc32c

from minilog.errors import CorruptBatch, CorruptRange, RecordTooLarge
from minilog.storage.disk import Disk
from minilog.storage.segment.checksums import Checksums
from minilog.wire.batch import CRC_START, HEADER_BYTES, MAGIC, PREFIX_BYTES, Batch, batch_at, fault_of, peek

CHUNK_BYTES = 1024 * 1024
BATCH_BYTES_MAX = 2**31 - 1
_MAGIC_POSITION = 16
_MAGIC = re.compile(rb"\x02")
_unpack_checks = struct.Struct(">qiibIHi").unpack_from
"""Base offset, length, leader epoch, magic, CRC, attributes, last offset delta: all that ``step``
checks."""
_EPOCH_STEP_MAX = 2**20
_OFFSET_STEP_MAX = 2**31
_FIRST_BYTES = 16 * 1024
"""There may be many bad batches, most of them small."""


class Found(NamedTuple):
    """``batch`` is the header. Its bytes have been checked and are not kept."""

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


def scan(log: LogBytes, position: int, offset: int, epoch: int = -1, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Found]:
    """All batches from ``position``, where the one with base offset ``offset`` starts, to the end
    of the file.

    Raises BadBatch at the first place where the bytes are not what belongs there.
    ``chunk_bytes`` are read first.
    """
    while position < log.size:
        view = memoryview(pread(log, position, chunk_bytes, offset))
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
    """Size of the batch at ``view[at]`` if all of it lies before ``end``, else 0. ``position`` is
    its place in the file.

    Raises BadBatch when it is not a good batch that can stand at ``offset`` after a batch of
    ``epoch``. Written out instead of built on ``batch_at``, which takes four times as long: reads
    are made of this.
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
        and leader_epoch >= 0
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
    """Why ``batch`` cannot stand where ``offset`` follows a batch of ``epoch``; None when it can
    (R6)."""
    if batch.base_offset != offset:
        return f"its base offset is {batch.base_offset}"
    if batch.leader_epoch < 0:
        return f"its leader epoch is {batch.leader_epoch}"
    if batch.leader_epoch < epoch:
        return f"its leader epoch is {batch.leader_epoch}, the batch before it has {epoch}"
    return None


def next_batch(log: LogBytes, bad: BadBatch, epoch: int) -> Found | None:
    """The first good batch after a bad place; None when there is none up to the end of the file.

    A record may carry whole batches, so what lies inside a batch is searched only where no header
    says where it ends. Bad batches that follow each other are stepped over one by one.
    """
    position, offset = bad.position, bad.offset
    while (found := _at(log, position, offset, epoch)) is None:
        header = _header(log, position)
        if header is not None and header.base_offset == offset:
            position = _end_of(log, position, header, epoch)
        elif header is not None and position == bad.position and _is_good(log, position, header):
            position += header.bytes_total  # only its offset is wrong
        else:
            return _search(log, bad, epoch, position)
        offset += header.last_offset_delta + 1
        if position >= log.size:
            return None
    return found


def check_readable(log: LogBytes, position: int) -> None:
    """Raises CorruptRange when something from ``position`` on cannot be read."""
    while position < log.size:
        position += len(log.pread(position, CHUNK_BYTES))


def pread(log: LogBytes, position: int, size: int, offset: int) -> bytes:
    """The bytes where ``offset`` belongs, fewer at the end of the file. Raises BadBatch when they
    cannot be read."""
    try:
        return log.pread(position, size)
    except CorruptRange as error:
        raise BadBatch(position, offset, error.detail) from error


def _large_batch(log: LogBytes, view: memoryview, position: int, offset: int, read_bytes: int) -> int:
    """Size of the batch that starts ``view`` and does not end in it; raises BadBatch when the file
    ends first.

    ``read_bytes`` is what was asked for: a batch within that which is not in ``view`` is beyond the
    file's real end.
    """
    left = log.size - position
    if len(view) < HEADER_BYTES:
        raise BadBatch(position, offset, f"{left} bytes are left, a header takes {HEADER_BYTES}")
    bytes_total = peek(view).bytes_total
    if bytes_total > left or bytes_total <= read_bytes:
        raise BadBatch(position, offset, f"its length field claims {bytes_total} bytes, {left} are left in the file")
    return bytes_total


def _header(log: LogBytes, position: int) -> Batch | None:
    """The header at a bad place, None when there is none."""
    try:
        header = peek(log.pread(position, HEADER_BYTES))
    except (CorruptBatch, CorruptRange):
        return None
    return header if header.last_offset_delta >= 0 else None


def _at(log: LogBytes, position: int, offset: int, epoch: int) -> Found | None:
    """The batch at ``position``, if it is a good one that belongs there."""
    try:
        return next(scan(log, position, offset, epoch, _FIRST_BYTES), None)
    except BadBatch:
        return None


def _end_of(log: LogBytes, position: int, header: Batch, epoch: int) -> int:
    """Where the bad batch with this header ends, if need be beyond the file.

    By its checksum, which does not cover the length, or else by its length. Where both lead to what
    belongs behind it the later one counts, for the other may lie in a record.
    """
    by_length, by_checksum = position + header.bytes_total, _end_by_checksum(log, position, header)
    if by_checksum is None:
        return by_length
    if by_length > by_checksum and _at(log, by_length, header.end_offset, epoch) is not None:
        return by_length
    return by_checksum


def _end_by_checksum(log: LogBytes, position: int, header: Batch) -> int | None:
    """The first place up to which the batch has its checksum, where the next offset stands or the
    file ends."""
    crc, summed_to = 0, position + CRC_START
    try:
        for border in _places(log, header.end_offset, position + HEADER_BYTES):
            while summed_to < border:
                data = log.pread(summed_to, min(border - summed_to, CHUNK_BYTES))
                crc, summed_to = crc32c(data, crc), summed_to + len(data)
            if crc == header.crc:
                return border
    except CorruptRange:
        pass
    return None


def _places(log: LogBytes, offset: int, position: int) -> Iterator[int]:
    """Where ``offset`` stands as a base offset does, from ``position`` on, and the file's end."""
    mark, chunk_bytes = struct.pack(">q", offset), _FIRST_BYTES
    while position < log.size:
        data, chunk_bytes = log.pread(position, chunk_bytes), CHUNK_BYTES
        at = data.find(mark)
        while at >= 0:
            yield position + at
            at = data.find(mark, at + 1)
        position += max(len(data) - len(mark) + 1, 1)
    yield log.size


def _search(log: LogBytes, bad: BadBatch, epoch: int, position: int) -> Found | None:
    """The first good batch from ``position`` on that can come some time after the bad place."""
    checksums = Checksums(log.pread, position)
    for at, header in _headers(log, bad, epoch, position):
        with suppress(CorruptRange):
            if checksums.of(at + CRC_START, at + header.bytes_total) == header.crc:
                return Found(at, header)
    return None


def _headers(log: LogBytes, bad: BadBatch, epoch: int, position: int) -> Iterator[tuple[int, Batch]]:
    """Whatever from ``position`` on looks like the header of a later batch, and where."""
    while position + HEADER_BYTES <= log.size:
        try:
            data = log.pread(position, CHUNK_BYTES)
        except CorruptRange:
            position += 512
            continue
        for match in _MAGIC.finditer(data, _MAGIC_POSITION):
            at = match.start() - _MAGIC_POSITION
            header = _plausible(data, at, log.size - position - at, bad.offset, epoch)
            if header is not None:
                yield position + at, header
        position += max(len(data) - HEADER_BYTES + 1, 1)


def _plausible(data: bytes, at: int, left: int, offset: int, epoch: int) -> Batch | None:
    """The header at ``data[at]`` if it can be one of a batch after the one at ``offset``."""
    try:
        header = peek(data, at)
    except CorruptBatch:
        return None
    is_plausible = (
        0 < header.base_offset - offset < _OFFSET_STEP_MAX
        and max(epoch, 0) <= header.leader_epoch < epoch + _EPOCH_STEP_MAX
        and header.bytes_total <= left
        and fault_of(header) is None
    )
    return header if is_plausible else None


def _is_good(log: LogBytes, position: int, header: Batch) -> bool:
    try:
        batch_at(memoryview(log.pread(position, header.bytes_total)), 0, BATCH_BYTES_MAX, True)
    except (CorruptBatch, CorruptRange, RecordTooLarge):
        return False
    return True
