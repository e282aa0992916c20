"""What was read ahead for the application and not used goes back: that is no seek. Time is
virtual."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from minilog.errors import CoordinatorNotAvailable, CorruptRange, LogTruncated, UnknownTopic
from minilog.wire.batch import filler, split
from minilog.wire.group_messages import CommitOffsets, GroupHeartbeat
from minilog.wire.messages import Fetch
from minilog.wire.records import encode_values
from minilog_client import AsyncClient
from tests.unit.client.consumer.consumer_bench import fill, lose_tail, read, scenario, write
from tests.unit.client.fake_cluster import FakeCluster, Fault, Log
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import scenario as group_scenario


def skip(log: Log, count: int) -> None:
    """Offsets without records, as compaction leaves them."""
    stamped = log.append(split(encode_values([b"x"] * count, 1000), 2**31)[0])
    log.batches[-1] = filler(split(stamped.tobytes(), 2**31, stored=True)[0], stamped.base_offset)


def lose(cluster: FakeCluster, offset: int) -> None:
    log = cluster.logs["t"][0]
    lose_tail(cluster, log, offset)
    write(log, *[b"other"] * 20)
    cluster._wake()


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("group", [None, "g"])
def test_a_loss_of_used_records_is_told(group: str | None, knows: bool) -> None:
    @group_scenario()
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        options: dict[str, Any] = {} if group is None else {"group": group}
        async with client.consumer("t", **options) as consumer:
            records = await read(consumer, 30)
            lose(cluster, 20)
            if knows:
                await asyncio.sleep(1)
            consumer.return_unread(records[25:])
            if not knows:
                await asyncio.sleep(1)
            for _ in range(2):
                with pytest.raises(LogTruncated, match="from 20 up to 25") as caught:
                    await read(consumer, 1)
            assert (caught.value.info["lost_from"], caught.value.info["lost_to"]) == (20, 25)


@pytest.mark.parametrize("has_gap", [True, False])
@pytest.mark.parametrize("lost_before", [True, False])
def test_the_loss_is_found_out_from_where_the_unused_records_began(has_gap: bool, lost_before: bool) -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        fill(log, 20)
        cluster.move(log, 2)
        if has_gap:
            skip(log, 10)
        else:
            fill(log, 10)
        cluster.move(log, 1)
        fill(log, 10)
        async with client.consumer("t") as consumer:
            records = await read(consumer, 30 if has_gap else 40)
            if lost_before:  # of what was not used: no loss, and what was used is remembered all the same
                lose(cluster, 30)
                await asyncio.sleep(1)
            consumer.return_unread(record for record in records if record.offset >= 30)
            lose(cluster, 20)
            await asyncio.sleep(1)
            with pytest.raises(LogTruncated, match="from 20 up to 30"):
                await read(consumer, 1)


def test_a_loss_of_unused_records_is_none() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        fill(log, 20)
        fill(log, 10, each=5)
        async with client.consumer("t") as consumer:
            records = await read(consumer, 30)
            lose(cluster, 25)
            await asyncio.sleep(1)
            consumer.return_unread(records[25:])
            assert [(record.offset, record.value) for record in await read(consumer, 20)] == [
                (25 + number, b"other") for number in range(20)
            ]


def test_unused_records_come_before_damage_behind_them() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)
        async with client.consumer("t") as consumer:
            records = await read(consumer, 30)
            cluster.faults.append(Fault("fetch", CorruptRange("damaged from 30 on")))
            await asyncio.sleep(1)
            consumer.return_unread(records[25:])
            assert [record.offset for record in await read(consumer, 5)] == list(range(25, 30))


@pytest.mark.parametrize("count", [1, 7, 20])
def test_nothing_is_fetched_again_for_what_comes_back(count: int) -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 100)
        async with client.consumer("t", max_wait_ms=100) as consumer:
            seen: list[tuple[int, int]] = []
            for _ in range(40):
                records = await consumer.batch(25, max_wait_ms=50)
                used = records[: max(1, len(records) - count)]
                consumer.return_unread(records[len(used) :])
                seen += [(record.partition, record.offset) for record in used]
            while records := await consumer.batch(25, max_wait_ms=50):
                seen += [(record.partition, record.offset) for record in records]
            assert sorted(seen) == [(partition, offset) for partition in (0, 1) for offset in range(100)]
            assert consumer.positions() == {("t", 0): 100, ("t", 1): 100}
        for partition in (0, 1):
            asked = [
                entry.offset
                for message in cluster.messages
                if isinstance(message, Fetch)
                for entry in message.partitions
                if entry.partition == partition
            ]
            assert asked == sorted(asked)
            assert [offset for seen_of, offset in seen if seen_of == partition] == list(range(100)), "and in order"


@pytest.mark.parametrize("group", [None, "g"])
def test_reading_does_not_go_on_in_another_topic_of_the_name(group: str | None) -> None:
    @group_scenario()
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 30)

        def handle(broker: int, message: Any) -> Any:
            if isinstance(message, GroupHeartbeat):
                raise CoordinatorNotAvailable("elected just now")
            return coordinator.handle(broker, message)

        options: dict[str, Any] = {} if group is None else {"group": group}
        async with client.consumer("t", **options) as consumer:
            records = await read(consumer, 30)
            cluster.groups = handle  # so that the group does not take the partition away
            fill(cluster.create("t")[0], 40)
            cluster._wake()
            await asyncio.sleep(1)
            consumer.return_unread(records[25:])
            for _ in range(2):
                with pytest.raises(UnknownTopic):
                    await consumer.batch(max_wait_ms=5000)
            cluster.groups = coordinator.handle


@pytest.mark.parametrize("seeks", [False, True])
def test_where_reading_began_is_committed_whatever_was_returned_or_sought(seeks: bool) -> None:
    @group_scenario()
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        fill(log, 10)

        def handle(broker: int, message: Any) -> Any:
            if isinstance(message, CommitOffsets):
                raise CoordinatorNotAvailable("elected just now")
            return coordinator.handle(broker, message)

        cluster.groups = handle
        options: dict[str, Any] = {"auto_commit": False, "commit_timeout_ms": 200}
        async with client.consumer("t", group="g", start="latest", **options) as consumer:
            assert await consumer.batch(max_wait_ms=100) == []
            fill(log, 20)
            records = await read(consumer, 20)
            if seeks:
                consumer.seek("t", 0, "earliest")
                await read(consumer, 1)
            else:
                consumer.return_unread(records[15:])
            cluster.groups = coordinator.handle
            await asyncio.sleep(1)
            assert coordinator.committed("g") == {0: 10}
