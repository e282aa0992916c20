"""How a leader follows its followers: positions, epochs, who joins and leaves the ISR, and the life
of a proposal."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from minilog.core.image import PartitionState
from minilog.core.moves.moving import begun, cancelled
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.leader_isr import LACKS_MAX_MS
from minilog.core.replication.progress import Progress
from minilog.errors import FencedLeaderEpoch, OffsetOutOfRange, UnknownLeaderEpoch
from minilog.wire.messages import IsrMember, ReplicaFetchPartition
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.builders import (
    LAG_MAX_MS,
    TOPIC,
    TOPIC_ID,
    extend,
    fetched,
    leader_of,
    log_of,
    memory_log,
    partition_state,
    position,
    produce,
)


def grow(leader: LeaderState, now_ms: int = 0) -> bool:
    return leader.propose(now_ms, LAG_MAX_MS, shrink=False)


def shrink(leader: LeaderState, now_ms: int) -> bool:
    return leader.propose(now_ms, LAG_MAX_MS, shrink=True)


def proposed(leader: LeaderState) -> set[int]:
    assert leader.proposal is not None
    return set(leader.proposal.isr)


# --- epochs (R4) ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("leader_epoch", "error"), [(4, FencedLeaderEpoch), (6, UnknownLeaderEpoch)])
def test_a_fetch_of_another_leader_epoch_is_refused_and_not_counted(leader_epoch: int, error: type[Exception]) -> None:
    leader = leader_of(partition_state(), log_of((4, 3)))
    with pytest.raises(error) as caught:
        leader.on_fetch(2, 7, position(3, 4, leader_epoch), 0)
    assert caught.value.info == {"leader_epoch": 5}  # type: ignore[attr-defined]
    assert leader.followers[2].position is None


@pytest.mark.parametrize("fetch_offset", [9, 16])
def test_a_position_outside_the_log_is_refused_with_the_range(fetch_offset: int) -> None:
    leader = leader_of(partition_state(), log_of((5, 5), start_offset=10))
    with pytest.raises(OffsetOutOfRange) as caught:
        leader.on_fetch(2, 7, position(fetch_offset, -1), 0)
    assert caught.value.info == {"log_start_offset": 10, "log_end_offset": 15}
    assert leader.followers[2].position is None


def test_a_diverging_position_is_not_counted() -> None:
    leader = leader_of(partition_state(), log_of((2, 3), (5, 3)))
    assert leader.on_fetch(2, 7, position(5, 3), 0) == (2, 3)
    assert leader.followers[2].position is None


def test_an_empty_log_that_diverges_is_to_begin_anew() -> None:
    """Only the epoch before its start diverges: there is nothing to cut, and it would be told so
    for ever."""
    leader = leader_of(partition_state(), log_of((3, 15)))
    empty = replace(position(10, 4), start_offset=10)
    with pytest.raises(OffsetOutOfRange, match="nothing to cut"):
        leader.on_fetch(2, 7, empty, 0)


def test_nothing_is_proposed_while_a_member_was_not_heard() -> None:
    """A proposal names the process of each member. The controller would refuse one it cannot
    name."""
    leader = leader_of(partition_state(isr=[1, 2]), log_of((5, 5)))
    fetched(leader, 3, 5)
    assert not grow(leader)
    fetched(leader, 2, 5)
    assert grow(leader)
    assert proposed(leader) == {1, 2, 3}


# --- where a follower's log begins (R18) ----------------------------------------------------------


def later(fetch_offset: int, start_offset: int) -> ReplicaFetchPartition:
    """A position of a log that begins there, and agrees with the leader's as far as it goes."""
    return replace(position(fetch_offset, 5), start_offset=start_offset)


def test_an_empty_log_that_begins_later_than_the_leaders_is_to_begin_anew() -> None:
    leader = leader_of(partition_state(isr=[1]), log_of((5, 5)))
    with pytest.raises(OffsetOutOfRange) as caught:
        leader.on_fetch(2, 7, later(3, 3), 0)
    assert caught.value.info == {"log_start_offset": 0, "log_end_offset": 5, "begins_anew": True}
    assert leader.followers[2].position is None


def test_a_log_that_begins_later_than_the_leaders_is_waited_for_outside_the_isr() -> None:
    leader = leader_of(partition_state(isr=[1]), log_of((5, 5)))
    assert leader.on_fetch(2, 7, later(5, 3), 0) is None
    assert not grow(leader)
    leader.log_start.published = 3
    assert leader.on_fetch(2, 7, later(5, 3), 1) is None
    assert grow(leader, 1)
    assert proposed(leader) == {1, 2}


def test_one_that_has_been_waited_for_long_enough_begins_anew() -> None:
    leader = leader_of(partition_state(isr=[1]), log_of((5, 5)))
    for now_ms in (0, LACKS_MAX_MS):
        leader.on_fetch(2, 7, later(5, 3), now_ms)
    with pytest.raises(OffsetOutOfRange) as caught:
        leader.on_fetch(2, 7, later(5, 3), LACKS_MAX_MS + 1)
    assert caught.value.info["begins_anew"] is True
    assert leader.on_fetch(2, 7, later(0, 0), LACKS_MAX_MS + 2) is None
    assert leader.followers[2].position == 0, "what it told before counts for nothing"


def test_a_member_of_the_isr_may_begin_later() -> None:
    """It took over what the leader before had published."""
    leader = leader_of(partition_state(), log_of((5, 5)))
    assert leader.on_fetch(2, 7, later(5, 3), 0) is None
    assert leader.followers[2].position == 5


@pytest.mark.parametrize("state", [partition_state(isr=[1], elr=[2]), partition_state(isr=[1], last_known_elr=[2])])
@pytest.mark.parametrize("end_offset", [5, 3])
def test_a_member_of_the_elr_or_one_last_known_may_begin_later_and_never_begins_anew(
    state: PartitionState, end_offset: int
) -> None:
    """What is left when this leader is lost; met by schedule 62: retention had let the whole log go
    before the leader was fenced."""
    leader = leader_of(state, log_of((5, 5)))
    for now_ms in (0, LACKS_MAX_MS + 1):
        assert leader.on_fetch(2, 7, later(end_offset, 3), now_ms) is None
    assert leader.followers[2].position == end_offset
    assert leader.followers[2].lacks_since_ms is None


def test_nobody_waits_for_one_that_lacks_records_to_join() -> None:
    leader = leader_of(partition_state(isr=[1]), log_of((5, 5)))
    leader.on_fetch(2, 7, later(4, 3), 0)
    leader.advance(0, LAG_MAX_MS)
    assert leader.high_watermark == 5


# --- progress -------------------------------------------------------------------------------------


def test_a_late_copy_of_an_older_fetch_changes_nothing() -> None:
    leader = leader_of(partition_state(), log_of((5, 5)))
    fetched(leader, 2, 4)
    fetched(leader, 2, 1)
    assert leader.followers[2].position == 4


def test_a_new_process_starts_over() -> None:
    leader = leader_of(partition_state(), log_of((5, 5)))
    fetched(leader, 2, 4, broker_epoch=7)
    fetched(leader, 2, 0, broker_epoch=9)
    assert (leader.followers[2].position, leader.followers[2].broker_epoch) == (0, 9)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=20))
@settings(deadline=None, max_examples=60)
def test_positions_only_grow_within_one_process(fetches: list[tuple[int, bool]]) -> None:
    leader = leader_of(partition_state(), log_of((5, 9)))
    broker_epoch, best = 7, 0
    for fetch_offset, restarts in fetches:
        if restarts:
            broker_epoch, best = broker_epoch + 1, 0
        fetched(leader, 2, fetch_offset, broker_epoch=broker_epoch)
        best = max(best, fetch_offset)
        assert leader.followers[2].position == best


# --- caught up, lagging (R19) ---------------------------------------------------------------------


def test_holding_the_whole_log_is_being_caught_up() -> None:
    progress = Progress(0)
    progress.on_fetch(5, 7, 5, now_ms=1000)
    assert progress.caught_up_ms == 1000


def test_reaching_the_end_of_the_last_fetch_is_having_been_caught_up_then() -> None:
    progress = Progress(0)
    progress.on_fetch(3, 7, 5, now_ms=1000)
    assert progress.caught_up_ms == 0
    progress.on_fetch(5, 7, 9, now_ms=2000)
    assert progress.caught_up_ms == 1000
    progress.on_fetch(8, 7, 12, now_ms=3000)
    assert progress.caught_up_ms == 1000, "9 was the end at 2000"
    progress.on_fetch(12, 7, 20, now_ms=4000)
    assert progress.caught_up_ms == 3000


def test_a_follower_under_steady_load_stays_in_sync() -> None:
    leader = leader_of(partition_state(isr=[1, 2]), log_of((5, 1)))
    for now_ms in range(0, 20_000, 500):
        fetched(leader, 2, leader.log.end_offset - 1, now_ms=now_ms)
        extend(memory_log(leader), 5, 1)
        assert not shrink(leader, now_ms)


def test_pauses_of_the_leader_are_forgiven_up_to_a_bound_until_the_follower_is_caught_up() -> None:
    progress = Progress(1000)
    progress.forgive(2000, 12_000, LAG_MAX_MS)
    assert progress.caught_up_ms == 11_000
    progress.forgive(13_000, 14_000, LAG_MAX_MS)
    assert progress.caught_up_ms == 11_000, "so much was forgiven before"
    progress.on_fetch(5, 7, 5, now_ms=15_000)
    progress.forgive(14_000, 16_000, LAG_MAX_MS)
    assert progress.caught_up_ms == 16_000, "only what passed since it was seen"


def test_a_leader_that_is_slow_all_the_time_finds_out_who_lags() -> None:
    bench = BrokerBench.started(partition_state(), replica_lag_max_ms=4000)
    for broker_id in (2, 3):
        bench.acknowledge(broker_id, 0)
    silent_ms = 0
    while not bench.alters:
        bench.acknowledge(2, 0)
        bench.tick(1000)
        silent_ms += 1000
    assert 4000 < silent_ms <= 10_000
    assert [m.broker_id for m in bench.alters[0].partitions[0].isr] == [1, 2]


def test_a_follower_that_fetches_but_never_catches_up_leaves() -> None:
    leader = leader_of(partition_state(isr=[1, 2]), log_of((5, 10)))
    for now_ms in range(0, LAG_MAX_MS + 1, 500):
        fetched(leader, 2, now_ms // 500, now_ms=now_ms)
        extend(memory_log(leader), 5, 2)
        assert not shrink(leader, now_ms)
    assert shrink(leader, LAG_MAX_MS + 1)
    assert proposed(leader) == {1}


def test_a_silent_follower_leaves_after_the_limit_and_not_before() -> None:
    leader = leader_of(partition_state(), log_of((5, 1)), now_ms=1000)
    fetched(leader, 2, 1, now_ms=3000)
    assert not shrink(leader, 1000 + LAG_MAX_MS)
    assert shrink(leader, 1000 + LAG_MAX_MS + 1)
    assert proposed(leader) == {1, 2}


def test_an_idle_follower_whose_session_lives_stays() -> None:
    leader = leader_of(partition_state(isr=[1, 2]), log_of((5, 1)))
    fetched(leader, 2, 1, now_ms=0)
    leader.note_idle_follower(2, 5000)
    assert not shrink(leader, 5000 + LAG_MAX_MS)
    leader.note_idle_follower(2, 4000)
    assert not shrink(leader, 5000 + LAG_MAX_MS), "never back"
    extend(memory_log(leader), 5, 1)
    leader.note_idle_follower(2, 9000)
    assert shrink(leader, 5001 + LAG_MAX_MS), "it lacks the last record, so it is not idle"


def test_the_leader_itself_never_leaves() -> None:
    leader = leader_of(partition_state(replicas=[1]))
    assert not shrink(leader, 10**9)


def test_growing_does_not_shrink() -> None:
    leader = leader_of(partition_state(isr=[1, 2]), log_of((5, 1)))
    fetched(leader, 2, 0)
    fetched(leader, 3, 1, now_ms=LAG_MAX_MS + 1)
    assert grow(leader, LAG_MAX_MS + 1)
    assert proposed(leader) == {1, 2, 3}


# --- joining (R18) --------------------------------------------------------------------------------


def candidate(*, high_watermark: int = 0, is_current: bool = True) -> LeaderState:
    """A leader that began its epoch at offset 4. Broker 2 is outside the ISR."""
    log = log_of((4, 4), high_watermark=high_watermark)
    leader = leader_of(partition_state(isr=[1]), log, is_current=lambda broker_id, epoch: is_current)
    extend(log, 5, 3)
    return leader


@pytest.mark.parametrize(("fetch_offset", "joins"), [(3, False), (4, False), (6, False), (7, True)])
def test_who_is_caught_up_joins(fetch_offset: int, joins: bool) -> None:
    leader = candidate()
    leader.advance(0, LAG_MAX_MS)
    assert leader.high_watermark == 7
    fetched(leader, 2, fetch_offset)
    assert grow(leader) is joins


def test_the_start_of_the_epoch_counts_even_where_the_high_watermark_is_behind() -> None:
    log = log_of((4, 6), high_watermark=1)
    leader = leader_of(partition_state(isr=[1, 3]), log)
    fetched(leader, 3, 5)
    fetched(leader, 2, 5)
    leader.followers[2].caught_up_ms = 0
    assert leader.high_watermark == 1
    assert not grow(leader), "offset 5 may be committed: an earlier leader knew, this one does not (R7, R18)"
    fetched(leader, 2, 6)
    assert grow(leader)


def test_one_that_was_not_heard_in_this_epoch_does_not_join() -> None:
    leader = leader_of(partition_state(isr=[1]))
    leader.followers[2].caught_up_ms = 0
    assert not grow(leader)


def test_one_of_another_process_or_fenced_or_leaving_does_not_join() -> None:
    leader = candidate(is_current=False)
    fetched(leader, 2, 7)
    assert not grow(leader)


def test_eligibility_is_asked_for_the_process_that_fetched() -> None:
    asked: list[tuple[int, int]] = []

    def is_current(broker_id: int, broker_epoch: int) -> bool:
        asked.append((broker_id, broker_epoch))
        return True

    leader = leader_of(partition_state(isr=[1]), is_current=is_current)
    fetched(leader, 3, 0, broker_epoch=42)
    assert grow(leader)
    assert set(asked) == {(3, 42)}


def test_one_that_would_have_to_leave_again_does_not_join() -> None:
    leader = candidate()
    fetched(leader, 2, 7, now_ms=0)
    assert not grow(leader, LAG_MAX_MS + 1)


# --- the life of a proposal (R13-R15) -------------------------------------------------------------


def proposing() -> LeaderState:
    leader = leader_of(partition_state(isr=[1, 2]), log_of((5, 2)))
    fetched(leader, 2, 2, broker_epoch=22)
    fetched(leader, 3, 2, broker_epoch=33)
    assert grow(leader)
    return leader


def test_a_proposal_names_each_member_as_the_leader_saw_it() -> None:
    sent = proposing().send_proposal(9)
    assert (sent.topic, sent.topic_id, sent.partition) == (TOPIC, TOPIC_ID, 0)
    assert (sent.leader_epoch, sent.partition_epoch) == (5, 10)
    assert sent.isr == [IsrMember(1, 100), IsrMember(2, 22), IsrMember(3, 33)]


def test_one_proposal_at_a_time() -> None:
    leader = proposing()
    assert not grow(leader)
    assert not shrink(leader, 10**6)
    assert proposed(leader) == {1, 2, 3}


def test_asking_again_is_the_same_proposal_under_a_higher_sequence() -> None:
    leader = proposing()
    assert leader.send_proposal(9) == leader.send_proposal(12)
    with pytest.raises(AssertionError):
        leader.send_proposal(12)


@pytest.mark.parametrize(("sequence", "given_up"), [(9, True), (8, False), (10, False)])
def test_only_a_refusal_of_the_request_that_was_sent_last_ends_it(sequence: int, given_up: bool) -> None:
    leader = proposing()
    leader.send_proposal(9)
    leader.on_refused(sequence, 0)
    assert (leader.proposal is None) is given_up
    assert leader.maximal_isr == ({1, 2} if given_up else {1, 2, 3})


def test_a_refusal_of_the_first_copy_does_not_end_the_second() -> None:
    leader = proposing()
    leader.send_proposal(9)
    leader.send_proposal(10)
    leader.on_refused(9, 0)
    assert leader.maximal_isr == {1, 2, 3}


def test_a_refusal_before_anything_was_sent_does_nothing() -> None:
    leader = proposing()
    leader.on_refused(-2, 0)
    assert leader.proposal is not None


@pytest.mark.parametrize("isr", [[1, 2, 3], [1, 2], [1]])
def test_newer_metadata_ends_it_whatever_it_says(isr: list[int]) -> None:
    leader = proposing()
    leader.on_state_changed(partition_state(isr=isr, partition_epoch=11), leader.settings)
    assert leader.proposal is None
    assert leader.maximal_isr == set(isr)


def test_metadata_of_the_same_partition_epoch_does_not_end_it() -> None:
    leader = proposing()
    leader.on_state_changed(partition_state(isr=[1, 2], partition_epoch=10), leader.settings)
    assert leader.maximal_isr == {1, 2, 3}


def test_a_retry_never_vouches_for_a_process_it_did_not_see_caught_up() -> None:
    """KIP-903: the proposed broker lost its disk and came back as a new process while the request
    was under way."""
    leader = proposing()
    leader.send_proposal(9)
    fetched(leader, 3, 0, broker_epoch=34)
    assert IsrMember(3, 34) not in leader.send_proposal(10).isr


def test_a_new_epoch_starts_with_nobody_heard_and_no_proposal() -> None:
    leader = leader_of(partition_state(leader_epoch=6), log_of((5, 2)))
    assert leader.proposal is None
    assert [leader.position_of(r) for r in (1, 2, 3)] == [2, None, None]
    assert leader.maximal_isr == {1, 2, 3}


# --- handing over (R28) ---------------------------------------------------------------------------


def test_drained_means_every_isr_member_holds_all_of_it() -> None:
    leader = leader_of(partition_state(isr=[1, 2]), log_of((5, 2)))
    assert not leader.drained
    fetched(leader, 2, 1)
    assert not leader.drained
    fetched(leader, 2, 2)
    assert leader.drained
    extend(memory_log(leader), 5, 1, synced=False)
    fetched(leader, 2, 3)
    assert not leader.drained
    memory_log(leader).sync()
    assert leader.drained


def test_a_leader_with_an_open_proposal_is_not_drained() -> None:
    """The controller may have let somebody in by now who does not hold everything, and would name
    it."""
    leader = leader_of(partition_state(isr=[1, 2]), log_of((5, 2)))
    fetched(leader, 2, 2)
    fetched(leader, 3, 2)
    assert leader.drained
    assert leader.propose(0, LAG_MAX_MS, shrink=False)
    assert not leader.drained
    leader.send_proposal(1)
    leader.on_refused(1, 0)
    assert leader.drained
    leader.propose(0, LAG_MAX_MS, shrink=False)
    leader.on_state_changed(partition_state(partition_epoch=11), leader.settings)
    assert leader.drained


def test_a_proposal_says_how_far_behind_those_are_who_leave_and_since_when() -> None:
    leader = leader_of(partition_state(), log_of((5, 30)))
    leader.on_fetch(2, 7, position(30, 5), 1000)
    leader.on_fetch(3, 7, position(10, 5), 2000)
    assert shrink(leader, 1001 + LAG_MAX_MS)
    told = leader.send_proposal(1).leaving
    assert {one.broker_id: (one.behind_records, one.behind_ms) for one in told} == {
        2: (0, 1 + LAG_MAX_MS),
        3: (20, 1001 + LAG_MAX_MS),
    }


def test_of_who_was_never_heard_nobody_says_how_much_it_lacks() -> None:
    leader = leader_of(partition_state(), log_of((5, 30)))
    leader.on_fetch(2, 7, position(30, 5), LAG_MAX_MS)
    assert shrink(leader, 1 + LAG_MAX_MS)
    (told,) = leader.send_proposal(1).leaving
    assert (told.broker_id, told.behind_records, told.behind_ms) == (3, -1, 1 + LAG_MAX_MS)


# --- moves (R115) ---------------------------------------------------------------------------------


def test_a_move_that_is_cancelled_counts_anew_what_was_promised() -> None:
    """Brokers 1 and 4 hold what acks=2 was answered for while 3 was to go. Now 4 is to go: it counts
    until the others hold that."""
    state = replace(begun(partition_state(), [1, 2, 4]), isr=[1, 2, 3, 4])
    leader = leader_of(state, log_of((5, 3)))
    for broker_id in (2, 3, 4):
        fetched(leader, broker_id, 2)
    assert not grow(leader), "the others do not hold all"
    leader.advance(0, LAG_MAX_MS)
    produce(leader, b"a", acks=2)
    fetched(leader, 4, 4)
    assert len(leader.advance(0, LAG_MAX_MS)) == 1
    leader.on_state_changed(replace(cancelled(state), partition_epoch=11), leader.settings)
    for broker_id in (2, 3):
        fetched(leader, broker_id, 3)
    leader.advance(0, LAG_MAX_MS)
    assert not grow(leader), "only 1 and 4 hold it"
    for broker_id in (2, 3):
        fetched(leader, broker_id, 4)
    leader.advance(0, LAG_MAX_MS)
    assert grow(leader)
    assert proposed(leader) == {1, 2, 3}


def test_a_leader_goes_back_when_all_of_the_former_replicas_that_run_are_in_sync() -> None:
    state = cancelled(replace(begun(partition_state(), [1, 4, 5]), isr=[1, 2, 4]))
    leader = leader_of(state, min_isr=2)
    away = set[int]()
    leader.is_eligible = lambda broker_id: broker_id not in away
    for broker_id in (2, 4):
        fetched(leader, broker_id, 0)
    assert not grow(leader)
    away.add(3)
    assert grow(leader)
    assert proposed(leader) == {1, 2}
