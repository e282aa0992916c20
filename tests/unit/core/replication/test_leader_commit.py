"""What a leader calls committed (R7, R8, R13), whom it answers when (R9, R10, R11)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from minilog.core.replication.leader import LeaderState, Outcome
from minilog.core.replication.produce_waiters import Waiter
from minilog.core.replication.progress import Proposal
from minilog.errors import DiskFull, InvalidAcks, LeadershipLost, NotEnoughReplicas, NotEnoughReplicasAfterAppend
from minilog.wire.batch import ACKS_MANY, ACKS_ONE, ACKS_ZERO, LOG_APPEND_TIME, split
from minilog.wire.messages import ACKS_ALL, IsrMember
from tests.unit.core.builders import (
    BATCH_BYTES_MAX,
    LAG_MAX_MS,
    extend,
    fetched,
    leader_of,
    log_of,
    memory_log,
    partition_state,
    pending_of,
    produce,
    produced,
)
from tests.unit.core.memory_log import MemoryLog


def advance(leader: LeaderState, now_ms: int = 0) -> list[Outcome]:
    return leader.advance(now_ms, LAG_MAX_MS)


def committed(leader: LeaderState, now_ms: int = 0) -> int:
    advance(leader, now_ms)
    return leader.high_watermark


# --- the high watermark (R8) ----------------------------------------------------------------------


def test_nothing_commits_before_every_isr_member_was_heard_in_this_epoch() -> None:
    leader = leader_of(partition_state(), log_of((5, 3)))
    assert committed(leader) == 0
    fetched(leader, 2, 3)
    assert committed(leader) == 0, "3 held the records in an earlier epoch perhaps, which proves nothing"
    fetched(leader, 3, 2)
    assert committed(leader) == 2
    fetched(leader, 3, 3)
    assert committed(leader) == 3


def test_the_leaders_own_log_counts_only_as_far_as_it_is_durable() -> None:
    leader = leader_of(partition_state(), log_of((5, 2)))
    extend(memory_log(leader), 5, 3, synced=False)
    fetched(leader, 2, 5)
    fetched(leader, 3, 5)
    assert committed(leader) == 2
    memory_log(leader).sync()
    assert committed(leader) == 5


def test_under_flush_policy_interval_the_written_end_counts() -> None:
    leader = leader_of(partition_state(replicas=[1]), flush_policy="interval")
    extend(memory_log(leader), 5, 3, synced=False)
    assert committed(leader) == 3


@pytest.mark.parametrize(("isr", "min_isr", "expected"), [([1], 2, 0), ([1], 1, 3), ([1, 2], 2, 3), ([1, 2], 3, 0)])
def test_nothing_commits_below_min_isr(isr: list[int], min_isr: int, expected: int) -> None:
    leader = leader_of(partition_state(isr=isr), log_of((5, 3)), min_isr=min_isr)
    for member in isr[1:]:
        fetched(leader, member, 3)
    assert committed(leader) == expected


def test_min_isr_above_the_replicas_means_all_of_them() -> None:
    leader = leader_of(partition_state(replicas=[1, 2]), log_of((5, 3)), min_isr=3)
    assert leader.min_isr == 2
    fetched(leader, 2, 3)
    assert committed(leader) == 3


def test_a_proposed_member_counts_from_the_moment_of_proposing() -> None:
    leader = leader_of(partition_state(isr=[1, 2]), log_of((5, 3)))
    fetched(leader, 2, 3)
    fetched(leader, 3, 3)
    assert committed(leader) == 3
    assert leader.propose(0, LAG_MAX_MS, shrink=False)
    assert leader.maximal_isr == {1, 2, 3}
    extend(memory_log(leader), 5, 2)
    fetched(leader, 2, 5)
    assert committed(leader) == 3, "3 may be elected as soon as the controller has the proposal (R13)"
    fetched(leader, 3, 5)
    assert committed(leader) == 5


def test_a_member_that_is_proposed_to_leave_still_counts() -> None:
    leader = leader_of(partition_state(), log_of((5, 3)))
    fetched(leader, 2, 3)
    assert leader.propose(LAG_MAX_MS + 1, LAG_MAX_MS, shrink=True)
    assert leader.proposal is not None
    assert 3 not in leader.proposal.isr
    assert committed(leader, LAG_MAX_MS + 1) == 0


def test_a_caught_up_follower_about_to_join_is_waited_for() -> None:
    leader = leader_of(partition_state(isr=[1]), log_of((5, 3)))
    fetched(leader, 2, 3)
    extend(memory_log(leader), 5, 1)
    assert committed(leader) == 3
    assert committed(leader, LAG_MAX_MS + 1) == 4, "but not one that has fallen behind"


def test_one_that_may_not_join_is_not_waited_for() -> None:
    leader = leader_of(partition_state(isr=[1]), log_of((5, 3)), is_current=lambda broker_id, epoch: False)
    fetched(leader, 2, 3)
    extend(memory_log(leader), 5, 1)
    assert committed(leader) == 4


# --- knowing the high watermark (R7) --------------------------------------------------------------


def test_a_new_leader_does_not_know_the_high_watermark_before_its_own_start_is_committed() -> None:
    leader = leader_of(partition_state(), log_of((4, 5), high_watermark=3))
    assert (leader.high_watermark, leader.start_offset) == (3, 5)
    assert not leader.high_watermark_known
    fetched(leader, 2, 5)
    fetched(leader, 3, 4)
    assert committed(leader) == 4
    assert not leader.high_watermark_known
    fetched(leader, 3, 5)
    assert committed(leader) == 5
    assert leader.high_watermark_known


def test_an_empty_log_is_known_at_once() -> None:
    assert leader_of(partition_state()).high_watermark_known


def test_the_high_watermark_is_told_to_the_log() -> None:
    leader = leader_of(partition_state(replicas=[1]), log_of((5, 2)))
    advance(leader)
    assert memory_log(leader).high_watermark == 2


# --- every history: a second version of R8 --------------------------------------------------------


@dataclass
class Model:
    """The leader of 1, 2, 3 in one epoch, and beside it what R8 says in the plainest words."""

    min_isr: int
    isr: list[int]
    leader: LeaderState = field(init=False)
    positions: dict[int, int | None] = field(default_factory=lambda: dict.fromkeys([2, 3]))
    proposed: list[int] = field(default_factory=list)
    high_watermark: int = 0
    now_ms: int = 0
    partition_epoch: int = 10
    sequence: int = 0

    def __post_init__(self) -> None:
        self.leader = leader_of(partition_state(isr=self.isr), log_of((4, 2)), min_isr=self.min_isr)

    def append(self, _: int) -> None:
        extend(memory_log(self.leader), 5, 1, synced=False)

    def flush(self, _: int) -> None:
        memory_log(self.leader).sync()

    def fetch(self, number: int) -> None:
        broker_id, offset = 2 + number % 2, number // 2
        if offset <= self.leader.log.end_offset:
            assert fetched(self.leader, broker_id, offset, now_ms=self.now_ms) is None
            self.positions[broker_id] = max(offset, self.positions[broker_id] or 0)

    def wait(self, number: int) -> None:
        self.now_ms += number * 1000

    def propose(self, number: int) -> None:
        if self.leader.propose(self.now_ms, LAG_MAX_MS, shrink=number % 2 == 0):
            assert self.leader.proposal is not None
            self.proposed = list(self.leader.proposal.isr)

    def apply(self, number: int) -> None:
        """The controller agrees with what was proposed, or has decided something else."""
        isr = self.proposed or [[1], [1, 2], [1, 3], [1, 2, 3]][number % 4]
        self.partition_epoch += 1
        state = replace(self.leader.state, isr=isr, partition_epoch=self.partition_epoch)
        self.leader.on_state_changed(state, self.leader.settings)
        self.isr, self.proposed = isr, []

    def refuse(self, _: int) -> None:
        if self.proposed:
            self.sequence += 1
            self.leader.send_proposal(self.sequence)
            self.leader.on_refused(self.sequence, 0)
            self.proposed = []

    def check(self) -> None:
        before = self.leader.high_watermark
        advance(self.leader, self.now_ms)
        found = self.leader.high_watermark
        assert found >= before, "never back"
        members = {*self.isr, *self.proposed}
        ends = [memory_log(self.leader).durable_end, *(self.positions[r] for r in members if r != 1)]
        allowed = self.high_watermark
        if len(self.isr) >= self.min_isr and None not in ends:
            allowed = max(allowed, min(end for end in ends if end is not None))
        assert found <= allowed
        if members == {1, 2, 3}:
            assert found == allowed, "nobody else is waited for"
        self.high_watermark = found


HISTORY = ["append", "append", "flush", "fetch", "fetch", "fetch", "wait", "propose", "apply", "refuse"]


@given(
    min_isr=st.integers(1, 3),
    isr=st.sampled_from([[1], [1, 2], [1, 3], [1, 2, 3]]),
    steps=st.lists(st.tuples(st.sampled_from(HISTORY), st.integers(0, 15)), max_size=40),
)
@settings(deadline=None, max_examples=70)
def test_the_high_watermark_never_passes_what_r8_allows(
    min_isr: int, isr: list[int], steps: list[tuple[str, int]]
) -> None:
    model = Model(min_isr, isr)
    for name, number in steps:
        getattr(model, name)(number)
        model.check()


# --- before the append (R11) ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("isr", "min_isr", "acks", "error"),
    [
        ([1], 2, ACKS_ALL, NotEnoughReplicas),
        ([1], 2, 2, NotEnoughReplicas),
        ([1, 2], 2, 3, NotEnoughReplicas),
        ([1, 2, 3], 2, 4, InvalidAcks),
        ([1], 2, 1, None),
        ([1], 2, 0, None),
        ([1, 2], 2, ACKS_ALL, None),
        ([1, 2], 3, 2, None),
        ([1], 1, ACKS_ALL, None),
    ],
)
def test_a_promise_that_cannot_be_kept_now_is_refused_before_the_append(
    isr: list[int], min_isr: int, acks: int, error: type[NotEnoughReplicas | InvalidAcks] | None
) -> None:
    leader = leader_of(partition_state(isr=isr), min_isr=min_isr)
    if error is None:
        leader.check_acks(acks)
        return
    with pytest.raises(error) as caught:
        leader.check_acks(acks)
    assert caught.value.definite
    if error is NotEnoughReplicas:
        assert caught.value.info["isr"] == isr


# --- acks levels (R9) -----------------------------------------------------------------------------


def ended(leader: LeaderState) -> bool:
    return bool(advance(leader))


def test_acks_all_waits_for_the_high_watermark() -> None:
    leader = leader_of(partition_state(isr=[1, 2]))
    produce(leader, b"a", b"b")
    assert not ended(leader)
    fetched(leader, 2, 0)
    assert not ended(leader)
    fetched(leader, 2, 2)
    assert ended(leader)
    assert not ended(leader), "once"


def test_acks_one_waits_for_the_leaders_disk_alone() -> None:
    leader = leader_of(partition_state())
    produce(leader, b"a", acks=1, synced=False)
    assert not ended(leader)
    memory_log(leader).sync()
    assert ended(leader)


def test_acks_zero_is_answered_at_once_and_names_no_offset() -> None:
    leader = leader_of(partition_state())
    _, outcome = produce(leader, b"a", acks=0, synced=False)
    assert outcome is not None
    result = outcome.result
    assert (result.problem, result.acks) == (None, 0)
    assert (result.base_offset, result.end_offset, result.timestamp, result.crc) == (None, None, None, None)
    assert len(leader.waiters) == 0
    assert leader.log.end_offset == 1


@pytest.mark.parametrize(
    ("acks", "two", "three", "reached"),
    [
        (2, 0, 0, False),
        (2, 1, 0, True),
        (2, 0, 1, True),
        (3, 1, 0, False),
        (3, 1, 1, True),
        (ACKS_ALL, 1, 0, False),
        (ACKS_ALL, 1, 1, True),
    ],
)
def test_acks_n_counts_copies_in_the_isr(acks: int, two: int, three: int, reached: bool) -> None:
    leader = leader_of(partition_state())
    produce(leader, b"a", acks=acks)
    fetched(leader, 2, two)
    fetched(leader, 3, three)
    assert ended(leader) is reached


def test_a_copy_outside_the_isr_does_not_count_because_no_election_asks_it() -> None:
    leader = leader_of(partition_state(isr=[1, 2]), is_current=lambda broker_id, epoch: False)
    produce(leader, b"a", acks=2)
    fetched(leader, 3, 1)
    assert not ended(leader)
    fetched(leader, 2, 1)
    assert ended(leader)


@pytest.mark.parametrize(
    ("isr", "proposed", "holders", "acks", "reached"),
    [
        # a proposal that removes 3: the controller may have agreed, and an election would not ask
        # it any more
        ([1, 2, 3], [1, 2], {3}, 2, False),
        ([1, 2, 3], [1, 2], {2}, 2, True),
        ([1, 2, 3], [1, 2], {2, 3}, 3, False),
        ([1, 2, 3], [1], {2, 3}, 2, False),
        # one that adds 3: the controller may not have agreed yet
        ([1, 2], [1, 2, 3], {3}, 2, False),
        ([1, 2], [1, 2, 3], {2}, 2, True),
        ([1, 2], [1, 2, 3], {2, 3}, 3, False),
        # one that does both
        ([1, 2], [1, 3], {2, 3}, 2, False),
        # none
        ([1, 2, 3], None, {3}, 2, True),
        ([1, 2, 3], None, {2, 3}, 3, True),
    ],
)
def test_acks_n_counts_only_who_is_in_the_isr_whatever_becomes_of_the_proposal(
    isr: list[int], proposed: list[int] | None, holders: set[int], acks: int, reached: bool
) -> None:
    leader = leader_of(partition_state(isr=isr))
    if proposed is not None:
        leader.proposal = Proposal(tuple(IsrMember(r, 7) for r in proposed), 10, 1)
    leader.waiters.park(Waiter(pending_of(), 0, 0, 1, 1000, 0, acks, 5))
    extend(memory_log(leader), 5, 1)
    for follower in (2, 3):
        fetched(leader, follower, int(follower in holders))
    assert ended(leader) is reached


def test_a_copy_that_a_refused_proposal_had_taken_out_counts_again() -> None:
    leader = leader_of(partition_state())
    produce(leader, b"a", acks=2)
    fetched(leader, 3, 1)
    leader.proposal = Proposal((IsrMember(1, 7), IsrMember(2, 7)), 10, 4)
    assert not ended(leader)
    leader.on_refused(4, 0)
    assert ended(leader)


def test_the_leader_is_among_the_copies_it_promises() -> None:
    leader = leader_of(partition_state())
    produce(leader, b"a", acks=2, synced=False)
    fetched(leader, 2, 1)
    fetched(leader, 3, 1)
    assert not ended(leader), "two others hold it, the leader's own disk does not yet"
    memory_log(leader).sync()
    assert ended(leader)


def test_levels_of_one_partition_end_each_in_its_time() -> None:
    leader = leader_of(partition_state())
    for acks in (ACKS_ALL, 2, 1):
        produce(leader, b"v", acks=acks, synced=False)
    memory_log(leader).sync()
    assert [o.result.acks for o in advance(leader)] == [1]
    fetched(leader, 2, 3)
    assert [o.result.acks for o in advance(leader)] == [2]
    fetched(leader, 3, 3)
    assert [o.result.acks for o in advance(leader)] == [ACKS_ALL]


# --- what is written and said ---------------------------------------------------------------------


def test_the_receipt_says_what_lies_in_the_log() -> None:
    leader = leader_of(partition_state(replicas=[1, 2], isr=[1]), log_of((4, 3)))
    produce(leader, b"a", b"b")
    (outcome,) = advance(leader)
    result = outcome.result
    stored = memory_log(leader).batches[-1]
    assert (result.base_offset, result.end_offset, result.leader_epoch) == (3, 5, 5)
    assert (result.timestamp, result.crc) == (1000, stored.crc)
    assert (result.acks, result.isr) == (ACKS_ALL, [1])


@pytest.mark.parametrize(("acks", "level"), [(0, ACKS_ZERO), (1, ACKS_ONE), (2, ACKS_MANY), (ACKS_ALL, ACKS_MANY)])
def test_batches_get_offset_epoch_and_the_promise_they_were_given(acks: int, level: int) -> None:
    leader = leader_of(partition_state(), log_of((4, 1)))
    batches = split(produced(b"a", b"b") + produced(b"c"), BATCH_BYTES_MAX)
    leader.on_produce(batches, acks, pending_of(b"a"), 0, 0)
    first, second = memory_log(leader).batches[1:]
    assert [(b.base_offset, b.leader_epoch, b.acks_level) for b in (first, second)] == [(1, 5, level), (3, 5, level)]
    for batch in (first, second):
        assert split(batch.tobytes(), BATCH_BYTES_MAX, stored=True)[0].crc == batch.crc


def test_log_append_time_is_the_time_of_the_append() -> None:
    leader = leader_of(partition_state(replicas=[1]), message_timestamp_type="LogAppendTime")
    produce(leader, b"a", now_ms=77_000)
    (batch,) = memory_log(leader).batches
    assert (batch.max_timestamp, batch.timestamp_type) == (77_000, LOG_APPEND_TIME)
    (outcome,) = advance(leader)
    assert outcome.result.timestamp == 77_000


def test_a_full_disk_leaves_nobody_waiting() -> None:
    log = MemoryLog()
    log.room = 0
    leader = leader_of(partition_state(), log)
    with pytest.raises(DiskFull):
        produce(leader, b"a")
    assert (log.end_offset, len(leader.waiters)) == (0, 0)


# --- the end of waiting (R10, R11) ----------------------------------------------------------------


def test_resigning_fails_every_waiter_and_proves_nothing() -> None:
    leader = leader_of(partition_state())
    waiting = [produce(leader, b"v", acks=acks)[0] for acks in (ACKS_ALL, 2, 1)]
    outcomes = leader.resign()
    assert {o.pending for o in outcomes} == set(waiting)
    for outcome in outcomes:
        assert outcome.result.problem is not None
        assert outcome.result.problem.code == LeadershipLost.code
        assert not outcome.result.problem.definite
        assert outcome.result.base_offset is None
    assert len(leader.waiters) == 0
    assert leader.resign() == []


def test_progress_after_the_end_wakes_nobody() -> None:
    leader = leader_of(partition_state(isr=[1, 2]))
    produce(leader, b"a")
    leader.resign()
    fetched(leader, 2, 1)
    assert advance(leader) == []


@pytest.mark.parametrize(("isr", "failed_levels"), [([1, 2], {3}), ([1], {2, 3, ACKS_ALL}), ([1, 2, 3], set())])
def test_a_level_that_the_shrunken_isr_cannot_reach_fails_indefinitely(isr: list[int], failed_levels: set[int]) -> None:
    leader = leader_of(partition_state(), min_isr=2)
    levels = {id(produce(leader, b"v", acks=acks)[0]): acks for acks in (ACKS_ALL, 2, 3, 1)}
    memory_log(leader).durable_end = 0
    outcomes = leader.on_state_changed(partition_state(partition_epoch=11, isr=isr), leader.settings)
    assert {levels[id(o.pending)] for o in outcomes} == failed_levels
    for outcome in outcomes:
        assert outcome.result.problem is not None
        assert outcome.result.problem.code == NotEnoughReplicasAfterAppend.code
        assert not outcome.result.problem.definite
        assert outcome.result.problem.info["isr"] == isr


def test_older_metadata_changes_nothing() -> None:
    leader = leader_of(partition_state(partition_epoch=10))
    produce(leader, b"a")
    assert leader.on_state_changed(partition_state(partition_epoch=9, isr=[1]), leader.settings) == []
    assert leader.state.isr == [1, 2, 3]


def test_a_shrink_completes_what_the_others_hold() -> None:
    leader = leader_of(partition_state(), min_isr=2)
    produce(leader, b"a")
    fetched(leader, 2, 1)
    assert not ended(leader)
    leader.on_state_changed(partition_state(partition_epoch=11, isr=[1, 2]), leader.settings)
    assert ended(leader)
