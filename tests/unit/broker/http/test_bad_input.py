"""Every bad input gets a status, a code, ``definite`` and a sentence that helps; and the connection
lives on."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

import msgspec
import pytest

from minilog.config import Limits
from minilog.wire.http import BATCH, JSON, MSGPACK, NDJSON, OCTETS, PROBLEM
from minilog.wire.messages import Fetch, Metadata, Ok, Produce, ProducePartition, encode
from minilog.wire.records import encode_values
from tests.unit.broker.http.harness import Broker, Connection, with_broker

TOPIC = "/v1/topics/orders/records"
P0 = "/v1/topics/orders/partitions/0/records"
GOOD_BATCH = encode_values([b"a", b"b"], 1)
GOOD = b'{"records": [{"value": 1}]}'
LIMITS = Limits(request_bytes_max=100_000, wait_ms_max=1000, fetch_bytes_max=50_000, timeout_ms_max=60_000)


class Bad(NamedTuple):
    """A request and what must come back. Every word of ``says`` must be in the sentence."""

    method: str
    target: str
    status: int
    code: str
    says: tuple[str, ...]
    body: bytes = b""
    media: str | None = None
    headers: dict[str, str] = {}


def post(target: str, body: bytes, status: int, code: str, *says: str, media: str | None = JSON, **headers: str) -> Bad:
    return Bad("POST", target, status, code, says, body, media, headers)


def get(target: str, status: int, code: str, *says: str, **headers: str) -> Bad:
    return Bad("GET", target, status, code, says, headers=headers)


def record(body: bytes, *says: str, target: str = TOPIC, media: str = JSON) -> Bad:
    return post(target, body, 400, "INVALID_REQUEST", *says, media=media)


def one(fields: str, *says: str, target: str = TOPIC) -> Bad:
    return record(b'{"records": [{' + fields.encode() + b"}]}", *says, target=target)


HUGE = b"0" * 30
"""Zeros that make a number one that no message can carry."""


def beat(fields: bytes, *says: str) -> Bad:
    body = b'{"topics": ["t"], ' + fields + b"}"
    return Bad("PUT", "/v1/groups/g/members/m", 400, "INVALID_REQUEST", says, body, JSON)


def commit(fields: bytes, *says: str) -> Bad:
    body = b'{"offsets": [{"topic": "t", ' + fields + b"}]}"
    return Bad("PUT", "/v1/groups/g/offsets", 400, "INVALID_REQUEST", says, body, JSON)


PATHS = [
    get("/nope", 404, "UNKNOWN_ROUTE", "/nope", "/openapi.json"),
    get("/v1", 404, "UNKNOWN_ROUTE", "/v1"),
    get("//v1/topics", 404, "UNKNOWN_ROUTE"),
    get("/v1/receipts/g", 404, "UNKNOWN_ROUTE", "/v1/receipts/g"),
    get("/v1/topics/a/b/c/d/e/f", 404, "UNKNOWN_ROUTE"),
    get("/v1/topics/", 422, "INVALID_TOPIC", "1 to 249"),
    get("/v1/topics/..", 422, "INVALID_TOPIC", "'..'"),
    get("/v1/topics/%2e%2e", 422, "INVALID_TOPIC", "'..'"),
    get("/v1/topics/%2e", 422, "INVALID_TOPIC", "'.'"),
    get("/v1/topics/a%2Fb", 422, "INVALID_TOPIC", "a/b"),
    get("/v1/topics/..%2f..%2fetc%2fpasswd", 422, "INVALID_TOPIC"),
    get("/v1/topics/a%00b", 422, "INVALID_TOPIC", "\\x00"),
    get("/v1/topics/%C3%A9", 422, "INVALID_TOPIC", "\\xe9"),
    get("/v1/topics/%E2%80%AE", 422, "INVALID_TOPIC", "\\u202e"),
    get("/v1/topics/%ff", 422, "INVALID_TOPIC"),
    get("/v1/topics/%zz", 400, "INVALID_REQUEST", "'%'", "hexadecimal"),
    get("/v1/topics/%2", 400, "INVALID_REQUEST", "hexadecimal"),
    get("/v1/topics/" + "a" * 250, 422, "INVALID_TOPIC", "249"),
    get("/v1/topics/unknown", 404, "UNKNOWN_TOPIC_OR_PARTITION", "'unknown'"),
    get("/v1/topics/orders#frag", 400, "INVALID_REQUEST", "#"),
    get("ftp://evil.test/v1/topics", 400, "INVALID_REQUEST", "must be a path"),
    get("/v1/topics/orders/partitions/x/records", 400, "INVALID_REQUEST", "partition", "'x'", "from 0"),
    get("/v1/topics/orders/partitions/-1/records", 400, "INVALID_REQUEST", "partition", "from 0"),
    get("/v1/topics/orders/partitions/00/records", 400, "INVALID_REQUEST", "partition"),
    get("/v1/topics/orders/partitions/9/records", 404, "UNKNOWN_PARTITION", "0 to 3", "9"),
    get("/v1/topics/orders/partitions/" + "9" * 5000 + "/records", 400, "INVALID_REQUEST", "partition"),
    Bad("PUT", "/v1/topics", 405, "METHOD_NOT_ALLOWED", ("PUT", "GET", "POST")),
    Bad("DELETE", P0, 405, "METHOD_NOT_ALLOWED", ("DELETE", "GET", "POST")),
    Bad("OPTIONS", "/v1/produce", 405, "METHOD_NOT_ALLOWED", ("POST",)),
    Bad("GET", "/internal/rpc", 405, "METHOD_NOT_ALLOWED", ("POST",)),
    Bad("PROPFIND", "/", 405, "METHOD_NOT_ALLOWED", ("PROPFIND", "GET, HEAD")),
]
QUERIES = [
    get(P0 + "?ofset=1", 400, "INVALID_REQUEST", "'ofset'", "offset", "max_bytes"),
    get(P0 + "?offset=1&offset=2", 400, "INVALID_REQUEST", "offset", "more than once"),
    get(P0 + "?offset", 400, "INVALID_REQUEST", "offset", "no value"),
    get(P0 + "?offset=", 400, "INVALID_REQUEST", "offset", "earliest"),
    get(P0 + "?offset=-1", 400, "INVALID_REQUEST", "'-1'", "earliest"),
    get(P0 + "?offset=1.5", 400, "INVALID_REQUEST", "'1.5'"),
    get(P0 + "?offset=1e3", 400, "INVALID_REQUEST", "'1e3'"),
    get(P0 + "?offset=0x10", 400, "INVALID_REQUEST"),
    get(P0 + "?offset=%D9%A1", 400, "INVALID_REQUEST", "offset"),
    get(P0 + "?offset=%FF", 400, "INVALID_REQUEST", "UTF-8"),
    get(P0 + "?offset=9223372036854775808", 400, "INVALID_REQUEST", "9223372036854775807"),
    get(P0 + "?offset=" + "9" * 4500, 400, "INVALID_REQUEST", "offset"),
    get(P0 + "?offset=@", 400, "INVALID_REQUEST", "'@'"),
    get(P0 + "?offset=99", 416, "OFFSET_OUT_OF_RANGE", "99", "0 to 0"),
    get(P0 + "?wait_ms=5000", 400, "INVALID_REQUEST", "wait_ms", "1000"),
    get(P0 + "?max_bytes=60000", 400, "INVALID_REQUEST", "max_bytes", "50000"),
    get(P0 + "?max_bytes=0", 400, "INVALID_REQUEST", "max_bytes", "from 1"),
    get(P0 + "?max_records=x", 400, "INVALID_REQUEST", "max_records"),
    get(P0 + "?min_bytes=10&max_bytes=5", 400, "INVALID_REQUEST", "min_bytes", "max_bytes"),
    get(P0 + "?format=xml", 400, "INVALID_REQUEST", "format", "json, text, base64"),
    get(P0 + "?replica=me", 400, "INVALID_REQUEST", "replica", "leader, any"),
    get(P0 + "?max_lag_ms=5", 400, "INVALID_REQUEST", "max_lag_ms", "replica=any"),
    get(P0 + "?leader_epoch=-2", 400, "INVALID_REQUEST", "leader_epoch"),
    get(P0 + "?a%", 400, "INVALID_REQUEST", "hexadecimal"),
    get(P0, 406, "NOT_ACCEPTABLE", "text/html", JSON, BATCH, Accept="text/html"),
    get("/v1/metadata", 406, "NOT_ACCEPTABLE", "image/png", JSON, MSGPACK, Accept="image/png"),
    get("/v1/topics", 406, "NOT_ACCEPTABLE", "image/png", JSON, Accept="image/png"),
    get("/metrics", 406, "NOT_ACCEPTABLE", "json", "text/plain", Accept=JSON),
    post(TOPIC, GOOD, 406, "NOT_ACCEPTABLE", "image/png", JSON, Accept="image/png"),
    post("/v1/produce", GOOD_BATCH, 406, "NOT_ACCEPTABLE", MSGPACK, media=MSGPACK, Accept=JSON),
    get(P0 + "?max_records=1", 400, "INVALID_REQUEST", "max_records", BATCH, Accept=BATCH),
    get(P0 + "?wait_ms=1", 400, "INVALID_REQUEST", "wait_ms", Accept="text/event-stream"),
    get(P0, 400, "INVALID_REQUEST", "Last-Event-ID", "0-<offset>", Accept="text/event-stream", Last_Event_ID="7"),
    get(P0, 400, "INVALID_REQUEST", "Last-Event-ID", Accept="text/event-stream", Last_Event_ID="0-x"),
    get(P0, 400, "INVALID_REQUEST", "Last-Event-ID", Accept="text/event-stream", Last_Event_ID="1-5"),
    get("/v1/topics/orders/partitions/0/offsets?at=noon", 400, "INVALID_REQUEST", "at", "'@noon'"),
    get("/v1/metadata?topics=a,b/c", 422, "INVALID_TOPIC", "b/c"),
    get("/healthz?verbose=1", 400, "INVALID_REQUEST", "verbose", "none"),
    post(TOPIC + "?acks=-1", GOOD, 422, "INVALID_ACKS", "acks", "'-1'", "all"),
    post(TOPIC + "?acks=quorum", GOOD, 422, "INVALID_ACKS", "acks", "all, 0, 1"),
    post(TOPIC + "?acks=33", GOOD, 422, "INVALID_ACKS", "32"),
    post(TOPIC + "?acks=3", GOOD, 422, "INVALID_ACKS", "acks=3"),
    post(TOPIC + "?timeout_ms=0", GOOD, 400, "INVALID_REQUEST", "timeout_ms", "from 1"),
    post(TOPIC + "?timeout_ms=60001", GOOD, 400, "INVALID_REQUEST", "timeout_ms", "60000"),
    post(TOPIC + "?key=a", GOOD, 400, "INVALID_REQUEST", "key", OCTETS),
    post(TOPIC + "?format=text", b"x", 400, "INVALID_REQUEST", "format", OCTETS, media=OCTETS),
    post(P0 + "?key=a", GOOD, 400, "INVALID_REQUEST", "'key'", "unknown"),
    post(P0 + "?format=text", GOOD_BATCH, 400, "INVALID_REQUEST", "format", media=BATCH),
    post(TOPIC, GOOD, 400, "INVALID_REQUEST", "Minilog-Sequence", "chooses partitions", Minilog_Sequence="7"),
    post(P0, GOOD, 400, "INVALID_REQUEST", "Minilog-Producer-Epoch", "all three", Minilog_Producer_Id="7"),
    post(P0, GOOD, 400, "INVALID_REQUEST", "Minilog-Producer-Epoch", "32767", Minilog_Producer_Epoch="32768"),
]
MEDIA = [
    post(TOPIC, GOOD, 415, "UNSUPPORTED_MEDIA_TYPE", "missing", JSON, NDJSON, OCTETS, media=None),
    post(
        TOPIC, GOOD, 415, "UNSUPPORTED_MEDIA_TYPE", "x-www-form-urlencoded", media="application/x-www-form-urlencoded"
    ),
    post(TOPIC, GOOD, 415, "UNSUPPORTED_MEDIA_TYPE", "utf-16", media="application/json; charset=utf-16"),
    post(TOPIC, GOOD_BATCH, 415, "UNSUPPORTED_MEDIA_TYPE", BATCH, media=BATCH),
    post(P0, b"x", 415, "UNSUPPORTED_MEDIA_TYPE", OCTETS, media=OCTETS),
    post(TOPIC, GOOD, 415, "UNSUPPORTED_MEDIA_TYPE", "gzip", "identity", Content_Encoding="gzip"),
    post("/v1/topics", b"{}", 415, "UNSUPPORTED_MEDIA_TYPE", JSON, media="text/json"),
]
BODIES = [
    record(b"", "records", "truncated"),
    record(b"[]", "object", "array"),
    record(b"{}", "missing", "records"),
    record(b'{"records": []}', "length >= 1"),
    record(b'{"records": [1]}', "object", "int", "records[0]"),
    record(b'{"records": [{"value": 1}], "more": 1}', "more"),
    record(b'{"records": [{"value": 1}], "records": [{"value": 2}]}', "records", "more than once"),
    record(b'{"records": [{"value": 1}]} x', "trailing"),
    record(b'{"records": [{"value": "\xff"}]}', "UTF-8", "byte 24", "0xff"),
    record(b'{"records": [{"value": ' + b"[" * 20_000 + b"]" * 20_000 + b"}]}", "deep"),
    one('"key": 1', "no value", "tombstone"),
    one('"value": 1, "value_base64": "YQ=="', "both", "value_base64"),
    one('"value_base64": "a"', "value_base64", "base64"),
    one('"value_base64": null', "value_base64"),
    one('"value": NaN', "malformed"),
    one('"value": Infinity', "malformed"),
    one('"value": 01', "malformed"),
    one('"value": "\\ud800"', "truncated"),
    one('"value": 1, "vale": 2', "vale"),
    one('"value": 1, "value": 2', "records[0]", "'value'", "more than once"),
    one('"value": 1, "val\\u0075e": 2', "'value'", "more than once"),
    one('"value": 1, "headers": [{"name": "a", "name": "b", "value": null}]', "headers[0]", "'name'", "more than once"),
    one('"value": 1, "headers": {"a": "b"}', "array", "object", "headers"),
    one('"value": 1, "headers": [{"name": "a"}]', "missing", "value"),
    one('"value": 1, "headers": [{"name": "a", "value": "not base64!"}]', "base64", "'a'"),
    one('"value": 1, "headers": [{"name": 5, "value": null}]', "str", "int", "name"),
    one('"value": 1, "timestamp": "now"', "int", "str", "timestamp"),
    one('"value": 1, "timestamp": -1', ">= 0", "timestamp"),
    one('"value": 1, "timestamp": 1.5', "int", "float", "timestamp"),
    one('"value": 1, "timestamp": 9223372036854775808', "<= 9223372036854775807", "timestamp"),
    one('"value": 1, "timestamp": ' + "9" * 5000, "out of range", "timestamp"),
    one('"value": 1, "partition": -1', ">= 0", "partition"),
    one('"value": 1, "partition": true', "int", "bool", "partition"),
    one('"value": 1, "partition": 1', "records[0].partition is 1", "path says 0", target=P0),
    one('"value": 5', "records[0].value", "'5'", "string or null", target=TOPIC + "?format=text"),
    one('"value": "a", "key": 5', "records[0].key", "string or null", target=TOPIC + "?key_format=text"),
    one('"value": "a"', "records[0].value", "base64", target=TOPIC + "?format=base64"),
    one('"value": "YQ=="', "records[0].value", "nothing", target=TOPIC + "?format=base64&timeout_ms=1e3")._replace(
        says=("timeout_ms", "'1e3'")
    ),
    record(b'{"value": 1}\n{"value": }\n', "line 2", "malformed", media=NDJSON),
    record(b'{"value": 1}\n{"value": 1, "value": 2}\n', "line 2", "more than once", media=NDJSON),
    record(b"\n \n\n", "no records", media=NDJSON),
    record(b'[{"value": 1}]\n', "line 1", "object", "array", media=NDJSON),
    post(
        TOPIC,
        b'{"records": [{"value": 1, "partition": 7}]}',
        404,
        "UNKNOWN_PARTITION",
        "records[0].partition",
        "0 to 3",
    ),
    post(TOPIC, b'{"records": [{"value": "' + b"x" * 90_000 + b'"}]}', 200, ""),
    post(TOPIC, b"x" * 100_001, 413, "REQUEST_TOO_LARGE", "100001", "100000"),
    post(P0, b"", 400, "INVALID_REQUEST", "empty", media=BATCH),
    post(P0, GOOD_BATCH[:-1], 400, "CORRUPT_BATCH", media=BATCH),
    post(P0, GOOD_BATCH[:30], 400, "CORRUPT_BATCH", media=BATCH),
    post(P0, GOOD_BATCH[:-1] + b"\x07", 400, "CORRUPT_BATCH", "CRC", media=BATCH),
    post(P0, b"\x00" * 100, 400, "CORRUPT_BATCH", media=BATCH),
    post("/v1/topics", b'{"topic": "a b"}', 422, "INVALID_TOPIC", "a b"),
    post("/v1/topics", b'{"topic": "../x"}', 422, "INVALID_TOPIC"),
    post("/v1/topics", b'{"topic": "orders"}', 409, "TOPIC_EXISTS", "orders"),
    post("/v1/topics", b'{"name": "x"}', 400, "INVALID_REQUEST", "name"),
    post("/v1/topics", b'{"topic": "x", "partitions": -1}', 400, "INVALID_REQUEST", "partitions", ">= 0"),
    post("/v1/topics", b'{"topic": "x", "partitions": 1000001}', 400, "INVALID_REQUEST", "partitions"),
    post("/v1/topics", b'{"topic": "x", "config": {"a": []}}', 400, "INVALID_REQUEST", "config"),
    post("/v1/topics", b'{"topic": "x", "config": {"a": 1%s}}' % HUGE, 400, "INVALID_REQUEST", "config"),
    post("/v1/topics", b'{"topic": "x", "assignment": [[1%s]]}' % HUGE, 400, "INVALID_REQUEST", "assignment"),
    beat(b'"session_timeout_ms": 1' + HUGE, "session_timeout_ms"),
    beat(b'"poll_timeout_ms": -1' + HUGE, "poll_timeout_ms"),
    beat(b'"member_epoch": 9223372036854775808', "member_epoch"),
    beat(b'"owned": [{"topic": "t", "partitions": [1%s]}]' % HUGE, "partitions"),
    commit(b'"partition": 0, "offset": 1' + HUGE, "offset"),
    commit(b'"partition": 1%s, "offset": 0' % HUGE, "partition"),
    commit(b'"partition": 0, "offset": 0, "leader_epoch": 1' + HUGE, "leader_epoch"),
    Bad("DELETE", "/v1/topics/unknown", 404, "UNKNOWN_TOPIC_OR_PARTITION", ("unknown",)),
]
NATIVE = [
    post("/v1/produce", b"", 400, "INVALID_REQUEST", "msgpack", media=MSGPACK),
    post("/v1/produce", b"\xc1", 400, "INVALID_REQUEST", "msgpack", media=MSGPACK),
    post("/v1/produce", b"\x91" * 50_000, 400, "INVALID_REQUEST", media=MSGPACK),
    post(
        "/v1/produce", b"\x81\xa4type\xa2\xff\xfe", 400, "INVALID_REQUEST", "not one message in msgpack", media=MSGPACK
    ),
    post("/v1/produce", b"\xdd\xff\xff\xff\xff", 400, "INVALID_REQUEST", media=MSGPACK),
    post("/v1/produce", encode(Fetch([])), 400, "INVALID_REQUEST", "Fetch", "Produce", media=MSGPACK),
    post("/v1/fetch", encode(Metadata()), 400, "INVALID_REQUEST", "Metadata", "Offsets", media=MSGPACK),
    post("/internal/rpc", encode(Ok()), 400, "INVALID_REQUEST", "Ok", media=MSGPACK),
    post("/internal/rpc", msgspec.msgpack.encode({"type": "Evil"}), 400, "INVALID_REQUEST", "Evil", media=MSGPACK),
    post("/v1/produce", GOOD, 415, "UNSUPPORTED_MEDIA_TYPE", MSGPACK, media=JSON),
]
TABLE = [*PATHS, *QUERIES, *MEDIA, *BODIES, *NATIVE]


def test_every_bad_input_is_answered_in_a_sentence_and_the_connection_lives_on() -> None:
    assert len(TABLE) >= 60
    wrong: list[str] = []

    async def test(broker: Broker, connection: Connection) -> None:
        for bad in TABLE:
            answer = await connection.request(bad.method, bad.target, bad.body, bad.media, **bad.headers)
            wrong.extend(_faults(bad, answer.status, answer.media, answer.body))
            if answer.headers.get("connection") == "close":
                wrong.append(f"the connection was closed after {bad.method} {bad.target[:60]} {answer.body!r}")
                return
            try:
                alive = await connection.request("GET", "/healthz")
            except asyncio.IncompleteReadError:
                raise AssertionError(
                    f"the connection is gone after {bad.method} {bad.target[:60]} {bad.body[:60]!r}"
                ) from None
            assert alive.status == 200

    with_broker(test, limits=LIMITS)
    assert not wrong, "\n".join(wrong)


def _faults(bad: Bad, status: int, media: str, body: bytes) -> list[str]:
    about = f"{bad.method} {bad.target[:80]} {bad.body[:60]!r}: {status} {body[:300]!r}"
    if status != bad.status:
        return [f"want {bad.status}: {about}"]
    if status == 200:
        return []
    problem: dict[str, Any] = msgspec.msgpack.decode(body) if media == MSGPACK else json.loads(body)
    faults = []
    if media not in (PROBLEM, MSGPACK):
        faults.append(f"media {media}: {about}")
    if media == PROBLEM and (problem["status"] != status or "type" not in problem or "title" not in problem):
        faults.append(f"not RFC 9457: {about}")
    if problem["code"] != bad.code or problem["definite"] is not True:
        faults.append(f"want {bad.code}, definite: {about}")
    missing = [word for word in bad.says if word not in problem["detail"]]
    if missing or len(problem["detail"]) < 20:
        faults.append(f"does not say {missing}: {about}")
    if "Traceback" in problem["detail"] or 'File "' in problem["detail"]:
        faults.append(f"a traceback: {about}")
    return faults


def test_405_names_the_methods_in_allow() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("PATCH", "/v1/topics")
        assert answer.headers["allow"] == "GET, HEAD, POST"

    with_broker(test)


@pytest.mark.parametrize("media", [NDJSON, JSON])
def test_more_records_than_allowed_in_one_json_request(media: str) -> None:
    line = b'{"value":1}'
    body = (
        line + (b"\n" + line) * 100_000 if media == NDJSON else b'{"records":[' + line + (b"," + line) * 100_000 + b"]}"
    )

    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("POST", TOPIC, body, media)
        assert answer.status in (400, 413)
        assert answer.json()["definite"] is True
        assert "100000" in answer.json()["detail"]
        assert broker.runtime.submitted == []

    with_broker(test)


@pytest.mark.parametrize("media", [NDJSON, JSON])
def test_json_of_any_depth_is_taken_or_refused(media: str) -> None:
    """Two parsers look at it, and each gives up at a depth of its own."""

    async def test(broker: Broker, connection: Connection) -> None:
        refused = 0
        for depth in (*range(100, 880, 260), *range(880, 1030)):
            line = b'{"value":' + b"[" * depth + b"]" * depth + b',"key":"\\u0041"}'
            body = line if media == NDJSON else b'{"records":[' + line + b"]}"
            answer = await connection.request("POST", TOPIC, body, media)
            if answer.status != 200:
                refused += 1
                assert (answer.status, answer.json()["code"]) == (400, "INVALID_REQUEST"), depth
                assert answer.json()["definite"] is True
        assert 0 < refused < 150

    with_broker(test)


def test_a_fault_of_the_runtime_shows_no_traceback_and_is_indefinite() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        def fail(request: object) -> None:
            raise ZeroDivisionError("secret detail")

        broker.runtime.intercept = fail
        for target, media, body in (
            (P0, JSON, GOOD),
            ("/v1/produce", MSGPACK, encode(Produce(-1, 100, [ProducePartition("orders", 0, memoryview(GOOD_BATCH))]))),
        ):
            answer = await connection.request("POST", target, body, media)
            problem = msgspec.msgpack.decode(answer.body) if answer.media == MSGPACK else answer.json()
            assert (answer.status, problem["code"], problem["definite"]) == (500, "INTERNAL", False)
            assert b"secret" not in answer.body
            assert b"Traceback" not in answer.body

    with_broker(test)
