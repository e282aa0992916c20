"""What became of acknowledged records, asked over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from minilog.broker.http.records import receipts
from minilog.errors import BrokerUnavailable, LogTruncated, OffsetNotAvailable, OffsetOutOfRange
from minilog.wire.messages import Fetch, FetchReply, FetchResult, Message, Problem
from tests.unit.broker.http.fake_runtime import FakeCluster, FakeRuntime
from tests.unit.broker.http.harness import Answer, Broker, Connection, with_broker

RECEIPT = {"topic": "orders", "partition": 0, "offset": 4, "leader_epoch": 3}


async def check(connection: Connection, *receipts: dict[str, Any]) -> Answer:
    body = json.dumps({"receipts": receipts}).encode()
    return await connection.request("POST", "/v1/receipts/check", body, "application/json")


def answering(broker: Broker, **result: Any) -> list[Fetch]:
    """The leader answers every fetch with that."""
    asked: list[Fetch] = []

    def answer(request: Message) -> Message | None:
        if not isinstance(request, Fetch):
            return None
        asked.append(request)
        return FetchReply([FetchResult("orders", 0, **result)])

    broker.runtime.intercept = answer
    return asked


@pytest.mark.parametrize(
    ("result", "status", "lost_from"),
    [
        ({"high_watermark": 5}, "committed", None),
        ({"high_watermark": 4}, "at_risk", None),
        ({"high_watermark": None}, "unknown", None),
        ({"high_watermark": 9, "log_start_offset": 5}, "gone", None),
        ({"problem": Problem.of(OffsetOutOfRange("o", log_start_offset=9))}, "gone", None),
        ({"problem": Problem.of(LogTruncated("t", lost_from=2, lost_to=5))}, "lost", 4),
        ({"problem": Problem.of(OffsetNotAvailable("n"))}, "unknown", None),
        ({"problem": Problem.of(BrokerUnavailable("b"))}, "unknown", None),
    ],
)
def test_each_status(result: dict[str, Any], status: str, lost_from: int | None) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        asked = answering(broker, **result)
        (told,) = (await check(connection, RECEIPT)).json()["receipts"]
        assert (told["status"], told["lost_from"], told["offset"], told["end_offset"]) == (status, lost_from, 4, 5)
        (entry,) = asked[0].partitions
        assert (entry.offset, entry.last_epoch) == (5, 3), "from behind the record, with its epoch"

    with_broker(test)


def test_of_several_records_the_first_that_is_lost_is_named() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        asked = answering(broker, problem=Problem.of(LogTruncated("t", lost_from=6, lost_to=9)))
        (told,) = (await check(connection, RECEIPT | {"end_offset": 9})).json()["receipts"]
        assert (told["status"], told["lost_from"], told["end_offset"]) == ("lost", 6, 9)
        assert asked[0].partitions[0].offset == 9
        answering(broker, high_watermark=20, log_start_offset=6)
        (told,) = (await check(connection, RECEIPT | {"end_offset": 9})).json()["receipts"]
        assert told["status"] == "committed"
        assert "the first 2 records" in told["sentence"]

    with_broker(test)


def test_a_real_receipt_is_committed_wherever_it_was_written_and_a_compacted_one_may_be_superseded() -> None:
    cluster = FakeCluster()
    cluster.create("orders", 4)
    cluster.create("keys", 1, {"cleanup.policy": "compact"})

    async def test(broker: Broker, connection: Connection) -> None:
        for number in range(2):
            body = json.dumps({"records": [{"key": "k", "value": number}]}).encode()
            made = (await connection.request("POST", "/v1/topics/keys/records", body, "application/json")).json()
            (receipt,) = made["receipts"]
            (told,) = (await check(connection, {n: receipt[n] for n in RECEIPT})).json()["receipts"]
            assert told["status"] == "committed"
        del cluster.logs["keys", 0].batches[0]
        (told,) = (await check(connection, RECEIPT | {"topic": "keys", "offset": 0})).json()["receipts"]
        assert told["status"] == "superseded"
        of_one, of_two = (RECEIPT | {"topic": "keys", "offset": 0, "end_offset": end} for end in (1, 2))
        assert [one["status"] for one in (await check(connection, of_one, of_two)).json()["receipts"]] == [
            "superseded",
            "committed",
        ]
        (told,) = (await check(connection, of_two)).json()["receipts"]
        assert "but for what compaction may have taken" in told["sentence"]
        told = (await check(connection, RECEIPT | {"topic": "none"}, RECEIPT | {"partition": 99})).json()["receipts"]
        assert [one["status"] for one in told] == ["gone", "gone"]

    with_broker(test, cluster)


def test_a_leader_that_says_nothing_keeps_nobody_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "ANSWER_S", 0.3)

    async def test(broker: Broker, connection: Connection) -> None:
        answering(broker, high_watermark=9)
        cluster = broker.runtime.cluster
        silent = next(
            number for number, state in cluster.image.topics["orders"].partitions.items() if state.leader != 1
        )
        FakeRuntime(cluster, cluster.image.topics["orders"].partitions[silent].leader).gate = asyncio.Event()
        asked = [RECEIPT | {"partition": silent}] * 30 + [RECEIPT]
        told = (await check(connection, *asked)).json()["receipts"]
        assert [one["status"] for one in told] == ["unknown"] * 30 + ["committed"]
        assert "within 0.3 s" in told[0]["sentence"]

    with_broker(test)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"receipts": []}',
        b'{"receipts": [{"topic": "t"}]}',
        json.dumps({"receipts": [RECEIPT | {"end_offset": 4}]}).encode(),
    ],
)
def test_what_is_no_receipt_is_refused(body: bytes) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("POST", "/v1/receipts/check", body, "application/json")
        assert answer.status == 400

    with_broker(test)
