"""What a consumer is told: records gone, damaged, out of range, and nobody else's read hidden."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from minilog.errors import (
    BrokerUnavailable,
    CorruptRange,
    InternalError,
    LogTruncated,
    MinilogError,
    OffsetOutOfRange,
)
from minilog_client import AsyncClient, Consumer, Record
from tests.unit.client.consumer.consumer_bench import cut_start, fill, lose_tail, read, scenario, values, write
from tests.unit.client.fake_cluster import FakeCluster, Fault


def test_out_of_range_is_raised_until_the_application_decides() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        log.start_offset = 100
        fill(log, 10)
        async with client.consumer("t", start=7) as consumer:
            for _ in range(2):
                with pytest.raises(OffsetOutOfRange) as caught:
                    await consumer.batch()
            assert caught.value.info["log_start_offset"] == 100
            consumer.seek("t", 0, caught.value.info["log_start_offset"])
            assert len(await read(consumer, 10)) == 10


@pytest.mark.parametrize(("choice", "first"), [("earliest", 100), ("latest", 110)])
def test_out_of_range_may_be_decided_beforehand(choice: Any, first: int) -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        log.start_offset = 100
        fill(log, 10)
        async with client.consumer("t", start=7, out_of_range=choice) as consumer:
            await asyncio.sleep(1)
            write(log, b"new")
            assert (await read(consumer, 1))[0].offset == first


def test_records_that_were_read_and_are_gone_are_reported() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        fill(log, 30)
        async with client.consumer("t") as consumer:
            await read(consumer, 25)
            log.truncate(20)
            cluster.move(log, 2)
            write(log, *[b"other"] * 15)
            cluster._wake()
            await asyncio.sleep(1)
            for _ in range(2):
                with pytest.raises(LogTruncated, match="from 20 up to 25") as caught:
                    await read(consumer, 10)
            info = caught.value.info
            assert (info["topic"], info["partition"], info["lost_from"], info["lost_to"]) == ("t", 0, 20, 25)
            consumer.seek("t", 0, info["lost_from"])
            records = await read(consumer, 15)
            assert [(record.offset, record.value) for record in records] == [(20 + n, b"other") for n in range(15)]
            assert {record.leader_epoch for record in records} == {1}


def test_records_that_were_only_fetched_and_are_gone_are_no_loss() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        fill(log, 30)
        async with client.consumer("t") as consumer:
            await read(consumer, 15)
            log.truncate(20)
            cluster.move(log, 2)
            write(log, *[b"other"] * 15)
            cluster._wake()
            await asyncio.sleep(1)
            records = await read(consumer, 20)
            assert [record.offset for record in records] == list(range(15, 35))
            assert values(records[5:]) == [b"other"] * 15


def test_reading_on_in_a_new_epoch_is_no_truncation() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        async with client.consumer("t") as consumer:
            for epoch in range(5):
                fill(log, 10)
                cluster._wake()
                records = await read(consumer, 10)
                assert {record.leader_epoch for record in records} == {epoch}
                cluster.move(log, 1 + epoch % 3)


def test_damaged_data_stop_the_partition_and_no_other() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.consumer("t") as consumer:
            fill(cluster.logs["t"][0], 10)
            cluster._wake()
            await read(consumer, 10)
            cluster.faults.append(Fault("fetch", CorruptRange("damaged"), broker=2))
            fill(cluster.logs["t"][0], 10)
            cluster._wake()
            assert len(await read(consumer, 10)) == 10
            with pytest.raises(CorruptRange):
                await consumer.batch(max_wait_ms=2000)
            consumer.seek("t", 1, 0)
            fill(cluster.logs["t"][1], 5)
            assert len(await read(consumer, 5)) == 5


def test_a_fault_of_the_broker_is_raised_once_and_reading_goes_on() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.consumer("t") as consumer:
            cluster.faults.append(Fault("fetch", InternalError("bug")))
            with pytest.raises(InternalError):
                await consumer.batch(max_wait_ms=5000)
            fill(cluster.logs["t"][0], 3)
            assert len(await read(consumer, 3)) == 3


async def read_beside_a_busy_neighbour(
    cluster: FakeCluster, consumer: Consumer, take: Callable[[Consumer], AsyncIterator[Record]], turns: int
) -> tuple[list[MinilogError], dict[int, int]]:
    """Errors, and records by partition, of an application for which partition 0 always has more
    than it reads."""
    told: list[MinilogError] = []
    seen = {0: 0, 1: 0}
    for _ in range(turns):
        fill(cluster.logs["t"][0], 100)
        try:
            async for record in take(consumer):
                seen[record.partition] += 1
        except MinilogError as error:
            told.append(error)
        await asyncio.sleep(1)
    return told, seen


async def take_batch(consumer: Consumer) -> AsyncIterator[Record]:
    for record in await consumer.batch(max_records=50):
        yield record


async def take_one_by_one(consumer: Consumer) -> AsyncIterator[Record]:
    for _ in range(50):
        yield await anext(consumer)


@pytest.mark.parametrize("take", [take_batch, take_one_by_one])
@pytest.mark.parametrize(
    ("strike", "error"),
    [
        (lambda cluster, log: cut_start(log, 50), OffsetOutOfRange),
        (lambda cluster, log: lose_tail(cluster, log, 50), LogTruncated),
    ],
)
def test_a_busy_neighbour_hides_no_error(take: Any, strike: Any, error: type[MinilogError]) -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        busy, struck = cluster.logs["t"]
        fill(busy, 1000)
        fill(struck, 100)
        async with client.consumer("t", start="earliest") as consumer:
            while consumer.position("t", 1) != 100:
                await consumer.batch(max_records=100)
            strike(cluster, struck)
            if error is OffsetOutOfRange:
                consumer.seek("t", 1, 10)
            told, seen = await read_beside_a_busy_neighbour(cluster, consumer, take, 20)
            assert {type(each) for each in told} == {error}, "again and again"
            assert len(told) >= 5
            assert seen[0] >= 20 * 10 // 2, "in turn with the neighbour's records"
            consumer.seek("t", 1, 50)
            fill(struck, 10)
            told, seen = await read_beside_a_busy_neighbour(cluster, consumer, take, 20)
            assert (told, seen[1]) == ([], struck.end_offset - 50)


def test_an_error_that_passes_is_told_once_and_its_partition_read_on_beside_a_busy_neighbour() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        busy, other = cluster.logs["t"]
        fill(busy, 1000)
        async with client.consumer("t", start="earliest") as consumer:
            await consumer.batch(max_records=10)
            cluster.faults.append(Fault("fetch", InternalError("a bug that passes"), broker=other.leader))
            await asyncio.sleep(2)
            fill(other, 100)
            told, seen = await read_beside_a_busy_neighbour(cluster, consumer, take_batch, 20)
            assert [type(error) for error in told] == [InternalError]
            assert seen[1] == 100


def test_each_of_two_stopped_partitions_is_told_of() -> None:
    @scenario(3)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        for log in cluster.logs["t"][:2]:
            cut_start(log, 50)
        async with client.consumer("t", start=7) as consumer:
            told = set()
            for _ in range(4):
                with pytest.raises(OffsetOutOfRange) as raised:
                    await consumer.batch()
                told.add(raised.value.info["partition"])
            assert told >= {0, 1}


def test_a_partition_that_cannot_be_reached_is_told_of_beside_a_busy_neighbour() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        busy, other = cluster.logs["t"]
        fill(busy, 1000)
        async with client.consumer("t", start="earliest", unreachable_timeout_ms=5000) as consumer:
            await consumer.batch(max_records=10)
            cluster.refusing.add(other.leader)
            told, seen = await read_beside_a_busy_neighbour(cluster, consumer, take_batch, 20)
            assert [type(error) for error in told] == [BrokerUnavailable] * len(told)
            assert 1 <= len(told) <= 4
            assert seen[0] == 50 * (20 - len(told))
