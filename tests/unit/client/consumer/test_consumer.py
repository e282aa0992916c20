"""The consumer against a small cluster that moves leaders, cuts logs and falls silent; time is
virtual."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from minilog.errors import (
    BrokerUnavailable,
    ClientClosed,
    CorruptRange,
    InternalError,
    InvalidRequest,
    LogTruncated,
    MinilogError,
    NotLeader,
    OffsetOutOfRange,
    UnknownPartition,
    UnknownTopic,
)
from minilog.wire.batch import split
from minilog.wire.messages import Fetch
from minilog.wire.records import encode_values
from minilog_client import AsyncClient, Consumer, Lag, Record
from minilog_client.consumer.start import Start, parse_start
from minilog_client.settings import ReadFrom
from tests.unit.client.fake_cluster import NO_LEADER, FakeCluster, Fault, Log
from tests.unit.client.holding import HoldingClient
from tests.unit.client.virtual_time import run

Body = Callable[[FakeCluster, AsyncClient], Coroutine[Any, Any, None]]


def scenario(partitions: int = 1, **options: Any) -> Callable[[Body], None]:
    """Run ``body`` against topic "t" of a fresh cluster."""

    def decorate(body: Body) -> None:
        async def main() -> None:
            cluster = FakeCluster()
            cluster.create("t", partitions)
            async with HoldingClient(cluster.bootstrap, transport=cluster, **options) as client:
                await body(cluster, client)

        run(main())

    return decorate


def write(log: Log, *values: bytes, timestamp_ms: int = 1000) -> None:
    log.append(split(encode_values(values, timestamp_ms), 2**31)[0])


def fill(log: Log, count: int, each: int = 10, size: int = 5) -> list[bytes]:
    """``count`` records in batches of ``each``."""
    values = [(b"%05d" % number).ljust(size, b".") for number in range(log.end_offset, log.end_offset + count)]
    for start in range(0, count, each):
        write(log, *values[start : start + each])
    return values


async def read(consumer: Consumer, count: int) -> list[Record]:
    records: list[Record] = []
    while len(records) < count:
        more = await consumer.batch(max_records=count - len(records), max_wait_ms=5000)
        assert more, f"only {len(records)} of {count} records came"
        records += more
    return records


def values(records: list[Record]) -> list[bytes | None]:
    return [record.value for record in records]


def now() -> float:
    return asyncio.get_running_loop().time()


def later(seconds: float, action: Callable[..., object], *arguments: Any) -> None:
    asyncio.get_running_loop().call_later(seconds, action, *arguments)


# --- reading --------------------------------------------------------------------------------------


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


# --- bounds ---------------------------------------------------------------------------------------


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


# --- control --------------------------------------------------------------------------------------


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


# --- the edges of the log -------------------------------------------------------------------------


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


def cut_start(log: Log, offset: int) -> None:
    """Retention: everything before ``offset`` (a batch border) is gone."""
    log.start_offset, log.batches = offset, [batch for batch in log.batches if batch.base_offset >= offset]


def lose_tail(cluster: FakeCluster, log: Log, offset: int) -> None:
    log.truncate(offset)
    cluster.move(log, 3)


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


# --- the cluster moves ----------------------------------------------------------------------------


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


# --- any replica ----------------------------------------------------------------------------------


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


# --- chaos ----------------------------------------------------------------------------------------


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
