from __future__ import annotations

from typing import Any

import msgspec
import pytest

from minilog.errors import BrokerUnavailable, InternalError, InvalidRequest, NotLeader, Throttled
from minilog.wire.http import JSON, MSGPACK, PROBLEM, problem_body
from minilog.wire.messages import (
    Fetch,
    FetchReply,
    MetadataReply,
    Offsets,
    OffsetsPartition,
    Ok,
    Problem,
    Produce,
    ProduceReply,
    decode,
    encode,
)
from minilog_client.connection.http_messages import broker_urls, envelope, metadata_path, reply_from
from minilog_client.connection.transport import Response


@pytest.mark.parametrize(
    ("bootstrap", "urls"),
    [
        ("http://a:8082,http://b:8083", ["http://a:8082", "http://b:8083"]),
        ("a:8082, b", ["http://a:8082", "http://b"]),
        (["https://a/"], ["https://a"]),
        ("http://[::1]:8082", ["http://[::1]:8082"]),
    ],
)
def test_bootstrap_forms(bootstrap: Any, urls: list[str]) -> None:
    assert broker_urls(bootstrap) == urls


@pytest.mark.parametrize(
    "bootstrap", ["http://", "ftp://a", "http://a:notaport", "http://a/path", "http://a?x=1", "http://a#x", [5]]
)
def test_bad_broker_urls_are_refused(bootstrap: Any) -> None:
    with pytest.raises(InvalidRequest, match="broker URL"):
        broker_urls(bootstrap)


def test_the_data_plane_has_two_routes() -> None:
    for message, path in ((Produce(-1, 5, []), "/v1/produce"), (Fetch([]), "/v1/fetch")):
        seen, headers, body = envelope(message)
        assert (seen, headers["Content-Type"], decode(body)) == (path, MSGPACK, message)


def test_metadata_of_many_topics_asks_for_all() -> None:
    assert metadata_path(["a", "b"]) == ("/v1/metadata?topics=a%2Cb", False)
    assert metadata_path([]) == ("/v1/metadata", True)
    assert metadata_path([f"topic-{number}" for number in range(1000)]) == ("/v1/metadata", True)


def response(status: int, kind: str, body: bytes, **headers: str) -> Response:
    return Response(status, {"content-type": kind, **headers}, body)


def test_metadata_comes_as_msgpack_or_json() -> None:
    reply = MetadataReply("c", 1, 1, [], [])
    assert reply_from(response(200, MSGPACK, encode(reply)), "u", MetadataReply) == reply
    assert reply_from(response(200, f"{JSON}; charset=utf-8", msgspec.json.encode(reply)), "u", MetadataReply) == reply


@pytest.mark.parametrize(
    ("answer", "error", "definite"),
    [
        (response(421, PROBLEM, problem_body(NotLeader("no"))), NotLeader, True),
        (response(503, MSGPACK, encode(Problem.of(NotLeader("no", definite=False)))), NotLeader, False),
        (response(200, MSGPACK, encode(Problem.of(NotLeader("no")))), NotLeader, True),
        (response(502, "text/html", b"<h1>Bad gateway"), BrokerUnavailable, False),
        (response(404, "text/html", b"<h1>Not found"), InternalError, False),
        (response(200, MSGPACK, b"\xc1"), InternalError, False),
        (response(200, JSON, b"{"), InternalError, False),
        (response(200, MSGPACK, encode(Ok())), InternalError, False),
        (response(200, MSGPACK, encode(FetchReply([]))), InternalError, False),
    ],
)
def test_errors_keep_what_is_known_of_the_write(answer: Response, error: type[Exception], definite: bool) -> None:
    with pytest.raises(error) as caught:
        reply_from(answer, "http://a", ProduceReply)
    assert caught.value.definite is definite  # type: ignore[attr-defined]


def test_retry_after_reaches_the_error() -> None:
    answer = Response(429, {"content-type": PROBLEM, "retry-after": "7"}, problem_body(Throttled("slow down")))
    with pytest.raises(Throttled) as caught:
        reply_from(answer, "http://a", ProduceReply)
    assert caught.value.info["retry_after_s"] == 7


def test_a_number_that_has_no_form_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="cannot be written"):
        envelope(Offsets([OffsetsPartition("t", 2**64, 0)]))
