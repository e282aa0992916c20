"""Elections: who is asked, who wins, and when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from minilog.core.controller.elections.election import Elections
from minilog.core.controller.elections.partition_change import most_up_to_date
from minilog.core.image import PartitionState
from minilog.errors import BrokerUnavailable
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    BrokerFenced,
    BrokerRegistered,
    BrokerUnfenced,
    MetadataRecord,
    TopicDeleted,
    UncleanElection,
)
from minilog.wire.messages import Position, PositionQuery, Positions, Problem
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.builders import TOPIC, TOPIC_ID, partition_state
from tests.unit.core.controller.elections.election_bench import EPOCHS, LEADERLESS, RECOVERING, TIMEOUT_MS, Poll


def test_every_candidate_is_asked_once_about_all_its_partitions() -> None:
    poll = Poll(
        partition_state(partition=0, leader=NO_LEADER, leader_epoch=6, isr=[2, 3]),
        partition_state(partition=1, leader=NO_LEADER, leader_epoch=9, isr=[1, 3]),
        partition_state(partition=2),
    )
    assert poll.ask() == [2, 3, 1]
    assert poll.queries(3) == [PositionQuery(TOPIC, TOPIC_ID, 0, 6), PositionQuery(TOPIC, TOPIC_ID, 1, 9)]
    assert poll.queries(1) == [PositionQuery(TOPIC, TOPIC_ID, 1, 9)]
    assert {request.controller_epoch for request in poll.asked.values()} == {1}
    assert poll.ask() == [], "nobody twice"


def test_requests_are_numbered_upwards() -> None:
    poll = Poll()
    poll.ask()
    assert poll.asked[2].sequence < poll.asked[3].sequence


def test_a_candidate_that_comes_back_later_is_asked_too() -> None:
    poll = Poll(partition_state(leader=NO_LEADER, leader_epoch=6, isr=[], elr=[1, 2]))
    poll.write(BrokerFenced(1, EPOCHS[1]))
    assert poll.ask() == [2]
    poll.write(BrokerUnfenced(1, EPOCHS[1]))
    assert poll.ask() == [1]


def test_without_candidates_nothing_is_asked() -> None:
    poll = Poll(partition_state(leader=NO_LEADER, leader_epoch=6, isr=[], elr=[1]))
    poll.write(BrokerFenced(1, EPOCHS[1]))
    assert poll.ask() == []
    assert poll.elections.open_count == 0


@pytest.mark.parametrize(
    ("two", "three", "winner"),
    [((5, 10), (5, 11), 3), ((5, 10), (4, 99), 2), ((5, 10), (5, 10), 2), ((-1, 0), (3, 1), 3)],
)
def test_the_most_up_to_date_wins_as_soon_as_all_have_answered(
    two: tuple[int, int], three: tuple[int, int], winner: int
) -> None:
    poll = Poll()
    poll.ask()
    poll.answer(2, *two)
    assert poll.decided() == [], "the other one may hold more"
    poll.answer(3, *three)
    assert poll.decided() == [(0, winner, False)]


@pytest.mark.parametrize("how", ["refuse", "fail"])
def test_one_that_cannot_answer_is_not_waited_for(how: str) -> None:
    poll = Poll()
    poll.ask()
    getattr(poll, how)(3)
    assert poll.decided() == []
    poll.answer(2, 5, 10)
    assert poll.decided() == [(0, 2, False)]


def test_a_silent_candidate_is_waited_for_until_the_deadline() -> None:
    poll = Poll()
    poll.ask(now_ms=1000)
    poll.answer(2, 5, 10)
    assert poll.decided(1000 + TIMEOUT_MS - 1) == []
    assert poll.decided(1000 + TIMEOUT_MS) == [(0, 2, False)]


def test_with_no_answer_at_all_everybody_is_asked_again() -> None:
    poll = Poll()
    poll.ask(now_ms=0)
    poll.fail(2)
    poll.fail(3)
    assert poll.decided(10) == []
    assert poll.ask(10) == [], "not in a hurry"
    assert poll.decided(TIMEOUT_MS) == []
    assert poll.ask(TIMEOUT_MS) == [2, 3]
    poll.answer(3, 5, 10)
    poll.fail(2)
    assert poll.decided(TIMEOUT_MS + 1) == [(0, 3, False)]


def test_who_has_not_answered_yet_is_not_asked_again_and_counts_when_the_answer_comes() -> None:
    """Candidates far away: one patience of the election is over before any answer can be there."""
    poll = Poll()
    assert poll.ask(now_ms=0) == [2, 3]
    for late_ms in (TIMEOUT_MS, 2 * TIMEOUT_MS):
        assert poll.decided(late_ms) == []
        assert poll.ask(late_ms) == []
    poll.answer(2, 5, 10)
    assert poll.decided(2 * TIMEOUT_MS + 1) == [], "the other one is as far away, and may hold more"
    poll.answer(3, 5, 11)
    assert poll.decided(2 * TIMEOUT_MS + 2) == [(0, 3, False)]


def test_after_late_answers_too_the_silent_are_waited_for_once_only() -> None:
    poll = Poll()
    poll.ask(now_ms=0)
    assert poll.decided(TIMEOUT_MS) == []
    poll.answer(2, 5, 10)
    assert poll.decided(2 * TIMEOUT_MS - 1) == []
    assert poll.decided(2 * TIMEOUT_MS) == [(0, 2, False)]


def test_who_answered_without_a_position_is_asked_again() -> None:
    """Another broker at that address, or one that says less than it was asked: its request is over
    all the same."""
    poll = Poll()
    poll.ask(now_ms=0)
    for broker_id in (2, 3):
        poll.reply(broker_id)
        poll.fail(broker_id)
    assert poll.decided(1) == []
    assert poll.decided(TIMEOUT_MS) == []
    assert poll.ask(TIMEOUT_MS) == [2, 3]


def test_who_has_told_a_position_is_not_silent_when_the_request_ends() -> None:
    poll = Poll()
    poll.ask(now_ms=0)
    poll.answer(3, 5, 11)
    poll.fail(3)
    assert poll.decided(TIMEOUT_MS) == [(0, 3, False)]
    assert poll.ask(TIMEOUT_MS) == []


def test_answers_of_another_epoch_do_not_count() -> None:
    poll = Poll()
    poll.ask()
    poll.answer(2, 5, 99, leader_epoch=5)
    poll.answer(3, 5, 10)
    assert poll.decided() == []
    poll.answer(2, 5, 11)
    assert poll.decided() == [(0, 2, False)]


def test_a_late_answer_to_an_earlier_question_does_not_count() -> None:
    """The process that gave it may be gone, and the one that is here now may hold less (R5)."""
    poll = Poll()
    poll.ask(now_ms=0)
    first = poll.asked[3].sequence
    poll.fail(3)
    assert poll.decided(TIMEOUT_MS) == []
    poll.ask(TIMEOUT_MS)
    poll.reply(3, Position(TOPIC, TOPIC_ID, 0, 6, 5, 99), sequence=first)
    poll.answer(2, 5, 10)
    assert poll.decided(TIMEOUT_MS + 1) == []
    poll.answer(3, 5, 9)
    assert poll.decided(TIMEOUT_MS + 1) == [(0, 2, False)]


FOREIGN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # what the reply, and what the position in it, says otherwise than what was asked
    "another broker": ({"broker_id": 1}, {}),
    "an earlier process": ({"broker_epoch": 5}, {}),
    "a later process": ({"broker_epoch": 7}, {}),
    "an earlier request": ({"sequence": 1}, {}),
    "a request that was never made": ({"sequence": 99}, {}),
    "another topic of that name": ({}, {"topic_id": "another"}),
    "an earlier epoch": ({}, {"leader_epoch": 5}),
    "a later epoch": ({}, {"leader_epoch": 7}),
    "another partition": ({}, {"partition": 1}),
    "another topic": ({}, {"topic": "payments"}),
}


@pytest.mark.parametrize("is_refusal", [False, True])
@pytest.mark.parametrize(("reply", "position"), FOREIGN.values(), ids=FOREIGN)
def test_a_position_about_anything_else_counts_for_nothing(
    reply: dict[str, Any], position: dict[str, Any], is_refusal: bool
) -> None:
    """Neither as a position nor as a reason not to wait for the true one."""
    poll = Poll()
    poll.ask()
    problem = Problem.of(BrokerUnavailable("not here")) if is_refusal else None
    poll.reply(3, replace(Position(TOPIC, TOPIC_ID, 0, 6, 5, 99, problem), **position), **reply)
    poll.answer(2, 5, 10)
    assert poll.decided() == []
    poll.answer(3, 5, 9)
    assert poll.decided() == [(0, 2, False)]


@pytest.mark.parametrize(
    "more", [{"sequence": 1}, {"sequence": 99}, {"broker_epoch": 5}, {"broker_epoch": 7}, {"broker_id": 1}]
)
def test_the_failure_of_another_request_is_no_reason_not_to_wait(more: dict[str, int]) -> None:
    poll = Poll()
    poll.ask()
    poll.elections.on_ended(replace(poll.asked[3], **more))
    poll.answer(2, 5, 10)
    assert poll.decided() == []
    poll.fail(3)
    assert poll.decided() == [(0, 2, False)]


def new_process(broker_id: int) -> tuple[MetadataRecord, MetadataRecord, MetadataRecord]:
    """Broker 3 is fenced and comes back under the epoch 50."""
    registered = BrokerRegistered(broker_id, 50, "another process", "http://broker-3:8082")
    return BrokerFenced(broker_id, EPOCHS[broker_id]), registered, BrokerUnfenced(broker_id, 50)


@pytest.mark.parametrize("before", ["answer", "refuse", "fail", None])
def test_what_a_process_told_is_forgotten_when_the_next_one_registers(before: str | None) -> None:
    """R9: the next process of that broker may have another disk."""
    poll = Poll()
    poll.ask()
    if before == "answer":
        poll.answer(3, 5, 99)
    elif before is not None:
        getattr(poll, before)(3)
    old = poll.asked[3]
    poll.write(*new_process(3))
    poll.answer(2, 5, 10)
    assert poll.decided() == [], "the new process has not been asked yet"
    assert poll.ask() == [3]
    assert (poll.asked[3].broker_id, poll.asked[3].broker_epoch) == (3, 50)
    poll.reply(3, Position(TOPIC, TOPIC_ID, 0, 6, 5, 99), broker_epoch=old.broker_epoch, sequence=old.sequence)
    poll.elections.on_ended(old)
    assert poll.decided() == [], "a late word of the old process"
    poll.answer(3, 5, 7)
    assert poll.decided() == [(0, 2, False)]


def test_a_registration_lets_nobody_elses_answer_be_forgotten() -> None:
    poll = Poll()
    poll.ask()
    poll.answer(2, 5, 10)
    poll.answer(3, 5, 9)
    poll.write(*new_process(1))
    assert poll.ask() == []
    assert poll.decided() == [(0, 2, False)]


def test_a_replica_that_is_unfit_is_not_asked() -> None:
    poll = Poll()
    poll.unfit = {2}
    assert poll.ask() == [3]
    poll.answer(3, 5, 1)
    assert poll.decided() == [(0, 3, False)]


def test_one_that_turns_out_to_be_unfit_after_it_answered_does_not_win() -> None:
    poll = Poll()
    poll.ask()
    poll.answer(2, 5, 99)
    poll.answer(3, 5, 1)
    poll.unfit = {2}
    assert poll.decided() == [(0, 3, False)]


def test_where_all_are_unfit_nobody_is_asked_until_one_is_whole_again() -> None:
    poll = Poll()
    poll.unfit = {2, 3}
    assert poll.ask() == []
    assert poll.decided(TIMEOUT_MS) == []
    poll.unfit = {2}
    assert poll.ask() == [3]


def test_a_recovery_does_not_begin_while_one_of_the_last_known_is_unfit() -> None:
    poll = Poll(RECOVERING)
    poll.unfit = {1}
    assert poll.ask() == []
    poll.unfit = set()
    assert poll.ask() == [1, 2, 3], "and a witness"


def test_a_candidate_that_died_after_answering_cannot_win() -> None:
    poll = Poll()
    poll.ask()
    poll.answer(3, 5, 99)
    poll.write(
        BrokerFenced(3, EPOCHS[3]),
        partition_state(leader=NO_LEADER, leader_epoch=6, partition_epoch=11, isr=[2], elr=[3]),
    )
    poll.answer(2, 5, 10)
    assert poll.decided() == [(0, 2, False)]


def test_a_decision_that_is_journalled_ends_the_election() -> None:
    poll = Poll()
    poll.ask()
    poll.answer(2, 5, 10)
    poll.answer(3, 5, 10)
    assert poll.decided() == [(0, 2, False)]
    poll.write(partition_state(leader=2, leader_epoch=6, partition_epoch=11, isr=[2, 3]))
    assert poll.decided() == []
    assert poll.ask() == []
    assert poll.elections.open_count == 0


def test_a_leader_lost_again_is_a_new_election_in_which_old_answers_do_not_count() -> None:
    poll = Poll()
    poll.ask()
    poll.answer(3, 5, 99)
    poll.write(
        partition_state(leader=2, leader_epoch=6, partition_epoch=11, isr=[1, 2, 3]),
        partition_state(leader=NO_LEADER, leader_epoch=7, partition_epoch=12, isr=[1, 3]),
    )
    assert poll.ask() == [1, 3]
    poll.answer(3, 5, 99, leader_epoch=6)
    poll.answer(1, 5, 10, leader_epoch=7)
    assert poll.decided() == []
    poll.answer(3, 5, 12, leader_epoch=7)
    assert poll.decided() == [(0, 3, False)]


def test_deleting_the_topic_ends_its_elections() -> None:
    poll = Poll()
    poll.ask()
    poll.write(TopicDeleted(TOPIC, TOPIC_ID))
    poll.answer(2, 5, 10)
    assert poll.decided(TIMEOUT_MS) == []
    assert poll.ask(TIMEOUT_MS) == []
    assert poll.elections.leaderless == {}


def test_a_restarted_controller_begins_the_election_again_from_the_image() -> None:
    before = Poll()
    before.ask()
    before.answer(3, 5, 99)
    after = Elections(before.image, TIMEOUT_MS, lambda *_: True)
    for _, state in before.image.partitions():
        after.on_changed(state)
    asked = after.ask(0)
    assert [send.node_id for send in asked] == [2, 3]
    assert [send.request.partitions[0].leader_epoch for send in asked if isinstance(send.request, Positions)] == [6, 6]
    assert after.decide(1) == []


def test_leaderless_partitions_are_told_apart() -> None:
    poll = Poll(RECOVERING, partition_state(partition=1))
    assert list(poll.elections.leaderless) == [TopicPartition(TOPIC, 0)]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["answer", "fail", "refuse", "time"]),
            st.integers(1, 3),
            st.integers(3, 5),
            st.integers(0, 4),
        ),
        max_size=12,
    )
)
@settings(deadline=None, max_examples=60)
def test_the_winner_is_the_best_of_those_that_answered(steps: list[tuple[str, int, int, int]]) -> None:
    poll = Poll(partition_state(leader=NO_LEADER, leader_epoch=6))
    poll.ask(0)
    now_ms, deadline_ms, silent = 0, TIMEOUT_MS, set[int]()
    answers: dict[int, tuple[int, int]] = {}
    for name, broker_id, last_epoch, end_offset in steps:
        if name == "answer":
            poll.answer(broker_id, last_epoch, end_offset)
            answers[broker_id] = (last_epoch, end_offset)
        elif name == "time":
            now_ms += 100
        else:
            getattr(poll, name)(broker_id)
            silent.add(broker_id)
        heard_all = {*answers, *silent} == {1, 2, 3}
        if answers and (heard_all or now_ms >= deadline_ms):
            assert poll.decided(now_ms) == [(0, most_up_to_date(answers, [1, 2, 3]), False)]
            return
        assert poll.decided(now_ms) == []
        if now_ms >= deadline_ms:
            assert poll.ask(now_ms) == sorted(silent), "the others may still answer what they were asked"
            deadline_ms = now_ms + TIMEOUT_MS
            silent.clear()


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (partition_state(leader=1), partition_state(leader=2, leader_epoch=6, isr=[2, 3]), "clean"),
        (LEADERLESS, partition_state(leader=3, leader_epoch=6, isr=[2, 3]), "clean"),
        (
            partition_state(leader=NO_LEADER, leader_epoch=6, isr=[], elr=[2]),
            partition_state(leader=2, leader_epoch=6, isr=[2]),
            "clean",
        ),
        (
            partition_state(leader=NO_LEADER, leader_epoch=6, isr=[], last_known_elr=[3]),
            partition_state(leader=3, leader_epoch=6, isr=[3]),
            "recovery",
        ),
        (
            partition_state(leader=NO_LEADER, leader_epoch=6, isr=[], last_known_elr=[3]),
            partition_state(leader=2, leader_epoch=6, isr=[2]),
            "unclean",
        ),
        (partition_state(leader=1), LEADERLESS, None),
        (partition_state(leader=1), partition_state(leader=1, isr=[1]), None),
        (None, partition_state(leader=1), None),
    ],
)
def test_who_takes_over_is_counted_by_how(
    before: PartitionState | None, after: PartitionState, kind: str | None
) -> None:
    poll = Poll()
    if kind == "unclean":
        poll.write(UncleanElection(TOPIC, TOPIC_ID, 0, after.leader, after.leader_epoch, [], 0, "operator", 0))
    elections = poll.elections
    elections.count(before, after)
    assert elections.held == {name: int(name == kind) for name in ("clean", "recovery", "unclean")}
