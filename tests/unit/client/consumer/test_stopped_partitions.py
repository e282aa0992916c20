"""Partitions that are paused, that stand at an error, or whose topic is gone: what is said of them,
and what is kept. Time is virtual."""

from __future__ import annotations

import asyncio

import pytest

from minilog_client import AsyncClient, BrokerUnavailable, MinilogError, UnknownTopic
from tests.unit.client.consumer.consumer_bench import fill, now, read, scenario
from tests.unit.client.fake_cluster import FakeCluster


def test_a_paused_partition_is_not_unreachable() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 10)
        consumer = client.consumer("t", max_wait_ms=100)
        await read(consumer, 20)
        silent = cluster.logs["t"][0].leader
        cluster.silent.add(silent)
        while not consumer._plan.states["t", 0].attempts.tries:
            await consumer.batch(max_wait_ms=10)
        consumer.pause("t", 0)
        cluster.silent.discard(silent)
        end = now() + 300
        while now() < end:
            assert await consumer.batch(max_wait_ms=1000) == []
        cluster.silent.add(silent)
        consumer.resume("t", 0)
        assert await consumer.batch(max_wait_ms=50_000) == [], "its time begins when it is tried again"
        with pytest.raises(BrokerUnavailable):
            await consumer.batch(max_wait_ms=20_000)


def test_a_partition_that_is_stopped_is_not_unreachable() -> None:
    """What stopped it is told, and nothing else: nobody tries to read it before it is moved."""

    @scenario(2)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 10)
        consumer = client.consumer([("t", 0), ("t", 1)], start=15, max_wait_ms=100)
        fill(cluster.logs["t"][1], 10)  # 15 is there in one of them, and beyond the end of the other
        codes = set()
        end = now() + 200
        while now() < end:
            try:
                await consumer.batch(max_wait_ms=1000)
            except MinilogError as error:
                codes.add(error.code)
        assert codes == {"OFFSET_OUT_OF_RANGE"}


@pytest.mark.parametrize("pauses", [False, True])
def test_what_is_at_hand_is_handed_out_before_reading_is_reset(pauses: bool) -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        (log,) = cluster.logs["t"]
        fill(log, 20)
        async with client.consumer("t", out_of_range="earliest") as consumer:
            offsets = [record.offset for record in await consumer.batch(max_records=5)]
            await asyncio.sleep(0.1)  # 5 to 19 are at hand, a poll for 20 is under way
            if pauses:
                consumer.pause("t", 0)
            fill(log, 20)
            log.start_offset = 30  # retention
            log.batches = [batch for batch in log.batches if batch.end_offset > 30]
            cluster._wake()
            await asyncio.sleep(2)
            if pauses:
                consumer.resume("t", 0)
            while more := await consumer.batch(max_wait_ms=2000):
                offsets.extend(record.offset for record in more)
        assert offsets == [*range(20), *range(30, 40)]


def test_a_seek_while_the_topic_is_gone_keeps_topics_apart() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 100)
        consumer = client.consumer("t", max_wait_ms=100)
        await read(consumer, 100)
        del cluster.logs["t"], cluster.topic_ids["t"]
        cluster.metadata_offset += 1
        with pytest.raises(UnknownTopic):
            await consumer.batch(max_wait_ms=20_000)
        consumer.seek("t", 0, 50)  # once more from there
        fill(cluster.create("t", 1)[0], 200)
        for _ in range(2):
            with pytest.raises(UnknownTopic, match="anew"):
                await consumer.batch(max_wait_ms=20_000)
        consumer.seek("t", 0, 50)  # it is told of the other topic, and goes there
        assert (await consumer.batch())[0].offset == 50


def test_who_was_told_that_a_topic_is_gone_is_told_that_it_is_another_one() -> None:
    """Also without a seek in between."""

    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 100)
        consumer = client.consumer("t", max_wait_ms=100)
        await read(consumer, 100)
        del cluster.logs["t"], cluster.topic_ids["t"]
        cluster.metadata_offset += 1
        with pytest.raises(UnknownTopic):
            await consumer.batch(max_wait_ms=20_000)
        fill(cluster.create("t", 1)[0], 200)
        await asyncio.sleep(12)
        with pytest.raises(UnknownTopic, match="anew"):
            await consumer.batch(max_wait_ms=20_000)


def test_the_lag_behind_a_topic_that_is_gone_is_not_that_behind_its_successor() -> None:
    @scenario(1, metadata_max_age_ms=500)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 100)
        consumer = client.consumer("t")
        assert await consumer.batch()
        fill(cluster.create("t")[0], 5)
        await asyncio.sleep(2)
        with pytest.raises(UnknownTopic):
            await consumer.batch()
        consumer.seek("t", 0, 0)
        assert consumer.lag()["t", 0].records is None, "nobody has said yet how long it is"
        assert await consumer.batch(max_records=2)
        assert consumer.lag()["t", 0].records == 3
