"""Recoveries: all of the last known members are asked, and the longest log leads (R22)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    BrokerFenced,
    BrokerUnfenced,
    UncleanElection,
)
from minilog.wire.messages import LoneEnd, Position
from tests.unit.core.builders import TOPIC, TOPIC_ID, partition_state
from tests.unit.core.controller.elections.election_bench import EPOCHS, RECOVERING, TIMEOUT_MS, Poll


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


@pytest.mark.parametrize(("told", "winner", "lacking"), [(8, 2, []), (9, None, [1, 2])])
def test_a_log_that_parts_before_what_is_committed_lacks_it_however_far_it_reaches(
    told: int, winner: int | None, lacking: list[int]
) -> None:
    """R37: by a journal made anew from an older copy 3 was never complete. It has led since, alone,
    while the others kept an end that nobody had committed."""
    poll = Poll(RECOVERING)
    poll.ask()
    poll.answer(1, 4, 10)
    poll.answer(2, 4, 12)
    poll.reply(3, Position(TOPIC, TOPIC_ID, 0, 6, 5, 11, high_watermark=told, epoch_ends=[(5, 11), (4, 8)]))
    [verdict] = poll.elections.decide(1)
    assert (verdict.winner, verdict.lacking) == (winner, lacking)


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
