"""A loop that is told to stop ends, commits what is finished, and leaves the group; and none ends by
itself because nobody can be reached."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from minilog.errors import CoordinatorNotAvailable
from minilog_client import AsyncClient, BrokerUnavailable, ClientClosed, SyncConsumer
from tests.unit.client.blocking.test_groups import connected
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import scenario


def test_stop_ends_the_loop_where_it_is_and_what_is_finished_is_committed() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 40, each=40)
        revoked: list[Any] = []
        consumer = client.consumer("t", group="g", auto_commit_interval_ms=60_000, on_revoked=revoked.append)
        seen = []
        async for record in consumer:
            seen.append(record.offset)
            if record.offset == 4:
                consumer.stop()
                assert not consumer.is_closed, "the record is being worked on"
        assert seen == [0, 1, 2, 3, 4]
        assert consumer.is_closed
        assert coordinator.committed("g") == {0: 5}
        assert coordinator.group("g").members == {}
        assert revoked == [[("t", 0), ("t", 1)]]
        assert [record async for record in consumer] == [], "an iterator that has ended stays so"
        with pytest.raises(ClientClosed):
            await consumer.batch()
        await consumer.close()


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.5, 3.0])
@pytest.mark.parametrize("how", ["next", "batch", "enter", "no group"])
def test_a_read_that_waits_ends_at_once(how: str, delay_s: float) -> None:
    """Also while nobody answers."""

    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        consumer = client.consumer("t") if how == "no group" else client.consumer("t", group="g")
        if delay_s == 0.5:
            cluster.chaos = lambda kind, broker: CoordinatorNotAvailable("away") if "group" in kind else None
        loop = asyncio.get_running_loop()
        loop.call_later(delay_s, consumer.stop)
        before_s = loop.time()
        if how == "enter":
            async with consumer:
                assert [record async for record in consumer] == []
        elif how == "batch":
            while not consumer.is_closed:
                assert await consumer.batch(max_wait_ms=100_000) == []
        else:
            assert [record async for record in consumer] == []
        assert loop.time() - before_s < delay_s + (5.5 if delay_s == 0.5 else 0.2), (
            "at most the time that leaving may take"
        )
        assert coordinator.group("g").members == {}


def test_a_batch_is_finished_by_the_read_that_ends() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 40, each=40)
        consumer = client.consumer("t", group="g", auto_commit_interval_ms=60_000)
        count = 0
        while not consumer.is_closed:
            records = await consumer.batch(10)
            count += len(records)
            consumer.stop()
        assert count == 10
        assert coordinator.committed("g") == {0: 10}


def test_a_consumer_that_is_stopped_before_it_begins_joins_nothing() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 40)
        consumer = client.consumer("t", group="g")
        consumer.stop()
        assert [record async for record in consumer] == []
        assert "g" not in coordinator.groups


def test_what_a_callback_raises_at_the_end_is_said_and_the_group_left() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 40, each=40)

        def revoked(_: object) -> None:
            raise ValueError("the application's own")

        consumer = client.consumer("t", group="g", on_revoked=revoked)
        for _ in range(5):
            await anext(consumer)
        consumer.stop()
        with pytest.raises(ValueError, match="own"):
            await anext(consumer)
        assert [record async for record in consumer] == []
        assert coordinator.committed("g") == {0: 5}
        assert coordinator.group("g").members == {}


# --- the synchronous face -------------------------------------------------------------------------


def by_signal(consumer: SyncConsumer) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


def by_thread(consumer: SyncConsumer) -> None:
    stopping = threading.Thread(target=consumer.stop)
    stopping.start()
    stopping.join()


@pytest.mark.parametrize("stop", [by_signal, by_thread, SyncConsumer.stop])
def test_a_synchronous_loop_ends_by_a_signal_handler_or_another_thread(stop: Callable[[SyncConsumer], None]) -> None:
    with connected(2) as (cluster, coordinator, client):
        fill(cluster.logs["t"][0], 40, each=40)
        consumer = client.consumer("t", group="g", auto_commit_interval_ms=60_000)
        before = signal.signal(signal.SIGUSR1, lambda *_: consumer.stop())
        try:
            seen = []
            for record in consumer:
                seen.append(record.offset)
                if record.offset == 4:
                    stop(consumer)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert seen == [0, 1, 2, 3, 4], "what was read ahead is not handed out any more"
        assert coordinator.committed("g") == {0: 5}
        assert coordinator.group("g").members == {}
        assert list(consumer) == []
        with pytest.raises(ClientClosed):
            consumer.batch()


@pytest.mark.parametrize("delay_s", [0.0, 0.003, 0.05, 0.3])
@pytest.mark.parametrize("in_batch", [False, True])
def test_a_synchronous_read_that_waits_ends_at_once(in_batch: bool, delay_s: float) -> None:
    with connected(1) as (_, coordinator, client), client.consumer("t", group="g") as consumer:
        before = signal.signal(signal.SIGALRM, lambda *_: consumer.stop())
        signal.setitimer(signal.ITIMER_REAL, delay_s or 1e-6)
        try:
            if in_batch:
                while not consumer.is_closed:
                    assert consumer.batch(max_wait_ms=60_000) == []
            else:
                assert list(consumer) == []
        finally:
            signal.signal(signal.SIGALRM, before)
        assert coordinator.group("g").members == {}


# --- a coordinator that is away -------------------------------------------------------------------


@pytest.mark.parametrize("away", ["coordinator", "cluster"])
def test_a_member_outlives_minutes_in_which_nobody_can_be_reached(away: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "minilog_client")

    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        told: list[Any] = []
        consumer = client.consumer("t", group="g", on_lost=told.append)
        for _ in range(30):
            await anext(consumer)
        await consumer.commit()
        if away == "coordinator":
            cluster.chaos = lambda kind, broker: CoordinatorNotAvailable("loading") if "group" in kind else None
        else:
            cluster.chaos = lambda kind, broker: BrokerUnavailable("no connection: refused", definite=True)
        reading = asyncio.ensure_future(anext(consumer))
        await asyncio.sleep(600)
        assert not reading.done()
        cluster.chaos = lambda kind, broker: None
        fill(cluster.logs["t"][0], 10)
        assert (await asyncio.wait_for(reading, 30)).offset == 30
        consumer.stop()
        with suppress(StopAsyncIteration):
            await anext(consumer)
        assert coordinator.committed("g") == {0: 31}

    said = [record.getMessage() for record in caplog.records if "reached for" in record.getMessage()]
    assert 5 <= len(said) <= 20, said
