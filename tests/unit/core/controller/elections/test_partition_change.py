"""ISR, ELR and leader of one partition through every order of losses and returns (R20, R21, R27,
R28)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from minilog.core.controller.elections import partition_change as change
from minilog.core.controller.elections.partition_change import held_end
from minilog.core.image import PartitionState, check_partition
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import Position
from tests.unit.core.builders import partition_state


def everybody(broker_id: int) -> bool:
    return True


def only(*brokers: int) -> Callable[[int], bool]:
    return lambda broker_id: broker_id in brokers


def shape(state: PartitionState) -> tuple[int, list[int], list[int], list[int]]:
    return state.leader, state.isr, state.elr, state.last_known_elr


# --- the ISR changes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("isr", "elr", "last_known", "min_isr", "new_isr", "expected"),
    [
        # enough members: nobody else needs to be known as complete
        ([1, 2, 3], [], [], 2, [1, 2], ([1, 2], [], [])),
        ([1, 2], [], [], 2, [1, 2, 3], ([1, 2, 3], [], [])),
        # too few: who left is complete, for nothing commits any more
        ([1, 2], [], [], 2, [1], ([1], [2], [])),
        ([1, 2, 3], [], [], 2, [1], ([1], [2, 3], [])),
        ([1, 2, 3], [], [], 3, [1, 2], ([1, 2], [3], [])),
        ([1], [2], [], 2, [], ([], [1, 2], [])),
        # one of the ELR comes back: still too few, or enough
        ([1], [2, 3], [], 3, [1, 2], ([1, 2], [3], [])),
        ([1], [2, 3], [], 2, [1, 2], ([1, 2], [], [])),
        # the last known ones are remembered until there are enough again
        ([1], [], [2], 2, [], ([], [1], [2])),
        ([1], [], [2], 2, [1, 2], ([1, 2], [], [])),
        ([1], [], [2, 3], 3, [1, 2], ([1, 2], [], [3])),
    ],
)
def test_with_isr(
    isr: list[int], elr: list[int], last_known: list[int], min_isr: int, new_isr: list[int], expected: object
) -> None:
    state = partition_state(isr=isr, elr=elr, last_known_elr=last_known, leader=NO_LEADER)
    changed = change.with_isr(state, new_isr, min_isr)
    assert (changed.isr, changed.elr, changed.last_known_elr) == expected
    assert changed.partition_epoch == state.partition_epoch
    assert changed.leader_epoch == state.leader_epoch


def test_members_stand_in_the_order_of_the_replicas_however_they_were_proposed() -> None:
    state = partition_state(replicas=[3, 1, 2], isr=[3], leader=3)
    assert change.with_isr(state, [2, 1, 3], 1).isr == [3, 1, 2]


# --- a broker is lost -----------------------------------------------------------------------------


def test_losing_a_follower_keeps_leader_and_epoch() -> None:
    changed = change.without_replica(partition_state(), 3, 2, everybody)
    assert shape(changed) == (1, [1, 2], [], [])
    assert changed.leader_epoch == 5


def test_losing_somebody_outside_the_isr_changes_nothing() -> None:
    state = partition_state(isr=[1, 2])
    assert change.without_replica(state, 3, 2, everybody) == state


def test_losing_the_leader_of_three_opens_the_next_epoch_without_a_leader() -> None:
    changed = change.without_replica(partition_state(), 1, 2, only(2, 3))
    assert shape(changed) == (NO_LEADER, [2, 3], [], [])
    assert changed.leader_epoch == 6


def test_a_single_candidate_leads_at_once() -> None:
    changed = change.without_replica(partition_state(isr=[1, 2]), 1, 2, only(2, 3))
    assert shape(changed) == (2, [2], [1], [])
    assert changed.leader_epoch == 6


def test_a_single_candidate_of_the_elr_leads_at_once_and_enters_the_isr() -> None:
    changed = change.without_replica(partition_state(isr=[1], elr=[2]), 1, 2, only(2, 3))
    assert shape(changed) == (2, [2], [1], [])
    assert changed.leader_epoch == 6


def test_losing_the_last_candidate_leaves_the_isr_empty_and_remembers_who_is_complete() -> None:
    changed = change.without_replica(partition_state(isr=[1], elr=[2]), 1, 2, only(3))
    assert shape(changed) == (NO_LEADER, [], [1, 2], [])
    assert changed.leader_epoch == 6


def test_a_drained_leader_hands_over_to_the_first_isr_member_without_an_election() -> None:
    changed = change.handed_over(partition_state(replicas=[1, 3, 2], isr=[1, 3, 2]), 1, 2, only(2, 3))
    assert shape(changed) == (3, [3, 2], [], [])
    assert changed.leader_epoch == 6


def test_handing_over_never_goes_to_the_elr_unasked_when_two_are_in_it() -> None:
    changed = change.handed_over(partition_state(isr=[1], elr=[2, 3]), 1, 2, only(2, 3))
    assert changed.leader == NO_LEADER
    assert change.candidates(changed, only(2, 3)) == [2, 3]


def test_a_follower_that_shuts_down_leaves_the_isr_and_changes_no_leader() -> None:
    changed = change.handed_over(partition_state(), 2, 2, only(1, 3))
    assert shape(changed) == (1, [1, 3], [], [])
    assert changed.leader_epoch == 5


# --- who may be elected ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("isr", "elr", "alive", "expected"),
    [
        ([1, 2, 3], [], (1, 2, 3), [1, 2, 3]),
        ([1, 2, 3], [], (3, 1), [1, 3]),
        ([1], [2, 3], (1, 2, 3), [1]),  # the ISR comes first, even one of it
        ([1], [2, 3], (3, 2), [2, 3]),
        ([], [2, 3], (3,), [3]),
        ([1], [2], (3,), []),
        ([], [], (1, 2, 3), []),
    ],
)
def test_candidates(isr: list[int], elr: list[int], alive: tuple[int, ...], expected: list[int]) -> None:
    state = partition_state(isr=isr, elr=elr, leader=NO_LEADER)
    assert change.candidates(state, only(*alive)) == expected


@pytest.mark.parametrize(
    ("isr", "elr", "last_known", "alive", "expected"),
    [
        ([], [], [1, 2], (1, 2, 3), [1, 2]),
        ([], [], [1, 2], (1, 3), []),  # one is missing: it may be the only one that holds what was committed
        ([], [], [], (1, 2, 3), []),
        ([], [3], [1, 2], (1, 2), []),  # somebody is known to be complete: wait for it
        ([3], [], [1, 2], (1, 2), []),
    ],
)
def test_recovery_candidates(
    isr: list[int], elr: list[int], last_known: list[int], alive: tuple[int, ...], expected: list[int]
) -> None:
    state = partition_state(isr=isr, elr=elr, last_known_elr=last_known, leader=NO_LEADER)
    assert change.recovery_candidates(state, only(*alive)) == expected


def test_with_leader_refuses_a_replica_that_is_not_known_to_be_complete() -> None:
    state = partition_state(isr=[1], elr=[2], leader=NO_LEADER)
    with pytest.raises(AssertionError):
        change.with_leader(state, 3, 2)


def test_with_leader_refuses_a_partition_that_has_one() -> None:
    with pytest.raises(AssertionError):
        change.with_leader(partition_state(), 2, 2)


def test_an_unclean_broker_leaves_the_elr_and_is_remembered() -> None:
    state = partition_state(isr=[], elr=[1, 2], last_known_elr=[3], leader=NO_LEADER)
    changed = change.without_unclean(state, 2)
    assert shape(changed) == (NO_LEADER, [], [1], [2, 3])
    assert change.without_unclean(changed, 2) == changed


@pytest.mark.parametrize(
    ("leader", "isr", "elr", "last_known", "min_isr", "alive", "expected"),
    [
        # the leader stays while nobody else is known to be complete and alive: what it can read is
        # served on
        (1, [1], [], [], 1, (2, 3), (1, [1], [], [])),
        (1, [1], [2, 3], [], 3, (), (1, [1], [2, 3], [])),
        (1, [1, 2, 3], [], [], 1, (), (1, [1, 2, 3], [], [])),
        (1, [1], [], [2], 2, (2, 3), (1, [1], [], [2])),
        # it resigns when somebody is: one candidate leads at once, more are asked
        (1, [1, 2], [], [], 1, (2, 3), (2, [2], [], [])),
        (1, [1, 2, 3], [], [], 2, (2, 3), (NO_LEADER, [2, 3], [], [])),
        (1, [1, 2, 3], [], [], 2, (3,), (3, [2, 3], [], [])),
        # and is not known to be complete, where others who leave would be
        (1, [1, 2], [], [], 2, (2,), (2, [2], [], [1])),
        (1, [1], [2], [], 2, (2,), (2, [2], [], [1])),
        (1, [1], [2, 3], [], 3, (2, 3), (NO_LEADER, [], [2, 3], [1])),
    ],
)
def test_a_leader_whose_replica_is_damaged(
    leader: int,
    isr: list[int],
    elr: list[int],
    last_known: list[int],
    min_isr: int,
    alive: tuple[int, ...],
    expected: object,
) -> None:
    state = partition_state(leader=leader, isr=isr, elr=elr, last_known_elr=last_known)
    changed = change.without_unfit(state, 1, min_isr, only(*alive))
    check_partition(changed)
    assert shape(changed) == expected
    assert changed.leader_epoch == 5 + (changed.leader != 1)


@pytest.mark.parametrize(
    ("leader", "isr", "elr", "last_known", "min_isr", "expected"),
    [
        (1, [1, 2, 3], [], [], 2, (1, [1, 2], [], [])),
        (1, [1, 3], [], [], 2, (1, [1], [], [3])),
        (1, [1], [2, 3], [], 3, (1, [1], [2], [3])),
        (1, [1], [3], [2], 3, (1, [1], [], [2, 3])),
        (NO_LEADER, [], [2, 3], [1], 2, (NO_LEADER, [], [2], [1, 3])),
        (NO_LEADER, [], [3], [], 1, (NO_LEADER, [], [], [3])),
        # outside of both there is nothing to leave
        (1, [1, 2], [], [], 2, (1, [1, 2], [], [])),
        (1, [1], [], [3], 2, (1, [1], [], [3])),
    ],
)
@pytest.mark.parametrize("alive", [(), (1, 2)])
def test_a_follower_whose_replica_is_damaged_neither_counts_nor_is_known_to_be_complete(
    leader: int,
    isr: list[int],
    elr: list[int],
    last_known: list[int],
    min_isr: int,
    expected: object,
    alive: tuple[int, ...],
) -> None:
    state = partition_state(leader=leader, isr=isr, elr=elr, last_known_elr=last_known)
    changed = change.without_unfit(state, 3, min_isr, only(*alive))
    check_partition(changed)
    assert shape(changed) == expected
    assert changed.leader_epoch == 5
    assert change.without_unfit(changed, 3, min_isr, only(*alive)) == changed, "said again with every heartbeat"


# --- every order of events (R20) ------------------------------------------------------------------


@dataclass
class Life:
    """One partition of three to five replicas, driven as the controller drives it."""

    min_isr: int
    state: PartitionState
    alive: set[int] = field(default_factory=set)
    unclean: int = 0

    def eligible(self, broker_id: int) -> bool:
        return broker_id in self.alive

    def fence(self, broker_id: int) -> None:
        self.alive.discard(broker_id)
        self.state = change.without_replica(self.state, broker_id, self.min_isr, self.eligible)

    def hand_over(self, broker_id: int) -> None:
        self.alive.discard(broker_id)
        self.state = change.handed_over(self.state, broker_id, self.min_isr, self.eligible)

    def come_back(self, broker_id: int) -> None:
        self.alive.add(broker_id)

    def come_back_unclean(self, broker_id: int) -> None:
        if broker_id not in self.alive:
            self.unclean += broker_id in self.state.elr
            self.state = change.without_unclean(self.state, broker_id)
            self.alive.add(broker_id)

    def expand(self, broker_id: int) -> None:
        if self.state.leader != NO_LEADER and broker_id in self.alive:
            self.state = change.with_isr(self.state, [*self.state.isr, broker_id], self.min_isr)

    def shrink(self, broker_id: int) -> None:
        if self.state.leader not in (NO_LEADER, broker_id):
            self.state = change.with_isr(self.state, [r for r in self.state.isr if r != broker_id], self.min_isr)

    def elect(self, broker_id: int) -> None:
        if self.state.leader == NO_LEADER and broker_id in change.candidates(self.state, self.eligible):
            self.state = change.with_leader(self.state, broker_id, self.min_isr)

    def recover(self, broker_id: int) -> None:
        if self.state.leader == NO_LEADER and broker_id in change.recovery_candidates(self.state, self.eligible):
            self.state = change.with_leader(self.state, broker_id, self.min_isr)

    def check(self, before: PartitionState) -> None:
        state = self.state
        check_partition(state)
        assert (state.leader == NO_LEADER) or state.leader in state.isr
        assert not set(state.isr) & set(state.elr)
        assert not set(state.last_known_elr) & {*state.isr, *state.elr}
        if len(state.isr) >= self.min_isr:
            assert state.elr == []
            assert state.last_known_elr == []
        if not self.unclean:
            assert len(state.isr) + len(state.elr) >= self.min_isr
            assert state.last_known_elr == []
        assert set(state.isr) <= self.alive, "nobody who is gone is in the ISR (R26)"
        assert state.leader_epoch - before.leader_epoch in (0, 1)
        lost_its_leader = before.leader not in (NO_LEADER, state.leader)
        assert (state.leader_epoch > before.leader_epoch) == lost_its_leader, "an epoch per leader"
        assert state.partition_epoch == before.partition_epoch, "the draft counts, once per record"
        assert {*before.isr, *before.elr} or not {*state.isr, *state.elr} or self.unclean


EVENTS = ["fence", "hand_over", "come_back", "come_back_unclean", "expand", "shrink", "elect", "recover"]


@given(
    replicas=st.integers(3, 5),
    min_isr=st.integers(1, 3),
    steps=st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(1, 5)), max_size=40),
)
@settings(deadline=None, max_examples=80)
def test_isr_and_elr_stay_sound_through_any_life(replicas: int, min_isr: int, steps: list[tuple[str, int]]) -> None:
    members = list(range(1, replicas + 1))
    life = Life(min_isr, partition_state(replicas=members), alive=set(members))
    for name, broker_id in steps:
        if broker_id in members:
            before = life.state
            getattr(life, name)(broker_id)
            life.check(before)
    event("a leader" if life.state.leader != NO_LEADER else "no leader")


@given(
    min_isr=st.integers(1, 3),
    steps=st.lists(st.tuples(st.sampled_from(["fence", "come_back", "expand", "shrink", "elect"]), st.integers(1, 3))),
)
@settings(deadline=None, max_examples=60)
def test_whoever_may_be_elected_has_held_everything_committed(min_isr: int, steps: list[tuple[str, int]]) -> None:
    """LeaderCandidateCompleteness: a second model tracks what each replica holds, and commits as R8
    allows."""
    life = Life(min_isr, partition_state(), alive={1, 2, 3})
    held = dict.fromkeys([1, 2, 3], 0)
    committed = 0
    for name, broker_id in steps:
        leader = life.state.leader
        if leader != NO_LEADER:
            held[leader] += 1
            for member in life.state.isr:
                held[member] = held[leader]
            if len(life.state.isr) >= min_isr:
                committed = held[leader]
        if name == "expand" and life.state.leader != NO_LEADER and broker_id in life.alive:
            held[broker_id] = held[life.state.leader]
        getattr(life, name)(broker_id)
        for candidate in {*life.state.isr, *life.state.elr}:
            assert held[candidate] >= committed


@pytest.mark.parametrize(
    ("log", "ends", "held"),
    [
        ((4, 12), [(5, 11), (4, 8)], 8),
        ((4, 6), [(5, 11), (4, 8)], 6),
        ((4, 12), [(5, 11), (3, 7)], 7),
        ((5, 9), [(5, 11), (4, 8)], 9),
        ((4, 12), [(7, 11), (6, 8)], 12),  # how far the other one goes back is not told
    ],
)
def test_what_a_log_holds_of_another_ends_where_the_other_went_on_without_it(
    log: tuple[int, int], ends: list[tuple[int, int]], held: int
) -> None:
    one = Position("t", "id", 0, 8, *log)
    other = Position("t", "id", 0, 8, *ends[0], epoch_ends=ends)
    assert held_end(one, other) == held
