"""What a client tells of itself: one observer, the log and the figures say the same."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, TypeVar

import pytest

from minilog.errors import BrokerUnavailable, NotEnoughReplicas, Overloaded
from minilog_client import AsyncClient, Client, ClientEvent, Lag, MinilogError
from minilog_client.observing.event_log import AGAIN_S, EventLog
from minilog_client.observing.events import (
    Assigned,
    Closed,
    CommitFailed,
    Committed,
    Connected,
    Delivered,
    GivenUp,
    Joined,
    LeaderMoved,
    Received,
    Retried,
    Revoked,
)
from tests.unit.client.consumer.consumer_bench import fill, read
from tests.unit.client.fake_cluster import FakeCluster, Fault
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.virtual_time import run

T = TypeVar("T")


class Told:
    def __init__(self) -> None:
        self.events: list[ClientEvent] = []

    def on_event(self, event: ClientEvent) -> None:
        self.events.append(event)

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]


def cluster_of(partitions: int = 1) -> FakeCluster:
    cluster = FakeCluster()
    cluster.create("t", partitions)
    return cluster


def test_a_producer_tells_of_batches_retries_and_what_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "minilog_client")

    async def main() -> None:
        cluster, told = cluster_of(), Told()
        cluster.faults.append(Fault("produce", Overloaded("full"), times=3))
        async with AsyncClient(cluster.bootstrap, transport=cluster, observer=told) as client:
            producer = client.producer(linger_ms=5)
            await producer.send_many("t", [b"x" * 100] * 10)
            assert [(each.topic, each.partition, each.error.code) for each in told.of(Retried)] == [
                ("t", 0, "OVERLOADED")
            ] * 3
            (delivered,) = told.of(Delivered)
            assert (delivered.topic, delivered.partition, delivered.record_count, delivered.base_offset) == (
                "t",
                0,
                10,
                0,
            )
            assert 1000 < delivered.bytes_total < 1300
            assert 5 <= delivered.queued_ms <= delivered.took_ms
            cluster.faults.append(Fault("produce", NotEnoughReplicas("one"), times=10**6))
            with pytest.raises(MinilogError):
                await client.producer(delivery_timeout_ms=200).send("t", b"y")
            (given_up,) = told.of(GivenUp)
            assert (given_up.topic, given_up.record_count) == ("t", 1)
            figures = client.figures().producers
            assert (figures.records, figures.batches, figures.failed_records, figures.queue_bytes) == (10, 1, 1, 0)
            assert figures.bytes == delivered.bytes_total
            assert figures.queued_ms == figures.queued_max_ms == delivered.queued_ms
            assert figures.errors["OVERLOADED"] == 3
            assert figures.retries == len(told.of(Retried))
        assert [each.what.partition("(")[0] for each in told.of(Closed)] == ["Producer", "Producer", "AsyncClient"]

    run(main())
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("connected to cluster ")
    assert [line for line in lines if "OVERLOADED" in line] == [
        "t-0: produce failed and is tried again: OVERLOADED: full"
    ]
    assert lines[-1].startswith("closed AsyncClient(")


def test_a_consumer_tells_of_what_it_fetches_and_a_leader_that_moves() -> None:
    async def main() -> None:
        cluster, told = cluster_of(2), Told()
        for log in cluster.logs["t"]:
            fill(log, 30)
        async with AsyncClient(cluster.bootstrap, transport=cluster, observer=told) as client:
            assert not told.events, "nothing is connected before it is needed"
            async with client.consumer("t") as consumer:
                await read(consumer, 60)
                figures = client.figures().consumers
                assert (figures.records, figures.batches, figures.lag) == (60, 6, {("t", 0): 0, ("t", 1): 0})
                assert sum(each.record_count for each in told.of(Received)) == 60
                assert sum(each.bytes_total for each in told.of(Received)) == figures.bytes
                assert {each.lag_records for each in told.of(Received)} == {0}
                cluster.move(cluster.logs["t"][0], 2)
                fill(cluster.logs["t"][0], 10)
                await read(consumer, 10)
            moved = {(each.topic, each.partition, each.broker_id) for each in told.of(LeaderMoved)}
            assert moved == {("t", 0, 2)}
            assert {each.what for each in told.of(Retried)} == {"fetch"}
            assert client.figures().consumers.lag == {}
        assert len(told.of(Connected)) == 1

    run(main())


def test_a_member_tells_of_its_group() -> None:
    async def main() -> None:
        cluster, told = cluster_of(2), Told()
        coordinator = FakeCoordinator(cluster)
        fill(cluster.logs["t"][0], 30)
        async with AsyncClient(cluster.bootstrap, transport=cluster, observer=told) as client:
            client._use_own_loop_for_heartbeats()
            consumer = client.consumer("t", group="g", auto_commit=False)
            await consumer.start()
            await read(consumer, 30)
            await consumer.commit()
            assert [(each.group, sorted(each.partitions)) for each in told.of(Assigned)] == [
                ("g", [("t", 0), ("t", 1)])
            ]
            assert told.of(Committed)[-1] == Committed("g", {("t", 0): 30})
            coordinator.fence("g", consumer.member_id)
            await asyncio.sleep(5)
            with pytest.raises(MinilogError):
                await consumer.commit({("t", 0): 3})
            assert told.of(CommitFailed)
            await consumer.batch(max_wait_ms=5000)
            assert {(each.is_lost, tuple(sorted(each.partitions))) for each in told.of(Revoked)} == {
                (True, (("t", 0), ("t", 1)))
            }
            await consumer.close()
            assert told.of(Revoked)[-1].is_lost is False
            figures = client.figures().consumers
            assert (
                figures.rebalances
                == len(told.of(Joined))
                == len({(each.member_id, each.member_epoch) for each in told.of(Joined)})
                >= 2
            )
            assert (figures.commits, figures.commit_failures) == (len(told.of(Committed)), len(told.of(CommitFailed)))

    run(main())


def test_an_observer_that_raises_changes_nothing_and_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    class Bad:
        def on_event(self, event: ClientEvent) -> None:
            raise ValueError("the application's own")

    async def main() -> None:
        cluster = cluster_of()
        async with AsyncClient(cluster.bootstrap, transport=cluster, observer=Bad()) as client:
            for _ in range(3):
                await client.producer().send("t", b"x")
            assert client.figures().producers.records == 3

    run(main())
    assert len([record for record in caplog.records if "observer" in record.getMessage()]) == 1


def test_figures_of_the_synchronous_client_are_there_after_its_end() -> None:
    cluster, told = cluster_of(), Told()
    with Client(cluster.bootstrap, transport=cluster, observer=told) as client:
        client.producer().send("t", b"x").result()
        with client.consumer("t") as consumer:
            assert len(consumer.batch()) == 1
            assert client.figures().consumers.lag == {("t", 0): 0}
            assert consumer.lag()["t", 0] == Lag(0, 0.0)
    figures = client.figures()
    assert (figures.producers.records, figures.consumers.records, figures.consumers.lag) == (1, 1, {})


def test_a_cause_is_told_once_and_again_after_a_while_with_a_count(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG, "minilog_client")
    now = [100.0]
    monkeypatch.setattr("minilog_client.observing.event_log.time.monotonic", lambda: now[0])
    log = EventLog(logging.getLogger("minilog_client"))
    events: list[Any] = [Retried("fetch", "t", number % 2, BrokerUnavailable("away")) for number in range(7)]
    for event in events:
        log.on_event(event)
    log.on_event(Retried("fetch", "u", 0, BrokerUnavailable("away")))
    now[0] += AGAIN_S
    log.on_event(events[0])
    log.on_event(LeaderMoved("t", 0, None, 4))
    log.on_event(CommitFailed("g", BrokerUnavailable("away")))
    log.on_event(Committed("g", {("t", 0): 4, ("t", 1): 5}))
    log.on_event(Revoked("g", [("t", number) for number in range(12)], is_lost=True))
    assert [record.getMessage() for record in caplog.records] == [
        "t-0: fetch failed and is tried again: BROKER_UNAVAILABLE: away",
        "u-0: fetch failed and is tried again: BROKER_UNAVAILABLE: away",
        "t-0: fetch failed and is tried again: BROKER_UNAVAILABLE: away (6 times more since this was told)",
        "t-0 has no leader (epoch 4)",
        "group g: commit failed: away",
        "group g: committed t-0 at 4, t-1 at 5",
        "group g: lost " + ", ".join(f"t-{number}" for number in range(10)) + " and 2 more",
    ]
