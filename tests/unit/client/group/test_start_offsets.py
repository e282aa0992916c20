"""Where a member begins with what it was given: asked for in the background. Time is virtual."""

from __future__ import annotations

import asyncio
from itertools import combinations
from typing import Any

import pytest

from minilog.wire.group_messages import GroupHeartbeatReply
from minilog_client import AsyncClient, MinilogError
from tests.unit.client.consumer.consumer_bench import fill, now
from tests.unit.client.fake_cluster import FakeCluster, Fault
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import scenario

TOPICS = ("t", "u", "v")
SOME = [set(some) for count in range(len(TOPICS)) for some in combinations(TOPICS, count)]


@pytest.mark.parametrize("gone", SOME, ids=lambda gone: "".join(sorted(gone)) or "none")
def test_what_lives_is_begun_whatever_of_its_assignment_is_deleted_meanwhile(gone: set[str]) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for topic in TOPICS:
            fill(cluster.logs.get(topic, [None])[0] or cluster.create(topic)[0], 20)

        def handle(broker: int, message: Any) -> Any:
            reply = coordinator.handle(broker, message)
            if isinstance(reply, GroupHeartbeatReply):  # the topics go right after the first assignment
                cluster.metadata_offset += 1
                for topic in gone & cluster.logs.keys():
                    del cluster.logs[topic]
            return reply

        cluster.groups = handle
        consumer = client.consumer(pattern="t|u|v", group="g")
        seen: list[str] = []
        end = now() + 30
        while now() < end and len(seen) < 20 * (len(TOPICS) - len(gone)):
            seen += [record.topic for record in await consumer.batch(max_wait_ms=1000)]
        assert {topic: seen.count(topic) for topic in TOPICS} == {topic: 20 * (topic not in gone) for topic in TOPICS}


def test_what_came_back_is_read_whatever_look_up_is_answered_last() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        consumer = client.consumer("t", group="g", max_wait_ms=100)
        seen = [(r.partition, r.offset) for r in await consumer.batch()]
        cluster.faults.append(Fault("committedoffsets", "hang"))  # a coordinator that stands still for a moment
        cluster.grow("t", 2)
        fill(cluster.logs["t"][1], 10)
        asked = cluster.count("committedoffsets")
        while cluster.count("committedoffsets") == asked:
            await consumer.batch(max_wait_ms=50)  # the first look-up for t-1 is under way, and not answered
        coordinator.fence("g", consumer.member_id)
        member = consumer.member_id
        while consumer.member_id == member or not consumer.member_epoch:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await consumer.batch(max_wait_ms=1)  # a new grant, a new look-up; the application works for a while
        await asyncio.sleep(5)
        end = now() + 60
        while now() < end and len({each for each in seen if each[0] == 1}) < 10:
            seen += [(r.partition, r.offset) for r in await consumer.batch(max_wait_ms=1000)]
        assert sorted({offset for partition, offset in seen if partition == 1}) == list(range(10))


def test_what_fails_of_a_look_up_is_told_until_that_very_part_is_found() -> None:
    """The success of another look-up clears it not."""

    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.create("u")[0], 1)
        consumer = client.consumer(pattern="t|u", group="g", unreachable_timeout_ms=2000)
        informed = cluster.metadata

        def metadata(topics: list[str] | None = None) -> Any:  # no broker that is asked knows of "u"
            reply = informed(topics)
            reply.topics = [info for info in reply.topics if info.topic != "u"]
            return reply

        cluster.metadata = metadata  # type: ignore[method-assign]
        with pytest.raises(MinilogError, match="topic u"):
            await consumer.batch(max_wait_ms=60_000)
        assert consumer.assignment == [("t", 0)]
        cluster.metadata = informed  # type: ignore[method-assign]
        assert [record.topic for record in await consumer.batch(max_wait_ms=5000)] == ["u"]


def test_layouts_of_an_assignment_are_asked_for_together() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for number in range(100):
            fill(cluster.create(f"many-{number}")[0], 1)
        before = cluster.count("metadata")
        consumer = client.consumer(group="g", pattern="many-.*")
        seen = 0
        while seen < 100:
            seen += len(await consumer.batch())
        assert cluster.count("metadata") - before < 20
