"""Late copies of requests to a group change nothing."""

from __future__ import annotations

from typing import Any

import pytest

from minilog.core.groups.groups import Groups
from minilog.errors import (
    GroupChanged,
    StaleMemberEpoch,
)
from minilog.wire.group_messages import (
    CommitOffsets,
    CommittedOffsets,
    CommittedOffsetsReply,
    DeleteGroup,
    DescribeGroup,
    DescribeGroupReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    LeaveGroup,
    OffsetCommit,
    TopicPartitions,
)
from minilog.wire.journal.group_records import TopicShape
from tests.unit.core.groups.group_bench import SETTINGS, Bench, alone, leave, parts


@pytest.mark.parametrize("instance_id", ["one", "three", ""])
def test_an_away_member_that_joins_as_another_instance_is_one_member(instance_id: str) -> None:
    """Its own place is given up, whether it takes another one's or a new one."""
    bench = Bench()
    for member, instance in (("x", "one"), ("y", "two")):
        bench.beat(member, instance_id=instance)
    for member, instance in (("x", "one"), ("y", "two")):
        bench.join(member, instance_id=instance)
        bench.do(LeaveGroup("g", member))
    told = bench.beat("y", instance_id=instance_id)
    told = bench.beat("y", told.member_epoch, parts(told), instance_id=instance_id)
    members = bench.groups.groups["g"].group.members
    assert members["y"].instance_id == instance_id
    assert set(members) == ({"y"} if instance_id == "one" else {"x", "y"})
    assert len(parts(told)) == (4 if instance_id == "one" else 2)


def counted(offset: int, sequence: int, member: str = "a", epoch: int = 1) -> CommitOffsets:
    return CommitOffsets("g", [OffsetCommit("t", 0, offset)], member, epoch, sequence)


def offset_of(bench: Bench, partition: int = 0) -> int | None:
    reply = bench.do(CommittedOffsets("g", [TopicPartitions("t", [partition])]))
    assert isinstance(reply, CommittedOffsetsReply)
    return reply.offsets[0].offset


def epoch_of(bench: Bench) -> int:
    reply = bench.do(DescribeGroup("g"))
    assert isinstance(reply, DescribeGroupReply)
    return reply.group.group_epoch


@pytest.mark.parametrize("moves", ["stays", "fails over", "fails over, compacted"])
def test_a_late_copy_of_a_commit_takes_no_offset_back(moves: str) -> None:
    bench = Bench()
    bench.beat("a")
    for sequence, offset in enumerate((10, 20, 20, 15)):
        bench.do(counted(offset, sequence))
    if moves != "stays":
        bench.fail_over(compacted="compacted" in moves)
    for sequence, offset in enumerate((10, 20, 20)):
        with pytest.raises(GroupChanged, match="made commit 3 since"):
            bench.do(counted(offset, sequence))
    bench.do(counted(15, 3))  # the last one again, as a retry does
    assert offset_of(bench) == 15


def test_a_late_copy_that_is_of_two_partitions_is_refused_as_a_whole() -> None:
    bench = Bench()
    bench.beat("a")
    bench.do(counted(20, 2))
    late = CommitOffsets("g", [OffsetCommit("t", 1, 7), OffsetCommit("t", 0, 7)], "a", 1, 1)
    with pytest.raises(GroupChanged):
        bench.do(late)
    assert (offset_of(bench, 0), offset_of(bench, 1)) == (20, None)


def test_the_next_member_counts_its_own_commits() -> None:
    bench = Bench()
    bench.beat("a")
    bench.do(counted(20, 100))
    bench.do(leave("a", 1))
    reply = bench.beat("b")
    bench.do(counted(21, 1, "b", reply.member_epoch))
    assert offset_of(bench) == 21


@pytest.mark.parametrize("is_static", [False, True])
def test_a_late_copy_of_a_leave_removes_nobody_who_came_back(is_static: bool) -> None:
    bench = Bench()
    more: dict[str, Any] = {"instance_id": "i"} if is_static else {}
    first = bench.beat("a", **more)
    late = leave("a", first.member_epoch)
    bench.do(late)
    bench.do(late)
    again = bench.beat("a", **more)
    assert again.member_epoch > first.member_epoch
    assert parts(again) == {("t", p) for p in range(4)}
    bench.do(late)
    bench.beat("a", again.member_epoch, parts(again), **more)
    with pytest.raises(StaleMemberEpoch):
        bench.do(counted(5, 0, epoch=first.member_epoch))


def test_a_late_copy_of_a_join_changes_no_subscription() -> None:
    groups = Groups(SETTINGS, 1)
    groups.on_topics({"a": TopicShape("id-a", 1), "b": TopicShape("id-b", 1)})
    groups.begin(0, 0)

    def ask(request: GroupHeartbeat, now_ms: int) -> GroupHeartbeatReply:
        decision = groups.decide(request, now_ms)
        groups.applied(decision)
        assert isinstance(decision.reply, GroupHeartbeatReply)
        return decision.reply

    join = GroupHeartbeat("g", "m", 0, ["a"])
    told = ask(join, 0)
    told = ask(GroupHeartbeat("g", "m", told.member_epoch, ["a", "b"], owned=told.assignment), 100)
    assert {entry.topic for entry in told.assignment} == {"a", "b"}
    assert ask(join, 200).assignment == told.assignment
    after = ask(GroupHeartbeat("g", "m", told.member_epoch, ["a", "b"], owned=told.assignment), 300)
    assert (after.member_epoch, after.assignment) == (told.member_epoch, told.assignment)
    groups.begin(1000, 0)  # by the next coordinator neither
    assert ask(join, 1100).assignment == told.assignment


def test_a_late_copy_of_a_leave_is_not_of_the_group_that_was_made_anew() -> None:
    bench = Bench()
    for _ in range(3):
        last = bench.beat("a")
        late = leave("a", last.member_epoch)
        bench.do(late)
    bench.do(DeleteGroup("g"))
    joined = bench.beat("a")
    bench.do(late)
    bench.beat("a", joined.member_epoch, parts(joined))


@pytest.mark.parametrize("is_alone", [False, True])
def test_a_late_copy_of_a_deletion_deletes_no_group_that_was_made_anew(is_alone: bool) -> None:
    bench = Bench()
    epochs = []
    for _ in range(3):
        if is_alone:
            bench.do(alone(5))
        else:
            bench.do(leave("a", bench.beat("a").member_epoch))
        epochs.append(epoch_of(bench))
        for seen in epochs[:-1]:
            with pytest.raises(GroupChanged):
                bench.do(DeleteGroup("g", group_epoch=seen))
            with pytest.raises(GroupChanged):
                bench.do(DeleteGroup("g", [TopicPartitions("t", [0])], seen))
        bench.do(DeleteGroup("g", group_epoch=epochs[-1]))
    assert len(set(epochs)) == 3


def test_a_late_copy_of_a_deletion_of_offsets_leaves_what_was_committed_since() -> None:
    bench = Bench()
    bench.do(alone(5))
    late = DeleteGroup("g", [TopicPartitions("t", [0])], epoch_of(bench))
    bench.do(late)
    bench.do(alone(6))
    with pytest.raises(GroupChanged):
        bench.do(late)
    assert offset_of(bench) == 6


def test_a_late_copy_of_a_commit_of_nobodys_moves_nothing() -> None:
    bench = Bench()
    bench.do(alone(5, 0))
    with pytest.raises(GroupChanged):
        bench.do(alone(5, 0))
    late = alone(7, epoch_of(bench))
    bench.do(late)
    last = bench.beat("a")
    bench.do(counted(50, 0, epoch=last.member_epoch))
    bench.do(leave("a", last.member_epoch))
    with pytest.raises(GroupChanged, match="look at the group again"):
        bench.do(late)
    assert offset_of(bench) == 50
