"""What the record of a partition says while its replicas are changed, and when that is complete."""

from __future__ import annotations

from itertools import combinations

import pytest
from msgspec.structs import replace

from minilog.core.image import PartitionState, check_partition
from minilog.core.moves.moving import (
    adding,
    begun,
    cancelled,
    completed,
    is_cancelled,
    is_moving,
    least_factor,
    missing,
    must_hand_over,
    parting_isr,
    redirected,
    removing,
    settled_replicas,
)
from tests.unit.core.builders import partition_state


def moving(*target: int, leader: int = 1, isr: tuple[int, ...] = (1, 2, 3)) -> PartitionState:
    return replace(begun(partition_state(), list(target)), leader=leader, isr=list(isr))


def running(broker_id: int) -> bool:
    return True


def test_what_a_moving_partition_says() -> None:
    state = moving(4, 1, 2)
    assert (state.replicas, state.former, state.target) == ([4, 1, 2, 3], [1, 2, 3], [4, 1, 2])
    assert (adding(state), removing(state), missing(state)) == ([4], [3], [])
    assert (is_moving(state), is_cancelled(state), settled_replicas(state)) == (True, False, [4, 1, 2])
    assert missing(replace(state, isr=[1, 3])) == [2]
    assert least_factor(moving(1, 2)) == 2
    back = cancelled(state)
    assert (is_cancelled(back), adding(back), removing(back)) == (True, [], [4])
    check_partition(back)


@pytest.mark.parametrize(
    ("leader", "isr", "parting", "hands_over", "is_done"),
    [
        (1, (1, 2, 3), None, False, False),
        (1, (1, 2, 3, 4), [1, 2, 4], False, False),
        (1, (1, 3, 4), None, False, False),
        (1, (1, 2, 4), None, False, True),
        (3, (1, 2, 3, 4), None, True, False),
        (3, (1, 2, 3), None, False, False),
        (-1, (1, 2, 4), None, False, False),
    ],
)
def test_the_last_step(
    leader: int, isr: tuple[int, ...], parting: list[int] | None, hands_over: bool, is_done: bool
) -> None:
    state = moving(4, 1, 2, leader=leader, isr=isr)
    found = parting_isr(state, 2, running)
    assert (None if found is None else sorted(found)) == parting
    assert must_hand_over(state, 2, running) is hands_over
    assert (completed(state, 2, running) != state) is is_done
    if is_done:
        assert completed(state, 2, running) == partition_state(replicas=[4, 1, 2], isr=[4, 1, 2])


@pytest.mark.parametrize(
    ("isr", "away", "parting"),
    [
        ((1, 2, 3, 4), (), [1, 2, 3]),
        ((1, 2, 4), (3,), [1, 2]),
        ((1, 2, 4), (), None),
        ((1, 4), (2, 3), None),
    ],
)
def test_a_cancelled_move_is_over_when_all_of_the_former_that_run_are_in_sync(
    isr: tuple[int, ...], away: tuple[int, ...], parting: list[int] | None
) -> None:
    """And these are min.insync.replicas at least."""
    state = cancelled(moving(4, 5, 6, isr=isr))
    assert parting_isr(state, 2, lambda broker_id: broker_id not in away) == parting
    assert completed(state, 2, lambda broker_id: broker_id not in away) == state
    led = replace(state, leader=4)
    assert must_hand_over(led, 2, lambda broker_id: broker_id not in away) is (parting is not None)


def test_a_cancelled_move_is_over_at_once_where_nobody_that_goes_is_complete() -> None:
    state = cancelled(moving(4, 5, 6, isr=(1,)))
    assert completed(state, 2, running).replicas == [1, 2, 3]
    assert completed(replace(state, elr=[2]), 2, running).elr == [2]
    for pool in ("elr", "last_known_elr"):
        one_counts = replace(state, **{pool: [4]})
        assert completed(one_counts, 2, running) == one_counts


def test_what_goes_back_may_go_elsewhere_among_its_replicas() -> None:
    """All of that target have to be in sync, then."""
    state = redirected(cancelled(moving(4, 5, 6, leader=4, isr=(4, 5))), [4, 5])
    assert (state.former, adding(state), removing(state)) == ([1, 2, 3], [4, 5], [6, 1, 2, 3])
    check_partition(state)
    assert completed(state, 2, running).replicas == [4, 5]
    assert completed(replace(state, isr=[4]), 2, running).target == [4, 5]


def test_where_nobody_goes_the_isr_of_the_others_does_not_matter() -> None:
    """Another order, and a factor that is raised: who is away is away still."""
    assert completed(moving(3, 2, 1, isr=(1,)), 1, running).replicas == [3, 2, 1]
    raised = moving(1, 2, 3, 4, isr=(1, 2, 3))
    assert completed(raised, 2, running) == raised
    assert completed(replace(raised, isr=[1, 2, 3, 4]), 2, running).replicas == [1, 2, 3, 4]
    assert completed(cancelled(raised), 2, running) != cancelled(raised)
    lowered = moving(1, 2, isr=(1, 3))
    assert completed(cancelled(lowered), 2, running).replicas == [1, 2, 3]


def test_no_step_leaves_fewer_complete_copies() -> None:
    """Whatever the ISR, the leader and the target are: what is completed has all of its target in
    sync."""
    brokers = (1, 2, 3, 4, 5)
    for count in (1, 2, 3):
        for target in combinations(brokers, count):
            for size in range(1, 6):
                for isr in combinations(brokers, size):
                    members = tuple(r for r in isr if r in {1, 2, 3, *target})
                    for leader in members:
                        _check_step(moving(*target, leader=leader, isr=members))


def _check_step(state: PartitionState) -> None:
    done = completed(state, 1, running)
    check_partition(done)
    if removing(state) and done != state:
        assert sorted(done.isr) == sorted(state.target)
    if (parting := parting_isr(state, 1, running)) is not None:
        assert sorted(parting) == sorted(state.target)
        assert state.leader in parting
