"""Parked replies: every waiter ends exactly once, in order, by whichever comes first (R34)."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.core.deadlines import Deadlines
from minilog.core.replication.produce_waiters import PendingProduce, ProduceWaiters, Waiter
from minilog.wire.messages import ACKS_ALL, ProducePartition, ProduceResult
from tests.unit.core.builders import TOPIC

NOTHING = memoryview(b"")


def pending(count: int = 1, request_id: int = 1) -> PendingProduce:
    return PendingProduce(request_id, [ProducePartition(TOPIC, p, NOTHING) for p in range(count)], 1000)


def result(partition: int = 0) -> ProduceResult:
    return ProduceResult(TOPIC, partition)


def waiter(end_offset: int, acks: int = ACKS_ALL) -> Waiter:
    return Waiter(pending(), 0, end_offset - 1, end_offset, 0, 0, acks)


def parked(*found: Waiter) -> ProduceWaiters:
    waiters = ProduceWaiters()
    for each in found:
        waiters.park(each)
    return waiters


def kept() -> int:
    gc.collect()
    return sum(type(thing) is Waiter for thing in gc.get_objects())


# --- one request ----------------------------------------------------------------------------------


def test_a_request_is_done_with_its_last_partition() -> None:
    request = pending(3)
    assert not request.resolve(1, result(1))
    assert not request.resolve(2, result(2))
    assert request.resolve(0, result(0))
    assert request.results == [result(0), result(1), result(2)], "in the order of the request"


def test_resolving_twice_changes_nothing_and_finishes_nothing() -> None:
    request = pending(2)
    first = result(0)
    assert not request.resolve(0, first)
    assert not request.resolve(0, result(7))
    assert request.open_count == 1
    assert request.results[0] is first
    assert request.resolve(1, result(1))
    assert not request.resolve(1, result(1))


# --- waiters of one epoch -------------------------------------------------------------------------


@pytest.mark.parametrize(("end_offset", "done"), [(0, []), (1, [1]), (2, [1]), (3, [1, 3]), (99, [1, 3, 4])])
def test_completing_pops_what_is_reached(end_offset: int, done: list[int]) -> None:
    waiters = parked(waiter(1), waiter(3), waiter(4))
    assert [w.end_offset for w in waiters.complete_up_to(ACKS_ALL, end_offset)] == done
    assert list(waiters.complete_up_to(ACKS_ALL, end_offset)) == [], "only once"
    assert len(waiters) == 3 - len(done)


def test_levels_are_separate() -> None:
    waiters = parked(waiter(1, acks=1), waiter(2, acks=2), waiter(3, acks=ACKS_ALL))
    assert sorted(waiters.levels()) == [ACKS_ALL, 1, 2]
    assert [w.acks for w in waiters.complete_up_to(1, 99)] == [1]
    assert sorted(waiters.levels()) == [ACKS_ALL, 2]
    assert [w.acks for w in waiters.fail_all(2)] == [2]
    assert [w.acks for w in waiters.fail_all()] == [ACKS_ALL]
    assert waiters.levels() == []


def test_who_has_been_answered_already_is_kept_by_nobody() -> None:
    """The one in the middle goes first: time limits differ."""
    before = kept()
    first, late, open_ = waiter(1), waiter(2), waiter(3)
    waiters = parked(first, late, open_)
    late.pending.resolve(0, result())
    first.pending.resolve(0, result())
    del first, late
    assert kept() == before + 1
    assert len(waiters) == 1
    assert list(waiters.complete_up_to(ACKS_ALL, 99)) == [open_]


def test_an_append_out_of_order_is_a_programming_error() -> None:
    waiters = parked(waiter(3))
    with pytest.raises(AssertionError, match="offset order"):
        waiters.park(waiter(3))


# --- deadlines ------------------------------------------------------------------------------------


def test_deadlines_come_in_order_and_once() -> None:
    deadlines = Deadlines()
    for deadline_ms, request_id in [(30, 1), (10, 2), (20, 3), (10, 4)]:
        deadlines.add(deadline_ms, request_id, request_id)
    assert list(deadlines.expire(9)) == []
    assert list(deadlines.expire(20)) == [2, 4, 3]
    assert list(deadlines.expire(20)) == []
    deadlines.remove(30, 1)
    deadlines.remove(30, 1)
    assert len(deadlines) == 0
    assert list(deadlines.expire(99)) == []


def test_a_request_may_be_removed_while_others_expire() -> None:
    deadlines = Deadlines()
    deadlines.add(10, 1, "first")
    deadlines.add(10, 2, "second")
    ended = []
    for found in deadlines.expire(10):
        ended.append(found)
        deadlines.remove(10, 2)
    assert ended == ["first"]


# --- every order of endings -----------------------------------------------------------------------


@dataclass
class Crowd:
    """Requests that are completed, failed, timed out in any order; counts how each ended."""

    waiters: ProduceWaiters = field(default_factory=ProduceWaiters)
    deadlines: Deadlines = field(default_factory=Deadlines)
    endings: dict[int, list[str]] = field(default_factory=dict)
    end_offset: int = 0

    def park(self, acks: int, deadline_ms: int) -> None:
        self.end_offset += 1
        request = PendingProduce(self.end_offset, [ProducePartition(TOPIC, 0, NOTHING)], deadline_ms)
        self.deadlines.add(deadline_ms, request.request_id, request)
        self.waiters.park(Waiter(request, 0, self.end_offset - 1, self.end_offset, 0, 0, acks))
        self.endings[request.request_id] = []

    def end(self, request: PendingProduce, how: str) -> None:
        if request.resolve(0, result()):
            self.deadlines.remove(request.deadline_ms, request.request_id)
            self.endings[request.request_id].append(how)

    def complete(self, acks: int, end_offset: int) -> None:
        for done in self.waiters.complete_up_to(acks, end_offset):
            assert done.end_offset <= end_offset
            assert done.acks == acks
            self.end(done.pending, "done")

    def fail(self, acks: int, _: int) -> None:
        for lost in self.waiters.fail_all(acks):
            self.end(lost.pending, "failed")

    def expire(self, _: int, now_ms: int) -> None:
        for late in self.deadlines.expire(now_ms):
            assert isinstance(late, PendingProduce)
            self.end(late, "late")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["park", "park", "complete", "fail", "expire"]),
            st.sampled_from([ACKS_ALL, 1, 2]),
            st.integers(0, 12),
        ),
        max_size=30,
    )
)
@settings(deadline=None, max_examples=60)
def test_every_waiter_ends_exactly_once(steps: list[tuple[str, int, int]]) -> None:
    crowd = Crowd()
    for name, acks, number in steps:
        getattr(crowd, name)(acks, number)
        still_open = sum(1 for ended in crowd.endings.values() if not ended)
        assert len(crowd.waiters) == len(crowd.deadlines) == still_open
    for lost in crowd.waiters.fail_all():
        crowd.end(lost.pending, "failed")
    assert all(len(ended) == 1 for ended in crowd.endings.values())
    assert len(crowd.waiters) == len(crowd.deadlines) == 0
