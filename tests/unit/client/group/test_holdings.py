"""What consumers in groups commit, and when; time is virtual."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from minilog_client import (
    AsyncClient,
    StaleMemberEpoch,
    UnknownMember,
)
from tests.unit.client.consumer.test_consumer import fill, later
from tests.unit.client.fake_cluster import FakeCluster, Fault
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import read, scenario


def test_only_finished_records_are_committed_by_themselves() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        async with client.consumer("t", group="g") as consumer:
            await anext(consumer)
            await asyncio.sleep(3)
            assert coordinator.committed("g") == {}
            await anext(consumer)
            await asyncio.sleep(3)
            assert coordinator.committed("g") == {0: 1}
            await consumer.batch(max_records=10)
            await asyncio.sleep(3)
            assert coordinator.committed("g") == {0: 2}
            await consumer.commit()
            assert coordinator.committed("g") == {0: 12}
            await consumer.batch(max_records=3)
        assert coordinator.committed("g") == {0: 12}, "the last ones were never said to be finished"


def test_without_auto_commit_nothing_is_committed_by_itself() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        async with client.consumer("t", group="g", auto_commit=False) as consumer:
            records = await read(consumer, 20)
            await asyncio.sleep(3)
            assert coordinator.committed("g") == {}
            assert await consumer.committed() == {("t", 0): None}
            await consumer.commit(records[4], metadata="half")
            await consumer.batch(max_records=3)
        assert coordinator.committed("g") == {0: 5}
        found = coordinator.group("g").offsets["t", 0]
        assert (found.leader_epoch, found.metadata) == (0, "half")


def test_what_the_application_commits_is_not_contradicted_until_it_goes_on() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        async with client.consumer("t", group="g", on_revoked=lambda _: None) as consumer:
            await read(consumer, 10)
            await consumer.batch(max_records=1)
            for offset in (25, 3):
                await consumer.commit({("t", 0): offset})
                await asyncio.sleep(3)
                assert coordinator.committed("g") == {0: offset}, "10 records are finished, but it has said otherwise"
            await consumer.batch(max_records=1)
            await asyncio.sleep(3)
            assert coordinator.committed("g") == {0: 11}


def test_commit_takes_a_record_records_offsets_or_nothing() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)
        async with client.consumer("t", group="g", auto_commit=False) as consumer:
            records = await read(consumer, 40)
            await consumer.commit([r for r in records if r.offset < 7])
            assert coordinator.committed("g") == {0: 7, 1: 7}
            await consumer.commit({("t", 1): 3})
            assert await consumer.committed() == {("t", 0): 7, ("t", 1): 3}
            await consumer.commit()
            assert await consumer.committed([("t", 1), ("t", 0)]) == {("t", 0): 20, ("t", 1): 20}


def test_where_latest_was_is_committed_so_that_nobody_skips_what_comes_meanwhile() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        async with client.consumer("t", group="g", start="latest", auto_commit=False):
            assert coordinator.committed("g") == {0: 10}
        fill(cluster.logs["t"][0], 10)
        async with client.consumer("t", group="g", start="latest") as consumer:
            assert [record.offset for record in await read(consumer, 10)] == list(range(10, 20))


def test_a_commit_that_crosses_a_rebalance_is_repeated_with_the_new_epoch() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)
        async with client.consumer("t", group="g", auto_commit=False) as consumer:
            records = await read(consumer, 40)
            coordinator.group("g").epoch += 5
            coordinator.group("g").members[consumer.member_id].epoch += 5
            with pytest.raises(StaleMemberEpoch):
                await consumer.commit(records)
            cluster.grow("t", 3)
            epoch = consumer.member_epoch
            await consumer.batch(max_wait_ms=2000)
            assert consumer.member_epoch > epoch


def test_an_epoch_learnt_while_a_commit_is_under_way() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)
        async with client.consumer("t", group="g", auto_commit=False) as consumer:
            records = await read(consumer, 40)
            cluster.faults.append(Fault("commitoffsets", StaleMemberEpoch("the group has moved on")))
            later(0.002, cluster.grow, "t", 3)
            await consumer.commit(records)
            assert coordinator.committed("g") == {0: 20, 1: 20}


def test_a_zombie_is_told_so() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        lost: list[Any] = []
        async with client.consumer("t", group="g", auto_commit=False, on_lost=lost.extend) as consumer:
            records = await read(consumer, 20)
            await consumer.commit(records[9])
            coordinator.fence("g", consumer.member_id)
            with pytest.raises(UnknownMember):
                await consumer.commit(records[14])
            assert coordinator.committed("g") == {0: 10}
            again = await read(consumer, 5)
            assert lost == [("t", 0)]
            assert [record.offset for record in again] == list(range(10, 15))
            with pytest.raises(StaleMemberEpoch, match="belongs to that time"):
                await consumer.commit(records[19])
            await consumer.commit(again[-1])
            assert coordinator.committed("g") == {0: 15}
