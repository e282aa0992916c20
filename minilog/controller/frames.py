"""How metadata records lie in a file: a checked file header, then frames, one frame per append.

    file header   magic 16s | index u64 | crc u32
    frame         length u32 | crc u32 | index u64 | payload: msgpack list of records

``index`` is that of the first record (journal) or of the last record covered (snapshot). A frame holds all records
of one decision, so that a torn write loses a decision as a whole and never half of one. The CRC-32C covers length,
index and payload.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from crc32c import crc32c

from minilog.wire.message_base import UNDECODABLE, why_undecodable
from minilog.wire.metadata_records import AnyMetadataRecord, MetadataRecord

JOURNAL_MAGIC: Final = b"minilog journal1"
SNAPSHOT_MAGIC: Final = b"minilog snapsho1"
_FILE_HEADER: Final = struct.Struct(">16sQI")
_FRAME: Final = struct.Struct(">IIQ")
_CHECKED: Final = struct.Struct(">IQ")
FILE_HEADER_BYTES: Final = _FILE_HEADER.size
FRAME_BYTES: Final = _FRAME.size
SECTOR_BYTES: Final = 512
LENGTH_ZEROS_MAX: Final = 3
"""A frame begins with its length, which is not 0: so many zeros may be its first bytes, alone at the end of a sector."""
END_ZEROS_MAX: Final = 8
"""A frame may end with a number, so many zeros may be its last bytes, alone in a sector."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[AnyMetadataRecord])


class Damage(NamedTuple):
    """What is wrong at ``position``, and where the next whole frame begins, if there is one.

    ``is_torn``: a crash in the middle of the last append explains it.
    """

    position: int
    reason: str
    next_frame: int | None = None
    is_torn: bool = False


class Scan(NamedTuple):
    records: list[MetadataRecord]
    end: int
    damage: Damage | None


def file_header(magic: bytes, index: int) -> bytes:
    return _FILE_HEADER.pack(magic, index, crc32c(_FILE_HEADER.pack(magic, index, 0)))


def is_file_header(data: bytes, magic: bytes, index: int) -> bool:
    return data[:FILE_HEADER_BYTES] == file_header(magic, index)


def frame(index: int, records: Sequence[MetadataRecord]) -> bytes:
    payload = _encoder.encode(records)
    return _FRAME.pack(len(payload), _crc(len(payload), index, payload), index) + payload


def scan(data: bytes, position: int, index: int) -> Scan:
    """Read contiguous frames from ``position``, the first record of which must have ``index``."""
    view = memoryview(data)
    records: list[MetadataRecord] = []
    while position < len(data):
        found = _frame_at(view, position)
        if found is None:
            return Scan(records, position, _damage(view, position, index))
        seen, payload = found
        if seen != index:
            reason = f"a whole frame holds record {seen} where {index} is expected"
            return Scan(records, position, Damage(position, reason, position))
        try:
            batch = _decoder.decode(payload)
        except UNDECODABLE as error:
            why = why_undecodable(error)
            reason = f"the frame of record {index} holds no records of this version ({why})"
            return Scan(records, position, Damage(position, reason, position))
        records.extend(batch)
        index += len(batch)
        position += FRAME_BYTES + len(payload)
    return Scan(records, position, None)


def _frame_at(view: memoryview, position: int) -> tuple[int, memoryview] | None:
    """(index, payload) of the whole frame at ``position``; None when there is none."""
    if position + FRAME_BYTES > len(view):
        return None
    length, crc, index = _FRAME.unpack_from(view, position)
    start = position + FRAME_BYTES
    if length == 0 or start + length > len(view):
        return None
    payload = view[start : start + length]
    return (index, payload) if _crc(length, index, payload) == crc else None


def _damage(view: memoryview, position: int, index: int) -> Damage:
    reason = f"the frame of record {index} is incomplete or its checksum is wrong"
    next_frame = _next_frame(view, position + 1, index)
    return Damage(position, reason, next_frame, next_frame is None and _is_torn(view, position))


def _is_torn(view: memoryview, position: int) -> bool:
    """The rest of the file is one append that did not come to its end: it is too short, or a sector never arrived.

    Whatever a crash leaves of a frame that nobody was told of looks like one of these; a changed bit in a frame that
    counts does not.
    """
    if position + FRAME_BYTES > len(view):
        return True
    length, crc, seen = _FRAME.unpack_from(view, position)
    rest = view[position + FRAME_BYTES :]
    if length > len(rest) and _crc(len(rest), seen, rest) != crc:  # else only the length is wrong
        return True
    return _has_lost_sector(view, position)


def _next_frame(view: memoryview, position: int, index: int) -> int | None:
    """Where the next whole frame of a record from ``index`` on begins: there is none after a torn tail."""
    for at in range(position, len(view) - FRAME_BYTES):
        length, _, seen = _FRAME.unpack_from(view, at)
        if index <= seen < index + 2**32 and length <= len(view) - at and _frame_at(view, at) is not None:
            return at
    return None


def _has_lost_sector(view: memoryview, position: int) -> bool:
    """Some sector of the frame reads as zeros, so it was never written; zeros that a good frame may have are no evidence."""
    start = position
    while start < len(view):
        end = min((start // SECTOR_BYTES + 1) * SECTOR_BYTES, len(view))
        may_be_zeros = LENGTH_ZEROS_MAX if start == position else END_ZEROS_MAX if end == len(view) else 0
        if end - start > may_be_zeros and not any(view[start:end]):
            return True
        start = end
    return False


def _crc(length: int, index: int, payload: bytes | memoryview) -> int:
    return crc32c(payload, crc32c(_CHECKED.pack(length, index)))
