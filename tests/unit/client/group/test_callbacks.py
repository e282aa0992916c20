"""What an application is told of its partitions is told to the end. Time is virtual."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from minilog_client import AsyncClient, InvalidRequest, MinilogError
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import read, scenario

Keys = list[tuple[str, int]]


def test_on_assigned_ends_before_the_first_record_also_after_a_time_limit() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 20)
        ended: list[Keys] = []

        async def assigned(keys: Keys) -> None:
            await asyncio.sleep(0.3)  # asks a database where to go on
            for key in keys:
                consumer.seek(*key, 15)
            ended.append(keys)

        consumer = client.consumer("t", group="g", on_assigned=assigned)
        records: list[Any] = []
        for _ in range(20):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    records = await consumer.batch()
            if records:
                break
        assert records[0].offset == 15
        assert ended == [[("t", 0)]]


def test_on_assigned_is_called_again_after_an_error_and_before_the_first_record() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 20)
        calls: list[Keys] = []

        def assigned(keys: Keys) -> None:
            calls.append(keys)
            if len(calls) < 3:
                raise OSError("the database is away")
            for key in keys:
                consumer.seek(*key, 15)

        consumer = client.consumer("t", group="g", on_assigned=assigned)
        for _ in range(2):
            with pytest.raises(OSError, match="away"):
                await consumer.batch(max_wait_ms=1000)
        assert (await consumer.batch(max_wait_ms=1000))[0].offset == 15
        assert calls == [[("t", 0), ("t", 1)]] * 3


def test_on_lost_is_called_again_after_an_error() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 20)
        told: list[str] = []

        def lost(keys: Keys) -> None:
            told.append("lost")
            if told.count("lost") < 2:
                raise OSError("the database is away")

        consumer = client.consumer("t", group="g", on_lost=lost, on_assigned=lambda keys: told.append("assigned"))
        await read(consumer, 20)
        coordinator.fence("g", consumer.member_id)
        with pytest.raises(OSError, match="away"):
            await consumer.batch(max_wait_ms=5000)
        await read(consumer, 1)
        assert told == ["assigned", "lost", "lost", "assigned"]


def test_a_partition_is_given_away_only_after_on_revoked_has_ended() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        ended: list[Keys] = []

        async def revoked(keys: Keys) -> None:
            await asyncio.sleep(0.3)  # writes out what it has gathered
            ended.append(keys)

        first = client.consumer("t", group="g", on_revoked=revoked)
        await first.start()
        second = client.consumer("t", group="g")
        await second.start()
        for _ in range(100):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await first.batch()
            await second.batch(max_wait_ms=100)
            if second.assignment:
                break
        assert ended == [second.assignment]


def test_closing_waits_for_what_is_being_given_back_and_tells_nothing_twice() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        revoked: Keys = []
        under_way = asyncio.Event()

        async def on_revoked(keys: Keys) -> None:
            revoked.extend(keys)
            under_way.set()
            await asyncio.sleep(0.5)

        first = client.consumer("t", group="g", on_revoked=on_revoked)
        await first.start()

        async def read_on() -> None:
            with contextlib.suppress(MinilogError):
                while True:
                    await first.batch()

        task = asyncio.create_task(read_on())
        second = client.consumer("t", group="g")
        await second.start()
        await under_way.wait()
        await asyncio.sleep(0.2)
        await first.close()
        await task
        await second.close()
        assert sorted(revoked) == [("t", 0), ("t", 1)]


def test_a_callback_may_close_its_consumer_and_not_read_it() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 20)
        began = asyncio.get_running_loop().time()
        told: list[str] = []

        async def assigned(_: Keys) -> None:
            with pytest.raises(InvalidRequest, match="not from a callback"):
                await asyncio.create_task(consumer.batch())
            told.append("assigned")
            await consumer.close()

        consumer = client.consumer("t", group="g", on_assigned=assigned, on_revoked=lambda keys: told.append("revoked"))
        with pytest.raises(MinilogError, match="closed"):
            await consumer.batch()
        assert told == ["assigned", "revoked"]
        assert asyncio.get_running_loop().time() - began < 2
        assert coordinator.group("g").members == {}


def test_closing_ends_in_its_time_whatever_a_callback_does() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        async def hangs(_: Keys) -> None:
            await asyncio.sleep(10_000)

        consumer = client.consumer("t", group="g", on_assigned=hangs)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await consumer.batch()
        began = asyncio.get_running_loop().time()
        await consumer.close(timeout_ms=2000)
        assert asyncio.get_running_loop().time() - began < 2.5


@pytest.mark.parametrize("reads", [True, False])
def test_a_time_limit_in_a_callback_is_the_callbacks(reads: bool) -> None:
    """What ``on_revoked`` or ``on_assigned`` raises comes out, though it is a TimeoutError."""

    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        async def fails(_: Keys) -> None:
            raise TimeoutError("the database did not answer")

        options: dict[str, Any] = {"on_assigned" if reads else "on_revoked": fails}
        consumer = client.consumer("t", group="g", **options)
        with pytest.raises(TimeoutError, match="database"):
            await (consumer.batch() if reads else _started_and_closed(consumer))


async def _started_and_closed(consumer: Any) -> None:
    await consumer.start()
    await consumer.close()


async def cut(_: object) -> None:
    """Waits for something that somebody cancels, such as a task of a pool that was closed."""
    waits = asyncio.get_running_loop().create_future()
    waits.cancel()
    await waits


def test_a_cancelled_error_of_its_own_is_an_error_like_any_other() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 20)
        calls: list[str] = []

        async def assigned(keys: Keys) -> None:
            calls.append("assigned")
            if calls == ["assigned"]:
                await cut(keys)
            consumer.seek(*keys[0], 15)

        consumer = client.consumer("t", group="g", on_assigned=assigned)
        with pytest.raises(InvalidRequest, match="on_assigned ended with a CancelledError"):
            await consumer.batch()
        assert (await consumer.batch())[0].offset == 15, "it was called again before the first record"


def test_nor_does_it_hold_back_what_is_to_be_given_to_another_member() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)
        consumer, other = client.consumer("t", group="g", on_revoked=cut), client.consumer("t", group="g")
        await read(consumer, 40)
        for _ in range(10):
            with contextlib.suppress(InvalidRequest):
                await consumer.batch(max_wait_ms=1000)
            await other.batch(max_wait_ms=1000)
        assert len(other.assignment) == 1
        with contextlib.suppress(InvalidRequest):
            await consumer.close()


def test_a_callback_may_not_start_the_consumer_that_waits_for_it() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 20)

        async def assigned(_: Keys) -> None:
            with pytest.raises(InvalidRequest, match="not from a callback"):
                await consumer.start()

        consumer = client.consumer("t", group="g", on_assigned=assigned)
        assert await asyncio.wait_for(consumer.batch(), 10)
