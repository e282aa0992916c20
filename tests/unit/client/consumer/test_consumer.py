"""The consumer against a small cluster that moves leaders, cuts logs and falls silent; time is
virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from minilog.errors import (
    ClientClosed,
    InvalidRequest,
    UnknownPartition,
    UnknownTopic,
)
from minilog_client import AsyncClient, Lag, Record
from minilog_client.consumer.start import Start, parse_start
from tests.unit.client.consumer.consumer_bench import fill, later, now, read, scenario, values, write
from tests.unit.client.fake_cluster import FakeCluster


def test_batch_reads_in_order_and_ends_empty() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        written = fill(cluster.logs["t"][0], 95)
        async with client.consumer("t") as consumer:
            records = await read(consumer, 95)
            assert values(records) == written
            assert [record.offset for record in records] == list(range(95))
            assert records[0] == Record("t", 0, 0, 0, 1000, None, b"00000", ())
            began = now()
            assert await consumer.batch(max_wait_ms=300) == []
            assert now() - began == pytest.approx(0.3, abs=0.02)
            assert consumer.position("t", 0) == 95


def test_iteration_keeps_its_place() -> None:
    @scenario(3)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)
        async with client.consumer("t") as consumer:
            seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
            for _ in range(20):
                async for record in consumer:
                    seen[record.partition].append(record.offset)
                    assert consumer.position("t", record.partition) == record.offset + 1
                    if sum(map(len, seen.values())) % 3 == 0:
                        break
            assert all(offsets == list(range(20)) for offsets in seen.values())


def test_iteration_and_batch_may_be_mixed() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        async with client.consumer("t") as consumer:
            first = [await anext(consumer) for _ in range(3)]
            rest = await read(consumer, 26)
            last = await anext(consumer)
            assert [record.offset for record in (*first, *rest, last)] == list(range(30))


def test_a_record_is_delivered_as_soon_as_it_is_committed() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.consumer("t") as consumer, client.producer(linger_ms=0) as producer:
            await consumer.batch(max_wait_ms=1200)
            began = now()
            sending = asyncio.ensure_future(producer.send("t", b"x"))
            assert values(await read(consumer, 1)) == [b"x"]
            assert now() - began < 0.02
            await sending


def test_an_idle_consumer_polls_about_twice_a_second() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.consumer("t") as consumer:
            assert await consumer.batch(max_wait_ms=10_000) == []
            assert 18 <= cluster.count("fetch") <= 22


@pytest.mark.parametrize(
    ("start", "first"),
    [
        ("earliest", 5),
        ("latest", 40),
        (17, 17),
        ("@2000", 20),
        ("@99999", 40),
        (datetime.fromtimestamp(2, UTC), 20),
    ],
)
def test_where_reading_starts(start: Any, first: int) -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        log.start_offset = 5
        write(log, *[b"a"] * 15, timestamp_ms=1000)
        write(log, *[b"b"] * 20, timestamp_ms=2000)
        async with client.consumer("t", start=start) as consumer:
            assert consumer.position("t", 0) == first
            write(log, b"new")
            records = await read(consumer, 41 - first)
            assert [record.offset for record in records] == list(range(first, 41))


@pytest.mark.parametrize(
    "start",
    ["newest", -1, "@", "@-5", 1.5, True, datetime(2024, 1, 1), None, 2**63, f"@{2**63}", "@" + "9" * 5000],  # noqa: DTZ001
)
def test_bad_starts_are_refused(start: Any) -> None:
    with pytest.raises(InvalidRequest, match="allowed are"):
        parse_start(start)


def test_start_forms() -> None:
    assert parse_start("@" + "0" * 5000 + "7") == (Start.TIME, 7)
    assert parse_start(7) == (Start.OFFSET, 7)
    assert parse_start("@7") == (Start.TIME, 7)
    assert parse_start("@0007") == (Start.TIME, 7)
    assert parse_start(2**63 - 1) == (Start.OFFSET, 2**63 - 1)


def test_single_partitions_and_whole_topics() -> None:
    @scenario(3)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.create("u", 2)
        async with client.consumer(["u", ("t", 1)]) as consumer:
            assert consumer.assignment == [("t", 1), ("u", 0), ("u", 1)]
        with pytest.raises(UnknownPartition, match="no partition 3; it has 3"):
            await client.consumer([("t", 3)]).start()


def test_a_partition_that_was_added_a_moment_ago_is_there() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        await client.consumer("t").start()
        cluster.grow("t", 3)
        fill(cluster.logs["t"][2], 10)
        assert len(await client.consumer([("t", 2)]).batch()) == 10
        with pytest.raises(UnknownPartition):
            await client.consumer([("t", 3)]).start()


def test_asking_without_waiting_lets_others_run() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        consumer = client.consumer("t")
        await consumer.start()
        fill(cluster.logs["t"][0], 10)
        cluster._wake()
        ticks: list[float] = []

        async def others() -> None:
            for _ in range(50):
                ticks.append(now())
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        for _ in range(100):
            await consumer.batch(max_wait_ms=0)
        assert task.done()


def test_a_topic_that_is_not_there() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        consumer = client.consumer("nowhere")
        with pytest.raises(UnknownTopic):
            await consumer.batch()
        cluster.create("nowhere")
        assert await consumer.batch(max_wait_ms=10) == []


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda c: c.consumer([]), InvalidRequest, "name at least one"),
        (lambda c: c.consumer([5]), TypeError, "got 5"),
        (lambda c: c.consumer({"t": 0}), TypeError, "got a mapping"),
        (lambda c: c.consumer("t", start="soon"), InvalidRequest, "start is 'soon'"),
        (lambda c: c.consumer("t", prefetch=1), InvalidRequest, "no option 'prefetch'"),
    ],
)
def test_misuse(make: Callable[[AsyncClient], object], error: type[Exception], said: str) -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        with pytest.raises(error, match=said):
            make(client)


def test_prefetch_is_bounded_and_goes_on_when_there_is_room() -> None:
    @scenario(4)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 400, size=1000)
        async with client.consumer("t", prefetch_bytes=200_000) as consumer:
            await asyncio.sleep(5)
            states = consumer._plan.states.values()
            assert 100_000 < sum(state.fetched_bytes for state in states) <= 200_000
            fetches = cluster.count("fetch")
            await asyncio.sleep(5)
            assert cluster.count("fetch") == fetches
            assert len(await read(consumer, 1600)) == 1600


def test_a_batch_larger_than_the_bounds_still_passes() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        write(cluster.logs["t"][0], b"x" * 50_000)
        async with client.consumer("t", prefetch_bytes=1000, partition_fetch_bytes=100) as consumer:
            assert len(await read(consumer, 1)) == 1


def test_a_partition_that_has_room_again_does_not_wait_for_the_poll_of_others() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.create("idle", 1)
        fill(cluster.logs["t"][0], 2000, size=1000)
        async with client.consumer(["t", "idle"], prefetch_bytes=200_000) as consumer:
            began = now()
            await read(consumer, 2000)
            assert now() - began < 1.0


def test_one_silent_broker_does_not_hold_the_others_back() -> None:
    @scenario(3)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        async with client.consumer("t") as consumer:
            cluster.silent.add(1)
            await asyncio.sleep(1)
            began = now()
            for number in range(10):
                log = cluster.logs["t"][1 + number % 2]
                write(log, b"x")
                cluster._wake()
                await read(consumer, 1)
            assert now() - began < 0.5


def test_seek_drops_what_was_fetched() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 100)
        async with client.consumer("t") as consumer:
            await read(consumer, 7)
            consumer.seek("t", 0, 50)
            assert (await read(consumer, 1))[0].offset == 50
            assert (await anext(consumer)).offset == 51
            consumer.seek("t", 0, "earliest")
            assert (await anext(consumer)).offset == 0
            consumer.seek("t", 0, "latest")
            assert await consumer.batch(max_wait_ms=100) == []
            assert consumer.position("t", 0) == 100
            with pytest.raises(InvalidRequest, match="t-5 is not read by this consumer; it reads t-0"):
                consumer.seek("t", 5, 0)


def test_seek_to_time_moves_every_partition() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            write(log, b"old", b"old", timestamp_ms=1000)
            write(log, b"new", timestamp_ms=2000)
        async with client.consumer("t") as consumer:
            await read(consumer, 6)
            consumer.seek_to_time(1500)
            assert values(await read(consumer, 2)) == [b"new", b"new"]


def test_an_answer_to_a_question_before_the_seek_is_ignored() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 50)
        async with client.consumer("t", start="latest") as consumer:
            consumer.seek("t", 0, 0)
            await asyncio.sleep(0.0015)
            consumer.seek("t", 0, 40)
            assert [record.offset for record in await read(consumer, 10)] == list(range(40, 50))


def test_pause_and_resume() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)
        async with client.consumer("t") as consumer:
            first = await anext(consumer)
            paused = first.partition
            consumer.pause("t", paused)
            others = await read(consumer, 20)
            assert {record.partition for record in others} == {1 - paused}
            assert await consumer.batch(max_wait_ms=100) == []
            assert consumer.position("t", paused) == 1
            later(0.1, consumer.resume, "t", paused)
            assert [record.offset for record in await read(consumer, 19)] == list(range(1, 20))


def test_lag() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        consumer = client.consumer("t")
        fill(cluster.logs["t"][0], 50)
        assert consumer.lag() == {}
        records = await consumer.batch(max_records=20)
        lag = consumer.lag()["t", 0]
        assert lag.records == 50 - len(records)
        assert lag.seconds is not None
        assert lag.seconds > 1_000_000
        await read(consumer, 50 - len(records))
        assert consumer.lag() == {("t", 0): Lag(0, 0.0)}


def test_close_wakes_who_waits() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        consumer = client.consumer("t")
        waiting = asyncio.ensure_future(anext(consumer))
        await asyncio.sleep(1)
        began = now()
        await consumer.close()
        with pytest.raises(ClientClosed):
            await waiting
        assert now() - began < 0.01
        with pytest.raises(ClientClosed):
            await consumer.batch()
        await consumer.close()
