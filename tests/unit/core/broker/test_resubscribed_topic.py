"""A topic that is wanted again before it was given back is the same one: it is shared out. One made
anew waits, and not for ever."""

from __future__ import annotations

import pytest

from minilog.wire.group_messages import LeaveGroup
from tests.unit.core.groups.group_bench import Bench, parts

BOTH = {("t", 0), ("t", 1)}


@pytest.mark.parametrize("compacted", [None, False, True])
def test_one_member_that_changes_its_mind_gets_its_topic_back(compacted: bool | None) -> None:
    bench = Bench(a=2, t=2)
    told = bench.join("one", topics=["t"])["one"]
    told = bench.beat("one", told.member_epoch, BOTH, topics=["a"])  # it is to give t back, and has not yet
    if compacted is not None:
        bench.fail_over(compacted=compacted)
    told = bench.beat("one", told.member_epoch, BOTH | parts(told), topics=["t"])  # and wants it again
    for _ in range(3):
        told = bench.beat("one", told.member_epoch, parts(told), topics=["t"])
    assert (parts(told), told.pending) == (BOTH, 0)


def test_another_member_that_wants_what_is_being_given_back_gets_it() -> None:
    bench = Bench(a=2, t=2)
    told = bench.join("one", topics=["a", "t"])["one"]
    told = bench.beat("one", told.member_epoch, parts(told), topics=["a"])
    two = bench.beat("two", topics=["t"])
    assert (parts(two), two.pending) == (set(), 2)
    for _ in range(3):
        told = bench.beat("one", told.member_epoch, parts(told), topics=["a"])
        two = bench.beat("two", two.member_epoch, parts(two), topics=["t"])
    assert (parts(two), two.pending) == (BOTH, 0)


def test_static_members_that_swap_their_topics_in_a_restart_read_both() -> None:
    bench = Bench(a=2, t=2)
    one = bench.beat("one-1", topics=["t"], instance_id="one")
    two = bench.beat("two-1", topics=["a"], instance_id="two")
    bench.do(LeaveGroup("g", "one-1"))
    bench.do(LeaveGroup("g", "two-1"))
    one = bench.beat("one-2", topics=["a"], instance_id="one")
    two = bench.beat("two-2", topics=["t"], instance_id="two")
    for _ in range(5):
        one = bench.beat("one-2", one.member_epoch, parts(one), topics=["a"], instance_id="one")
        two = bench.beat("two-2", two.member_epoch, parts(two), topics=["t"], instance_id="two")
    assert (parts(one), parts(two)) == ({("a", 0), ("a", 1)}, BOTH)


def test_a_topic_that_is_gone_and_wanted_again_when_made_anew_is_begun_when_the_old_one_is_given_back() -> None:
    """Two hold the old one: whoever gives back last opens the new one, whatever the topics are
    known to be since."""
    bench = Bench(a=2, t=2)
    told = bench.join("one", "two", topics=["t"])
    bench.topics(t=0)
    bench.tick(500)
    bench.topics(t=2)
    bench.topics(t="another-id")
    bench.tick(500)
    one, two = (bench.beat(m, told[m].member_epoch, parts(told[m]), topics=["t"]) for m in ("one", "two"))
    for _ in range(5):
        one = bench.beat("one", one.member_epoch, parts(one), topics=["t"])
        two = bench.beat("two", two.member_epoch, parts(two), topics=["t"])
    assert parts(one) | parts(two) == BOTH


@pytest.mark.parametrize("gives_back", ["one", "two"])
def test_a_topic_made_anew_is_settled_when_the_last_of_the_old_one_is_given_back(gives_back: str) -> None:
    """In between somebody joins, so the topics have been looked at, and found not to take part."""
    bench = Bench(a=2, t=2)
    told = bench.join("one", "two", topics=["t"])
    other = "two" if gives_back == "one" else "one"
    bench.topics(t="another-id")
    now = {m: bench.beat(m, told[m].member_epoch, parts(told[m]), topics=["t"]) for m in ("one", "two")}
    now[other] = bench.beat(other, now[other].member_epoch, set(), topics=["t"])
    three = bench.beat("three", topics=["a"])
    three = bench.beat("three", three.member_epoch, parts(three), topics=["a"])
    held = parts(told[gives_back])
    now[gives_back] = bench.beat(gives_back, now[gives_back].member_epoch, held, topics=["t"])
    assert not any(parts(reply) for reply in now.values()), "one of the old is still held"
    for _ in range(3):
        now = {m: bench.beat(m, now[m].member_epoch, parts(now[m]), topics=["t"]) for m in now}
    assert {part for reply in now.values() for part in parts(reply)} == BOTH
    assert {entry.topic_id for reply in now.values() for entry in reply.assignment} == {"another-id"}
