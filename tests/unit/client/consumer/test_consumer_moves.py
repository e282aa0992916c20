"""Reading goes on when leaders move, brokers fall silent and topics change."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from minilog.errors import (
    BrokerUnavailable,
    MinilogError,
    NotLeader,
    UnknownTopic,
)
from minilog.wire.messages import Fetch
from minilog_client import AsyncClient
from minilog_client.settings import ReadFrom
from tests.unit.client.consumer.consumer_bench import fill, later, now, read, scenario, values, write
from tests.unit.client.fake_cluster import NO_LEADER, FakeCluster


def test_reading_follows_the_leader() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        async with client.consumer("t") as consumer:
            await consumer.batch(max_wait_ms=50)
            cluster.refusing.add(log.leader)
            cluster._wake()
            later(0.1, cluster.move, log, NO_LEADER)
            later(0.3, cluster.move, log, 2)
            later(0.3, write, log, b"x")
            began = now()
            assert values(await read(consumer, 1)) == [b"x"]
            assert now() - began < 0.3 * 1.3 + 0.5


def test_a_silent_leader_is_given_up_when_another_one_leads() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        async with client.consumer("t") as consumer:
            cluster.silent.add(log.leader)
            await asyncio.sleep(0.6)
            later(2.0, cluster.move, log, 2)
            later(2.0, write, log, b"x")
            began = now()
            assert values(await read(consumer, 1)) == [b"x"]
            assert now() - began < 2.0 + 0.3


def test_a_partition_does_not_wait_for_its_neighbours_leader() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        logs = cluster.logs["t"]
        logs[0].leader = logs[1].leader = 1
        for log in logs:
            fill(log, 10)
        async with client.consumer("t") as consumer:
            await read(consumer, 20)
            cluster.silent.add(1)
            await asyncio.sleep(0.6)  # the poll that was held has ended, the next one is not answered
            cluster.move(logs[0], 2)
            fill(logs[0], 10)
            began = now()
            assert {record.partition for record in await read(consumer, 10)} == {0}
            assert now() - began < 1.2
            cluster.silent.clear()
            fill(logs[1], 10)
            assert [record.offset for record in await read(consumer, 10)] == list(range(10, 20))


def test_a_restart_of_everything_does_not_end_a_subscription() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        async with client.consumer("t") as consumer:
            cluster.refusing |= {1, 2, 3}
            assert await consumer.batch(max_wait_ms=20_000) == []
            cluster.refusing.clear()
            write(log, b"x")
            began = now()
            assert values(await read(consumer, 1)) == [b"x"]
            assert now() - began < 2.1


def test_an_unreachable_cluster_is_reported_now_and_then() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.consumer("t", unreachable_timeout_ms=5000) as consumer:
            cluster.refusing |= {1, 2, 3}
            for _ in range(2):
                began = now()
                with pytest.raises(BrokerUnavailable, match=r"t-0 could not be read for 5000 ms.*refused"):
                    await anext(consumer)
                assert 4.9 < now() - began < 7.5
            cluster.refusing.clear()
            write(cluster.logs["t"][0], b"x")
            assert (await anext(consumer)).value == b"x"


def test_new_partitions_are_read_from_their_beginning() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.consumer("t", start="latest") as consumer:
            cluster.grow("t", 3)
            write(cluster.logs["t"][2], b"early")
            assert values(await consumer.batch(max_wait_ms=15_000)) == [b"early"]
            assert len(consumer.assignment) == 3


def test_a_topic_created_anew_is_not_mistaken_for_the_old_one() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        async with client.consumer("t") as consumer:
            await read(consumer, 10)
            cluster.create("t")
            fill(cluster.logs["t"][0], 20)
            cluster.move(cluster.logs["t"][0], 2)
            with pytest.raises(UnknownTopic, match="created anew"):
                await read(consumer, 10)
            consumer.seek("t", 0, "earliest")
            assert len(await read(consumer, 20)) == 20


def test_no_record_of_a_topic_made_anew_is_taken_for_one_of_the_old_topic() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        async with client.consumer("t") as consumer:
            await read(consumer, 10)
            fill(cluster.create("t")[0], 20)
            with pytest.raises(UnknownTopic, match="created anew"):
                await read(consumer, 10)


def test_a_deleted_topic_is_an_error_after_a_moment() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.consumer("t") as consumer:
            await consumer.batch(max_wait_ms=10)
            del cluster.logs["t"]
            cluster._wake()
            began = now()
            with pytest.raises(UnknownTopic):
                await consumer.batch(max_wait_ms=10_000)
            assert now() - began < 5


def test_reading_from_any_replica_spreads() -> None:
    @scenario(3)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            cluster.move(log, 1)
            fill(log, 10)
        async with client.consumer("t", read_from="any", max_lag_ms=100) as consumer:
            await read(consumer, 30)
            assert set(cluster.kinds("fetch")) == {1, 2, 3}
            fetch = next(message for message in cluster.messages if isinstance(message, Fetch))
            assert (fetch.any_replica, fetch.max_lag_ms) == (True, 100)


def test_a_follower_that_cannot_serve_is_left_for_the_leader() -> None:
    @scenario(3)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            cluster.move(log, 1)
            fill(log, 10)
        cluster.chaos = lambda kind, broker: NotLeader("too stale") if kind == "fetch" and broker != 1 else None
        async with client.consumer("t", read_from="any") as consumer:
            began = now()
            await read(consumer, 30)
            assert now() - began < 0.2


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("read_from", ["leader", "any"])
def test_under_chaos_every_record_comes_once_and_in_order(seed: int, read_from: ReadFrom) -> None:
    @scenario(4)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        random = Random(seed)
        faults: list[str | MinilogError] = ["refuse", "reset", "lose_answer", "hang", NotLeader("x")]
        cluster.chaos = lambda kind, broker: random.choice(faults) if random.random() < 0.15 else None
        logs = cluster.logs["t"]
        seen: dict[int, list[int]] = {log.partition: [] for log in logs}
        async with client.consumer("t", read_from=read_from, prefetch_bytes=4000) as consumer:
            for _ in range(100):
                fill(random.choice(logs), random.randrange(1, 12), each=4)
                cluster._wake()
                if random.random() < 0.1:
                    cluster.move(random.choice(logs), random.choice([1, 2, 3]))
                for record in await consumer.batch(
                    max_records=random.randrange(1, 20), max_wait_ms=random.randrange(50)
                ):
                    seen[record.partition].append(record.offset)
            deadline = now() + 120
            while any(len(seen[log.partition]) < log.end_offset for log in logs) and now() < deadline:
                for record in await consumer.batch():
                    seen[record.partition].append(record.offset)
        for log in logs:
            assert seen[log.partition] == list(range(log.end_offset))
