"""How metadata records lie in a file: a checked file header, then frames, one frame per append.

    file header   magic 16s | index u64 | crc u32
    frame         mark | length u32 | crc u32 | index u64 | payload: msgpack list of records | mark

``index`` is that of the first record (journal) or of the last record covered (snapshot). A frame
holds all records of one decision, so that a torn write loses a decision as a whole and never half
of one. The CRC-32C covers length, index and payload.

The *marks* are one byte each, at both ends of the frames of a journal. A power cut in an append
leaves sectors that read as zeros. A frame without marks may begin and end with zeros: where such a
sector holds only those, nobody can tell a lost sector from a frame that counts and in which
something else has changed. Marks are not zero, also with a bit changed in them, so a lost sector
shows at either end. Snapshots are never torn, and journals of before have no marks (``Form``).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from crc32c import crc32c

from minilog.wire.journal.metadata_records import AnyMetadataRecord, MetadataRecord
from minilog.wire.message_base import UNDECODABLE, why_undecodable

_FILE_HEADER: Final = struct.Struct(">16sQI")
_FRAME: Final = struct.Struct(">IIQ")
_CHECKED: Final = struct.Struct(">IQ")
FILE_HEADER_BYTES: Final = _FILE_HEADER.size
FRAME_BYTES: Final = _FRAME.size
SECTOR_BYTES: Final = 512

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[AnyMetadataRecord])


class Form(NamedTuple):
    """How the frames of a file are written, which its magic says.

    ``zeros_first`` and ``zeros_last``: so many zeros a whole frame may begin and end with. Without
    a mark the first bytes are those of the length, which is not 0, and the last ones may be a
    number.
    """

    magic: bytes
    mark: bytes = b""
    zeros_first: int = 3
    zeros_last: int = 8

    @property
    def head_bytes(self) -> int:
        return len(self.mark) + FRAME_BYTES


JOURNAL: Final = Form(b"minilog journal2", b"\xa5", 0, 0)
JOURNAL_UNMARKED: Final = Form(b"minilog journal1")
SNAPSHOT: Final = Form(b"minilog snapsho1")


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


def file_header(form: Form, index: int) -> bytes:
    return _FILE_HEADER.pack(form.magic, index, crc32c(_FILE_HEADER.pack(form.magic, index, 0)))


def form_of(data: bytes, index: int, forms: Sequence[Form]) -> Form | None:
    """The one whose header for ``index`` the file begins with."""
    return next((form for form in forms if data[:FILE_HEADER_BYTES] == file_header(form, index)), None)


def frame(form: Form, index: int, records: Sequence[MetadataRecord]) -> bytes:
    payload = _encoder.encode(records)
    head = _FRAME.pack(len(payload), _crc(len(payload), index, payload), index)
    return b"".join((form.mark, head, payload, form.mark))


def scan(form: Form, data: bytes, position: int, index: int) -> Scan:
    """Read contiguous frames from ``position``, the first record of which must have ``index``."""
    view = memoryview(data)
    records: list[MetadataRecord] = []
    while position < len(data):
        found = _frame_at(form, view, position)
        if found is None:
            return Scan(records, position, _damage(form, view, position, index))
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
        position += form.head_bytes + len(payload) + len(form.mark)
    return Scan(records, position, None)


def _frame_at(form: Form, view: memoryview, position: int) -> tuple[int, memoryview] | None:
    """(index, payload) of the whole frame at ``position``; None when there is none."""
    start = position + form.head_bytes
    if start > len(view):
        return None
    length, crc, index = _FRAME.unpack_from(view, position + len(form.mark))
    end = start + length
    if length == 0 or end + len(form.mark) > len(view):
        return None
    payload = view[start:end]
    is_marked = view[position : position + len(form.mark)] == view[end : end + len(form.mark)] == form.mark
    return (index, payload) if is_marked and _crc(length, index, payload) == crc else None


def _damage(form: Form, view: memoryview, position: int, index: int) -> Damage:
    reason = f"the frame of record {index} is incomplete or its checksum is wrong"
    next_frame = _next_frame(form, view, position + 1, index)
    return Damage(position, reason, next_frame, next_frame is None and _is_torn(form, view, position))


def _is_torn(form: Form, view: memoryview, position: int) -> bool:
    """The rest of the file is one append that did not come to its end: it is too short, or a sector
    never arrived.

    Whatever a crash leaves of a frame that nobody was told of looks like one of these. A changed
    bit in a frame that counts does not.
    """
    if position + form.head_bytes + len(form.mark) > len(view):
        return True
    length, crc, seen = _FRAME.unpack_from(view, position + len(form.mark))
    rest = view[position + form.head_bytes : len(view) - len(form.mark)]
    if length > len(rest) and _crc(len(rest), seen, rest) != crc:  # else only the length is wrong
        return True
    return _has_lost_sector(form, view, position)


def _next_frame(form: Form, view: memoryview, position: int, index: int) -> int | None:
    """Where the next whole frame of a record from ``index`` on begins: there is none after a torn
    tail."""
    for at in range(position, len(view) - form.head_bytes):
        length, _, seen = _FRAME.unpack_from(view, at + len(form.mark))
        if index <= seen < index + 2**32 and length <= len(view) - at and _frame_at(form, view, at) is not None:
            return at
    return None


def _has_lost_sector(form: Form, view: memoryview, position: int) -> bool:
    """Some sector of the frame reads as zeros, so it was never written; zeros that a good frame may
    have are no evidence."""
    start = position
    while start < len(view):
        end = min((start // SECTOR_BYTES + 1) * SECTOR_BYTES, len(view))
        may_be_zeros = form.zeros_first if start == position else form.zeros_last if end == len(view) else 0
        if end - start > may_be_zeros and not any(view[start:end]):
            return True
        start = end
    return False


def _crc(length: int, index: int, payload: bytes | memoryview) -> int:
    return crc32c(payload, crc32c(_CHECKED.pack(length, index)))
