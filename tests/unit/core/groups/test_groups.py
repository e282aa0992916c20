"""Groups alone: tables for single decisions, and a random walk against a naive model of who owns
what."""

from __future__ import annotations

import contextlib
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from minilog.config import BrokerSettings
from minilog.core.groups.groups import GroupDecision, Groups, OneGroupRequest
from minilog.errors import (
    GroupChanged,
    GroupNotEmpty,
    InconsistentGroup,
    InconsistentTopicId,
    InstanceInUse,
    InvalidGroup,
    InvalidRequest,
    MinilogError,
    NotAssigned,
    Overloaded,
    StaleMemberEpoch,
    UnknownGroup,
    UnknownMember,
    UnknownPartition,
    UnknownTopic,
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
from minilog.wire.journal.group_records import GroupKey, GroupRecord, TopicShape, decode_record, encode_record
from minilog.wire.message_base import Message, Ok

RETENTION_MS = 60_000
STEP_MS = 500
SESSION_MS = 10_000
SETTINGS = BrokerSettings(
    broker_id=1, data_dir="/", group_members_max=5, groups_max=3, group_offsets_retention_ms=RETENTION_MS
)
Owned = set[tuple[str, int]]


class Bench:
    """A coordinator's Groups with a log of its own: what is decided is written and replayed at
    once."""

    def __init__(self, **topics: int) -> None:
        self.now_ms = 1_000_000
        self.log: list[tuple[bytes, bytes | None]] = []
        self.said: list[OneGroupRequest] = []
        self.shapes = {name: TopicShape(f"{name}-id", count) for name, count in (topics or {"t": 4}).items()}
        self.groups = self.new_groups()
        self.groups.on_topics(self.shapes)
        self.groups.begin(self.now_ms, 0)

    def new_groups(self) -> Groups:
        return Groups(SETTINGS, 1, log_end=lambda: len(self.log))

    def do(self, request: OneGroupRequest) -> Message:
        self.said.append(request)
        decision = self.groups.decide(request, self.now_ms)
        self.apply(decision)
        return decision.reply

    def apply(self, decision: GroupDecision) -> None:
        records = [encode_record(record) for record in decision.records]
        self.log += records
        self.groups.applied(decision._replace(records=[decode_record(*record) for record in records]))

    def tick(self, after_ms: int = 0) -> None:
        end_ms = self.now_ms + after_ms
        while True:
            self.now_ms = min(self.now_ms + STEP_MS, end_ms)
            for decision in self.groups.tick(self.now_ms):
                self.apply(decision)
            if self.now_ms == end_ms:
                return

    def fail_over(self, *, compacted: bool) -> None:
        """Another coordinator, from the log or from the last record of each key."""
        records = list(dict(self.log).items()) if compacted else self.log
        self.groups = self.new_groups()
        for record in records:
            self.groups.replay(decode_record(*record))
        self.groups.on_topics(self.shapes)
        self.groups.begin(self.now_ms, 2000)

    def topics(self, **topics: int | str) -> None:
        """Partitions by topic, or the id of one made anew."""
        self.shapes = dict(self.shapes)
        for name, what in topics.items():
            if isinstance(what, str):
                self.shapes[name] = TopicShape(what, self.shapes[name].partitions)
            elif what:
                self.shapes[name] = TopicShape(f"{name}-id", what)
            else:
                del self.shapes[name]
        self.groups.on_topics(self.shapes)

    # --- short forms ------------------------------------------------------------------------------

    def beat(
        self, member: str, epoch: int = 0, owned: Owned | None = None, group: str = "g", **more: Any
    ) -> GroupHeartbeatReply:
        given = {"topics": ["t"], **more}
        if "pattern" in more:
            given["topics"] = []
        reply = self.do(GroupHeartbeat(group, member, epoch, owned=listed(owned or set()), **given))
        assert isinstance(reply, GroupHeartbeatReply)
        return reply

    def join(self, *members: str, **more: Any) -> dict[str, GroupHeartbeatReply]:
        """They join, and go on until everybody has what it is to have."""
        told = {m: self.beat(m, **more) for m in members}
        for _ in range(3):
            told = {m: self.beat(m, told[m].member_epoch, parts(told[m]), **more) for m in members}
        return told

    def commit(self, member: str, epoch: int, *offsets: tuple[int, int], topic: str = "t") -> Message:
        return self.do(CommitOffsets("g", [OffsetCommit(topic, p, o) for p, o in offsets], member, epoch))

    def committed(self, group: str = "g") -> dict[int, int | None]:
        reply = self.do(CommittedOffsets(group))
        assert isinstance(reply, CommittedOffsetsReply)
        return {o.partition: o.offset for o in reply.offsets}

    def describe(self) -> DescribeGroupReply:
        reply = self.do(DescribeGroup("g"))
        assert isinstance(reply, DescribeGroupReply)
        return reply


def parts(reply: GroupHeartbeatReply) -> Owned:
    return {(entry.topic, p) for entry in reply.assignment for p in entry.partitions}


def listed(owned: Owned) -> list[TopicPartitions]:
    topics = sorted({topic for topic, _ in owned})
    return [TopicPartitions(t, sorted(p for topic, p in owned if topic == t)) for t in topics]


def test_the_first_member_gets_everything_and_joining_again_changes_nothing() -> None:
    bench = Bench()
    first = bench.beat("a")
    assert (first.member_epoch, parts(first), first.pending) == (1, {("t", p) for p in range(4)}, 0)
    assert bench.beat("a") == first
    assert len(bench.log) == 1


def test_a_heartbeat_that_changes_nothing_writes_nothing() -> None:
    bench = Bench()
    told = bench.join("a", "b")
    written = len(bench.log)
    for member, reply in told.items():
        assert bench.beat(member, reply.member_epoch, parts(reply)) == reply
    assert len(bench.log) == written


def test_a_partition_is_given_only_after_its_owner_has_named_the_epoch_that_took_it() -> None:
    bench = Bench()
    a = bench.beat("a")
    b = bench.beat("b")
    assert (b.member_epoch, parts(b), b.pending, b.heartbeat_interval_ms) == (2, set(), 2, 100)
    bench.beat("a", 1, set())  # a late copy from before it was given anything: no proof that it let go
    assert bench.beat("b", 2).pending == 2
    told = bench.beat("a", 1, parts(a))
    assert (told.member_epoch, len(parts(told))) == (2, 2)
    assert bench.beat("b", 2).pending == 2, "a was told, and has not said that it let go"
    bench.beat("a", 2, parts(a))
    assert bench.beat("b", 2).pending == 2, "it still works on them"
    bench.beat("a", 2, parts(told))
    assert bench.beat("b", 2).pending == 0


def test_a_partition_that_its_owner_lists_is_its_own_however_many_entries_the_topic_has() -> None:
    bench = Bench()
    a = bench.beat("a")
    bench.beat("b")
    told = bench.beat("a", 1, parts(a))
    assert parts(told) < parts(a)
    owned = [TopicPartitions(topic, [partition]) for topic, partition in sorted(parts(a))]
    bench.do(GroupHeartbeat("g", "a", told.member_epoch, topics=["t"], owned=owned))
    assert bench.beat("b", 2).pending == 2, "it still works on them"


def test_lost_answers_are_forgiven_and_older_lives_are_not() -> None:
    bench = Bench()
    bench.beat("a")
    for _ in range(3):
        bench.beat("b")
        bench.do(LeaveGroup("g", "b"))
    assert bench.beat("a", 1).member_epoch == 7, "six answers that never came"
    bench.beat("a", 7, {("t", 0)})
    with pytest.raises(StaleMemberEpoch):
        bench.beat("a", 1)
    with pytest.raises(StaleMemberEpoch):
        bench.beat("a", 8)
    with pytest.raises(UnknownMember):
        bench.beat("b", 6)


def test_what_a_member_says_it_owns_must_have_been_given_to_it() -> None:
    bench = Bench()
    told = bench.join("a", "b")
    (other,) = {("t", 0), *parts(told["a"])} - parts(told["a"]) or {min(parts(told["b"]))}
    with pytest.raises(NotAssigned, match="join anew"):
        bench.beat("a", told["a"].member_epoch, {other})
    with pytest.raises(InvalidRequest, match="owns nothing yet"):
        bench.beat("a", 0, parts(told["a"]))


def test_who_is_silent_for_its_session_is_out_and_may_not_commit() -> None:
    bench = Bench()
    told = bench.join("a", "b")
    bench.tick(6000)
    bench.beat("b", told["b"].member_epoch, parts(told["b"]))
    bench.tick(3999)
    assert bench.describe().group.members == 2
    bench.tick(1)
    assert [m.member_id for m in bench.describe().members] == ["b"]
    with pytest.raises(UnknownMember):
        bench.commit("a", told["a"].member_epoch, (min(parts(told["a"]))[1], 5))
    assert len(parts(bench.beat("b", told["b"].member_epoch, parts(told["b"])))) == 4


def test_who_does_not_give_back_is_heard_no_more_but_keeps_what_it_holds_for_its_session() -> None:
    bench = Bench()
    a = bench.beat("a", poll_timeout_ms=500)
    bench.beat("b")
    bench.beat("a", 1, parts(a), poll_timeout_ms=500)
    bench.tick(500)
    with pytest.raises(UnknownMember):
        bench.beat("a", 2, parts(a), poll_timeout_ms=500)
    assert bench.beat("b", 2).pending == 2
    bench.tick(9499)
    assert bench.beat("b", 2).pending == 2
    bench.tick(1)
    assert len(parts(bench.beat("b", 2))) == 4


def expelled() -> tuple[Bench, GroupHeartbeatReply]:
    """Member a was to give two of its partitions to b, and took too long. What it was told when it
    had all four."""
    bench = Bench()
    a = bench.beat("a", poll_timeout_ms=500)
    bench.beat("b")
    bench.beat("a", a.member_epoch, parts(a), poll_timeout_ms=500)
    bench.tick(500)
    with pytest.raises(UnknownMember):
        bench.beat("a", a.member_epoch, parts(a), poll_timeout_ms=500)
    return bench, a


def test_who_was_expelled_and_joins_anew_frees_its_partitions_with_its_next_heartbeat() -> None:
    bench, _ = expelled()
    again = bench.beat("a", 0, poll_timeout_ms=500)
    assert len(parts(again)) == 2
    bench.beat("a", again.member_epoch, parts(again), poll_timeout_ms=500)
    assert len(parts(bench.beat("b", 2))) == 2


def test_a_late_copy_of_the_join_of_a_member_that_was_expelled_frees_nothing() -> None:
    """It may still work on all of them: its session is not over by its own clock."""
    bench, a = expelled()
    bench.beat("a", 0, poll_timeout_ms=500)
    assert not parts(bench.beat("b", 2))
    bench.tick(500)
    assert not parts(bench.beat("b", 2))
    with pytest.raises(UnknownMember):
        bench.beat("a", a.member_epoch, parts(a), poll_timeout_ms=500)
    bench.tick(SESSION_MS - 1001)
    bench.beat("b", 2)
    bench.tick(1001)
    assert len(parts(bench.beat("b", 2))) == 4


def test_who_joins_anew_with_something_to_give_back_is_heard_again_before_it_is_expelled_for_that() -> None:
    """Or it would be expelled and join in turn, and nobody would ever get what it held."""
    bench, _ = expelled()
    told = bench.beat("a", 0, poll_timeout_ms=500)
    assert told.heartbeat_interval_ms < 500
    bench.tick(told.heartbeat_interval_ms)
    bench.beat("a", told.member_epoch, poll_timeout_ms=500)
    assert len(parts(bench.beat("b", 2))) >= 2


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


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"group": "a b"}, InvalidGroup),
        ({"group": "x" * 250}, InvalidGroup),
        ({"topics": []}, InvalidRequest),
        ({"pattern": "t", "topics": ["t"]}, InvalidRequest),
        ({"pattern": "("}, InvalidRequest),
        ({"assignor": "best"}, InvalidRequest),
        ({"session_timeout_ms": 10}, InvalidRequest),
        ({"poll_timeout_ms": 0}, InvalidRequest),
        ({"epoch": -1}, InvalidRequest),
        ({"epoch": 3}, UnknownMember),
    ],
)
def test_what_a_heartbeat_may_be(more: dict[str, object], error: type[MinilogError]) -> None:
    bench = Bench()
    fields: dict[str, object] = {"group": "g", "member_id": "m", "member_epoch": more.pop("epoch", 0), **more}
    if "pattern" not in more:
        fields.setdefault("topics", ["t"])
    with pytest.raises(error):
        bench.do(GroupHeartbeat(**fields))  # type: ignore[arg-type]
    assert not bench.log


def test_members_agree_on_the_assignor_and_may_differ_in_what_they_read() -> None:
    bench = Bench(t=2, u=2)
    bench.beat("a")
    with pytest.raises(InconsistentGroup, match="sticky"):
        bench.beat("b", assignor="range")
    bench.beat("b", topics=["u"])
    assert bench.describe().group.members == 2
    bench.do(LeaveGroup("g", "b"))
    assert bench.beat("a", 1, assignor="range").member_epoch == 4


def test_the_limits_hold() -> None:
    bench = Bench()
    for name in "abcde":
        bench.beat(name)
    with pytest.raises(Overloaded, match="group_members_max"):
        bench.beat("f")
    bench.beat("a", group="h")
    bench.beat("a", group="i")
    with pytest.raises(Overloaded, match="groups_max"):
        bench.beat("a", group="j")


def test_a_pattern_takes_topics_in_as_they_come() -> None:
    bench = Bench(t1=1, other=1)
    told = bench.beat("a", pattern="t[0-9]")
    assert parts(told) == {("t1", 0)}
    bench.topics(t2=2, t10=1)
    bench.tick()
    told = bench.beat("a", 1, parts(told), pattern="t[0-9]")
    assert parts(told) == {("t1", 0), ("t2", 0), ("t2", 1)}


def test_a_topic_made_anew_is_shared_out_when_all_of_the_old_one_is_back() -> None:
    bench = Bench()
    a = bench.beat("a")
    bench.commit("a", 1, (0, 5))
    bench.topics(t="another-id")
    bench.tick()
    told = bench.beat("a", 1, parts(a))
    assert not parts(told)
    assert bench.committed() == {}
    told = bench.beat("a", told.member_epoch, set())
    assert parts(told) == {("t", p) for p in range(4)}
    with pytest.raises(StaleMemberEpoch):
        bench.commit("a", 1, (0, 6))


def test_partitions_that_are_added_go_to_somebody() -> None:
    bench = Bench()
    a = bench.beat("a")
    bench.topics(t=6)
    assert len(parts(bench.beat("a", 1, parts(a)))) == 6


def test_a_static_member_comes_back_under_another_id_and_nothing_moves() -> None:
    bench = Bench()
    told = bench.join("a", "b", instance_id="")
    bench.do(LeaveGroup("g", "b"))
    bench.beat("s1", instance_id="s")
    a = bench.beat("a", told["a"].member_epoch, parts(told["a"]))
    s = bench.beat("s1", a.member_epoch, instance_id="s")
    with pytest.raises(InstanceInUse):
        bench.beat("s2", instance_id="s")
    bench.do(LeaveGroup("g", "s1"))
    heir = bench.beat("s2", instance_id="s")
    assert (parts(heir), heir.member_epoch) == (parts(s), s.member_epoch)
    with pytest.raises(UnknownMember):
        bench.beat("s1", s.member_epoch, parts(s), instance_id="s")
    with pytest.raises(UnknownMember):
        bench.commit("s1", s.member_epoch, (min(parts(s))[1], 1))


def test_a_group_that_nobody_uses_is_forgotten() -> None:
    bench = Bench()
    bench.beat("a")
    bench.commit("a", 1, (0, 5))
    bench.tick(5000)
    bench.do(LeaveGroup("g", "a"))
    bench.tick(RETENTION_MS - 1)
    assert bench.committed() == {0: 5}
    bench.tick(60_000)
    assert bench.committed() == {}
    assert not bench.groups.groups
    assert {key for key, value in dict(bench.log).items() if value is not None} == set()
    with pytest.raises(UnknownGroup):
        bench.describe()


@pytest.mark.parametrize("is_alone", [False, True])
def test_the_age_of_a_group_goes_on_at_the_next_coordinator_and_ends_when_it_is_used(is_alone: bool) -> None:
    bench = Bench()
    bench.do(leave("a", bench.beat("a").member_epoch))
    bench.do(alone(1))

    def live(ms: int) -> None:
        for _ in range(ms // 45_000):
            bench.tick(45_000)
            bench.fail_over(compacted=True)

    live(45_000)
    assert "g" in bench.groups.groups
    if is_alone:
        bench.do(alone(2))
    else:
        bench.do(leave("a", bench.beat("a").member_epoch))
    assert bench.groups.groups["g"].group.unused_ms == 0
    live(45_000)
    assert "g" in bench.groups.groups
    live(90_000)
    assert not bench.groups.groups


def test_one_jump_of_the_time_of_turns_makes_no_group_old() -> None:
    bench = Bench()
    bench.do(alone(1))
    bench.tick(35_000)
    bench.now_ms += 100 * RETENTION_MS
    list(bench.groups.tick(bench.now_ms))
    assert bench.groups.groups["g"].group.unused_ms + (bench.groups.groups["g"].watched_ms or 0) <= 60_000


def test_topics_that_have_not_changed_are_not_compared_again() -> None:
    """Every request about a group and every tick of every partition says which topics there are."""

    class Topics(dict[str, TopicShape]):
        def __ne__(self, other: object) -> bool:
            raise AssertionError("that takes as long as there are topics")

    bench = Bench()
    topics = Topics(bench.shapes)
    bench.groups.topics = topics
    bench.groups.on_topics(topics)


@pytest.mark.parametrize("is_alone", [False, True])
def test_what_cannot_be_written_is_not_decided_again_with_each_tick(
    is_alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    bench.beat("a")
    bench.topics(t=8)
    decided = []
    adapt = bench.groups._adapt
    monkeypatch.setattr(bench.groups, "_adapt", lambda name: decided.append(name) or adapt(name))  # type: ignore[func-returns-value]
    for _ in range(100):
        bench.now_ms += 20
        for decision in bench.groups.tick(bench.now_ms):
            bench.groups.postpone(decision, is_alone=is_alone)
    assert 3 <= len(decided) <= 5
    bench.tick(500)
    assert len(decided) <= 6
    assert bench.groups.groups["g"].group.topics["t"].partitions == 8


@pytest.mark.parametrize("too_large", [("g", "h"), ("h", "i"), ("i",)])
def test_groups_that_are_too_large_to_be_written_keep_no_other_from_hearing_of_topics(
    too_large: tuple[str, ...],
) -> None:
    bench = Bench()
    for name in "ghi":
        bench.beat("a", group=name)
    bench.topics(t=8)
    for _ in range(10):
        bench.now_ms += 20
        for decision in bench.groups.tick(bench.now_ms):
            if decision.group in too_large:
                bench.groups.postpone(decision, is_alone=True)
            else:
                bench.apply(decision)
    known = {name for name, state in bench.groups.groups.items() if state.group.topics["t"].partitions == 8}
    assert known == {"g", "h", "i"} - set(too_large)


def test_offsets_of_a_deleted_topic_go_also_when_they_could_not_at_first() -> None:
    bench = Bench()
    bench.do(alone(5))
    bench.topics(t=0)
    for decision in bench.groups.tick(bench.now_ms):
        assert decision.records
        bench.groups.postpone(decision, is_alone=True)
    bench.tick(1000)
    assert not bench.groups.groups["g"].offsets


def test_deleting() -> None:
    bench = Bench()
    a = bench.beat("a", topics=["u"])
    with pytest.raises(GroupNotEmpty):
        bench.do(DeleteGroup("g"))
    bench.do(LeaveGroup("g", "a"))
    bench.commit("", -1, (0, 5), (1, 5))
    bench.do(DeleteGroup("g", [TopicPartitions("t", [0])]))
    assert bench.committed() == {1: 5}
    bench.do(DeleteGroup("g"))
    assert not bench.groups.groups
    with pytest.raises(UnknownGroup):
        bench.do(DeleteGroup("g"))
    assert not parts(a)


def test_a_rebalance_is_counted_and_timed() -> None:
    bench = Bench()
    a = bench.beat("a")
    bench.now_ms += 1000
    bench.beat("b")
    bench.now_ms += 300
    told = bench.beat("a", 1, parts(a))
    assert bench.describe().group.state == "rebalancing"
    bench.now_ms += 40
    bench.beat("a", 2, parts(told))
    bench.beat("b", 2)
    found = bench.describe()
    assert (found.group.state, found.rebalances, found.last_rebalance_ms) == ("stable", 2, 340)


def test_a_coordinator_that_stood_still_blames_nobody() -> None:
    bench = Bench()
    told = bench.join("a")["a"]
    bench.tick(500)
    bench.now_ms += 60_000
    bench.tick()
    assert bench.beat("a", told.member_epoch, parts(told)) == told
    bench.tick(10_001)
    with pytest.raises(UnknownMember):
        bench.beat("a", told.member_epoch, parts(told))


@pytest.mark.parametrize("gap_ms", [600, 1500, 4000])
def test_a_coordinator_that_is_slow_all_the_time_lets_a_silent_member_go_at_last(gap_ms: int) -> None:
    """Within two sessions and one gap, at the next tick; and not before its own session is over."""
    bench = Bench()
    bench.beat("a")
    began_ms = bench.now_ms
    while bench.groups.groups["g"].group.members:
        bench.now_ms += gap_ms
        bench.tick()
        assert bench.now_ms < began_ms + 2 * SESSION_MS + 2 * gap_ms
    assert bench.now_ms >= began_ms + 2 * SESSION_MS


@pytest.mark.parametrize("gap_ms", [600, 1500, 4000])
def test_a_coordinator_that_is_slow_all_the_time_keeps_a_member_it_hears(gap_ms: int) -> None:
    bench = Bench()
    told = bench.join("a")["a"]
    for _ in range(20 * SESSION_MS // gap_ms):
        bench.now_ms += gap_ms
        bench.tick()
        assert bench.beat("a", told.member_epoch, parts(told)) == told


def test_to_be_heard_is_to_be_forgiven_anew() -> None:
    bench = Bench()
    told = bench.join("a")["a"]
    for _ in range(3):
        bench.now_ms += 60_000
        bench.tick()
        assert bench.beat("a", told.member_epoch, parts(told)) == told
    for gap_ms, members in ((60_000, 1), (60_000, 0)):
        bench.now_ms += gap_ms
        bench.tick()
        assert bench.describe().group.members == members


def test_forgiveness_moves_the_time_to_give_back_too_and_as_little() -> None:
    bench = Bench()
    a = bench.beat("a", poll_timeout_ms=2000)
    bench.beat("b", poll_timeout_ms=2000)
    bench.beat("a", 1, parts(a), poll_timeout_ms=2000)  # told to give back two of them
    bench.now_ms += 60_000
    bench.tick()
    session = bench.groups.groups["g"].sessions["a"]
    assert (session.return_ms, session.is_expelled) == (bench.now_ms + 2000, False)
    bench.tick(2000)
    assert session.is_expelled


@pytest.mark.parametrize("has_given_back", [False, True])
def test_who_cannot_say_that_it_has_given_back_is_not_expelled_for_it(has_given_back: bool) -> None:
    """It asks all the time, and is refused: nothing can be written at the moment."""
    bench = Bench()
    a = bench.beat("a", poll_timeout_ms=2000)
    bench.beat("b")
    told = bench.beat("a", a.member_epoch, parts(a), poll_timeout_ms=2000)
    owned = listed(parts(told) if has_given_back else parts(a))
    for _ in range(10):
        says = GroupHeartbeat("g", "a", told.member_epoch, ["t"], owned=owned, poll_timeout_ms=2000)
        bench.groups.on_refused(says, bench.now_ms)
        bench.tick(500)
    assert bench.groups.groups["g"].is_expelled("a") is not has_given_back


# --- which topic of that name ---------------------------------------------------------------------


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


# --- a random walk --------------------------------------------------------------------------------


def leave(member: str, epoch: int = -1) -> LeaveGroup:
    return LeaveGroup("g", member, epoch)


def counted(offset: int, sequence: int, member: str = "a", epoch: int = 1) -> CommitOffsets:
    return CommitOffsets("g", [OffsetCommit("t", 0, offset)], member, epoch, sequence)


def alone(offset: int, epoch: int = -1) -> CommitOffsets:
    """A commit of nobody's, for the group as it was at ``epoch``."""
    return CommitOffsets("g", [OffsetCommit("t", 0, offset)], member_epoch=epoch)


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


class Naive:
    """Who may believe to own what, from nothing but what members were told and said. ``held``: by
    member, what it works on. ``lost``: whether its next answer is lost on the way."""

    def __init__(self) -> None:
        self.held: dict[str, Owned] = {}
        self.epoch: dict[str, int] = {}
        self.end_ms: dict[str, int] = {}
        self.given_at: dict[tuple[str, tuple[str, int]], int] = {}
        self.offsets: dict[int, int | None] = {}

    def owners(self, part: tuple[str, int], now_ms: int) -> list[str]:
        return [m for m, held in self.held.items() if part in held and now_ms < self.end_ms[m]]


class Walk:
    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.bench = Bench(t=self.rng.randint(1, 6))
        self.naive = Naive()
        self.count = 0

    def run(self, steps: int) -> None:
        acts = [self.join, self.beat, self.beat, self.beat, self.beat, self.commit, self.commit, self.leave, self.wait]
        acts += [self.grow, self.fail_over, self.late_copy]
        for _ in range(steps):
            self.rng.choice(acts)()
            self.check()
        self.end()

    def member(self) -> str | None:
        return self.rng.choice(sorted(self.naive.held)) if self.naive.held else None

    def join(self) -> None:
        if len(self.naive.held) < 4:
            self.count += 1
            name = f"m{self.count}"
            self.naive.held[name], self.naive.epoch[name], self.naive.end_ms[name] = set(), 0, 0
            self.beat(name)

    def beat(self, member: str | None = None) -> None:
        member = member or self.member()
        if member is None:
            return
        naive, bench = self.naive, self.bench
        if naive.epoch[member] and bench.now_ms >= naive.end_ms[member]:
            naive.held[member], naive.epoch[member] = set(), 0
        try:
            reply = bench.beat(member, naive.epoch[member], naive.held[member])
        except UnknownMember:
            naive.held[member], naive.epoch[member], naive.end_ms[member] = set(), 0, 0
            return
        except Overloaded:
            return
        naive.end_ms[member] = bench.now_ms + 10_000
        if self.rng.random() < 0.2:
            naive.end_ms[member] -= 10_000 if not naive.held[member] else 0
            return  # the answer is lost
        naive.epoch[member] = reply.member_epoch
        for part in parts(reply) - naive.held[member]:
            assert not [m for m in naive.owners(part, bench.now_ms) if m != member]
            naive.given_at[member, part] = reply.member_epoch
        kept = {part for part in naive.held[member] - parts(reply) if self.rng.random() < 0.3}
        naive.held[member] = parts(reply) | kept

    def commit(self) -> None:
        member = self.member()
        if member is None or not self.naive.held[member]:
            return
        part = self.rng.choice(sorted(self.naive.held[member]))
        self.count += 1
        try:
            entry = OffsetCommit("t", part[1], self.count)
            self.bench.do(CommitOffsets("g", [entry], member, self.naive.epoch[member], self.count))
        except (UnknownMember, StaleMemberEpoch, NotAssigned):
            assert self.bench.now_ms >= self.naive.end_ms[member], "a live owner may commit"
        else:
            self.naive.offsets[part[1]] = self.count
            assert not [m for m in self.naive.owners(part, self.bench.now_ms) if m != member]

    def leave(self) -> None:
        member = self.member()
        if member is not None and self.rng.random() < 0.5:
            del self.naive.held[member]
            if self.rng.random() < 0.5:  # or it just dies
                self.bench.do(LeaveGroup("g", member))

    def wait(self) -> None:
        self.bench.tick(self.rng.choice((10, 1000, 4000, 11_000)))

    def late_copy(self) -> None:
        """Of anything that was ever asked. It changes nothing that a member has, nor what is
        committed."""
        with contextlib.suppress(MinilogError):
            self.bench.do(self.rng.choice(self.bench.said or [CommittedOffsets("g")]))

    def grow(self) -> None:
        if self.rng.random() < 0.3 and self.bench.shapes["t"].partitions < 9:
            self.bench.topics(t=self.bench.shapes["t"].partitions + 1)

    def fail_over(self) -> None:
        if self.rng.random() < 0.4:
            self.bench.fail_over(compacted=self.rng.random() < 0.5)

    def check(self) -> None:
        """What is committed is what was acknowledged last, whatever happened since."""
        assert self.bench.committed() == dict(sorted(self.naive.offsets.items()))

    def end(self) -> None:
        """Left alone, the members that live share everything out evenly."""
        self.bench.tick(13_000)
        self.join()
        self.bench.tick()
        for _ in range(40):  # a fifth of the answers is lost, and what is to be given back is kept now and then
            for member in self.naive.held:
                self.beat(member)
        held = self.naive.held.values()
        everything = {("t", p) for p in range(self.bench.shapes["t"].partitions)}
        assert sorted(p for parts_held in held for p in parts_held) == sorted(everything)
        assert max(map(len, held)) - min(map(len, held)) <= 1
        assert self.bench.describe().group.state == "stable"


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_random_walk_agrees_with_the_naive_model(seed: int) -> None:
    Walk(seed).run(60)
