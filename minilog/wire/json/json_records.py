"""Records as JSON: what the produce routes read and what the fetch routes write.

Owns: the shape ``{"value", "key"?, "headers"?, "timestamp"?, "partition"?}`` of a record in a
request, the shape ``{"offset", "timestamp", "key", "value", "headers"}`` in an answer, and the
three formats between JSON and bytes: json (a JSON value is stored as its own UTF-8 text), text (a
string as its UTF-8), base64 (a string as its bytes). ``null`` is always an absent key or value (a
tombstone), in every format.

Invariants:
* The text of a value passes through untouched. It is checked to be JSON but never decoded and
  encoded again.
* A misspelt, repeated or mistyped field is refused, never ignored. msgspec keeps the last of
  repeated fields silently, so a record that does not have the length of what was understood is
  looked at a second time.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterable
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from minilog.errors import InvalidRequest, RequestTooLarge
from minilog.wire.codec.codec import HEADERS_MAX
from minilog.wire.http import INT32_MAX, INT64_MAX, shown

RECORDS_MAX: Final = 100_000
"""Records in one JSON request: each costs memory far beyond its own bytes. The native protocol has
no such bound."""
SECOND_LOOK_MAX: Final = 2_000_000
"""Brackets, commas and colons in a text that is looked at a second time: that takes half a second,
and no other thread goes on meanwhile."""
PLAIN: Final = "plain"
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
"""What some editors begin a text with. It is no part of it."""
_NULL: Final = b"null"


class JsonHeader(msgspec.Struct, forbid_unknown_fields=True):
    """``value`` is base64; null is a header without a value."""

    name: str
    value: str | None


class JsonRecord(msgspec.Struct, forbid_unknown_fields=True):
    """One record of a JSON or NDJSON produce request. ``value_base64`` is the value in base64, in
    place of ``value``, and so for the key. ``topic`` and ``offset`` say where it was, and count for
    nothing: so what was read can be written."""

    value: Raw | UnsetType = UNSET
    key: Raw | UnsetType = UNSET
    value_base64: str | UnsetType = UNSET
    key_base64: str | UnsetType = UNSET
    headers: Annotated[list[JsonHeader], Meta(max_length=HEADERS_MAX)] | UnsetType = UNSET
    timestamp: Annotated[int, Meta(ge=0, le=INT64_MAX)] | UnsetType | None = UNSET
    partition: Annotated[int, Meta(ge=0, le=INT32_MAX)] | UnsetType | None = UNSET
    topic: str | UnsetType = UNSET
    offset: Annotated[int, Meta(ge=0, le=INT64_MAX)] | UnsetType = UNSET


class JsonRecords(msgspec.Struct, forbid_unknown_fields=True):
    records: Annotated[list[JsonRecord], Meta(min_length=1, max_length=RECORDS_MAX)]


class JsonRecordOut(msgspec.Struct):
    """One record of a JSON, NDJSON or event-stream answer. A key or value that cannot be shown in
    the format asked for is in ``key_base64`` or ``value_base64`` instead."""

    offset: int
    timestamp: int
    key: Raw | UnsetType = UNSET
    value: Raw | UnsetType = UNSET
    headers: list[JsonHeader] = []
    key_base64: str | UnsetType = UNSET
    value_base64: str | UnsetType = UNSET


class UnreadableRecords(msgspec.Struct):
    """In the place of the records from ``offset`` up to and without ``end_offset``: why they cannot
    be shown, as a problem document. Reading goes on behind them."""

    offset: int
    end_offset: int
    error: Raw


class ProducedRecord(NamedTuple):
    """A record out of a request. ``partition`` is None when the client left it open."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp: int
    partition: int | None


_record_decoder = msgspec.json.Decoder(JsonRecord)
_records_decoder = msgspec.json.Decoder(JsonRecords)
_raw_decoder = msgspec.json.Decoder(Raw)
_encoder = msgspec.json.Encoder()
DECODE_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


# --- requests -------------------------------------------------------------------------------------


def parse_json(body: bytes, value_format: str, key_format: str, now_ms: int) -> list[ProducedRecord]:
    """The records of ``{"records": [...]}``. Every error names the record, the field, what was
    seen, what is allowed.

    ``now_ms`` is the timestamp of records without one. Raises InvalidRequest, RequestTooLarge.
    Takes up to a second for the largest bodies: not for an event loop."""
    body = body.removeprefix(BYTE_ORDER_MARK)
    _check_utf8(body)
    try:
        decoded = _records_decoder.decode(body)
    except DECODE_ERRORS as error:
        raise InvalidRequest(f'the body must be {{"records": [{{"value": ...}}, ...]}}: {reason(error)}') from None
    if _may_repeat_members("the body", body, decoded):
        _refuse_repeated_members(body)
    return [
        _produced(f"records[{index}]", record, value_format, key_format, now_ms)
        for index, record in enumerate(decoded.records)
    ]


def parse_ndjson(body: bytes, value_format: str, key_format: str, now_ms: int) -> list[ProducedRecord]:
    """The records of a body with one JSON object a line; blank lines are skipped. Raises as
    ``parse_json`` does."""
    body = body.removeprefix(BYTE_ORDER_MARK)
    _check_utf8(body)
    _check_count(body.count(b"\n"))
    records = [
        parse_line(f"line {number}", line, value_format, key_format, now_ms)
        for number, line in enumerate(body.split(b"\n"), 1)
        if line.strip()
    ]
    _check_count(len(records))
    if not records:
        raise InvalidRequest("there are no records; give at least one")
    return records


def _check_count(count: int) -> None:
    if count > RECORDS_MAX:
        raise RequestTooLarge(
            f"{count} records in one request; allowed are {RECORDS_MAX}: split them into more requests"
        )


def reason(error: Exception) -> str:
    """A sentence about why msgspec refused something. It names the field, what was seen and what
    was expected."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error).replace("`", "'")


def parse_line(where: str, line: bytes, value_format: str, key_format: str, now_ms: int) -> ProducedRecord:
    """One record of NDJSON. Raises InvalidRequest, RequestTooLarge."""
    try:
        record = _record_decoder.decode(line)
    except DECODE_ERRORS as error:
        raise InvalidRequest(f"{where}: {reason(error)}") from None
    if _may_repeat_members(where, line, record):
        _check_record(where, _members_of(where, line))
    return _produced(where, record, value_format, key_format, now_ms)


def _produced(where: str, record: JsonRecord, value_format: str, key_format: str, now_ms: int) -> ProducedRecord:
    headers = record.headers
    if isinstance(record.value, UnsetType) and isinstance(record.value_base64, UnsetType):
        raise InvalidRequest(f"{where} has no value; null is one, and makes a tombstone")
    return ProducedRecord(
        _either(where, "key", record.key, record.key_base64, key_format),
        _either(where, "value", record.value, record.value_base64, value_format),
        [] if isinstance(headers, UnsetType) else [(header.name, _header_value(where, header)) for header in headers],
        record.timestamp if isinstance(record.timestamp, int) else now_ms,
        None if isinstance(record.partition, UnsetType) else record.partition,
    )


def _check_utf8(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: byte {error.start} is 0x{body[error.start]:02x}") from None


def _may_repeat_members(where: str, text: bytes, understood: JsonRecord | JsonRecords) -> bool:
    """Without white space a text is as long as what was understood of it, unless something was
    given and not kept.

    Also true for escapes that need not be there: then the slow check finds nothing."""
    try:
        again = msgspec.json.format(_encoder.encode(understood), indent=-1)
        return len(msgspec.json.format(text, indent=-1)) != len(again)
    except RecursionError as error:
        raise InvalidRequest(f"{where}: {reason(error)}") from None


class _Members(list[tuple[str, Any]]):
    """The members of one JSON object in order, repeated ones included."""


def _members_of(where: str, text: bytes) -> _Members:
    """Takes less depth than msgspec does, and less still the deeper it is called. Raises
    InvalidRequest, RequestTooLarge."""
    if sum(map(text.count, (b"[", b"{", b",", b":"))) > SECOND_LOOK_MAX:
        raise RequestTooLarge(
            f"{where} has members whose names may be repeated, or escapes in names and headers, and is too large to look into; "
            "send fewer records in a request"
        )
    try:
        members = json.loads(text, object_pairs_hook=_Members, parse_int=str, parse_float=str)
    except RecursionError as error:
        raise InvalidRequest(f"{where}: {reason(error)}") from None
    assert isinstance(members, _Members), "msgspec has seen an object here"
    return members


def _refuse_repeated_members(body: bytes) -> None:
    envelope = _members_of("the body", body)
    _check_members("the body", envelope)
    for index, record in enumerate(envelope[0][1]):
        _check_record(f"records[{index}]", record)


def _check_record(where: str, record: _Members) -> None:
    _check_members(where, record)
    for name, value in record:
        if name == "headers":
            for index, header in enumerate(value):
                _check_members(f"{where}.headers[{index}]", header)


def _check_members(where: str, members: _Members) -> None:
    seen: set[str] = set()
    for name, _ in members:
        if name in seen:
            raise InvalidRequest(f"{where}: {shown(name)} is given more than once; give it once")
        seen.add(name)


def _either(where: str, field: str, raw: Raw | UnsetType, base64: str | UnsetType, form: str) -> bytes | None:
    if isinstance(base64, UnsetType):
        return None if isinstance(raw, UnsetType) else bytes_of(where, field, raw, form)
    if not isinstance(raw, UnsetType):
        raise InvalidRequest(f"{where} has both {field} and {field}_base64; give one of them")
    return _base64(f"{where}.{field}_base64", base64)


def bytes_of(where: str, field: str, raw: Raw, form: str) -> bytes | None:
    """What is stored of a key or value. Raises InvalidRequest."""
    data = bytes(raw)
    if data == _NULL:
        return None
    if form == "json" or (form == PLAIN and data[:1] != b'"'):
        return data
    if data[:1] != b'"':
        raise InvalidRequest(f"{where}.{field} is {shown(data)}; with format={form} it must be a string or null")
    try:
        string: str = msgspec.json.decode(data)
    except DECODE_ERRORS as error:
        raise InvalidRequest(f"{where}.{field}: {reason(error)}") from None
    return _base64(f"{where}.{field}", string) if form == "base64" else string.encode()


def key_format_of(value_format: str) -> str:
    """The format of keys where none is named."""
    return "base64" if value_format == "base64" else PLAIN


def _header_value(where: str, header: JsonHeader) -> bytes | None:
    return None if header.value is None else _base64(f"{where}.headers[{shown(header.name)}]", header.value)


def _base64(where: str, string: str) -> bytes:
    try:
        return binascii.a2b_base64(string, strict_mode=True)
    except ValueError as error:
        raise InvalidRequest(f"{where} is {shown(string)}, which is not base64 with padding: {error}") from None


# --- answers --------------------------------------------------------------------------------------


class NotRepresentable(ValueError):
    """Stored bytes that the format asked for cannot show. The caller knows which record it is."""


def raw_of(data: bytes | None, form: str) -> Raw:
    """A stored key or value as JSON text on one line; raises NotRepresentable."""
    if data is None:
        return Raw(_NULL)
    if form == "base64":
        return Raw(b'"' + binascii.b2a_base64(data, newline=False) + b'"')
    try:
        if form in ("text", PLAIN):
            return Raw(_encoder.encode(data.decode()))
        _raw_decoder.decode(data)
        data.decode()
        if data.strip() == _NULL:  # as JSON it would be read as no value at all
            raise NotRepresentable("JSON")
        one_line = data if b"\n" not in data and b"\r" not in data else msgspec.json.format(data, indent=-1)
        return Raw(one_line)
    except DECODE_ERRORS:
        raise NotRepresentable("JSON" if form == "json" else "UTF-8 text") from None


def record_text(
    offset: int,
    timestamp: int,
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes | None]],
    key_format: str,
    value_format: str,
) -> bytes:
    """One record as JSON text, whatever its bytes are."""
    record = JsonRecordOut(offset, timestamp, headers=headers_of(headers))
    try:
        record.key = raw_of(key, key_format)
    except NotRepresentable:
        record.key_base64 = text_of(key)
    try:
        record.value = raw_of(value, value_format)
    except NotRepresentable:
        record.value_base64 = text_of(value)
    return _encoder.encode(record)


def text_of(data: bytes | None) -> str:
    """In base64."""
    return binascii.b2a_base64(data or b"", newline=False).decode()


def headers_of(headers: Iterable[tuple[str, bytes | None]]) -> list[JsonHeader]:
    return [JsonHeader(name, None if value is None else text_of(value)) for name, value in headers]
