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

from minilog.config import MESSAGE_BYTES_MAX
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
_WITNESSES = 2
"""Batches behind a changed epoch that it takes to know which of them is wrong."""
_FIRST_BYTES = 16 * 1024


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
        return self.disk.pread(self.handle, position, max(min(size, self.size - position), 0))


def scan(log: LogBytes, position: int, offset: int, epoch: int = -1) -> Iterator[Found]:
    """All batches from ``position``, where the one with base offset ``offset`` starts, to the end
    of the file.

    Raises BadBatch at the first place where the bytes are not what belongs there. Little is read
    first, and more each time: there may be many bad batches, most of them small.
    """
    chunk_bytes = _FIRST_BYTES
    while position < log.size:
        view = memoryview(pread(log, position, chunk_bytes, offset))
        at = 0
        while True:
            bytes_total = step(view, at, len(view), offset, epoch, position + at)
            if bytes_total == 0:
                break
            batch = peek(view, at)
            if batch.leader_epoch != epoch and _is_contradicted(log, position + at, batch, epoch):
                reason = f"its leader epoch is {batch.leader_epoch}, the batches behind it have a lower one"
                raise BadBatch(position + at, offset, reason)
            yield Found(position + at, batch)
            at += bytes_total
            offset, epoch = batch.end_offset, batch.leader_epoch
        position += at
        chunk_bytes = (
            min(2 * chunk_bytes, CHUNK_BYTES) if at else _large_batch(log, view, position, offset, chunk_bytes)
        )


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
    while (found := _at(log, position, offset, epoch)) is None:  # at once when a read has failed, and does no more
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


def _is_contradicted(log: LogBytes, position: int, batch: Batch, epoch: int) -> bool:
    """Two whole batches follow the one at ``position``, each in its place and of an epoch between
    ``epoch``, that of the batch before, and its own. The checksum does not cover the epoch, so one
    changed bit may have raised it. Two such bits are less likely."""
    at, offset = position + batch.bytes_total, batch.end_offset
    for _ in range(_WITNESSES):
        header = _header(log, at)
        if header is None or not max(epoch, 0) <= header.leader_epoch < batch.leader_epoch:
            return False
        if not is_whole(log, at, offset):
            return False
        at, offset, epoch = at + header.bytes_total, header.end_offset, header.leader_epoch
    return True


def is_whole(log: LogBytes, position: int, offset: int) -> bool:
    """A batch that begins with ``offset``, of whatever epoch, lies there."""
    header = _header(log, position)
    return header is not None and header.base_offset == offset and _is_good(log, position, header)


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
    header = _header(log, position)
    if header is None or check_place(header, offset, epoch) is not None:
        return None
    try:
        return next(scan(log, position, offset, epoch), None)
    except BadBatch:
        return None


def _end_of(log: LogBytes, position: int, header: Batch, epoch: int) -> int:
    """Where the bad batch with this header ends, if need be beyond the file.

    By its checksum, which does not cover the length, or else by its length. Where both lead to what
    belongs behind it the later one counts, for the other may lie in a record. Where the next offset
    stands behind the length, only one changed bit of that length is looked for: to look everywhere
    costs a look at all that a batch may hold, for each bad one.
    """
    by_length = position + header.bytes_total
    by_checksum = _end_by_checksum(log, position, header, _near_places(log, position, header))
    if by_checksum is None and not _is_place(log, by_length, header.end_offset):
        by_checksum = _end_by_checksum(log, position, header, _places(log, position, header.end_offset))
    if by_checksum is None:
        return by_length
    if by_length > by_checksum and _at(log, by_length, header.end_offset, epoch) is not None:
        return by_length
    return by_checksum


def _end_by_checksum(log: LogBytes, position: int, header: Batch, places: Iterator[int]) -> int | None:
    """The first of the places, which rise, up to which the batch has its checksum."""
    crc, summed_to = 0, position + CRC_START
    try:
        for border in places:
            while summed_to < border:
                data = log.pread(summed_to, min(border - summed_to, CHUNK_BYTES))
                crc, summed_to = crc32c(data, crc), summed_to + len(data)
            if crc == header.crc:
                return border
    except CorruptRange:
        pass
    return None


def _near_places(log: LogBytes, position: int, header: Batch) -> Iterator[int]:
    """Where the next offset stands, or the file ends, behind this length or one that differs from
    it in one bit."""
    length = header.bytes_total - PREFIX_BYTES
    for other in sorted([length, *(length ^ 1 << bit for bit in range(31))]):
        if HEADER_BYTES - PREFIX_BYTES <= other <= MESSAGE_BYTES_MAX:
            end = position + PREFIX_BYTES + other
            if _is_place(log, end, header.end_offset):
                yield end


def _is_place(log: LogBytes, position: int, offset: int) -> bool:
    """``offset`` stands there as a base offset does, or the file ends."""
    if position >= log.size:
        return position == log.size
    try:
        return log.pread(position, len(_mark(offset))) == _mark(offset)
    except CorruptRange:
        return False


def _places(log: LogBytes, position: int, offset: int) -> Iterator[int]:
    """All that ``_is_place`` is true of, as far as the batch at ``position`` can reach."""
    mark, chunk_bytes = _mark(offset), _FIRST_BYTES
    at, end = position + HEADER_BYTES, min(log.size, position + PREFIX_BYTES + MESSAGE_BYTES_MAX)
    while at < end:
        data, chunk_bytes = log.pread(at, chunk_bytes), CHUNK_BYTES
        found = data.find(mark)
        while found >= 0:
            yield at + found
            found = data.find(mark, found + 1)
        at += max(len(data) - len(mark) + 1, 1)
    if end == log.size:
        yield end


def _mark(offset: int) -> bytes:
    return offset.to_bytes(8, "big")


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
