"""Numbered produce over plain HTTP: ids, the three headers, and a request sent twice that is
written once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from minilog.errors import LeaderNotAvailable
from minilog.wire.http import BATCH, JSON, NDJSON
from minilog.wire.messages import InitProducer, Message, Problem
from minilog.wire.records import decode_batch, encode_values
from tests.unit.broker.http.harness import Answer, Broker, Connection, orders, with_broker

TOPIC = "/v1/topics/orders/records"
P0 = "/v1/topics/orders/partitions/0/records"
P1 = "/v1/topics/orders/partitions/1/records"


def body(*values: str) -> bytes:
    return json.dumps({"records": [{"value": value} for value in values]}).encode()


def numbers(producer_id: int, sequence: int, epoch: int = 0) -> dict[str, str]:
    return {
        "Minilog_Producer_Id": str(producer_id),
        "Minilog_Producer_Epoch": str(epoch),
        "Minilog_Sequence": str(sequence),
    }


def receipt(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    (found,) = answer.json()["receipts"]
    return dict(found)


def test_every_client_gets_an_id_of_its_own() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answers = [await connection.request("POST", "/v1/producers") for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 200]
        first, second = (answer.json() for answer in answers)
        assert first["producer_id"] != second["producer_id"]
        assert first["producer_epoch"] == 0

    with_broker(test)


def test_while_there_are_no_ids_the_client_is_told_to_come_back() -> None:
    def none_left(request: Message) -> Message | None:
        return Problem.of(LeaderNotAvailable("no ids")) if isinstance(request, InitProducer) else None

    async def test(broker: Broker, connection: Connection) -> None:
        broker.runtime.intercept = none_left
        answer = await connection.request("POST", "/v1/producers")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert (answer.json()["code"], answer.json()["definite"]) == ("LEADER_NOT_AVAILABLE", True)

    with_broker(test)


@pytest.mark.parametrize(
    ("media", "data"),
    [(JSON, body("a", "b")), (NDJSON, b'{"value": "a"}\n{"value": "b"}\n'), (BATCH, encode_values([b"a", b"b"], 7))],
)
def test_a_request_sent_twice_is_written_once(media: str, data: bytes) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        first = await connection.request("POST", P0, data, media, **numbers(7, 0))
        again = await connection.request("POST", P0, data, media, **numbers(7, 0))
        after = await connection.request("POST", P0, data, media, **numbers(7, 2))
        assert receipt(again) == {**receipt(first), "duplicate": True}
        assert [receipt(a)["offset"] for a in (first, again, after)] == [0, 0, 2]
        assert not receipt(after)["duplicate"]
        log = broker.runtime.cluster.logs["orders", 0]
        assert [(b.producer_id, b.producer_epoch, b.base_sequence) for b in log.batches] == [(7, 0, 0), (7, 0, 2)]
        assert [len(decode_batch(b)) for b in log.batches] == [2, 2]

    with_broker(test)


def test_the_time_of_a_repeated_request_is_not_claimed_for_its_records() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        first = await connection.request("POST", P0, body("a"), JSON, **numbers(7, 0))
        again = await connection.request("POST", P0, body("a"), JSON, **numbers(7, 0))
        assert "timestamp" in first.json()["results"][0]
        assert again.json()["results"] == [{"partition": 0, "offset": 0, "leader_epoch": 3}]

    with_broker(test)


def test_a_gap_a_new_epoch_and_an_old_one() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        await connection.request("POST", P0, body("a"), JSON, **numbers(7, 0))
        gap = await connection.request("POST", P0, body("b"), JSON, **numbers(7, 5))
        assert gap.status == 409
        found = gap.json()
        assert (found["code"], found["expected"], found["seen"], found["definite"]) == (
            "OUT_OF_ORDER_SEQUENCE",
            1,
            5,
            True,
        )
        assert receipt(await connection.request("POST", P0, body("b"), JSON, **numbers(7, 0, 1)))["offset"] == 1
        fenced = await connection.request("POST", P0, body("c"), JSON, **numbers(7, 1))
        assert (fenced.status, fenced.json()["code"]) == (409, "PRODUCER_FENCED")

    with_broker(test)


def test_elsewhere_the_client_is_sent_on_with_its_numbers() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("POST", P1, body("a"), JSON, **numbers(7, 0))
        assert answer.status == 307
        assert answer.headers["location"] == "http://broker-2.test:80" + P1

    with_broker(test)


def test_a_numbered_request_is_one_batch_or_refused() -> None:
    cluster = orders()
    cluster.create("small", 1, {"max.message.bytes": "1024"})
    path = "/v1/topics/small/partitions/0/records"

    async def test(broker: Broker, connection: Connection) -> None:
        large = await connection.request("POST", path, body(*["x" * 100] * 20), JSON, **numbers(7, 0))
        assert (large.status, large.json()["code"]) == (413, "RECORD_TOO_LARGE")
        assert "send fewer records" in large.json()["detail"]
        two = encode_values([b"a"], 1) * 2
        for data, says in (
            (two, "2 batches"),
            (encode_values([b"a"], 1, producer_id=3, producer_epoch=0, base_sequence=0), "numbered already"),
        ):
            answer = await connection.request("POST", path, data, BATCH, **numbers(7, 0))
            assert (answer.status, answer.json()["code"]) == (400, "INVALID_REQUEST")
            assert says in answer.json()["detail"]
        assert cluster.logs["small", 0].batches == []
        assert (await connection.request("POST", path, body(*["x" * 100] * 20), JSON)).status == 200

    with_broker(test, cluster)


def test_a_header_given_twice_is_refused() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        data = body("a")
        head = f"POST {P0} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\nContent-Length: {len(data)}\r\n"
        connection.send(head.encode() + b"Minilog-Sequence: 0\r\nminilog-sequence: 1\r\n\r\n" + data)
        answer = await connection.answer()
        assert (answer.status, answer.json()["code"]) == (400, "INVALID_REQUEST")
        assert "more than once" in answer.json()["detail"]

    with_broker(test)


def test_the_route_that_chooses_partitions_takes_no_numbers() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("POST", TOPIC, body("a"), JSON, **numbers(7, 0))
        assert (answer.status, answer.json()["code"]) == (400, "INVALID_REQUEST")
        assert "/partitions/" in answer.json()["detail"]

    with_broker(test)
