"""A group goes on over what compaction took: what is committed, the position and the lag follow."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from minilog_client import AsyncClient
from tests.unit.client.blocking.test_groups import connected
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.consumer.test_return_unread import skip
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import read, scenario


async def wait_for_more(consumer: object, seconds: float = 3.0) -> None:
    """The application asks for the next record, and there is none."""
    with suppress(TimeoutError):
        await asyncio.wait_for(anext(consumer), seconds)  # type: ignore[call-overload]


@pytest.mark.parametrize("in_batch", [True, False])
def test_the_committed_offset_follows_where_no_records_are_left(in_batch: bool) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        async with client.consumer("t", group="g") as consumer:
            await read(consumer, 10)
            skip(cluster.logs["t"][0], 30)
            cluster._wake()
            if in_batch:
                assert await consumer.batch(max_wait_ms=3000) == []
            else:
                await wait_for_more(consumer)
            assert consumer.position("t", 0) == 40
            assert consumer.lag()["t", 0].records == 0
            assert coordinator.committed("g") == {0: 40}
            (lag,) = await client.group_lag("g")
            assert (lag.records, lag.lost) == (0, 0)


def test_it_does_not_pass_a_record_that_is_worked_on() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        skip(cluster.logs["t"][0], 30)
        consumer = client.consumer("t", group="g")
        for _ in range(10):
            await anext(consumer)
        await asyncio.sleep(5)
        assert coordinator.committed("g") == {0: 9}
        fill(cluster.logs["t"][0], 1)
        assert (await anext(consumer)).offset == 40
        await asyncio.sleep(5)
        assert coordinator.committed("g")[0] in (10, 40), "all before the record that is worked on"


def test_nor_does_a_seek_commit_anything() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        consumer = client.consumer("t", group="g")
        await read(consumer, 5)
        await consumer.commit()
        consumer.seek("t", 0, "latest")
        await wait_for_more(consumer)
        assert coordinator.committed("g") == {0: 5}


def test_a_group_that_has_committed_before_what_was_compacted_follows_too() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        await client.alter_group_offsets("g", "t", "=10")
        skip(cluster.logs["t"][0], 30)
        consumer = client.consumer("t", group="g")
        await wait_for_more(consumer)
        assert coordinator.committed("g") == {0: 40}


def test_at_the_synchronous_face_it_follows_when_the_application_waits() -> None:
    with connected(1) as (cluster, coordinator, client):
        fill(cluster.logs["t"][0], 10)
        skip(cluster.logs["t"][0], 30)
        consumer = client.consumer("t", group="g", auto_commit_interval_ms=10)
        for _ in range(9):
            next(consumer)
        time.sleep(0.1)
        assert coordinator.committed("g") == {0: 8}
        next(consumer)
        assert consumer.batch(max_wait_ms=200) == []
        assert coordinator.committed("g") == {0: 40}
