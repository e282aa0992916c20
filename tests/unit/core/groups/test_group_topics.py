"""A group knows by its id which topic its members hold (R47)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from minilog.core.groups.groups import GroupDecision
from minilog.errors import (
    InconsistentTopicId,
    NotAssigned,
    UnknownTopic,
)
from minilog.wire.group_messages import (
    CommitOffsets,
    GroupHeartbeat,
    GroupHeartbeatReply,
    LeaveGroup,
    OffsetCommit,
    TopicPartitions,
)
from minilog.wire.journal.group_records import GroupKey, GroupRecord
from minilog.wire.message_base import Ok
from tests.unit.core.groups.group_bench import Bench, parts


def held_ids(bench: Bench) -> dict[str, str]:
    return bench.groups.groups["g"].group.held_ids


def forget_held_ids(bench: Bench) -> None:
    """As an older version writes the group."""
    record = GroupRecord(GroupKey("g"), replace(bench.groups.groups["g"].group, held_ids={}))
    bench.apply(GroupDecision("g", [record], Ok(), bench.now_ms))


def ids(reply: GroupHeartbeatReply) -> dict[str, str]:
    return {entry.topic: entry.topic_id for entry in reply.assignment}


def test_a_group_remembers_of_which_topics_its_members_hold_partitions() -> None:
    bench = Bench(t=2, u=1)
    a = bench.beat("a", topics=["t", "u"])
    assert (ids(a), held_ids(bench)) == ({"t": "t-id", "u": "u-id"}, {"t": "t-id", "u": "u-id"})
    told = bench.beat("a", 1, parts(a), topics=["u"])
    assert (ids(told), held_ids(bench)) == ({"u": "u-id"}, {"t": "t-id", "u": "u-id"}), "t is not given back yet"
    bench.beat("a", told.member_epoch, parts(told), topics=["u"])
    assert held_ids(bench) == {"u": "u-id"}
    bench.do(LeaveGroup("g", "a"))
    assert held_ids(bench) == {}


@pytest.mark.parametrize("compacted", [False, True])
def test_the_next_coordinator_knows_which_topic_is_held(compacted: bool) -> None:
    bench = Bench()
    a = bench.beat("a")
    bench.topics(t="another-id")
    bench.fail_over(compacted=compacted)
    assert held_ids(bench) == {"t": "t-id"}
    with pytest.raises(UnknownTopic):
        bench.commit("a", 1, (0, 5))
    assert not parts(bench.beat("a", 1, parts(a)))


def test_the_topic_made_anew_has_its_own_id_once_it_is_given() -> None:
    bench = Bench()
    a = bench.beat("a")
    bench.topics(t="another-id")
    told = bench.beat("a", 1, parts(a))
    assert (ids(told), held_ids(bench)) == ({}, {"t": "t-id"})
    told = bench.beat("a", told.member_epoch, set())
    assert (ids(told), held_ids(bench)) == ({"t": "another-id"}, {"t": "another-id"})


def of_topic(topic_id: str, offset: int = 5, member: str = "a", epoch: int = 1) -> CommitOffsets:
    return CommitOffsets("g", [OffsetCommit("t", 0, offset, topic_id=topic_id)], member, epoch if member else -1)


@pytest.mark.parametrize("topic_id", ["", "t-id", "another-id", "a third one"])
def test_what_was_read_of_a_topic_is_not_committed_for_the_one_made_anew(topic_id: str) -> None:
    """A member holds partitions of the old one, whether its commit names that or not."""
    bench = Bench()
    bench.beat("a")
    bench.do(of_topic("t-id"))
    bench.topics(t="another-id")
    written = len(bench.log)
    with pytest.raises(UnknownTopic, match="t was deleted and made anew: the offset is of topic id") as refused:
        bench.do(of_topic(topic_id, 9))
    assert refused.value.info == {"topic_id": "another-id"}
    assert len(bench.log) == written
    assert bench.committed() == {}


@pytest.mark.parametrize(("topic_id", "is_taken"), [("", True), ("t-id", True), ("another-id", False)])
@pytest.mark.parametrize("member", ["a", ""])
def test_a_commit_that_names_a_topic_is_about_that_one(topic_id: str, is_taken: bool, member: str) -> None:
    bench = Bench()
    if member:
        bench.beat(member)
    if is_taken:
        bench.do(of_topic(topic_id, member=member))
    else:
        with pytest.raises(InconsistentTopicId, match="one of the two is old"):
            bench.do(of_topic(topic_id, member=member))
    assert bench.committed() == ({0: 5} if is_taken else {})


def test_one_entry_of_another_topic_refuses_the_whole_commit() -> None:
    bench = Bench()
    bench.beat("a")
    offsets = [OffsetCommit("t", 0, 5), OffsetCommit("t", 1, 5, topic_id="another-id")]
    with pytest.raises(InconsistentTopicId):
        bench.do(CommitOffsets("g", offsets, "a", 1))
    assert bench.committed() == {}


@pytest.mark.parametrize("topic_id", ["", "t-id", "another-id"])
def test_in_a_group_of_an_older_version_what_is_held_is_of_the_topic_its_targets_are_for(topic_id: str) -> None:
    bench = Bench()
    bench.beat("a")
    forget_held_ids(bench)
    bench.fail_over(compacted=True)
    bench.topics(t="another-id")
    with pytest.raises(UnknownTopic, match="made anew"):
        bench.do(of_topic(topic_id))
    assert bench.committed() == {}


@pytest.mark.parametrize(("topic_id", "is_taken"), [("", True), ("t-id", True), ("another-id", False)])
def test_what_a_member_says_it_owns_is_compared_with_what_an_older_version_wrote(topic_id: str, is_taken: bool) -> None:
    bench = Bench()
    told = bench.beat("a")
    forget_held_ids(bench)
    says = GroupHeartbeat("g", "a", told.member_epoch, ["t"], owned=[TopicPartitions("t", [0], topic_id)])
    if is_taken:
        bench.do(says)
    else:
        with pytest.raises(NotAssigned):
            bench.do(says)


def test_where_nobody_knows_which_topic_is_held_any_id_is_believed_and_nothing_new_is_given() -> None:
    """An older version wrote the group while the topic was being given back: its id is in no
    record."""
    bench = Bench(t=2, u=1)
    told = bench.beat("a", topics=["t"])
    t_held = told.assignment
    told = bench.beat("a", told.member_epoch, parts(told), topics=["u"])
    forget_held_ids(bench)
    bench.do(GroupHeartbeat("g", "a", told.member_epoch, ["u"], owned=t_held))
    assert held_ids(bench) == {}
    told = bench.beat("a", told.member_epoch, parts(told) | {("t", 0), ("t", 1)}, topics=["t"])
    assert parts(told) == set()
    told = bench.beat("a", told.member_epoch, set(), topics=["t"])
    assert (parts(told), held_ids(bench)) == ({("t", 0), ("t", 1)}, {"t": "t-id"})


def test_an_older_versions_group_says_what_is_held_as_soon_as_it_is_written_again() -> None:
    bench = Bench(t=2, u=1)
    told = bench.beat("a", topics=["t"])
    forget_held_ids(bench)
    bench.beat("a", told.member_epoch, parts(told), topics=["u"])
    assert held_ids(bench)["t"] == "t-id"


def test_what_is_held_may_be_committed_also_when_it_is_subscribed_no_more() -> None:
    """The last commit before giving back."""
    bench = Bench(t=2, u=1)
    a = bench.beat("a", topics=["t"])
    told = bench.beat("a", 1, parts(a), topics=["u"])
    bench.commit("a", 1, (0, 5))
    bench.commit("a", told.member_epoch, (1, 6))
    assert bench.committed() == {0: 5, 1: 6}
    told = bench.beat("a", told.member_epoch, parts(told), topics=["u"])
    with pytest.raises(NotAssigned):
        bench.commit("a", told.member_epoch, (0, 7))


@pytest.mark.parametrize(("topic_id", "is_taken"), [("", True), ("t-id", True), ("another-id", False)])
@pytest.mark.parametrize("is_remade", [False, True])
def test_a_member_owns_partitions_of_the_topic_it_was_given(topic_id: str, is_taken: bool, is_remade: bool) -> None:
    bench = Bench()
    bench.beat("a")
    if is_remade:
        bench.topics(t="another-id")
    says = GroupHeartbeat("g", "a", 1, ["t"], owned=[TopicPartitions("t", [0, 1, 2, 3], topic_id)])
    if is_taken:
        bench.do(says)
        return
    with pytest.raises(NotAssigned, match="join anew"):
        bench.do(says)
