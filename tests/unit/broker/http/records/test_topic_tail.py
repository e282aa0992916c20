"""A whole topic as one stream: all partitions, whoever leads them, with a cursor to go on from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from minilog.config import Limits
from minilog.errors import NotLeader
from minilog.wire.group_messages import (
    CommitOffsets,
    CommitOffsetsReply,
    CommittedOffset,
    CommittedOffsets,
    CommittedOffsetsReply,
)
from minilog.wire.http import EVENTS, JSON, NDJSON
from minilog.wire.messages import Fetch, FetchReply, FetchResult, Message, Problem
from tests.unit.broker.http.fake_runtime import FakeCluster, FakeRuntime, topic_id_of
from tests.unit.broker.http.harness import Broker, Connection, fill, open_tail, orders, with_broker

TOPIC = "/v1/topics/orders/records"
ID = topic_id_of("orders")
Test = Callable[[Broker, Connection], Awaitable[None]]


def with_two(test: Test, cluster: FakeCluster, limits: Limits | None = None) -> None:
    """Broker 1 is asked, broker 2 leads the odd partitions."""
    FakeRuntime(cluster, 2)
    with_broker(test, cluster, limits)


def filled() -> FakeCluster:
    cluster = orders()
    fill(cluster, 0, [b"0", b"1", b"2"], [b"3"])
    fill(cluster, 1, [b"10", b"11"])
    fill(cluster, 3, [b"30"])
    return cluster


async def lines(connection: Connection, target: str, **headers: str) -> list[dict[str, Any]]:
    """All of an answer that ends."""
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {NDJSON}\r\n{more}\r\n".encode())
    async with asyncio.timeout(5):
        head = await connection.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        text = b""
        while size := int(await connection.reader.readline(), 16):
            text += await connection.reader.readexactly(size)
            await connection.reader.readexactly(2)
        await connection.reader.readexactly(2)
    return [json.loads(line) for line in text.splitlines() if line]


def test_ndjson_has_the_records_of_all_partitions_and_ends() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        found = await lines(connection, TOPIC)
        assert sorted((line["partition"], line["offset"], line["value"]) for line in found) == [
            (0, 0, 0), (0, 1, 1), (0, 2, 2), (0, 3, 3), (1, 0, 10), (1, 1, 11), (3, 0, 30),
        ]  # fmt: skip
        assert found[-1]["cursor"] == f"{ID}.4.2.0.1"
        assert await lines(connection, f"{TOPIC}?cursor={found[-1]['cursor']}") == []
        for at, line in enumerate(found):
            rest = await lines(connection, f"{TOPIC}?cursor={line['cursor']}")
            assert sorted(each["value"] for each in rest) == sorted(each["value"] for each in found[at + 1 :])

    with_two(test, filled())


def test_a_tail_goes_on_behind_its_last_event_in_every_partition_whoever_leads() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        events = await open_tail(connection, TOPIC + "?offset=earliest")
        seen = [await events.next() for _ in range(7)]
        assert sorted(json.loads(event["data"])["value"] for event in seen) == [0, 1, 2, 3, 10, 11, 30]
        async with broker.connect() as writer, broker.connect() as other:
            for partition in (0, 2):
                url = f"/v1/topics/orders/partitions/{partition}/records"
                await writer.request("POST", url, b'{"records": [{"value": 99}]}', JSON)
            again = await open_tail(other, TOPIC, f"Last-Event-ID: {seen[-1]['id']}")
            for stream in (events, again):
                more = [json.loads((await stream.next())["data"]) for _ in range(2)]
                assert sorted((each["partition"], each["offset"]) for each in more) == [(0, 4), (2, 0)]

    with_two(test, filled())


def test_a_tail_begins_at_the_end_by_default() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(f"GET {TOPIC} HTTP/1.1\r\nHost: localhost\r\nAccept: {EVENTS}\r\n\r\n".encode())
        assert b" 200 " in await connection.reader.readuntil(b"\r\n\r\n")
        async with broker.connect() as other:
            while not any(isinstance(each, Fetch) for each in broker.runtime.submitted):
                await other.request("GET", "/healthz")
        (asked,) = [each for each in broker.runtime.submitted if isinstance(each, Fetch)]
        assert {entry.partition: entry.offset for entry in asked.partitions} == {0: 4, 2: 0}
        assert asked.max_wait_ms > 0, "one poll is held for all that one broker leads"

    with_two(test, filled())


def test_a_partition_without_a_leader_is_waited_for_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilog.broker.http.records.topic_tail.PAUSE_MS", 1)
    cluster = filled()

    async def test(broker: Broker, connection: Connection) -> None:
        cluster.lead("orders", 1, -1)
        events = await open_tail(connection, f"{TOPIC}?cursor={ID}.0.0.0.0")
        assert sorted([json.loads((await events.next())["data"])["value"] for _ in range(5)]) == [0, 1, 2, 3, 30]
        cluster.lead("orders", 1, 1)
        assert sorted([json.loads((await events.next())["data"])["value"] for _ in range(2)]) == [10, 11]
        cluster.lead("orders", 1, -1)
        async with broker.connect() as other:
            found = await lines(other, f"{TOPIC}?cursor={ID}.4.0.0.1")
            assert [line["error"]["code"] for line in found] == ["LEADER_NOT_AVAILABLE"], (
                "an answer with an end has one"
            )

    with_two(test, cluster)


def test_a_refusal_that_may_pass_is_no_end_and_one_that_may_not_is_the_last_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("minilog.broker.http.records.topic_tail.PAUSE_MS", 1)

    async def test(broker: Broker, connection: Connection) -> None:
        refusals = iter([NotLeader("moved"), NotLeader("moved")])

        def intercept(request: Message) -> Message | None:
            if isinstance(request, Fetch) and (error := next(refusals, None)) is not None:
                return FetchReply([FetchResult(e.topic, e.partition, Problem.of(error)) for e in request.partitions])
            return None

        broker.runtime.intercept = intercept
        found = await lines(connection, f"{TOPIC}?cursor={ID}.0.2.0.1")
        assert [line["value"] for line in found] == [0, 1, 2, 3]
        found = await lines(connection, f"{TOPIC}?cursor={ID}.99.2.0.1")
        assert [line["error"]["code"] for line in found] == ["OFFSET_OUT_OF_RANGE"]

    with_two(test, filled())


def test_partitions_that_are_added_are_read_from_their_beginning() -> None:
    cluster = filled()

    async def test(broker: Broker, connection: Connection) -> None:
        events = await open_tail(connection, f"{TOPIC}?cursor={ID}.3.2.0.1")
        assert json.loads((await events.next())["data"])["value"] == 3
        cluster.add_partitions("orders", 4, 5)
        fill(cluster, 4, [b"40"])
        async with broker.connect() as writer:
            await writer.request("POST", "/v1/topics/orders/partitions/0/records", b'{"records": [{"value": 4}]}', JSON)
        more = [await events.next() for _ in range(2)]
        assert sorted(json.loads(each["data"])["value"] for each in more) == [4, 40]
        assert more[-1]["id"] == f"{ID}.5.2.0.1.1"

    with_two(test, cluster)


def test_a_group_begins_where_it_is_and_the_cursor_that_comes_back_is_committed() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        committed: list[CommitOffsets] = []

        def intercept(request: Message) -> Message | None:
            if isinstance(request, CommitOffsets):
                committed.append(request)
                return CommitOffsetsReply()
            if isinstance(request, CommittedOffsets):
                found = [
                    CommittedOffset("orders", 0, 3, topic_id=ID),
                    CommittedOffset("orders", 1, 0, topic_id="f" * 32),
                ]
                return CommittedOffsetsReply([*found, CommittedOffset("other", 3, 1)])
            return None

        broker.runtime.intercept = intercept
        found = await lines(connection, f"{TOPIC}?group=billing")
        assert sorted(line["value"] for line in found) == [3, 10, 11, 30], (
            "of another topic of that name nothing counts"
        )
        assert not committed
        cursor = f"{ID}.2.1.0.1"
        found = await lines(connection, f"{TOPIC}?group=billing", **{"Last-Event-ID": cursor})
        assert sorted(line["value"] for line in found) == [2, 3, 11]
        answer = await connection.request(
            "PUT", "/v1/groups/billing/offsets", json.dumps({"topic": "orders", "cursor": cursor}).encode(), JSON
        )
        assert answer.json() == {"group": "billing", "committed": 4}
        for each in committed:
            assert (each.group, each.member_id) == ("billing", "")
            assert [(o.partition, o.offset, o.topic_id) for o in each.offsets] == [
                (number, offset, ID) for number, offset in enumerate([2, 1, 0, 1])
            ]
        assert len(committed) == 2

    with_two(test, filled())


@pytest.mark.parametrize(
    ("target", "status", "code", "said"),
    [
        ("?offset=5", 400, "INVALID_REQUEST", "earliest, latest, @ms or a cursor"),
        ("?cursor=x", 400, "INVALID_REQUEST", "cursor"),
        (f"?cursor={ID}", 400, "INVALID_REQUEST", "cursor"),
        (f"?cursor={ID}.1.x", 400, "INVALID_REQUEST", "an offset in cursor"),
        (f"?cursor={ID}" + ".1" * 65, 400, "INVALID_REQUEST", "at most 64"),
        (f"?cursor={'0' * 32}.1", 409, "INCONSISTENT_TOPIC_ID", "orders"),
        ("?max_bytes=5000", 400, "INVALID_REQUEST", "at most 4096"),
        ("?group=a/b", 422, "INVALID_GROUP", "group"),
        ("?follow=maybe", 400, "INVALID_REQUEST", "follow"),
        ("?wait_ms=5", 400, "INVALID_REQUEST", "unknown here"),
    ],
)
def test_what_cannot_be_is_refused_before_it_begins(target: str, status: int, code: str, said: str) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("GET", TOPIC + target)
        assert (answer.status, answer.json()["code"]) == (status, code)
        assert said in answer.json()["detail"]

    with_two(test, filled(), Limits(fetch_bytes_max=4096))


def test_a_topic_of_many_partitions_is_not_read_as_one() -> None:
    cluster = orders()
    cluster.create("wide", 65)

    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("GET", "/v1/topics/wide/records")
        assert answer.status == 400
        assert "65 partitions" in answer.json()["detail"]
        answer = await connection.request("GET", "/v1/topics/none/records")
        assert answer.status == 404

    with_two(test, cluster)


def test_a_client_that_leaves_leaves_no_poll_behind() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        async with broker.connect() as other:
            await open_tail(other, TOPIC)
            while broker.runtime.waiting < 1:
                await connection.request("GET", "/healthz")
        async with asyncio.timeout(5):
            while broker.runtime.waiting:
                await connection.request("GET", "/healthz")

    with_two(test, filled())


def test_a_partition_for_which_an_answer_had_no_room_is_not_at_its_end() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        def intercept(request: Message) -> Message | None:
            """Brokers fill an answer from the front."""
            if not isinstance(request, Fetch) or len(request.partitions) < 2:
                return None
            results, _ = broker.runtime._read(request)
            for result in results[1:] if len(results[0].batches) else []:
                result.batches = memoryview(b"")
            return FetchReply(results)

        broker.runtime.intercept = intercept
        assert len(await lines(connection, TOPIC)) == 8

    cluster = filled()
    fill(cluster, 2, [b"20"])
    with_two(test, cluster)
