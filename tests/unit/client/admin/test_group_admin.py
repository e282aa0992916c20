"""Looking after groups, against a small cluster; time is virtual."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from minilog.wire.group_messages import (
    CommitOffsets,
    CommitOffsetsReply,
    DeleteGroup,
    DeleteGroupReply,
    OffsetCommit,
)
from minilog.wire.messages import AddPartitions, Ok
from minilog_client import (
    AsyncClient,
    BrokerUnavailable,
    GroupChanged,
    GroupLag,
    GroupNotEmpty,
    InvalidGroup,
    InvalidRequest,
    MissingGroups,
    OffsetChange,
    TimedOut,
    UnknownGroup,
    UnknownPartition,
    UnknownTopic,
)
from tests.unit.client.consumer.consumer_bench import fill, now, write
from tests.unit.client.fake_cluster import FakeCluster, Fault
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import read, scenario


def test_groups_are_listed_described_and_deleted() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        async with client.consumer("t", group="g") as consumer:
            await consumer.commit(await read(consumer, 10))
            (info,) = await client.groups()
            assert (info.group, info.state, info.members) == ("g", "stable", 1)
            described = await client.describe_group("g")
            assert described.coordinator == 1
            assert [member.member_id for member in described.members] == [consumer.member_id]
            with pytest.raises(GroupNotEmpty):
                await client.delete_group("g")
        assert await client.group_offsets("g") == {("t", 0): 10}
        await client.delete_group("g", [("t", 0)])
        assert await client.group_offsets("g") == {}
        await client.delete_group("g")
        assert await client.groups() == []
        for use in (client.describe_group, client.delete_group, client.group_lag):
            with pytest.raises(UnknownGroup):
                await use("g")
            with pytest.raises(InvalidGroup):
                await use("no group")


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("earliest", 0), ("latest", 40), ("@2000", 10), (datetime.fromtimestamp(3, UTC), 20), (7, 7), ("=7", 7),
        ("+3", 18), ("-3", 12), ("+300", 40), ("-300", 0), ("=300", 40),
    ],
)  # fmt: skip
def test_a_group_goes_on_where_it_is_told_to(to: Any, expected: int) -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            for second in range(1, 5):
                write(log, *[b"x"] * 10, timestamp_ms=1000 * second)
        await client.alter_group_offsets("g", [("t", 0)], 15)
        before = await client.group_offsets("g")
        expected_change = [OffsetChange("t", 0, 15, expected)]
        assert await client.alter_group_offsets("g", [("t", 0)], to, dry_run=True) == expected_change
        assert await client.group_offsets("g") == before == {("t", 0): 15}
        assert await client.alter_group_offsets("g", [("t", 0)], to) == expected_change
        assert await client.group_offsets("g") == {("t", 0): expected}


def test_a_list_of_groups_says_what_is_missing_in_it() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        await client.alter_group_offsets("g", "t", "latest")
        assert (await client.groups()).missing == []
        coordinator.missing = [MissingGroups(3, "COORDINATOR_NOT_AVAILABLE", "no leader")]
        found = await client.groups()
        assert ([info.group for info in found], found.missing) == (["g"], coordinator.missing)


def test_a_move_whose_answer_was_lost_is_done_and_one_that_somebody_overtook_is_not() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 20)
        await client.alter_group_offsets("g", "t", 5)
        commit = coordinator._commit

        def unanswered(message: CommitOffsets) -> CommitOffsetsReply:
            coordinator._commit = commit  # type: ignore[method-assign]
            commit(message)
            raise BrokerUnavailable("the answer is lost", definite=False)

        def overtaken(message: CommitOffsets) -> CommitOffsetsReply:
            coordinator._commit = commit  # type: ignore[method-assign]
            commit(CommitOffsets("g", [OffsetCommit("t", 0, 1)]))
            return commit(message)

        coordinator._commit = unanswered  # type: ignore[method-assign]
        await client.alter_group_offsets("g", "t", 7)
        assert await client.group_offsets("g") == {("t", 0): 7}
        coordinator._commit = overtaken  # type: ignore[method-assign]
        with pytest.raises(GroupChanged):
            await client.alter_group_offsets("g", "t", 9)
        assert await client.group_offsets("g") == {("t", 0): 1}


def test_a_group_is_moved_in_the_partitions_there_are_now_and_in_no_topic_made_anew_meanwhile() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 20)
        await client.alter_group_offsets("g", "t", "latest")
        cluster.grow("t", 2)
        fill(cluster.logs["t"][1], 10)
        assert await client.offsets("t", 1) == (0, 10)
        cluster.grow("t", 3)
        await client.alter_group_offsets("g", "t", "latest")
        assert await client.group_offsets("g") == {("t", 0): 20, ("t", 1): 10, ("t", 2): 0}
        commit = coordinator._commit

        def late(message: CommitOffsets) -> CommitOffsetsReply:
            coordinator._commit = commit  # type: ignore[method-assign]
            cluster.create("t", 3)
            return commit(message)

        coordinator._commit = late  # type: ignore[method-assign]
        with pytest.raises(TimedOut, match="topic id"):
            await client.alter_group_offsets("g", "t", 7, timeout_ms=1000)
        assert await client.group_offsets("g") == {}


def test_whole_topics_and_misuse() -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 20)
        assert await client.alter_group_offsets("g", "t", "latest") == [
            OffsetChange("t", 0, None, 20), OffsetChange("t", 1, None, 0),
        ]  # fmt: skip
        fine = dict(coordinator.group("g").offsets)
        for topics, to, error, said in [
            ("nowhere", "latest", UnknownTopic, "nowhere"),
            ([("t", 2)], "latest", UnknownPartition, "no partition 2"),
            ("t", "tomorrow", InvalidRequest, "=42"),
            ("t", -5, InvalidRequest, "=42"),
            ("t", "+x", InvalidRequest, "=42"),
            ("t", "=" + "9" * 5000, InvalidRequest, "5001 characters"),
            ("t", "+" + "9" * 5000, InvalidRequest, "5001 characters"),
        ]:
            with pytest.raises(error, match=said):
                await client.alter_group_offsets("g", topics, to)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="needs a committed offset"):
            await client.alter_group_offsets("other", "t", "+1")
        async with client.consumer("t", group="g"):
            with pytest.raises(GroupNotEmpty):
                await client.alter_group_offsets("g", "t", "earliest")
        assert coordinator.group("g").offsets == fine


def test_lag_in_records_and_seconds() -> None:
    @scenario(3)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        hour_ago_ms = int(time.time() * 1000) - 3_600_000
        write(cluster.logs["t"][0], *[b"x"] * 10, timestamp_ms=hour_ago_ms)
        await client.alter_group_offsets("g", [("t", 0), ("t", 1)], "earliest")
        lags = await client.group_lag("g")
        assert lags[1] == GroupLag("t", 1, 0, 0, 0, 0.0, lost=0)
        assert (lags[0].offset, lags[0].end_offset, lags[0].records) == (0, 10, 10)
        assert lags[0].seconds == pytest.approx(3600, abs=60)
        async with client.consumer("t", group="g") as consumer:
            lags = await client.group_lag("g")
            assert {lag.member_id for lag in lags} == {consumer.member_id}
            assert lags[2] == GroupLag("t", 2, None, 0, None, None, consumer.member_id)


def test_lag_counts_what_can_be_read_and_says_apart_what_retention_took() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        for _ in range(3):
            write(log, *[b"x"] * 10)
        await client.alter_group_offsets("g", "t", "=5")
        log.start_offset = 20
        log.batches = log.batches[2:]
        (lag,) = await client.group_lag("g")
        assert (lag.offset, lag.end_offset, lag.records, lag.lost) == (5, 30, 10, 15)
        assert lag.seconds is not None, "of the first record that can be read"


def test_partitions_are_added() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        info = await client.add_partitions("t", 3)
        assert len(info.partitions) == 3
        for wrong in (0, -1, "3", True):
            with pytest.raises(InvalidRequest, match="how many partitions"):
                await client.add_partitions("t", wrong)  # type: ignore[arg-type]


# --- a request that was carried out, and whose answer was lost ------------------------------------


@pytest.mark.parametrize("partitions", [None, [("t", 0)]])
def test_a_deletion_whose_answer_was_lost_is_done(partitions: list[tuple[str, int]] | None) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        await client.alter_group_offsets("g", "t", "earliest")
        cluster.faults.append(Fault("deletegroup", "lose_answer"))
        await client.delete_group("g", partitions)
        assert cluster.count("deletegroup") == 2
        assert await client.group_offsets("g") == {}
        with pytest.raises(UnknownGroup) as raised:
            await client.delete_group("nobody")
        assert raised.value.definite


def test_a_deletion_whose_answer_was_lost_is_not_told_as_refused_when_the_group_was_made_anew() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        await client.alter_group_offsets("g", "t", "earliest")
        delete = coordinator._delete

        def overtaken(message: DeleteGroup) -> DeleteGroupReply:
            coordinator._delete = delete  # type: ignore[method-assign]
            delete(message)
            coordinator._commit(CommitOffsets("g", [OffsetCommit("t", 0, 7)]))
            coordinator.group("g").epoch = message.group_epoch + 7
            raise BrokerUnavailable("the answer is lost", definite=False)

        coordinator._delete = overtaken  # type: ignore[method-assign]
        with pytest.raises(GroupChanged, match="an earlier try") as raised:
            await client.delete_group("g")
        assert not raised.value.definite
        assert await client.group_offsets("g") == {("t", 0): 7}


def test_partitions_whose_answer_was_lost_are_added() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        cluster.faults.append(Fault("addpartitions", "lose_answer"))
        assert len((await client.add_partitions("t", 3)).partitions) == 3
        with pytest.raises(InvalidRequest, match="cannot have 2") as raised:
            await client.add_partitions("t", 2)
        assert raised.value.definite
        cluster.faults.append(Fault("addpartitions", "reset"))
        with pytest.raises(InvalidRequest, match="an earlier try") as raised:
            await client.add_partitions("t", 2)
        assert not raised.value.definite, "the first try might have been carried out before the topic had 3"


def test_partitions_are_added_to_the_topic_there_was_and_to_no_other_of_its_name() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        add = coordinator._add_partitions

        def late(message: AddPartitions) -> Ok:
            cluster.create("t")
            return add(message)

        coordinator._add_partitions = late  # type: ignore[method-assign]
        with pytest.raises(UnknownTopic, match="topic id"):
            await client.add_partitions("t", 3)
        assert len(cluster.logs["t"]) == 1


def test_nothing_hangs_with_all_brokers_down() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        cluster.refusing |= {1, 2, 3}
        for use in (
            client.groups(timeout_ms=1000),
            client.describe_group("g", timeout_ms=1000),
            client.delete_group("g", timeout_ms=1000),
            client.group_offsets("g", timeout_ms=1000),
            client.group_lag("g", timeout_ms=1000),
            client.add_partitions("t", 2, timeout_ms=1000),
            client.alter_group_offsets("g", "t", "latest", timeout_ms=1000),
        ):
            began = now()
            with pytest.raises((BrokerUnavailable, TimedOut)):
                await use
            assert now() - began < 2.5
