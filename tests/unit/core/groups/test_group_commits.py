"""What a group commits: whole, by its owner, and of one topic."""

from __future__ import annotations

import pytest

from minilog.errors import (
    GroupNotEmpty,
    InvalidRequest,
    NotAssigned,
    StaleMemberEpoch,
    UnknownMember,
    UnknownPartition,
    UnknownTopic,
)
from minilog.wire.group_messages import (
    CommitOffsets,
    CommittedOffsets,
    CommittedOffsetsReply,
    DeleteGroup,
    LeaveGroup,
    OffsetCommit,
    TopicPartitions,
)
from tests.unit.core.groups.group_bench import Bench, parts


def test_a_commit_is_all_or_nothing() -> None:
    bench = Bench()
    told = bench.join("a", "b")
    mine, other = min(parts(told["a"]))[1], min(parts(told["b"]))[1]
    epoch = told["a"].member_epoch
    bench.commit("a", epoch, (mine, 5))
    with pytest.raises(NotAssigned):
        bench.commit("a", epoch, (mine, 9), (other, 9))
    with pytest.raises(StaleMemberEpoch):
        bench.commit("a", epoch + 1, (mine, 9))
    with pytest.raises(UnknownMember):
        bench.commit("c", epoch, (mine, 9))
    with pytest.raises(GroupNotEmpty):
        bench.commit("", -1, (mine, 9))
    assert bench.committed() == {mine: 5}


def test_a_commit_of_the_epoch_before_counts_for_what_was_held_then() -> None:
    """It may be on its way while a heartbeat tells of the next epoch."""
    bench = Bench()
    a = bench.beat("a")
    bench.beat("b")
    bench.beat("a", 1, parts(a))
    bench.commit("a", 1, (0, 5), (3, 5))
    assert bench.committed() == {0: 5, 3: 5}


def test_a_commit_is_fenced_by_the_epoch_in_which_the_partition_was_given() -> None:
    bench = Bench()
    told = bench.join("a", "b")
    bench.do(LeaveGroup("g", "b"))
    new = bench.beat("a", told["a"].member_epoch, parts(told["a"]))
    late = min(parts(new) - parts(told["a"]))[1]
    with pytest.raises(StaleMemberEpoch, match="given to 'a' at epoch"):
        bench.commit("a", told["a"].member_epoch, (late, 1))
    bench.commit("a", new.member_epoch, (late, 1))


def test_what_a_commit_may_hold() -> None:
    bench = Bench()
    for offset, error in [
        (OffsetCommit("t", 0, -1), InvalidRequest),
        (OffsetCommit("t", 0, 1, leader_epoch=-2), InvalidRequest),
        (OffsetCommit("t", 0, 1, metadata="x" * 4097), InvalidRequest),
        (OffsetCommit("t", 4, 1), UnknownPartition),
        (OffsetCommit("nothing", 0, 1), UnknownTopic),
    ]:
        with pytest.raises(error):
            bench.do(CommitOffsets("g", [offset]))
    bench.commit("", -1, (1, 7))
    assert bench.committed() == {1: 7}
    reply = bench.do(CommittedOffsets("g", [TopicPartitions("t", [0, 1])]))
    assert isinstance(reply, CommittedOffsetsReply)
    assert [o.offset for o in reply.offsets] == [None, 7]


def test_what_is_committed_says_of_which_topic() -> None:
    bench = Bench()
    bench.commit("", -1, (0, 5))
    reply = bench.do(CommittedOffsets("g", [TopicPartitions("t", [0, 1])]))
    assert isinstance(reply, CommittedOffsetsReply)
    assert [(o.offset, o.topic_id) for o in reply.offsets] == [(5, "t-id"), (None, "")]


@pytest.mark.parametrize(("topic_id", "left"), [("", {1: 6}), ("t-id", {1: 6}), ("another-id", {0: 5, 1: 6})])
def test_deleting_the_offsets_of_a_topic_leaves_those_of_another_of_that_name(
    topic_id: str, left: dict[int, int | None]
) -> None:
    bench = Bench()
    bench.commit("", -1, (0, 5), (1, 6))
    bench.do(DeleteGroup("g", [TopicPartitions("t", [0], topic_id)]))
    assert bench.committed() == left


@pytest.mark.parametrize("topic_id", ["", "t-id", "another-id"])
def test_the_offsets_of_what_a_member_holds_are_not_deleted(topic_id: str) -> None:
    bench = Bench()
    bench.beat("a")
    bench.commit("a", 1, (0, 5))
    with pytest.raises(GroupNotEmpty):
        bench.do(DeleteGroup("g", [TopicPartitions("t", [0], topic_id)]))
    assert bench.committed() == {0: 5}


def test_the_offsets_of_a_partition_between_two_members_are_not_deleted() -> None:
    """Nobody holds it for a moment. Its next owner goes on where the group is."""
    bench = Bench()
    a = bench.join("a")["a"]
    bench.commit("a", a.member_epoch, *((p, 5) for p in range(4)))
    bench.beat("b")
    a = bench.beat("a", a.member_epoch, parts(a))
    bench.beat("a", a.member_epoch, parts(a))  # two are given back, and b has not asked again yet
    for partition in range(4):
        with pytest.raises(GroupNotEmpty):
            bench.do(DeleteGroup("g", [TopicPartitions("t", [partition])]))
    assert bench.committed() == dict.fromkeys(range(4), 5)
    assert len(parts(bench.beat("b", a.member_epoch))) == 2


def test_the_offsets_that_wait_for_a_static_member_are_not_deleted() -> None:
    bench = Bench()
    told = bench.join("a", instance_id="one")["a"]
    bench.commit("a", told.member_epoch, (0, 5))
    bench.do(LeaveGroup("g", "a"))
    with pytest.raises(GroupNotEmpty):
        bench.do(DeleteGroup("g", [TopicPartitions("t", [0])]))
    assert bench.committed() == {0: 5}


@pytest.mark.parametrize(("topic_id", "offset"), [("", 5), ("t-id", 5), ("another-id", None)])
def test_who_asks_for_what_is_committed_of_one_topic_is_told_nothing_of_another(
    topic_id: str, offset: int | None
) -> None:
    bench = Bench()
    bench.commit("", -1, (0, 5))
    reply = bench.do(CommittedOffsets("g", [TopicPartitions("t", [0], topic_id)]))
    assert isinstance(reply, CommittedOffsetsReply)
    assert [o.offset for o in reply.offsets] == [offset]
