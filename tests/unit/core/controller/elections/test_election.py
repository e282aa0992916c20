"""Elections: who is asked, who wins, and when; recoveries. What a restarted controller finds out by
itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from minilog.core.controller.elections.election import Elections
from minilog.core.controller.elections.partition_change import most_up_to_date
from minilog.core.image import ClusterImage, PartitionState
from minilog.errors import BrokerUnavailable
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    BrokerFenced,
    BrokerRegistered,
    BrokerUnfenced,
    MetadataRecord,
    PartitionChanged,
    TopicDeleted,
    UncleanElection,
)
from minilog.wire.messages import LoneEnd, Position, PositionQuery, Positions, PositionsReply, Problem
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.builders import TOPIC, TOPIC_ID, image_of, partition_state, topic_records

TIMEOUT_MS = 300
EPOCHS = {1: 2, 2: 4, 3: 6}
LEADERLESS = partition_state(leader=NO_LEADER, leader_epoch=6, isr=[2, 3])


class Poll:
    """An image and its elections, and what the brokers answer."""

    def __init__(self, *states: PartitionState) -> None:
        self.image: ClusterImage = image_of(*topic_records(*(states or (LEADERLESS,)), min_isr=2))
        self.unfit: set[int] = set()
        self.elections = Elections(self.image, TIMEOUT_MS, lambda broker_id, _: broker_id not in self.unfit)
        for _, state in self.image.partitions():
            self.elections.on_changed(state)
        self.asked: dict[int, Positions] = {}

    def write(self, *records: MetadataRecord) -> None:
        for record in records:
            self.image.apply(self.image.metadata_offset + 1, record)
            if isinstance(record, PartitionChanged):
                self.elections.on_changed(record)
            if isinstance(record, BrokerRegistered):
                self.elections.on_registered(record.broker_id)
            if isinstance(record, TopicDeleted):
                self.elections.on_deleted(record.topic)

    def ask(self, now_ms: int = 0) -> list[int]:
        sends = self.elections.ask(now_ms)
        for send in sends:
            assert isinstance(send.request, Positions)
            self.asked[send.node_id] = send.request
        return [send.node_id for send in sends]

    def answer(self, broker_id: int, last_epoch: int, end_offset: int, *, leader_epoch: int = 6) -> None:
        found = [
            Position(TOPIC, TOPIC_ID, q.partition, leader_epoch, last_epoch, end_offset)
            for q in self.queries(broker_id)
        ]
        self.reply(broker_id, *found)

    def reply(self, broker_id: int, /, *found: Position, **more: Any) -> None:
        """``more``: what the reply says otherwise of itself than the last question did."""
        asked = self.asked[broker_id]
        reply = PositionsReply(asked.broker_id, asked.broker_epoch, asked.sequence, list(found))
        self.elections.on_reply(broker_id, replace(reply, **more))

    def refuse(self, broker_id: int) -> None:
        problem = Problem.of(BrokerUnavailable("not here"))
        asked = self.queries(broker_id)
        self.reply(broker_id, *(Position(TOPIC, TOPIC_ID, q.partition, q.leader_epoch, problem=problem) for q in asked))

    def queries(self, broker_id: int) -> list[PositionQuery]:
        return self.asked[broker_id].partitions

    def fail(self, broker_id: int) -> None:
        self.elections.on_ended(self.asked[broker_id])

    def decided(self, now_ms: int = 1) -> list[tuple[int, int | None, bool]]:
        return [(state.partition, winner, recovery) for state, winner, recovery, *_ in self.elections.decide(now_ms)]


# --- asking ---------------------------------------------------------------------------------------


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


# --- deciding -------------------------------------------------------------------------------------


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


# --- damaged replicas -----------------------------------------------------------------------------


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


# --- recovery (R22 balanced) ----------------------------------------------------------------------


RECOVERING = partition_state(leader=NO_LEADER, leader_epoch=6, isr=[], last_known_elr=[1, 2])


def test_a_recovery_needs_the_answer_of_all_however_long_it_takes() -> None:
    poll = Poll(RECOVERING)
    assert poll.ask() == [1, 2, 3]
    poll.answer(1, 5, 10)
    poll.fail(2)
    poll.fail(3)
    assert poll.decided(TIMEOUT_MS - 1) == []
    assert poll.decided(TIMEOUT_MS) == []
    assert poll.ask(TIMEOUT_MS) == [2, 3], "what the other has told still counts"
    poll.answer(2, 5, 12)
    assert poll.decided(TIMEOUT_MS + 1) == []
    assert poll.decided(2 * TIMEOUT_MS) == [(0, 2, True)], "a witness is waited for, but not for ever"


@pytest.mark.parametrize(
    ("told", "lone_end", "flush_policy", "winner", "lacking"),
    [
        (10, 0, "commit", 2, []),
        (12, 0, "commit", 2, [1]),
        (11, 12, "commit", 2, [1]),
        (13, 0, "commit", None, [1, 2, 3]),
        (13, 0, "never", None, [1, 2, 3]),
        (0, 13, "commit", None, [1, 2, 3]),
        (0, 13, "never", 2, []),
    ],
)
def test_a_recovery_elects_nobody_who_lacks_what_is_known_to_be_committed(
    told: int, lone_end: int, flush_policy: str, winner: int | None, lacking: list[int]
) -> None:
    """R37: by another replica that is there, or by what the last leader has told. What a power cut
    may take from a log by its topic's settings is no proof of an older copy."""
    poll = Poll(RECOVERING)
    topic = poll.image.topics[TOPIC]
    topic.settings = replace(topic.settings, flush_policy=flush_policy)
    poll.elections.lone_ends.note([LoneEnd(TOPIC, TOPIC_ID, 0, lone_end)])
    poll.ask()
    poll.answer(1, 5, 10)
    poll.answer(2, 5, 12)
    poll.reply(3, Position(TOPIC, TOPIC_ID, 0, 6, 5, 12, high_watermark=told))
    [verdict] = poll.elections.decide(1)
    assert (verdict.winner, verdict.lacking) == (winner, lacking)


@pytest.mark.parametrize(
    ("position", "start_offset", "epoch_ends", "winner"),
    [
        ((5, 13), 0, [(5, 13), (4, 2)], 3),
        ((5, 13), 0, [], 3),  # a broker of before tells no epochs
        ((5, 12), 0, [], 2),
        ((4, 99), 0, [(4, 99)], 2),
        ((6, 20), 0, [(6, 20), (5, 12)], 3),
        ((6, 20), 0, [(6, 20), (5, 11)], 2),
        ((6, 20), 0, [(6, 20), (4, 11)], 2),
        ((6, 20), 0, [(6, 20)], 2),
        ((6, 20), 0, [], 2),
        ((6, 20), 11, [(6, 20)], 2),
        ((6, 20), 12, [(6, 20)], 3),  # retention has let go what they hold
    ],
)
def test_a_recovery_elects_a_witness_that_holds_all_of_the_longest_log_and_more(
    position: tuple[int, int], start_offset: int, epoch_ends: list[tuple[int, int]], winner: int
) -> None:
    """R22: where their epoch ends in its log it must have as much. A later epoch may be of a leader
    that was alone with it."""
    poll = Poll(RECOVERING)
    poll.ask()
    poll.answer(1, 5, 10)
    poll.answer(2, 5, 12)
    assert poll.decided() == []
    told = Position(TOPIC, TOPIC_ID, 0, 6, *position, start_offset=start_offset, epoch_ends=epoch_ends)
    poll.reply(3, told)
    assert poll.decided() == [(0, winner, True)]


def test_what_is_told_of_an_epoch_before_an_unclean_election_is_given_up() -> None:
    """R37: a heartbeat of the leader of before comes late."""
    poll = Poll(RECOVERING)
    poll.write(UncleanElection(TOPIC, TOPIC_ID, 0, 1, 6, [], 3, "operator", 0))
    known = poll.elections.lone_ends
    known.note([LoneEnd(TOPIC, TOPIC_ID, 0, 13, 5)])
    assert known.of(RECOVERING) == 0
    known.note([LoneEnd(TOPIC, TOPIC_ID, 0, 9, 6), LoneEnd(TOPIC, TOPIC_ID, 0, 7, 6)])
    assert known.of(RECOVERING) == 9


@pytest.mark.parametrize(("last_epoch", "lacking"), [(5, []), (6, [1, 2, 3])])
def test_a_replica_that_has_not_heard_of_an_unclean_election_tells_what_was_given_up(
    last_epoch: int, lacking: list[int]
) -> None:
    """R37: it was away. The records that its high watermark speaks of were counted as lost."""
    poll = Poll(RECOVERING)
    poll.write(UncleanElection(TOPIC, TOPIC_ID, 0, 1, 6, [], 3, "operator", 0))
    poll.ask()
    poll.answer(1, 6, 10)
    poll.answer(2, 6, 12)
    poll.reply(3, Position(TOPIC, TOPIC_ID, 0, 6, last_epoch, 11, high_watermark=13))
    [verdict] = poll.elections.decide(1)
    assert verdict.lacking == lacking
    assert verdict.winner == (None if lacking else 2)


def test_who_was_away_while_records_were_given_up_proves_no_older_copy_to_another_controller() -> None:
    """R22: nobody has journalled which recovery gave them up. Whoever holds records of a later epoch
    has held all that was committed before, and nothing that is told of an earlier one says more."""
    poll = Poll(RECOVERING)
    poll.ask()
    poll.answer(1, 6, 10)
    poll.answer(2, 6, 12)
    poll.reply(3, Position(TOPIC, TOPIC_ID, 0, 6, 5, 13, high_watermark=13))
    [verdict] = poll.elections.decide(1)
    assert (verdict.winner, verdict.lacking) == (2, [])


def test_what_a_power_cut_took_from_all_is_known_to_be_committed_no_more() -> None:
    """R37: the topic does not sync what it acknowledges. The recovery knows that, and so does each
    election behind it."""
    poll = Poll(RECOVERING)
    topic = poll.image.topics[TOPIC]
    topic.settings = replace(topic.settings, flush_policy="never")
    known = poll.elections.lone_ends
    known.note([LoneEnd(TOPIC, TOPIC_ID, 0, 13, 5, 2)])
    poll.ask()
    poll.answer(1, 5, 10)
    poll.answer(2, 5, 12)
    poll.answer(3, 5, 11)
    [verdict] = poll.elections.decide(1)
    assert (verdict.winner, verdict.missing) == (2, 1)
    assert (known.of(RECOVERING), known.missing(RECOVERING, 6, 12)) == (0, 0)
    known.note([LoneEnd(TOPIC, TOPIC_ID, 0, 13, 5, 2)])
    assert known.of(RECOVERING) == 0, "a late word of the leader before"
    known.note([LoneEnd(TOPIC, TOPIC_ID, 0, 12, 6, 12)])
    assert known.of(RECOVERING) == 12


def test_what_is_told_of_a_topic_that_was_deleted_is_not_kept() -> None:
    poll = Poll(RECOVERING)
    known = poll.elections.lone_ends
    known.note([LoneEnd(TOPIC, "deleted", 0, 13, 5), LoneEnd("gone", "deleted", 0, 13, 5)])
    assert known.of(replace(RECOVERING, topic_id="deleted")) == 0


@pytest.mark.parametrize(
    ("last_epoch", "end_offset", "missing"),
    [(6, 110, 0), (6, 104, 6), (5, 100, 10), (5, 120, 10), (5, 90, 20), (7, 120, 0)],
)
def test_a_longer_log_of_an_older_epoch_holds_nothing_of_a_newer_one(
    last_epoch: int, end_offset: int, missing: int
) -> None:
    """R37: epoch 6 began at 100, and 110 records are committed."""
    poll = Poll(RECOVERING)
    known = poll.elections.lone_ends
    known.note([LoneEnd(TOPIC, TOPIC_ID, 0, 110, 6, 100), LoneEnd(TOPIC, TOPIC_ID, 0, 100, 5, 0)])
    assert known.missing(RECOVERING, last_epoch, end_offset) == missing


def test_a_recovery_does_not_begin_before_all_are_back() -> None:
    poll = Poll(RECOVERING)
    poll.write(BrokerFenced(2, EPOCHS[2]))
    assert poll.ask() == []
    poll.write(BrokerUnfenced(2, EPOCHS[2]))
    assert poll.ask() == [1, 2, 3]


def test_one_who_is_lost_during_a_recovery_stops_it() -> None:
    poll = Poll(RECOVERING)
    poll.ask()
    poll.answer(1, 5, 10)
    poll.answer(2, 5, 12)
    poll.write(BrokerFenced(2, EPOCHS[2]))
    assert poll.decided() == []


def test_a_complete_replica_that_comes_back_turns_a_recovery_into_an_election() -> None:
    poll = Poll(partition_state(leader=NO_LEADER, leader_epoch=6, isr=[], elr=[3], last_known_elr=[1, 2]))
    poll.write(BrokerFenced(3, EPOCHS[3]))
    assert poll.ask() == [], "the one that is known to be complete is waited for"
    poll.write(BrokerUnfenced(3, EPOCHS[3]))
    assert poll.ask() == [3]
    poll.answer(3, 5, 10)
    assert poll.decided() == [(0, 3, False)]


def test_leaderless_partitions_are_told_apart() -> None:
    poll = Poll(RECOVERING, partition_state(partition=1))
    assert list(poll.elections.leaderless) == [TopicPartition(TOPIC, 0)]


# --- any order of answers -------------------------------------------------------------------------


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


# --- counting -------------------------------------------------------------------------------------


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
