"""Groups alone: tables for single decisions, and a random walk against a naive model of who owns
what."""

from __future__ import annotations

import pytest

from minilog.errors import (
    GroupNotEmpty,
    InconsistentGroup,
    InstanceInUse,
    InvalidRequest,
    NotAssigned,
    Overloaded,
    StaleMemberEpoch,
    UnknownGroup,
    UnknownMember,
)
from minilog.wire.group_messages import (
    DeleteGroup,
    GroupHeartbeat,
    LeaveGroup,
    TopicPartitions,
)
from minilog.wire.journal.group_records import TopicShape
from tests.unit.core.groups.group_bench import RETENTION_MS, Bench, alone, leave, parts


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
