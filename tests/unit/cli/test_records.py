"""Format tokens, and what the lines given to ``topic produce`` mean."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from minilog.cli.output import CliError
from minilog.cli.topic.produce import Input, line_parser, parse_ndjson
from minilog.cli.topic.record_format import compile_format


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


def test_ndjson_is_read_as_the_http_interface_reads_it() -> None:
    line = (
        b'{"value": {"a": 1}, "key": "k", "headers": [{"name": "h", "value": "AQ=="}], "partition": 2, "timestamp": 5}'
    )
    assert parse_ndjson(line, 1) == Input(b'{"a":1}', b'"k"', {"h": b"\x01"}, 2, 5)
    assert parse_ndjson(b'{"value": null}', 1) == Input(None)


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
