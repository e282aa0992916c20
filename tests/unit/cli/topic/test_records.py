"""Format tokens, and what the lines given to ``topic produce`` mean."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from minilog.cli.output import CliError
from minilog.cli.topic.consume import ndjson_line
from minilog.cli.topic.produce import Input, fate_of_history, line_parser, parse_ndjson
from minilog.cli.topic.record_format import compile_format
from minilog_client import Record as Consumed


@dataclass
class Record:
    topic: str = "orders"
    partition: int = 3
    offset: int = 42
    timestamp: int = 1700
    key: bytes | None = b"k"
    value: bytes | None = b"v\xff"
    headers: dict[str, bytes] = field(default_factory=lambda: {"trace": b"1", "x": b""})


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (r"%t %p %o %k %v\n", b"orders 3 42 k v\xff\n"),
        (r"%s|%S|%K|%T", b"v\xff|2|1|1700"),
        (r"%h%%\t\x41\\", b"trace=1,x=%\tA\\"),
        ("", b""),
    ],
)
def test_tokens(text: str, printed: bytes) -> None:
    assert compile_format(text)(Record()) == printed


def test_no_key_and_no_value() -> None:
    assert compile_format("%k %K %v %S")(Record(key=None, value=None)) == b" -1  -1"


@pytest.mark.parametrize("text", ["%q", "%", r"\q", "\\"])
def test_what_is_not_a_token_is_refused(text: str) -> None:
    with pytest.raises(CliError) as caught:
        compile_format(text)
    assert caught.value.exit_code == 2


def test_lines() -> None:
    assert line_parser(None, None)(b"a:b", 1) == Input(b"a:b")
    assert line_parser(":", None)(b"a:b:c", 1) == Input(b"b:c", b"a")
    assert line_parser(None, "user")(b'{"user": 7}', 1) == Input(b'{"user": 7}', b"7")
    assert line_parser(None, "user")(b'{"user": "k"}', 1) == Input(b'{"user": "k"}', b"k")
    assert line_parser(None, "user")(b'{"user": null}', 1) == Input(b'{"user": null}')
    assert line_parser(None, "user")(b" ", 1) is None
    assert line_parser(None, None)(b"", 1) == Input(b""), "a line a record"


def test_ndjson_is_read_as_the_http_interface_reads_it() -> None:
    line = (
        b'{"value": {"a": 1}, "key": "k", "headers": [{"name": "h", "value": "AQ=="}], "partition": 2, "timestamp": 5}'
    )
    assert parse_ndjson(line, 1) == Input(b'{"a": 1}', b"k", [("h", b"\x01")], 2, 5)
    sent = parse_ndjson(b'{"value": null}', 1)
    assert sent is not None
    assert (sent.value, sent.key) == (None, None)
    assert parse_ndjson(b" \r", 1) is None


@pytest.mark.parametrize(
    "text", ["1.10", "-0", "1E5", "0.1000000000000000055511151231257827", '{"a":1,"a":2}', "1e400", '"<>&\\/"']
)
def test_a_value_is_stored_as_it_was_written_and_shown_as_it_is_stored(text: str) -> None:
    sent = parse_ndjson(b'{"value": %b}' % text.encode(), 1)
    assert sent is not None
    assert sent.value == text.encode()
    shown = ndjson_line(consumed(value=sent.value))
    assert b'"value":%b}' % text.encode() in shown


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        (b"k", b"1", b'"key":"k","value":1}\n'),
        (b"7", None, b'"key":"7","value":null}\n'),
        (b'"k"', b"hello", b'"key":"\\"k\\"","value_base64":"aGVsbG8="}\n'),
        (b"", b"null", b'"key":"","value_base64":"bnVsbA=="}\n'),
        (None, b" 7", b'"key":null,"value_base64":"IDc="}\n'),
        (b"\xff", b"\xff", b'"key_base64":"/w==","value_base64":"/w=="}\n'),
        (None, b'{\n"a": 1}', b'"key":null,"value_base64":"ewoiYSI6IDF9"}\n'),
    ],
)
def test_a_record_is_one_line_of_json_whatever_it_holds(key: bytes | None, value: bytes | None, shown: bytes) -> None:
    assert ndjson_line(consumed(key, value)).endswith(shown)


def consumed(key: bytes | None = None, value: bytes | None = None) -> Consumed:
    return Consumed("t", 0, 0, 0, 0, key, value, ())


def test_what_is_printed_as_ndjson_can_be_produced_again() -> None:
    line = b'{"topic":"t","partition":1,"offset":8,"timestamp":5,"key":null,"value":1}'
    assert parse_ndjson(line, 1) == Input(b"1", None, [], 1, 5)


@pytest.mark.parametrize(
    "line",
    [
        b"[1]",
        b'{"key": 1}',
        b'{"value": 1, "more": 2}',
        b'{"value": 1, "partition": -1}',
        b'{"value": 1, "partition": true}',
        b'{"value": 1, "headers": [{"name": "h", "value": "?"}]}',
        b'{"value": 1, "headers": 5}',
        b"\xff",
        b'{"value": ',
    ],
)
def test_bad_ndjson_names_the_line(line: bytes) -> None:
    with pytest.raises(CliError, match="line 7") as caught:
        parse_ndjson(line, 7)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("separator", "member", "line"), [(":", None, b"abc"), (None, "user", b"{}"), (None, "u", b"x")]
)
def test_bad_lines_name_the_line(separator: str | None, member: str | None, line: bytes) -> None:
    with pytest.raises(CliError, match="line 3"):
        line_parser(separator, member)(line, 3)


DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("config", "age_ms", "said"),
    [
        ({}, 8 * DAY_MS, "stay for as long again from now"),
        ({}, 7 * DAY_MS, None),
        ({"retention.by": "timestamp"}, 8 * DAY_MS, "go at the next look"),
        ({"retention.ms": "-1"}, 8 * DAY_MS, None),
        ({"cleanup.policy": "compact"}, 8 * DAY_MS, None),
        ({"of.a.newer.version": "1"}, 8 * DAY_MS, None),
    ],
)
def test_who_loads_history_is_told_what_retention_does_to_it(
    config: dict[str, str], age_ms: int, said: str | None
) -> None:
    told = fate_of_history(config, 9000 * DAY_MS - age_ms, 9000 * DAY_MS)
    assert told is None if said is None else told is not None and said in told
