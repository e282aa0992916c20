"""What a member commits by itself: each partition for its own part, never too often, and never over
what the application has committed. Time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from minilog.errors import (
    GroupChanged,
    InconsistentTopicId,
    MinilogError,
    NotAssigned,
    OffsetOutOfRange,
    StaleMemberEpoch,
    UnknownTopic,
)
from minilog.wire.group_messages import CommitOffsets
from minilog_client import AsyncClient
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import FakeCluster, Fault
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import read, scenario

TOPICS = ("t", "u", "v", "w", "x")


@pytest.mark.parametrize("error", [UnknownTopic, InconsistentTopicId, NotAssigned, StaleMemberEpoch, GroupChanged])
@pytest.mark.parametrize("closes", [True, False])
def test_a_partition_that_is_refused_keeps_no_other_from_being_committed(
    error: type[MinilogError], closes: bool
) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for topic in TOPICS:
            fill(cluster.logs[topic][0] if topic in cluster.logs else cluster.create(topic)[0], 10)

        def handle(broker: int, message: Any) -> Any:
            if isinstance(message, CommitOffsets) and any(entry.topic == "v" for entry in message.offsets):
                raise error("nothing was committed")
            return coordinator.handle(broker, message)

        cluster.groups = handle
        consumer = client.consumer(TOPICS, group="g", auto_commit_interval_ms=60_000 if closes else 1000)
        await read(consumer, 50)
        await consumer.batch(max_wait_ms=10)  # all 50 are finished, and then the application is busy
        if closes:
            await consumer.close()
        else:
            await asyncio.sleep(10)
        committed = {topic: coordinator.committed("g", topic) for topic in TOPICS}
        assert committed == {topic: {} if topic == "v" else {0: 10} for topic in TOPICS}
        asked = sum(isinstance(message, CommitOffsets) for message in cluster.messages)
        assert asked < 30
        await consumer.close()


def test_a_commit_that_is_refused_is_repeated_less_and_less(caplog: pytest.LogCaptureFixture) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        cluster.faults.append(Fault("commitoffsets", UnknownTopic("there is no topic 'u'"), times=10**6))
        consumer = client.consumer("t", group="g", start="latest")
        await consumer.start()
        before = cluster.count("commitoffsets")
        await asyncio.sleep(60)  # the application is busy
        assert cluster.count("commitoffsets") - before < 90
        assert caplog.text.count("committing failed") == 1
        cluster.faults.clear()
        await asyncio.sleep(2)
        assert coordinator.committed("g") == {0: 0}
        await consumer.close()


def test_a_partition_begun_at_its_beginning_stays_so_when_it_moves() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        first = client.consumer("t", group="g", start="latest")
        await first.start()
        cluster.grow("t", 2)
        while first.assignment != [("t", 0), ("t", 1)]:
            await first.batch(max_wait_ms=500)
        await first.batch(max_wait_ms=1000)
        await first.close()
        for log in cluster.logs["t"]:
            fill(log, 10)
        second = client.consumer("t", group="g", start="latest")  # takes both partitions for old ones
        seen = await read(second, 20)
        assert {p: [r.offset for r in seen if r.partition == p] for p in (0, 1)} == {p: [*range(10)] for p in (0, 1)}
        await second.close()


@pytest.mark.parametrize("auto_commit", [True, False])
def test_where_reading_goes_on_after_a_reset_is_committed(auto_commit: bool) -> None:
    """Otherwise each member that starts would be reset anew, to what is the end by then."""

    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        (log,) = cluster.logs["t"]
        fill(log, 20)
        async with client.consumer("t", group="g") as consumer:
            await consumer.commit(await read(consumer, 5))
        log.start_offset, log.batches = 20, []  # retention
        options: dict[str, Any] = {"group": "g", "out_of_range": "latest", "auto_commit": auto_commit}
        async with client.consumer("t", **options) as consumer:
            assert await consumer.batch(max_wait_ms=3000) == []
        assert coordinator.committed("g") == {0: 20}
        fill(log, 10)
        async with client.consumer("t", **options) as consumer:
            records = await read(consumer, 10)
            await consumer.commit({("t", 0): 25})
            await consumer.batch(max_wait_ms=2000)
        assert [record.offset for record in records] == list(range(20, 30))
        assert coordinator.committed("g") == {0: 30 if auto_commit else 25}


def test_a_reset_takes_back_nothing_that_the_application_commits_after_it() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        (log,) = cluster.logs["t"]
        fill(log, 20)
        consumer = client.consumer("t", group="g", out_of_range="latest", auto_commit=False)
        await read(consumer, 5)
        cluster.faults.append(Fault("commitoffsets", UnknownTopic("refused"), times=10**6))
        log.start_offset, log.batches = 30, []
        consumer.seek("t", 0, 5)
        while consumer.position("t", 0) != 30:
            await consumer.batch(max_wait_ms=100)
        cluster.faults.clear()
        await consumer.commit({("t", 0): 28})
        await consumer.batch(max_wait_ms=5000)
        await consumer.close()
        assert coordinator.committed("g") == {0: 28}


def test_a_commit_is_not_undone_by_giving_back() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        fill(log, 20)
        cluster.faults.append(Fault("commitoffsets", "hang", times=1000))  # where reading began is not committed yet
        consumer = client.consumer("t", group="g", start="latest", auto_commit=False)
        await consumer.start()
        fill(log, 20)
        records = await read(consumer, 20)
        own = asyncio.create_task(
            consumer.commit(records, timeout_ms=60_000)
        )  # the application's, in a task of its own
        await asyncio.sleep(0.5)
        closing = asyncio.create_task(consumer.close(timeout_ms=30_000))  # gives everything back
        await asyncio.sleep(0.5)
        cluster.faults.clear()
        await asyncio.gather(own, closing)
        offsets = [entry.offset for commit in coordinator.group("g").commits for entry in commit.offsets]
        assert offsets[-1] == 40, offsets


@pytest.mark.parametrize("first", [0, 1])
def test_what_is_given_back_while_the_ends_are_asked_for_is_refused_like_any_other(first: int) -> None:
    """The leader of the first does not answer. Meanwhile another member is given one of both."""

    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        async with client.consumer("t", group="g") as consumer, asyncio.TaskGroup() as tasks:
            await consumer.batch(max_wait_ms=100)
            cluster.faults.append(Fault("offsets", "hang"))
            offsets = {("t", partition): 50 for partition in (first, 1 - first)}
            committing = tasks.create_task(raised(consumer.commit(offsets, timeout_ms=60_000)))
            await asyncio.sleep(0.1)
            async with client.consumer("t", group="g") as other:
                while len(consumer.assignment) == 2 or not other.assignment:
                    await consumer.batch(max_wait_ms=50)
                    await other.batch(max_wait_ms=50)
                assert isinstance(await committing, StaleMemberEpoch | NotAssigned | OffsetOutOfRange)
        assert coordinator.committed("g") == {}


async def raised(work: Awaitable[None]) -> Exception | None:
    try:
        await work
    except Exception as error:
        return error
    return None
