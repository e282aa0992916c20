"""Consumers in groups against a naive coordinator; time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from minilog.errors import CoordinatorNotAvailable
from minilog_client import (
    AsyncClient,
    BrokerUnavailable,
    ClientClosed,
    GroupConsumer,
    InconsistentGroup,
    InstanceInUse,
    InvalidRequest,
    LogTruncated,
    OffsetOutOfRange,
    Record,
    TimedOut,
    UnknownMember,
)
from minilog_client.consumer.read_ahead import ReadAhead
from tests.unit.client.consumer.consumer_bench import fill, later, now
from tests.unit.client.fake_cluster import FakeCluster, Fault
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import read, scenario


def test_a_member_reads_commits_and_goes_on_where_it_was() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)
        async with client.consumer("t", group="g") as consumer:
            assert consumer.assignment == [("t", 0), ("t", 1)]
            records = await read(consumer, 30)
            await consumer.commit(records)
        assert coordinator.owned("g") == {}
        async with client.consumer("t", group="g") as consumer:
            rest = await read(consumer, 10)
            assert sorted((r.partition, r.offset) for r in records + rest) == [
                (p, o) for p in (0, 1) for o in range(20)
            ]


def test_partitions_move_to_a_second_member_and_back() -> None:
    @scenario(4)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        told: list[tuple[str, list[int]]] = []

        def tell(name: str) -> Callable[[list[tuple[str, int]]], None]:
            return lambda keys: told.append((name, [partition for _, partition in keys]))

        first = client.consumer("t", group="g", on_assigned=tell("1+"), on_revoked=tell("1-"), on_lost=tell("1 lost"))
        await first.start()
        second = client.consumer("t", group="g", on_assigned=tell("2+"), on_revoked=tell("2-"))
        await second.start()
        assert second.assignment == [], "the first has not let go yet"
        await first.batch(max_wait_ms=2000)
        await second.batch(max_wait_ms=2000)
        assert len(first.assignment) == len(second.assignment) == 2
        assert sorted(first.assignment + second.assignment) == [("t", p) for p in range(4)]
        await second.close()
        await first.batch(max_wait_ms=2000)
        assert len(first.assignment) == 4
        await first.close()
        gone = told[1][1]
        kept = sorted({0, 1, 2, 3} - set(gone))
        assert told == [
            ("1+", [0, 1, 2, 3]), ("1-", gone), ("2+", gone), ("2-", gone), ("1+", gone), ("1-", sorted(kept + gone)),
        ]  # fmt: skip


def test_a_revoked_partition_is_committed_and_goes_on_elsewhere_without_repetition() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 30, each=1)
        first = client.consumer("t", group="g")
        seen = [await anext(first) for _ in range(21)]
        second = client.consumer("t", group="g")
        seen += await read_all([first, second], 39)
        assert sorted((r.partition, r.offset) for r in seen) == [(p, o) for p in (0, 1) for o in range(30)]


async def read_all(consumers: list[GroupConsumer], count: int) -> list[Record]:
    """In parallel, until ``count`` records are there in all."""
    records: list[Record] = []

    async def go_on(consumer: GroupConsumer) -> None:
        while len(records) < count:
            records.extend(await consumer.batch(max_records=5, max_wait_ms=300))

    await asyncio.gather(*map(go_on, consumers))
    return records


def test_nothing_read_ahead_is_handed_out_after_a_revocation() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 1000)
        first = client.consumer("t", group="g")
        await read(first, 20)
        second = client.consumer("t", group="g")
        await second.start()
        await asyncio.sleep(2)
        records = await read(first, 100)
        assert len({record.partition for record in records}) == 1
        assert first.assignment == [("t", records[0].partition)]
        with pytest.raises(InvalidRequest, match="not read by this consumer"):
            first.position("t", 1 - records[0].partition)


def test_members_with_a_pattern_read_what_matches_also_later() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.create("t2")[0], 3)
        async with client.consumer(pattern="t[0-9]", group="g") as consumer:
            assert [record.topic for record in await read(consumer, 3)] == ["t2"] * 3
            fill(cluster.create("t3")[0], 3)
            assert [record.topic for record in await read(consumer, 3)] == ["t3"] * 3
            assert consumer.assignment == [("t2", 0), ("t3", 0)]


def test_a_partition_added_to_a_topic_is_read_from_its_beginning_even_with_start_latest() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 5)
        async with client.consumer("t", group="g", start="latest") as consumer:
            await client.add_partitions("t", 2)
            fill(cluster.logs["t"][1], 5)
            assert [record.partition for record in await read(consumer, 5)] == [1] * 5
        assert coordinator.committed("g") == {0: 5, 1: 0}


def test_a_committed_offset_out_of_range_raises_unless_told_otherwise() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        fill(log, 30)
        async with client.consumer("t", group="g") as consumer:
            await consumer.commit({("t", 0): 5})
        log.start_offset = 10
        log.batches = log.batches[1:]
        consumer = client.consumer("t", group="g")
        for _ in range(3):
            with pytest.raises(OffsetOutOfRange):
                await consumer.batch()
        consumer.seek("t", 0, "earliest")
        assert (await read(consumer, 1))[0].offset == 10
        await consumer.close()
        async with client.consumer("t", group="g", out_of_range="latest") as consumer:
            assert await consumer.batch(max_wait_ms=1000) == []
            assert consumer.position("t", 0) == 30


def test_committed_records_that_are_gone_raise_log_truncated() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        fill(log, 30)
        async with client.consumer("t", group="g") as consumer:
            await consumer.commit(await read(consumer, 30))
        log.truncate(20)
        cluster.move(log, 2)
        fill(log, 20)
        async with client.consumer("t", group="g") as consumer:
            with pytest.raises(LogTruncated) as raised:
                await consumer.batch()
            info = raised.value.info
            assert (info["lost_from"], info["lost_to"]) == (20, 30)
            consumer.seek("t", 0, 20)
            assert (await read(consumer, 1))[0].leader_epoch == 1


def test_a_topic_created_anew_is_read_from_its_beginning_once_the_group_shares_it_out_again() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        async with client.consumer("t", group="g") as consumer:
            await read(consumer, 30)
            fill(cluster.create("t")[0], 20)
            coordinator.group("g").offsets.clear()
            coordinator.fence("g", consumer.member_id)
            await asyncio.sleep(2)
            assert [record.offset for record in await read(consumer, 20)] == list(range(20))


def test_a_layout_from_a_broker_that_lags_is_not_taken_for_that_of_a_topic_made_anew() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        yesterday, today = cluster.metadata(), cluster.metadata
        fill(cluster.create("t")[0], 20)
        cluster.metadata = lambda topics=None: yesterday  # type: ignore[method-assign]
        consumer = client.consumer("t", group="g", unreachable_timeout_ms=20_000)
        await consumer.start()
        assert consumer.assignment == [], "where it begins is not known for the topic that was given"
        assert await consumer.batch(max_wait_ms=5000) == []
        with pytest.raises(BrokerUnavailable, match="made anew; reading on tries again"):
            await anext(consumer)
        cluster.metadata = today  # type: ignore[method-assign]
        assert [record.offset for record in await read(consumer, 20)] == list(range(20))
        await asyncio.sleep(30)
        fill(cluster.logs["t"][0], 20)
        assert [record.offset for record in await read(consumer, 20)] == list(range(20, 40))


def test_a_topic_made_anew_while_it_is_read_is_given_back_and_begun() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)
        told: list[Any] = []
        async with client.consumer("t", group="g", on_revoked=told.append, on_assigned=told.append) as consumer:
            await read(consumer, 40)
            for log in cluster.create("t", 2):
                fill(log, 10)
            await asyncio.sleep(2)
            assert len(await read(consumer, 20)) == 20
            both = [("t", 0), ("t", 1)]
            assert told == [both, both, both], "given, taken away, given"


def test_a_group_that_cannot_be_reached_for_long_is_an_error_and_reading_on_tries_again() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        async with client.consumer("t", group="g", unreachable_timeout_ms=20_000) as consumer:
            await read(consumer, 30)
            cluster.chaos = lambda kind, broker: CoordinatorNotAvailable("loading") if "group" in kind else None
            began = now()
            with pytest.raises(BrokerUnavailable, match="loading; reading on tries again"):
                await anext(consumer)
            assert 25 < now() - began < 40, "a session and the limit"
            cluster.chaos = lambda kind, broker: None
            fill(cluster.logs["t"][0], 1)
            assert (await anext(consumer)).offset == 30


def test_a_slow_application_stays_a_member_and_a_dead_one_does_not() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        lost: list[Any] = []
        consumer = client.consumer("t", group="g", max_poll_interval_ms=60_000, on_lost=lost.extend)
        records = await read(consumer, 10)
        await asyncio.sleep(59)
        assert coordinator.owned("g") == {consumer.member_id: [("t", 0)]}
        await asyncio.sleep(5)
        assert coordinator.owned("g") == {}
        assert lost == []
        with pytest.raises(UnknownMember, match="asked for no records for 60000 ms"):
            await consumer.commit(records)
        assert [record.offset for record in await read(consumer, 5)] == list(range(5))
        assert lost == [("t", 0)]


def test_a_dead_application_may_ask_to_be_told() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        consumer = client.consumer("t", group="g", max_poll_interval_ms=60_000, max_poll_exceeded="raise")
        await read(consumer, 10)
        await asyncio.sleep(70)
        with pytest.raises(UnknownMember, match="max_poll_interval_ms"):
            await consumer.batch()
        assert len(await read(consumer, 30)) == 30


def test_waiting_for_records_is_not_being_away() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        consumer = client.consumer("t", group="g", max_poll_interval_ms=5000)
        later(60, fill, cluster.logs["t"][0], 1)
        later(60, cluster._wake)
        await anext(consumer)
        assert len(coordinator.group("g").members) == 1
        assert coordinator.group("g").epoch == 1


@pytest.mark.parametrize("outage_s", [3.0, 45.0])
def test_an_outage_of_the_whole_cluster_ends_no_subscription(outage_s: float) -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)
        lost: list[Any] = []
        consumer = client.consumer("t", group="g", on_lost=lost.extend)
        await read(consumer, 40)
        cluster.refusing |= {1, 2, 3}
        assert await consumer.batch(max_wait_ms=int(outage_s * 1000)) == []
        cluster.refusing.clear()
        coordinator.move(2)
        for log in cluster.logs["t"]:
            fill(log, 20)
        assert len(await read(consumer, 40)) == 40
        assert lost == [], "nobody took anything"
        assert list(coordinator.group("g").members) == [consumer.member_id]


def test_whoever_is_cut_off_hands_out_nothing_once_others_may_own_it() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 1000)
        lost: list[Any] = []
        consumer = client.consumer("t", group="g", on_lost=lost.extend)
        for _ in range(10):
            await anext(consumer)
        cluster.refusing |= {1, 2, 3}
        await asyncio.sleep(9)
        await anext(consumer)
        await asyncio.sleep(3)
        assert await consumer.batch(max_wait_ms=5000) == []
        cluster.refusing.clear()
        assert len(await read(consumer, 20)) == 20
        assert lost == [("t", 0)]


def test_the_coordinator_moves_and_partitions_stay() -> None:
    @scenario(3)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        lost: list[Any] = []
        consumer = client.consumer("t", group="g", on_lost=lost.extend, on_revoked=lost.extend)
        await consumer.start()
        for broker in (2, 3, 1):
            cluster.refusing = {coordinator.broker}
            for log in cluster.logs["t"]:
                if log.leader == coordinator.broker:
                    cluster.move(log, broker)
            await consumer.batch(max_wait_ms=2000)
            coordinator.move(broker)
            fill(cluster.logs["t"][0], 10)
            records = await read(consumer, 10)
            await consumer.commit(records)
        assert lost == []


@pytest.mark.parametrize("forwards", [True, False])
def test_any_broker_leads_to_the_coordinator(forwards: bool) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        coordinator.forwards = forwards
        coordinator.broker = 3
        if not forwards:
            coordinator.move(3)
        fill(cluster.logs["t"][0], 10)
        async with client.consumer("t", group="g") as consumer:
            await consumer.commit(await read(consumer, 10))
        assert coordinator.committed("g") == {0: 10}


def test_a_group_that_disagrees_is_an_error_until_it_agrees() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        first = client.consumer("t", group="g", assignor="range")
        await first.start()
        second = client.consumer("t", group="g")
        for _ in range(3):
            with pytest.raises(InconsistentGroup):
                await second.batch()
        await first.close()
        assert len(await read(second, 10)) == 10


def test_a_static_member_keeps_its_place_across_a_restart() -> None:
    @scenario(4)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        other = client.consumer("t", group="g")
        async with client.consumer("t", group="g", instance_id="a") as consumer:
            await other.batch(max_wait_ms=2000)
            before, first = consumer.assignment, consumer.member_id
            assert len(before) == 4, "it was alone when it began"
            await consumer.batch(max_wait_ms=2000)
            await other.batch(max_wait_ms=2000)
            before, epoch = consumer.assignment, consumer.member_epoch
        await other.batch(max_wait_ms=2000)
        assert len(other.assignment) == 2, "the place is kept"
        async with client.consumer("t", group="g", instance_id="a") as consumer:
            assert (consumer.assignment, consumer.member_epoch) == (before, epoch)
            assert consumer.member_id != first


def test_an_instance_in_use_is_waited_for_and_then_an_error() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        first = client.consumer("t", group="g", instance_id="a")
        await first.start()
        second = client.consumer("t", group="g", instance_id="a")
        with pytest.raises(InstanceInUse):
            await second.batch()
        later(5, lambda: asyncio.ensure_future(first.close()))
        await second.start()
        assert second.assignment == [("t", 0)]


def test_callbacks_may_seek_commit_and_be_coroutine_functions() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)

        async def on_assigned(keys: list[tuple[str, int]]) -> None:
            await asyncio.sleep(0.1)
            for key in keys:
                consumer.seek(*key, 10)

        async def on_revoked(keys: list[tuple[str, int]]) -> None:
            await consumer.commit(dict.fromkeys(keys, 17))

        consumer = client.consumer("t", group="g", auto_commit=False, on_assigned=on_assigned, on_revoked=on_revoked)
        assert {record.offset for record in await read(consumer, 20)} == set(range(10, 20))
        await consumer.close()
        assert coordinator.committed("g") == {0: 17, 1: 17}


def test_an_exception_in_a_callback_comes_out_and_the_group_goes_on() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        def fail(_: list[tuple[str, int]]) -> None:
            raise ZeroDivisionError("the application's own fault")

        first = client.consumer("t", group="g", on_revoked=fail)
        await first.start()
        second = client.consumer("t", group="g")
        await second.start()
        with pytest.raises(ZeroDivisionError):
            await first.batch(max_wait_ms=5000)
        await second.batch(max_wait_ms=2000)
        assert len(first.assignment) == len(second.assignment) == 1
        with pytest.raises(ZeroDivisionError):
            await first.close()
        await second.batch(max_wait_ms=2000)
        assert len(second.assignment) == 2


@pytest.mark.parametrize("fault", ["refusing", "silent"])
def test_nothing_hangs_with_all_brokers_down(fault: str) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        consumer = client.consumer("t", group="g")
        records = await read(consumer, 10)
        getattr(cluster, fault).update({1, 2, 3})
        began = now()
        with pytest.raises((TimedOut, BrokerUnavailable)):
            await consumer.commit(records, timeout_ms=1500)
        assert now() - began == pytest.approx(1.5, abs=0.6)
        with pytest.raises((TimedOut, BrokerUnavailable)):
            await consumer.committed(timeout_ms=1500)
        assert await consumer.batch(max_wait_ms=500) == []
        began = now()
        await consumer.close(timeout_ms=2000)
        assert now() - began <= 2.1
        with pytest.raises(ClientClosed):
            await consumer.batch()
        another = client.consumer("t", group="g")
        began = now()
        with pytest.raises((TimedOut, BrokerUnavailable)):
            await another.batch()
        assert now() - began <= 12


def test_closing_wakes_a_reader_and_ends_everything() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        consumer = client.consumer("t", group="g")
        reader = asyncio.ensure_future(anext(consumer))
        await asyncio.sleep(1)
        await consumer.close()
        await consumer.close()
        with pytest.raises(ClientClosed):
            await reader
        assert coordinator.group("g").members == {}
        before = len(cluster.requests)
        await asyncio.sleep(60)
        assert {kind for kind, _ in cluster.requests[before:]} <= {"metadata"}


def test_what_was_read_ahead_may_be_moved_after_a_read_that_brought_nothing() -> None:
    """No partition may be handed out of while the group cannot be reached."""

    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)
        consumer, ahead = client.consumer("t", group="g"), ReadAhead()
        while len(consumer.positions()) < 2 or set(consumer.positions().values()) != {20}:
            await consumer.read_ahead(ahead, 1000, 1000)
            ahead.take(1000, list)
        cluster.faults.append(Fault("groupheartbeat", "refuse", times=10**6))
        await asyncio.sleep(30)
        await consumer.read_ahead(ahead, 1000, 1000)
        assert ahead.take(1000, list) == []
        consumer.pause_ahead(ahead, "t", 0)
        consumer.seek_ahead(ahead, [("t", 1)], 0)
        assert consumer.positions() == {("t", 0): 20, ("t", 1): 0}
        cluster.faults.clear()
