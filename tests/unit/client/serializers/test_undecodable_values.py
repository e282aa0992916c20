"""A record whose value is not what the application reads: it is told of where it is, the others are
read, and nothing is committed past it unseen."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from minilog_client import AsyncClient, Client, Serializer, UndecodableRecord
from tests.unit.client.consumer.consumer_bench import write
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import scenario
from tests.unit.client.virtual_time import run


class Order(msgspec.Struct):
    n: int


def order(n: int) -> bytes:
    return msgspec.json.encode(Order(n))


BAD = b"no JSON"


async def read(consumer: Any, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        found += [record.value.n for record in await consumer.batch()]
    return found


async def read_past_errors(consumer: Any) -> list[int]:
    for _ in range(100):
        with suppress(UndecodableRecord):
            return await read(consumer, 1)
    raise AssertionError("the error of one partition hides the records of another")


@pytest.mark.parametrize("each", [1, 2, 5, 9])
def test_it_stops_its_partition_and_no_other_until_the_application_seeks(each: int) -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t", 2)
        values = [order(0), order(1), BAD, order(3), BAD, order(5)]
        for at in range(0, len(values), each):
            write(cluster.logs["t"][0], *values[at : at + each])
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            consumer = client.consumer("t", value=Order)
            assert await read(consumer, 2) == [0, 1]
            for _ in range(3):
                with pytest.raises(UndecodableRecord, match=r"t-0: the record at 2 .*seek to 3 .*undecodable") as told:
                    await consumer.batch()
                info = told.value.info
                assert (info["topic"], info["partition"], info["offset"], info["end_offset"]) == ("t", 0, 2, 3)
                assert (told.value.record.value, consumer.position("t", 0)) == (BAD, 2)
            write(cluster.logs["t"][1], order(100))
            assert await read_past_errors(consumer) == [100]
            consumer.seek("t", 0, 3)
            assert (await anext(consumer)).value == Order(3)
            with pytest.raises(UndecodableRecord, match="the record at 4 "):
                await anext(consumer)
            consumer.seek("t", 0, 5)
            assert (await anext(consumer)).value == Order(5)

    run(main())


def test_a_key_counts_as_well_and_nothing_is_no_mistake() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t", 1)
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            async with client.producer() as producer:
                await producer.send("t", None, b"k")
                await producer.send("t", b"1", b"\xff")
            consumer = client.consumer("t", value=int, key=str)
            record = await anext(consumer)
            assert (record.value, record.key) == (None, "k")
            with pytest.raises(UndecodableRecord, match="UnicodeDecodeError"):
                await anext(consumer)

    run(main())


def test_skipped_ones_are_counted_and_told_and_their_neighbours_are_read(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t", 1)
        write(cluster.logs["t"][0], order(0), BAD, order(2), BAD)
        write(cluster.logs["t"][0], BAD, BAD)
        write(cluster.logs["t"][0], order(6))
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            consumer = client.consumer("t", value=Order, undecodable="skip")
            with caplog.at_level(logging.WARNING, logger="minilog_client"):
                assert await read(consumer, 3) == [0, 2, 6]
            assert consumer.skipped == 4
            assert consumer.position("t", 0) == 7

    run(main())
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "skipped 2 undecodable records, the first because of: t-0: the record at 1 is not what this consumer reads "
        "(DecodeError: JSON is malformed: invalid character (byte 4))",
        "skipped 2 undecodable records, the first because of: t-0: the record at 4 is not what this consumer reads "
        "(DecodeError: JSON is malformed: invalid character (byte 4))",
    ]


def test_a_group_commits_up_to_it_and_the_next_member_meets_it_too() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        write(cluster.logs["t"][0], order(0), order(1), BAD, order(3))
        for _ in range(2):
            async with client.consumer("t", group="g", value=Order) as consumer:
                with pytest.raises(UndecodableRecord, match="the record at 2 "):
                    [record async for record in consumer]
            assert coordinator.committed("g") == {0: 2}


def test_what_comes_while_reading_stands_before_it_is_neither_handed_out_nor_committed() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        write(log, order(0), order(1), BAD, order(3))
        async with client.consumer("t", group="g", value=Order) as consumer:
            await asyncio.sleep(0.1)
            assert await read(consumer, 2) == [0, 1]
            write(log, order(4))
            cluster._wake()
            await asyncio.sleep(0.1)
            for _ in range(2):
                with pytest.raises(UndecodableRecord, match="the record at 2 "):
                    await consumer.batch()
        assert coordinator.committed("g") == {0: 2}


def test_a_read_that_is_interrupted_while_it_decodes_leaves_nothing_out() -> None:
    class TooLate(BaseException):
        """As a signal's handler raises it."""

    late = [TooLate()]

    def decode(data: bytes) -> int:
        if data == b"2" and late:
            raise late.pop()
        return int(data)

    async def main() -> None:
        cluster = FakeCluster()
        write(cluster.create("t", 1)[0], b"0", b"1", b"2", b"3")
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            consumer = client.consumer("t", value=Serializer(lambda value: b"%d" % value, decode))
            with pytest.raises(TooLate):
                await consumer.batch()
            assert [record.value for record in await consumer.batch()] == [0, 1, 2, 3]

    run(main())


def test_without_await() -> None:
    cluster = FakeCluster()
    cluster.create("t", 1)
    write(cluster.logs["t"][0], order(0), BAD, order(2))
    with Client(cluster.bootstrap, transport=cluster) as client, client.consumer("t", value=Order) as consumer:
        assert next(consumer).value == Order(0)
        with pytest.raises(UndecodableRecord) as told:
            next(consumer)
        consumer.seek("t", 0, told.value.info["end_offset"])
        assert next(consumer).value == Order(2)
        assert consumer.skipped == 0
