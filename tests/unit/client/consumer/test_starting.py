"""A start that was cut short, or that failed, is begun again or given back. Time is virtual."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from minilog_client import AsyncClient, BrokerUnavailable, MinilogError, UnknownTopic
from minilog_client.group.heartbeats import LoopHeart
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import FakeCluster, Fault
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import scenario

KINDS = [{}, {"group": "g"}]


@pytest.mark.parametrize("options", KINDS)
def test_a_start_that_fails_while_nobody_waits_for_it_is_begun_again(options: dict[str, Any]) -> None:
    """The reader's time limit is shorter than the time in which a topic may appear."""

    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        consumer = client.consumer("later", **options)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(consumer.batch(), 1)
        await asyncio.sleep(3)
        fill(cluster.create("later")[0], 5)
        assert len(await consumer.batch(max_wait_ms=5000)) == 5


@pytest.mark.parametrize("options", KINDS)
def test_such_a_failure_is_told(options: dict[str, Any]) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        consumer = client.consumer("misspelt", **options)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(consumer.batch(), 1)
        await asyncio.sleep(3)
        with pytest.raises(UnknownTopic):
            await consumer.batch()
        with pytest.raises(UnknownTopic):
            await anext(consumer)


def test_a_member_whose_block_was_never_entered_leaves() -> None:
    """Nobody has a consumer to close, so it must not hold partitions."""

    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 5)
        cluster.faults.append(Fault("groupheartbeat", BrokerUnavailable("the coordinator is away"), times=10**6))
        for _ in range(2):
            with pytest.raises(MinilogError):
                async with client.consumer("t", group="g"):
                    raise AssertionError("not entered")
        cluster.faults.clear()
        await asyncio.sleep(30)
        assert coordinator.group("g").members == {}
        async with client.consumer("t", group="g") as consumer:
            assert len(await consumer.batch(max_wait_ms=5000)) == 5


def test_nor_one_whose_entering_was_cut_short() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        async def slow(_: object) -> None:
            await asyncio.sleep(2)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), client.consumer("t", group="g", on_assigned=slow):
                raise AssertionError("not entered")
        await asyncio.sleep(30)
        assert coordinator.group("g").members == {}
        assert not client._owned


def test_a_heart_that_cannot_be_started_is_started_by_the_next_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread can be begun at a limit of processes."""

    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 5)
        start, failures = LoopHeart.start, [RuntimeError("can't start new thread")]

        def starts(heart: LoopHeart, session: Any) -> None:
            if failures:
                raise failures.pop()
            start(heart, session)

        monkeypatch.setattr(LoopHeart, "start", starts)
        consumer = client.consumer("t", group="g")
        with pytest.raises(RuntimeError):
            await consumer.batch()
        assert len(await consumer.batch(max_wait_ms=5000)) == 5
