"""wire/json/json_records.py: JSON in, bytes out, and back."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.errors import InvalidRequest, RequestTooLarge
from minilog.wire.codec.codec import HEADERS_MAX
from minilog.wire.json.json_records import (
    SECOND_LOOK_MAX,
    NotRepresentable,
    headers_of,
    parse_json,
    parse_ndjson,
    raw_of,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
spaces = st.text(alphabet=" \t\n\r", max_size=3)


def encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@settings(max_examples=40)
@given(st.lists(st.tuples(json_values, json_values).filter(encodable), min_size=1, max_size=4), spaces, st.booleans())
def test_the_text_of_keys_and_values_is_stored_as_it_is(
    pairs: list[tuple[Any, Any]], space: str, ascii_only: bool
) -> None:
    texts = [
        (json.dumps(k, ensure_ascii=ascii_only), json.dumps(v, indent=1, ensure_ascii=ascii_only)) for k, v in pairs
    ]
    records = ",".join(f'{space}{{"key":{space}{k}{space},"value": {v}}}' for k, v in texts)
    parsed = parse_json(f'{{"records"{space}:[{records}]{space}}}'.encode(), "json", "json", 5)
    expected = [tuple(None if text == "null" else text.encode() for text in pair) for pair in texts]
    assert [(record.key, record.value) for record in parsed] == expected


@settings(max_examples=40)
@given(st.binary(max_size=50), st.binary(max_size=20), st.text(max_size=5), st.integers(0, 2**63 - 1))
def test_bytes_travel_as_base64(value: bytes, key: bytes, name: str, timestamp: int) -> None:
    record = {
        "value": base64.b64encode(value).decode(),
        "key": base64.b64encode(key).decode(),
        "headers": [{"name": name, "value": base64.b64encode(value).decode()}, {"name": name, "value": None}],
        "timestamp": timestamp,
        "partition": 3,
    }
    (parsed,) = parse_ndjson(msgspec.json.encode(record), "base64", "base64", 5)
    assert msgspec.json.decode(raw_of(parsed.value, "base64")) == record["value"]
    assert msgspec.to_builtins(headers_of(parsed.headers)) == record["headers"]
    assert parsed == (key, value, [(name, value), (name, None)], timestamp, 3)


@settings(max_examples=40)
@given(st.text(max_size=30).filter(encodable))
def test_text_travels_as_a_string(value: str) -> None:
    (parsed,) = parse_ndjson(msgspec.json.encode({"value": value}), "text", "text", 5)
    assert msgspec.json.decode(raw_of(parsed.value, "text")) == value
    assert parsed == (None, value.encode(), [], 5, None)


@settings(max_examples=40)
@given(json_values.filter(lambda value: value is not None and encodable(value)), st.sampled_from([None, 1, 4]))
def test_a_stored_json_value_is_shown_on_one_line_with_its_own_text(value: Any, indent: int | None) -> None:
    stored = json.dumps(value, indent=indent).encode()
    shown = bytes(raw_of(stored, "json"))
    assert b"\n" not in shown
    assert json.loads(shown) == value
    if b"\n" not in stored:
        assert shown == stored


@pytest.mark.parametrize("stored", [b"", b"hello", b"{", b"1 2", b'"\xff"', b"NaN", b"[" * 10_000, b"null", b" null\n"])
def test_what_is_not_json_is_not_shown_as_json(stored: bytes) -> None:
    with pytest.raises(NotRepresentable, match="JSON"):
        raw_of(stored, "json")


def test_what_is_not_utf8_is_not_shown_as_text() -> None:
    with pytest.raises(NotRepresentable, match="UTF-8"):
        raw_of(b"\xff", "text")


@pytest.mark.parametrize("form", ["json", "text", "base64"])
def test_null_is_a_tombstone_in_every_format(form: str) -> None:
    (parsed,) = parse_ndjson(b'{"value": null, "key": null}', form, form, 5)
    assert (parsed.key, parsed.value) == (None, None)
    assert bytes(raw_of(None, form)) == b"null"


def test_explicit_nulls_and_escapes_are_no_repetition() -> None:
    line = (
        b'{"va\\u006cue":1,"key":null,"headers":[{"name":"\\u0041\\/","value":null}],"timestamp":null,"partition":null}'
    )
    (parsed,) = parse_ndjson(line, "json", "json", 5)
    assert parsed == (None, b"1", [("A/", None)], 5, None)


@pytest.mark.parametrize("name", ["value", "key", "headers", "timestamp", "partition"])
def test_every_repeated_member_is_found(name: str) -> None:
    record = '"value": 1, "key": 1, "headers": [], "timestamp": 1, "partition": 1'
    again = {"headers": "[]"}.get(name, "1")
    body = f'{{"records": [{{"value": 0}}, {{{record}, "{name}": {again}}}]}}'
    with pytest.raises(InvalidRequest, match=rf"records\[1\]: '{name}' is given more than once"):
        parse_json(body.encode(), "json", "json", 5)


@pytest.mark.parametrize("parse", [parse_json, parse_ndjson])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
def test_every_depth_is_taken_or_refused_also_by_the_second_look(parse: Any, brackets: tuple[bytes, bytes]) -> None:
    """An escape that need not be there makes it look twice, with a parser that gives up sooner than
    the first one."""
    refused = 0
    for depth in [*range(20, 900, 100), *range(900, 1100)]:
        inside = b"1" if brackets[0] != b"[" else b""
        record = b'{"value":' + brackets[0] * depth + inside + brackets[1] * depth + b',"key":"\\u0041"}'
        body = b'{"records":[' + record + b"]}" if parse is parse_json else record
        try:
            assert len(parse(body, "json", "json", 0)) == 1
        except InvalidRequest:
            refused += 1
    assert 0 < refused < 205


def test_a_record_has_so_many_headers_and_no_more() -> None:
    def line(count: int) -> bytes:
        return msgspec.json.encode({"value": 1, "headers": [{"name": "a", "value": None}] * count})

    assert len(parse_ndjson(line(HEADERS_MAX), "json", "json", 5)[0].headers) == HEADERS_MAX
    with pytest.raises(InvalidRequest, match=rf"line 1: .*{HEADERS_MAX}.*headers"):
        parse_ndjson(line(HEADERS_MAX + 1), "json", "json", 5)


@pytest.mark.parametrize("parse", [parse_json, parse_ndjson])
def test_what_takes_seconds_to_look_into_a_second_time_is_refused(parse: Any) -> None:
    """Only when something may be repeated, or is escaped: the first look takes such a value as it
    is."""
    value = b"[" + b"[1]," * (SECOND_LOOK_MAX // 2) + b"1]"
    plain, escaped = (b'{"%b":%b}' % (name, value) for name in (b"value", b"val\\u0075e"))
    if parse is parse_json:
        plain, escaped = (b'{"records":[%b]}' % record for record in (plain, escaped))
    assert parse(plain, "json", "json", 0)[0].value == value
    with pytest.raises(RequestTooLarge, match="fewer records"):
        parse(escaped, "json", "json", 0)


def test_repeated_members_inside_a_value_are_the_clients_own_business() -> None:
    (parsed,) = parse_ndjson(b'{"value": {"a": 1, "a": 2}}', "json", "json", 5)
    assert parsed.value == b'{"a": 1, "a": 2}'


@settings(max_examples=50)
@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_or_refused_in_a_sentence(data: bytes) -> None:
    for body in (data, b'{"records":[{"value":' + data + b"}]}", b'{"value":' + data + b"}"):
        for parse in (parse_json, parse_ndjson):
            with contextlib.suppress(InvalidRequest):
                assert parse(body, "json", "text", 5)
