"""wire/http.py: values in paths and queries, media types, problem documents."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog import errors
from minilog.errors import (
    ERRORS_BY_CODE,
    BrokerUnavailable,
    InternalError,
    InvalidAcks,
    InvalidRequest,
    InvalidTopic,
    MinilogError,
    NotAcceptable,
    UnsupportedMediaType,
    error_from,
)
from minilog.wire import http
from minilog.wire.http import BATCH, JSON, MSGPACK, NDJSON, PROBLEM, Start
from minilog.wire.messages import ACKS_ALL, EARLIEST, LATEST, Ok, Problem, encode

int64 = st.integers(0, 2**63 - 1)


@settings(max_examples=40)
@given(int64)
def test_integers_read_back_what_str_writes(value: int) -> None:
    assert http.integer("n", str(value).encode(), 0, 2**63 - 1) == value


@pytest.mark.parametrize(
    "bad", ["", " 1", "1 ", "+1", "01", "-0", "1_0", "1.0", "1e3", "0x1", "٣", "9" * 20, "-1", "11"]
)
def test_integers_have_one_spelling_and_a_range(bad: str) -> None:
    with pytest.raises(InvalidRequest, match="from 0 to 10"):
        http.integer("n", bad.encode(), 0, 10)


@pytest.mark.parametrize(("text", "value"), [("all", ACKS_ALL), ("0", 0), ("1", 1), ("3", 3), ("32", 32)])
def test_acks(text: str, value: int) -> None:
    assert http.acks("acks", text.encode()) == value
    assert http.acks_text(value) == text


@pytest.mark.parametrize("bad", ["-1", "ALL", "", "33", "1.0", "one", "99999999999999999999"])
def test_bad_acks(bad: str) -> None:
    with pytest.raises(InvalidAcks, match="allowed: all, 0, 1"):
        http.acks("acks", bad.encode())


starts = st.one_of(
    int64.map(lambda offset: Start(offset=offset)),
    int64.map(lambda at: Start(at=at)),
    st.sampled_from([Start(at=EARLIEST), Start(at=LATEST)]),
)


@settings(max_examples=40)
@given(starts)
def test_a_start_reads_back_as_it_was_written(start: Start) -> None:
    assert http.start("offset", str(start).encode()) == start


@pytest.mark.parametrize(("text", "at"), [("earliest", EARLIEST), ("latest", LATEST), ("5", 5), ("@5", 5)])
def test_time_or_end(text: str, at: int) -> None:
    assert http.time_or_end("at", text.encode()) == at


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 249, "...", "__groups"])
def test_topic_names(name: str) -> None:
    assert http.topic_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "é", "a\n", "x" * 250, "a\x00"])
def test_bad_topic_names(name: str) -> None:
    with pytest.raises(InvalidTopic, match="1 to 249"):
        http.topic_name(name)


@settings(max_examples=40)
@given(st.binary(max_size=200))
def test_what_was_seen_is_shown_in_printable_ascii_and_short(data: bytes) -> None:
    text = http.shown(data)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 5 * http.SHOWN_MAX


@pytest.mark.parametrize(
    "header", [JSON, "Application/JSON", f"{JSON};charset=UTF-8", f'{JSON}; charset="utf-8"', f" {JSON} "]
)
def test_content_types_that_mean_json(header: str) -> None:
    assert http.content_type(header, (JSON, NDJSON)) == JSON


@pytest.mark.parametrize(
    "header", [None, "", "json", "text/plain", f"{JSON}; charset=latin-1", f"{JSON}, {NDJSON}", f"{JSON};x=y"]
)
def test_other_content_types_are_refused_by_name(header: str | None) -> None:
    with pytest.raises(UnsupportedMediaType, match=f"allowed: {JSON}, {NDJSON}"):
        http.content_type(header, (JSON, NDJSON))


@pytest.mark.parametrize(
    ("header", "media"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (BATCH, BATCH),
        ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
        (f"{JSON};q=0.1, {NDJSON};q=0.9", NDJSON),
        (f"{MSGPACK}, {NDJSON};q=0.5", NDJSON),
        (f"{JSON};q=0, {BATCH}", BATCH),
        (f"{JSON};q=0, */*", NDJSON),
        (f"*/*, {NDJSON}", NDJSON),
        (f"*/*;q=0.9, {NDJSON};q=0.2", JSON),
        (f"{NDJSON}, {JSON}", NDJSON),
    ],
)
def test_accept(header: str | None, media: str) -> None:
    assert http.accepted(header, (JSON, NDJSON, BATCH)) == media


@pytest.mark.parametrize("header", ["text/html", "nonsense", f"{JSON};q=0", ",,,", "a/b/c"])
def test_accept_of_nothing_offered(header: str) -> None:
    with pytest.raises(NotAcceptable, match="offered here"):
        http.accepted(header, (JSON,))


@pytest.mark.parametrize(
    "header",
    [
        "/" * 8000 + " x",
        "a/" * 4000 + " x",
        " " * 8000 + "x",
        f"a/b{' ' * 8000}x",
        f"a/b;q{' ' * 8000}x",
        "a/b" + ";q =" * 2000,
    ],
)
def test_an_accept_header_is_read_in_linear_time(header: str) -> None:
    """It is read on the event loop: 8 KB of slashes took it a second."""

    def seconds(times: int) -> float:
        started = time.thread_time()
        with pytest.raises(NotAcceptable):
            http.accepted(header * times, (JSON,))
        return time.thread_time() - started

    assert min(seconds(1) for _ in range(3)) < 0.02
    assert min(seconds(4) for _ in range(3)) < 0.08


def test_a_weight_is_found_among_other_parameters() -> None:
    assert http.accepted(f"{JSON} ; charset=utf-8;Q=x; q = 0.1 ;x=1 , {NDJSON};q=0.5", (JSON, NDJSON)) == NDJSON


codes = st.sampled_from(sorted(ERRORS_BY_CODE))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
infos = st.dictionaries(st.sampled_from(["leader_url", "lost_from", "isr", "offset"]), json_values, max_size=3)


@settings(max_examples=40)
@given(codes, st.text(max_size=30), st.booleans(), infos)
def test_an_error_survives_both_of_its_forms(code: str, detail: str, definite: bool, info: dict[str, Any]) -> None:
    error = error_from(code, detail, definite, info)
    document = http.error_from_response(error.http_status, {"Content-Type": PROBLEM}, http.problem_body(error))
    message = http.error_from_response(error.http_status, {"content-type": MSGPACK}, encode(Problem.of(error)))
    for rebuilt in (document, message):
        assert type(rebuilt) is type(error)
        assert (rebuilt.detail, rebuilt.definite, rebuilt.info) == (detail, definite, info)


def test_a_problem_document_has_every_member() -> None:
    error = errors.NotLeader("go there", leader_url="http://b", status="mine", code="x")
    assert http.problem(error, status=307) == {
        "type": "urn:minilog:problem:NOT_LEADER",
        "title": "Not leader",
        "status": 307,
        "detail": "go there",
        "code": "NOT_LEADER",
        "retriable": True,
        "definite": True,
        "leader_url": "http://b",
    }


@pytest.mark.parametrize(
    ("status", "media", "body", "kind"),
    [
        (502, "text/html", b"<h1>Bad Gateway</h1>", BrokerUnavailable),
        (503, PROBLEM, b"not json", BrokerUnavailable),
        (503, PROBLEM, b'{"detail": "no code"}', BrokerUnavailable),
        (400, PROBLEM, b"[" * 100_000, InternalError),
        (400, MSGPACK, b"\xc1", InternalError),
        (404, MSGPACK, encode(Ok()), InternalError),
        (404, "", b"", InternalError),
    ],
)
def test_an_answer_that_is_not_minilogs_proves_nothing(
    status: int, media: str, body: bytes, kind: type[MinilogError]
) -> None:
    error = http.error_from_response(status, {"Content-Type": media}, body)
    assert type(error) is kind
    assert error.definite is False


def test_retry_after_is_kept() -> None:
    body = http.problem_body(errors.Overloaded("busy"))
    error = http.error_from_response(503, {"Content-Type": PROBLEM, "Retry-After": "3"}, body)
    assert error.info["retry_after_s"] == 3
    assert error.definite is True
