"""Writes with If-Match: only where the partition ends there."""

from __future__ import annotations

import pytest

from minilog.wire.http import BATCH, JSON, NDJSON
from minilog.wire.records import encode_values
from tests.unit.broker.http.harness import Broker, Connection, with_broker
from tests.unit.broker.http.records.test_producers import P0, P1, TOPIC, body, numbers


def if_match(end: str) -> dict[str, str]:
    return {"If_Match": end}


@pytest.mark.parametrize(
    ("media", "data"),
    [(JSON, body("a", "b")), (NDJSON, b'{"value": "a"}\n{"value": "b"}\n'), (BATCH, encode_values([b"a", b"b"], 7))],
)
def test_who_knows_the_end_writes_and_is_told_the_next_one(media: str, data: bytes) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        first = await connection.request("POST", P0, data, media, **if_match('"0"'))
        assert (first.status, first.headers["etag"]) == (200, '"2"')
        second = await connection.request("POST", P0, data, media, **if_match(first.headers["etag"]))
        assert (second.status, second.headers["etag"]) == (200, '"4"')
        late = await connection.request("POST", P0, data, media, **if_match('"2"'))
        assert (late.status, late.json()["code"], late.json()["end_offset"]) == (409, "END_OFFSET_MISMATCH", 4)
        assert late.json()["definite"] is True
        assert "etag" not in late.headers

    with_broker(test)


def test_a_numbered_one_that_is_sent_again_is_no_conflict() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        for _ in range(2):
            answer = await connection.request("POST", P0, body("a"), JSON, **numbers(7, 0), **if_match('"0"'))
            assert (answer.status, answer.headers["etag"]) == (200, '"1"')

    with_broker(test)


@pytest.mark.parametrize(
    "tag", ["*", "2", '"', '""', '"-1"', '"+1"', '"01"', 'W/"2"', '"1", "2"', '"99999999999999999999"']
)
def test_what_is_no_end_is_refused(tag: str) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("POST", P0, body("a"), JSON, **if_match(tag))
        assert (answer.status, answer.json()["code"]) == (400, "INVALID_REQUEST")
        assert "If-Match" in answer.json()["detail"]

    with_broker(test)


def test_a_condition_wants_a_partition_and_an_answer() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("POST", TOPIC, body("a"), JSON, **if_match('"0"'))
        assert (answer.status, "/partitions/" in answer.json()["detail"]) == (400, True)
        answer = await connection.request("POST", f"{P0}?acks=0", body("a"), JSON, **if_match('"0"'))
        assert (answer.status, "acks=0" in answer.json()["detail"]) == (400, True)
        answer = await connection.request("POST", P1, body("a"), JSON, **if_match('"0"'))
        assert answer.status == 307, "its leader decides"

    with_broker(test)
