"""The bytes of single records inside a batch's payload: the hot loop of every producer and
consumer.

Owns: varints and the record layout. One typed source that runs as it is and, compiled with mypyc
(setup.py), several times faster. Both behave alike, and the tests run both. Kept free of classes
and of imports beyond the error it raises, because only plain functions over bytes and ints gain
from compilation.

    record: length varint | attributes i8 | timestamp delta varlong | offset delta varint
            | key length varint, key | value length varint, value | header count varint, headers
    header: name length varint, name (UTF-8) | value length varint, value

All varints are zigzag; length -1 means null. ``i64`` names are machine integers when compiled, so
nothing annotated so may leave 64 bits: lengths are at most 32 bits wide, timestamps are plain
``int``.

Invariants of decoding, on which its safety rests:
* The position only grows, and whatever is read past the end of the data raises IndexError.
* A slice that runs past its record leaves the position past ``record_end``, which is checked once
  per record.
* Nothing is allocated by a claimed count or length before it is known to fit into the data.
* Bytes say little about memory: an empty header is two bytes in a payload, next to none when
  compressed, and a hundred as an object. So objects are counted, records and headers, and refused
  by their claimed count before they are made.

Source: KIP-98 (record format v2), KIP-82 (headers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from minilog.errors import CorruptBatch, InvalidRecord

if TYPE_CHECKING:
    from mypy_extensions import i64

T = TypeVar("T")
Headers = tuple[tuple[str, bytes | None], ...]
Columns = tuple[list[int], list[int], list[bytes | None], list[bytes | None], list[Headers]]
"""Offsets, timestamps, keys, values, headers."""

COMPILED: Final = not __file__.endswith(".py")
RECORD_BYTES_MIN: Final = 7
"""The smallest record: each of the seven fields above takes at least a byte."""
HEADERS_MAX: Final = 10_000
"""Headers of one record."""
OBJECTS_MAX: Final = 2**20
"""Records and headers of one batch together: what decoding makes of it, a hundred bytes and more
each."""
SLICE_OBJECTS: Final = 4096
"""Records and headers that one call of ``check_records`` looks at, give or take a record: compiled
code lets no other thread go on before it returns."""
_ZERO: Final = b"\x00"
_NULL: Final = b"\x01"
_TABLE_END: Final = 8192
_INT64_END: Final = 1 << 63


def varint(value: int) -> bytes:
    """Zigzag varint of a signed 64-bit integer, as short as can be: 1 to 10 bytes. Raises
    InvalidRecord for any other, because no reader would take it: of what is encoded here only the
    distance of two timestamps can be so large."""
    if not -_INT64_END <= value < _INT64_END:
        raise InvalidRecord(
            f"the timestamps of a batch lie {value} ms apart, which takes more than 64 bits; send them in separate batches"
        )
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while rest > 127:
        out.append((rest & 127) | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_VARINTS: Final[list[bytes]] = [varint(value) for value in range(_TABLE_END)]
"""Every non-negative varint of one or two bytes."""


def _length_varint(value: int) -> bytes:
    return _VARINTS[value] if value < _TABLE_END else varint(value)


def append_record(
    parts: list[bytes],
    offset_delta: int,
    timestamp_delta: int,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
) -> int:
    """Append one record's pieces to ``parts`` (joined, they are the payload); returns its size in
    bytes."""
    stamp = _VARINTS[timestamp_delta] if 0 <= timestamp_delta < _TABLE_END else varint(timestamp_delta)
    offset = _VARINTS[offset_delta] if offset_delta < _TABLE_END else varint(offset_delta)
    key_length = _NULL
    if key is None:
        key = b""
    else:
        key_length = _VARINTS[len(key)] if len(key) < _TABLE_END else varint(len(key))
    value_length = _NULL
    if value is None:
        value = b""
    else:
        value_length = _VARINTS[len(value)] if len(value) < _TABLE_END else varint(len(value))
    tail = _encode_headers(headers) if headers else _ZERO
    head = stamp + offset + key_length
    body_bytes = 1 + len(head) + len(key) + len(value_length) + len(value) + len(tail)
    length = _VARINTS[body_bytes] if body_bytes < _TABLE_END else varint(body_bytes)
    parts += (length, _ZERO, head, key, value_length, value, tail)
    return len(length) + body_bytes


def append_values(
    parts: list[bytes],
    values: Sequence[bytes],
    start: int,
    offset_delta: int,
    timestamp_delta: int,
    room_bytes: int,
    count_max: int,
) -> tuple[int, int]:
    """Append records without key and headers for ``values[start:]``, at most ``count_max`` and what
    fits into ``room_bytes``.

    Returns (index of the first value left out, bytes added). All share one timestamp.
    """
    room: i64 = room_bytes
    left: i64 = room
    delta: i64 = offset_delta
    index: i64 = start
    end: i64 = min(len(values), start + count_max)
    timestamp = varint(timestamp_delta)
    fixed_bytes: i64 = 3 + len(timestamp)
    head = _ZERO + timestamp
    while index < end:
        value = values[index]
        value_length = _VARINTS[len(value)] if len(value) < _TABLE_END else varint(len(value))
        offset = _VARINTS[delta] if delta < _TABLE_END else varint(delta)
        body_bytes: i64 = fixed_bytes + len(offset) + len(value_length) + len(value)
        length = _VARINTS[body_bytes] if body_bytes < _TABLE_END else varint(body_bytes)
        left -= len(length) + body_bytes
        if left < 0:
            left += len(length) + body_bytes
            break
        parts += (length, head, offset, _NULL, value_length, value, _ZERO)
        delta += 1
        index += 1
    return index, room - left


def _encode_headers(headers: Sequence[tuple[str, bytes | None]]) -> bytes:
    parts = [_length_varint(len(headers))]
    for name, value in headers:
        name_bytes = name.encode()
        parts += (_length_varint(len(name_bytes)), name_bytes)
        if value is None:
            parts.append(_NULL)
        else:
            parts += (_length_varint(len(value)), value)
    return b"".join(parts)


def decode_records(
    make: Callable[[int, int, bytes | None, bytes | None, Headers], T],
    data: bytes,
    count: int,
    base_offset: int,
    base_timestamp: int,
    last_offset_delta: int,
    append_timestamp: int | None,
    objects_max: int = OBJECTS_MAX,
) -> list[T]:
    """All ``count`` records of an uncompressed payload, each as ``make(offset, timestamp, key,
    value, headers)``.

    With ``append_timestamp`` every record has that timestamp. Raises CorruptBatch unless ``data``
    is exactly ``count`` well-formed records with growing offset deltas up to ``last_offset_delta``,
    and at most ``objects_max`` records and headers.
    """
    records: list[T] = []
    none: Columns = ([], [], [], [], [])
    _decode_all(
        none, records, make, data, count, base_offset, base_timestamp, last_offset_delta, append_timestamp, objects_max
    )
    return records


def decode_columns(
    data: bytes,
    count: int,
    base_offset: int,
    base_timestamp: int,
    last_offset_delta: int,
    append_timestamp: int | None,
    objects_max: int = OBJECTS_MAX,
) -> Columns:
    """What ``decode_records`` finds, as columns: nothing is made for each record."""
    columns: Columns = ([], [], [], [], [])
    _decode_all(
        columns, [], None, data, count, base_offset, base_timestamp, last_offset_delta, append_timestamp, objects_max
    )
    return columns


def _decode_all(
    columns: Columns,
    records: list[T],
    make: Callable[[int, int, bytes | None, bytes | None, Headers], T] | None,
    data: bytes,
    count: int,
    base_offset: int,
    base_timestamp: int,
    last_offset_delta: int,
    append_timestamp: int | None,
    objects_max: int,
) -> None:
    """Into ``records`` with ``make``, into ``columns`` without."""
    if count > objects_max:
        raise CorruptBatch(f"it claims {count} records; allowed are {objects_max} records and headers together")
    if count * RECORD_BYTES_MIN > len(data):
        raise CorruptBatch(f"{count} records cannot fit into {len(data)} bytes")
    spare = objects_max - count
    try:
        _decode(
            columns, records, make, data, count, base_offset, base_timestamp, last_offset_delta, append_timestamp, spare
        )
    except IndexError:
        raise CorruptBatch(f"the payload of {len(data)} bytes ends inside a record") from None
    except UnicodeDecodeError as error:
        raise CorruptBatch(f"a record header's name is not UTF-8: {error}") from None


def _decode(
    columns: Columns,
    records: list[T],
    make: Callable[[int, int, bytes | None, bytes | None, Headers], T] | None,
    data: bytes,
    count: int,
    base_offset: int,
    base_timestamp: int,
    delta_max: i64,
    append_timestamp: int | None,
    spare: i64,
) -> None:
    offsets, timestamps, keys, values, all_headers = columns
    position: i64 = 0
    limit: i64 = len(data)
    previous: i64 = -1
    at_edge = not -_INT64_END + 64 <= base_timestamp < _INT64_END - 64  # there a byte's delta can leave 64 bits
    for _ in range(count):
        length: i64 = data[position]
        position += 1
        if length >= 128:
            length, position = _long_varint(data, position, length)
        record_end: i64 = position + (length >> 1)
        if length & 1 or record_end > limit:
            raise CorruptBatch(f"the record at byte {position} has a length that is negative or beyond the payload")
        zigzag: i64 = data[position + 1]  # past the record's attributes, which mean nothing
        position += 2
        if zigzag >= 128 or at_edge:
            timestamp, position = _long_timestamp(data, position, base_timestamp)
        else:
            timestamp = base_timestamp + ((zigzag >> 1) ^ -(zigzag & 1))
        zigzag = data[position]
        position += 1
        if zigzag >= 128:
            zigzag, position = _long_varint(data, position, zigzag)
        delta: i64 = zigzag >> 1
        if zigzag & 1 or not previous < delta <= delta_max:
            raise CorruptBatch(f"the record at byte {position} has offset delta {delta} after {previous}")
        previous = delta
        key, position = _sized_bytes(data, position + 1, data[position])
        value, position = _sized_bytes(data, position + 1, data[position])
        zigzag = data[position]
        position += 1
        headers: Headers = ()
        if zigzag != 0:
            headers, position = _decode_headers(data, position, zigzag, spare)
            spare -= len(headers)
        if position != record_end:
            raise CorruptBatch(f"the record that should end at byte {record_end} ends at byte {position}")
        made_ms = timestamp if append_timestamp is None else append_timestamp
        if make is not None:
            records.append(make(base_offset + delta, made_ms, key, value, headers))
            continue
        offsets.append(base_offset + delta)
        timestamps.append(made_ms)
        keys.append(key)
        values.append(value)
        all_headers.append(headers)
    if position != limit:
        raise CorruptBatch(f"{limit - position} bytes follow the last of {count} records")


def check_records(
    data: bytes,
    position: i64,
    index: i64,
    count: i64,
    base_timestamp: int,
    max_timestamp: int,
    keyless: i64,
    spare: i64,
) -> tuple[i64, i64, i64, i64]:
    """Look at some records of a producer's uncompressed payload: whether ``decode_records`` would
    take them, numbered 0 to ``count`` - 1, none later than ``max_timestamp``. Nothing is made of
    them.

    Begin with position 0, index 0, keyless -1 and as many records and headers to spare as there may
    be. Returns position, index, keyless and spare, with which to go on until ``index`` is
    ``count``. ``keyless`` is the first record without a key, or -1. Raises CorruptBatch.
    """
    try:
        return _check(data, position, index, count, base_timestamp, max_timestamp, keyless, spare)
    except IndexError:
        raise CorruptBatch(f"the payload of {len(data)} bytes ends inside a record") from None
    except UnicodeDecodeError as error:
        raise CorruptBatch(f"a record header's name is not UTF-8: {error}") from None


def _check(
    data: bytes,
    position: i64,
    index: i64,
    count: i64,
    base_timestamp: int,
    max_timestamp: int,
    keyless: i64,
    spare: i64,
) -> tuple[i64, i64, i64, i64]:
    limit: i64 = len(data)
    latest: i64 = max_timestamp
    base: i64 = base_timestamp
    at_edge = base_timestamp >= _INT64_END - 64
    stop: i64 = spare - SLICE_OBJECTS
    while index < count and spare > stop:
        length: i64 = data[position]
        position += 1
        if length >= 128:
            length, position = _long_varint(data, position, length)
        record_end: i64 = position + (length >> 1)
        if length & 1 or record_end > limit:
            raise CorruptBatch(f"the record at byte {position} has a length that is negative or beyond the payload")
        zigzag: i64 = data[position + 1]
        position += 2
        timestamp: i64 = 0
        if zigzag >= 128 or at_edge:
            timestamp, position = _long_timestamp(data, position, base_timestamp)
        else:
            timestamp = base + ((zigzag >> 1) ^ -(zigzag & 1))
        if timestamp > latest:
            raise CorruptBatch(f"record {index} is of {timestamp} ms, later than its batch says ({latest} ms)")
        zigzag = data[position]
        position += 1
        if zigzag >= 128:
            zigzag, position = _long_varint(data, position, zigzag)
        if zigzag != 2 * index:
            raise CorruptBatch(f"record {index}, before byte {position}, has another offset delta than {index}")
        zigzag = data[position]
        position += 1
        if zigzag != 1:
            position = _skip(data, position, zigzag)
        elif keyless < 0:
            keyless = index
        zigzag = data[position]
        position += 1
        if zigzag != 1:
            position = _skip(data, position, zigzag)
        zigzag = data[position]
        position += 1
        spare -= 1
        if zigzag != 0:
            headers, position = _decode_headers(data, position, zigzag, spare)
            spare -= len(headers)
        if position != record_end:
            raise CorruptBatch(f"the record that should end at byte {record_end} ends at byte {position}")
        index += 1
    if index == count and position != limit:
        raise CorruptBatch(f"{limit - position} bytes follow the last of {count} records")
    return position, index, keyless, spare


def _skip(data: bytes, position: i64, zigzag: i64) -> i64:
    """The position after bytes whose length began with the byte ``zigzag``."""
    if zigzag >= 128:
        zigzag, position = _long_varint(data, position, zigzag)
    if zigzag & 1 and zigzag != 1:
        raise CorruptBatch(f"the length before byte {position} is negative and not -1")
    return position + (zigzag >> 1) if zigzag != 1 else position


def _sized_bytes(data: bytes, position: i64, zigzag: i64) -> tuple[bytes | None, i64]:
    """Bytes, or None for length -1, after a length whose first byte was ``zigzag``; and the
    position after them."""
    if zigzag >= 128:
        zigzag, position = _long_varint(data, position, zigzag)
    if zigzag & 1:
        if zigzag == 1:
            return None, position
        raise CorruptBatch(f"the length before byte {position} is negative and not -1")
    end: i64 = position + (zigzag >> 1)
    return data[position:end], end


def _decode_headers(data: bytes, position: i64, zigzag: i64, spare: i64) -> tuple[Headers, i64]:
    """The headers after their count, whose first byte was ``zigzag``. At most ``spare``, so many
    may the rest of the batch have."""
    if zigzag >= 128:
        zigzag, position = _long_varint(data, position, zigzag)
    count: i64 = zigzag >> 1
    if zigzag & 1 or 2 * count > len(data) - position:
        raise CorruptBatch(f"the header count before byte {position} is negative or beyond the payload")
    if count > HEADERS_MAX:
        raise CorruptBatch(f"a record claims {count} headers before byte {position}; allowed are {HEADERS_MAX}")
    if count > spare:
        raise CorruptBatch(f"{count} headers before byte {position} are {count - spare} more than its batch may have")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name, position = _sized_bytes(data, position + 1, data[position])
        if name is None:
            raise CorruptBatch(f"the header name before byte {position} is null")
        value, position = _sized_bytes(data, position + 1, data[position])
        headers.append((name.decode(), value))
    return tuple(headers), position


def _long_varint(data: bytes, position: i64, first: i64) -> tuple[i64, i64]:
    """The rest of a varint of at most 32 bits, still zigzag, whose first byte was ``first``."""
    byte: i64 = data[position]
    position += 1
    value: i64 = (first & 127) | (byte & 127) << 7
    if byte < 128:
        return value, position
    shift: i64 = 14
    while shift < 35:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    if shift == 35 or value >> 32:
        raise CorruptBatch(f"the varint before byte {position} is longer than 32 bits")
    return value, position


def _long_timestamp(data: bytes, position: i64, base_timestamp: int) -> tuple[int, i64]:
    """``base_timestamp`` plus a delta of any length, of which the first byte lies before
    ``position``."""
    byte: int = data[position - 1]
    zigzag: int = byte & 127
    shift = 7
    while byte > 127 and shift < 70:
        byte = data[position]
        position += 1
        zigzag |= (byte & 127) << shift
        shift += 7
    timestamp = base_timestamp + ((zigzag >> 1) ^ -(zigzag & 1))
    if byte > 127 or zigzag >> 64 or not -_INT64_END <= timestamp < _INT64_END:
        raise CorruptBatch(f"the timestamp before byte {position} is longer than 64 bits")
    return timestamp, position
