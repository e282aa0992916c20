"""The synchronous face of groups, and heartbeats beside a blocked application: real threads, so
milliseconds."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from random import Random
from typing import Any

import pytest

from minilog.wire.messages import Fetch
from minilog_client import (
    AsyncClient,
    Client,
    ClientClosed,
    ClientSettings,
    InvalidRequest,
    SyncGroupConsumer,
    UnknownMember,
)
from minilog_client.connection.cluster import Cluster
from minilog_client.group.heartbeats import ThreadHeart
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator


@contextmanager
def connected(partitions: int = 1, **options: Any) -> Iterator[tuple[FakeCluster, FakeCoordinator, Client]]:
    cluster = FakeCluster()
    cluster.create("t", partitions)
    coordinator = FakeCoordinator(cluster, interval_ms=10)
    with Client(cluster.bootstrap, transport=cluster, **options) as client:
        yield cluster, coordinator, client


def test_the_plain_loop_commits_what_is_finished_and_no_more() -> None:
    with connected(2) as (cluster, coordinator, client):
        for log in cluster.logs["t"]:
            fill(log, 50, each=7)
        with client.consumer("t", group="g") as consumer:
            seen = [(record.partition, record.offset) for record in islice(consumer, 60)]
        last = seen[-1]
        with client.consumer("t", group="g") as consumer:
            assert consumer.committed() == {("t", p): sum(1 for s in seen[:-1] if s[0] == p) for p in (0, 1)}
            rest = [(record.partition, record.offset) for record in islice(consumer, 41)]
        assert sorted(seen + rest) == sorted([(p, o) for p in (0, 1) for o in range(50)] + [last])
        assert coordinator.group("g").members == {}


def test_commit_counts_what_reached_the_application_and_not_what_was_read_ahead() -> None:
    with connected(1) as (cluster, coordinator, client):
        fill(cluster.logs["t"][0], 50, each=50)
        consumer = client.consumer("t", group="g", auto_commit=False)
        records = list(islice(consumer, 10))
        consumer.commit()
        assert coordinator.committed("g") == {0: 10}
        consumer.commit(records[4])
        assert coordinator.committed("g") == {0: 5}
        consumer.commit({("t", 0): 7})
        assert consumer.committed([("t", 0)]) == {("t", 0): 7}
        assert [record.offset for record in consumer.batch(max_records=5)] == list(range(10, 15))
        consumer.commit()
        assert coordinator.committed("g") == {0: 15}


@pytest.mark.parametrize("all_of_it", [True, False])
def test_no_commit_of_its_own_takes_back_what_the_application_committed(all_of_it: bool) -> None:
    with connected(1) as (cluster, coordinator, client):
        fill(cluster.logs["t"][0], 10)
        consumer = client.consumer("t", group="g")
        records = list(islice(consumer, 8))
        consumer.commit(None if all_of_it else records[-1])
        consumer.close()
        assert [each.offsets[0].offset for each in coordinator.group("g").commits] == [8]


@pytest.mark.parametrize(("how", "then"), [("pause", 6), ("seek back", 5), ("seek elsewhere", 30)])
def test_a_record_that_is_being_worked_on_is_not_finished_by_moving_its_partition(how: str, then: int) -> None:
    with connected(1) as (cluster, coordinator, client):
        fill(cluster.logs["t"][0], 50, each=50)
        consumer = client.consumer("t", group="g", auto_commit_interval_ms=5)
        assert [record.offset for record in islice(consumer, 6)] == list(range(6))
        if how == "pause":
            consumer.pause("t", 0)
        else:
            consumer.seek("t", 0, then)
        until(lambda: coordinator.committed("g") == {0: 5})
        commits = len(coordinator.group("g").commits)
        time.sleep(0.05)
        assert len(coordinator.group("g").commits) == commits, "record 5 is lost if the process dies now"
        consumer.resume("t", 0)
        assert next(consumer).offset == then
        if how == "pause":
            until(lambda: coordinator.committed("g") == {0: 6})
        assert next(consumer).offset == then + 1
        consumer.commit()
        assert coordinator.committed("g") == {0: then + 2}


def test_a_record_that_is_being_worked_on_is_finished_by_asking_for_one_of_another_partition() -> None:
    with connected(2) as (cluster, coordinator, client):
        for log in cluster.logs["t"]:
            fill(log, 50, each=50)
        consumer = client.consumer("t", group="g", auto_commit=False)
        record = list(islice(consumer, 6))[-1]
        consumer.pause("t", record.partition)
        assert next(consumer).partition == 1 - record.partition
        consumer.commit()
        assert coordinator.committed("g") == {record.partition: 6, 1 - record.partition: 1}


def test_what_was_read_under_a_grant_that_was_lost_is_not_finished_under_the_next() -> None:
    with connected(1) as (cluster, coordinator, client):
        log = cluster.logs["t"][0]
        fill(log, 20, each=20)

        def on_assigned(keys: list[tuple[str, int]]) -> None:
            consumer.commit()

        consumer = client.consumer("t", group="g", auto_commit=False, on_assigned=on_assigned)
        assert len(list(islice(consumer, 20))) == 20
        coordinator.fence("g", consumer.member_id)
        until(lambda: consumer.member_id.endswith("-2"))
        assert next(consumer).offset == 0
        assert coordinator.group("g").commits == []


def test_callbacks_run_in_the_reading_thread_and_may_use_the_consumer() -> None:
    with connected(2) as (cluster, coordinator, client):
        for log in cluster.logs["t"]:
            fill(log, 50)
        told: list[tuple[str, list[int], threading.Thread]] = []

        def on_assigned(keys: list[tuple[str, int]]) -> None:
            told.append(("+", [p for _, p in keys], threading.current_thread()))
            for key in keys:
                first.seek(*key, 30)

        def on_revoked(keys: list[tuple[str, int]]) -> None:
            told.append(("-", [p for _, p in keys], threading.current_thread()))
            first.commit(dict.fromkeys(keys, 44))

        first = client.consumer("t", group="g", on_assigned=on_assigned, on_revoked=on_revoked)
        assert {record.offset for record in islice(first, 4)} <= set(range(30, 40))
        second = client.consumer("t", group="g")
        with second:
            until(lambda: [first.batch(1, 5), second.batch(1, 5)] and second.assignment)
            gone = second.assignment[0]
            assert (coordinator.committed("g")[gone[1]] or 0) >= 44
        first.close()
        assert {thread for _, _, thread in told} == {threading.current_thread()}
        assert [name for name, _, _ in told][:2] == ["+", "-"]
        assert told[0][1] == [0, 1]


def until(condition: Any, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "in vain"


def test_what_was_read_ahead_of_a_lost_partition_is_not_handed_out() -> None:
    with connected(1) as (cluster, coordinator, client):
        fill(cluster.logs["t"][0], 500, each=500)
        lost: list[Any] = []
        consumer = client.consumer("t", group="g", auto_commit=False, on_lost=lost.extend)
        assert [record.offset for record in islice(consumer, 10)] == list(range(10))
        coordinator.fence("g", consumer.member_id)
        until(lambda: consumer.member_id.endswith("-2"))
        assert next(consumer).offset == 0, "nothing was committed, so it begins again"
        assert lost == [("t", 0)]


def test_a_reading_application_that_blocks_stays_a_member() -> None:
    with connected(1) as (cluster, coordinator, client):
        fill(cluster.logs["t"][0], 500)
        consumer = client.consumer("t", group="g", session_timeout_ms=300)
        first = next(consumer)
        time.sleep(0.7)
        assert list(coordinator.group("g").members) == [consumer.member_id]
        assert next(consumer).offset == first.offset + 1


def test_an_exception_in_a_callback_comes_out_in_the_reading_thread() -> None:
    with connected(1) as (cluster, _, client):
        fill(cluster.logs["t"][0], 5)

        calls: list[Any] = []

        def fail_once(keys: list[tuple[str, int]]) -> None:
            calls.append(keys)
            if len(calls) == 1:
                raise ZeroDivisionError("the application's own fault")

        consumer = client.consumer("t", group="g", on_assigned=fail_once)
        with pytest.raises(ZeroDivisionError):
            next(consumer)
        assert next(consumer).offset == 0
        assert calls == [[("t", 0)]] * 2


def test_misuse_and_the_end() -> None:
    async def coroutine(_: list[tuple[str, int]]) -> None: ...

    with connected(1) as (_cluster, coordinator, client):
        with pytest.raises(TypeError, match="plain function"):
            client.consumer("t", group="g", on_lost=coroutine)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="must be a function"):
            client.consumer("t", group="g", on_lost=5)  # type: ignore[call-overload]
        with pytest.raises(InvalidRequest, match="no group"):
            client.consumer("t").commit()
        consumer = client.consumer("t", group="g")
        assert isinstance(consumer, SyncGroupConsumer)
        assert consumer.group == "g"
        assert consumer.batch(max_wait_ms=5) == []
        coordinator.fence("g", consumer.member_id)
        with pytest.raises(UnknownMember):
            consumer.commit({("t", 0): 0})
        assert client.describe_group("g").group.group == "g"
        client.alter_group_offsets("h", "t", "earliest")
        assert client.group_offsets("h") == {("t", 0): 0}
        assert [lag.records for lag in client.group_lag("h")] == [0]
        assert {info.group for info in client.groups()} == {"g", "h"}
        client.delete_group("h")
        assert len(client.add_partitions("t", 2).partitions) == 2
    for use in (consumer.batch, consumer.commit, consumer.committed, lambda: next(consumer), client.groups):
        with pytest.raises(ClientClosed):
            use()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("minilog_client")]
    assert asyncio.iscoroutinefunction(coroutine)


# --- the thread of an AsyncClient's heartbeats ----------------------------------------------------


def blocked(seconds: float, **options: Any) -> tuple[list[str], list[Any], FakeCoordinator]:
    """An application that reads, blocks its event loop, and reads on. Who was a member when, and
    what was lost."""
    members: list[str] = []
    lost: list[Any] = []

    async def main() -> FakeCoordinator:
        cluster = FakeCluster()
        fill(cluster.create("t")[0], 100)
        coordinator = FakeCoordinator(cluster, interval_ms=10)
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            client._heart = ThreadHeart(lambda: Cluster(cluster.bootstrap, cluster, ClientSettings(), Random(1)))
            async with client.consumer("t", group="g", on_lost=lost.extend, **options) as consumer:
                first = await anext(consumer)
                members.extend(coordinator.group("g").members)
                time.sleep(seconds)  # noqa: ASYNC251
                members.extend(coordinator.group("g").members)
                second = await anext(consumer)
                members.extend(coordinator.group("g").members)
                assert second.offset == (0 if lost else first.offset + 1)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("minilog_client")]
        assert coordinator.group("g").members == {}
        return coordinator

    return members, lost, asyncio.run(main())


def test_a_blocked_event_loop_keeps_its_group() -> None:
    members, lost, _ = blocked(0.7, session_timeout_ms=300)
    assert len(members) == 3
    assert len(set(members)) == 1
    assert lost == []


def test_a_blocked_event_loop_loses_its_group_after_max_poll_interval_and_comes_back() -> None:
    members, lost, _ = blocked(0.7, session_timeout_ms=300, max_poll_interval_ms=350, auto_commit=False)
    assert [member.rpartition("-")[2] for member in members] == ["1", "2"], (
        "nobody was a member at the end of the block"
    )
    assert lost == [("t", 0)]


@pytest.mark.filterwarnings("ignore:.*was not closed:ResourceWarning")
def test_an_event_loop_that_was_closed_leaves_the_group() -> None:
    cluster = FakeCluster()
    coordinator = FakeCoordinator(cluster, interval_ms=10)
    made: list[ThreadHeart] = []

    async def main() -> None:
        cluster.create("t")
        client = AsyncClient(cluster.bootstrap, transport=cluster)
        client._heart = ThreadHeart(lambda: Cluster(cluster.bootstrap, cluster, ClientSettings(), Random(1)))
        made.append(client._heart)
        await client.consumer("t", group="g").start()
        assert len(coordinator.group("g").members) == 1

    asyncio.run(main())
    until(lambda: not coordinator.group("g").members)
    asyncio.run(made[0].aclose())
    gc.collect()


def test_heartbeats_do_not_make_a_consumer_fetch_again() -> None:
    with connected(1) as (cluster, _coordinator, client):
        fill(cluster.logs["t"][0], 5000, each=100)
        with client.consumer("t", group="g") as consumer:
            for _ in islice(consumer, 200):
                time.sleep(0.002)
        asked = [message.partitions[0].offset for message in cluster.messages if isinstance(message, Fetch)]
        assert asked == sorted(asked)
