"""A leader's side of replica fetching: positions counted once, answers given once, copies refused
(R4, R5, R35)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from minilog.core.replication.follower_session import NO_ANSWER
from minilog.errors import FencedLeaderEpoch, InvalidFetchSession, OffsetOutOfRange, UnknownLeaderEpoch
from minilog.wire.messages import (
    ReplicaFetchPartition,
    ReplicaFetchReply,
)
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.builders import (
    TOPIC,
    follower_of,
    leader_of,
    log_of,
    memory_log,
    partition_state,
    position,
    replica_of,
)
from tests.unit.core.replication.leading_bench import (
    FIRST,
    WAIT_MS,
    entry,
    leading,
    next_leader,
    offsets,
    request,
    settled,
)


def test_what_is_there_is_sent_at_once() -> None:
    broker = leading()
    sent = broker.fetch(request(entry(0, 1)))
    (result,) = broker.results(sent)
    assert offsets(result) == [1, 2]
    assert (result.leader_epoch, result.fetch_offset, result.log_start_offset) == (5, 1, 0)
    reply = broker.replies[sent]
    assert isinstance(reply, ReplicaFetchReply)
    assert (reply.session_id, reply.sequence) == (1, 0)


def test_with_nothing_to_send_it_waits_for_an_append() -> None:
    broker = settled(leading(), entry(0, 3))
    waiting = broker.fetch(request(sequence=1))
    assert waiting not in broker.replies
    broker.append(2)
    (result,) = broker.results(waiting)
    assert offsets(result) == [3, 4]


def test_with_nothing_to_send_it_is_answered_at_its_deadline() -> None:
    broker = settled(leading(), entry(0, 3))
    waiting = broker.fetch(request(sequence=1))
    broker.tick(20 + WAIT_MS - 1)
    assert waiting not in broker.replies
    broker.tick(20 + WAIT_MS)
    assert broker.results(waiting) == []


def test_a_high_watermark_without_data_goes_with_the_next_tick() -> None:
    broker = settled(leading(), entry(0, 3))
    broker.append()
    broker.flush()
    waiting = broker.fetch(request(entry(0, 4), sequence=1))
    assert broker.leader.high_watermark == 4
    assert waiting not in broker.replies, "data may follow within the tick"
    broker.tick(40)
    (result,) = broker.results(waiting)
    assert (offsets(result), result.high_watermark) == ([], 4)


def test_a_high_watermark_is_told_once() -> None:
    broker = settled(leading(), entry(0, 3))
    broker.append()
    broker.flush()
    broker.fetch(request(entry(0, 4), sequence=1))
    broker.tick(40)
    following = broker.fetch(request(entry(0, 4), sequence=2))
    broker.tick(60)
    assert following not in broker.replies


def test_data_carries_the_high_watermark_along() -> None:
    broker = settled(leading(), entry(0, 3))
    broker.append()
    broker.flush()
    waiting = broker.fetch(request(entry(0, 4), sequence=1))
    broker.append()
    assert [(offsets(r), r.high_watermark) for r in broker.results(waiting)] == [([4], 4)]


def test_data_says_how_far_the_log_was_swept() -> None:
    broker = leading()
    broker.leader.log.note_copied(2)
    (result,) = broker.results(broker.fetch(request(entry(0, 1))))
    assert (offsets(result), result.swept_end) == ([1, 2], 2)


def test_one_answer_carries_all_partitions_that_have_something() -> None:
    broker = leading(partitions=3)
    sent = broker.fetch(request(entry(0, 1), entry(1, 3), entry(2, 2)))
    assert broker.sent(sent) == {0: [1, 2], 2: [2]}


def test_what_has_no_room_comes_with_the_next_answer() -> None:
    broker = leading(partitions=2)
    first = broker.fetch(request(entry(0, 0), entry(1, 0), max_bytes=1))
    assert broker.sent(first) == {0: [0]}
    second = broker.fetch(request(entry(0, 1), sequence=1, max_bytes=1))
    assert broker.sent(second) == {1: [0]}


def test_a_position_that_retention_has_overtaken_since_is_refused() -> None:
    broker = leading(partitions=2)
    broker.fetch(request(entry(0, 0), entry(1, 0), max_bytes=1))
    broker.replicas[TopicPartition(TOPIC, 1)].log.advance_start(2)
    (result,) = broker.results(broker.fetch(request(entry(0, 3), sequence=1)))
    assert result.problem is not None
    assert (result.partition, result.problem.code) == (1, "OFFSET_OUT_OF_RANGE")


def test_the_first_request_of_a_session_proves_no_answer() -> None:
    """It may have been under way before the last answer: a leader deletes only what its followers
    have heard of."""
    broker = settled(leading(), entry(0, 3))
    log = memory_log(broker.leader)
    log.expired = 2
    broker.leader.log_start.plan(0, 3)
    broker.fetch(request(entry(0, 3), sequence=1))
    broker.append()  # an answer, which says where the log is to begin
    broker.fetch(request(entry(0, 3), session_id=2))
    broker.leader.advance(0, 4000)
    assert log.start_offset == 0
    broker.fetch(request(entry(0, 4), session_id=2, sequence=1))
    broker.leader.advance(0, 4000)
    assert log.start_offset == 2


def test_a_damaged_range_is_told() -> None:
    broker = leading()
    memory_log(broker.leader).damaged = True
    (result,) = broker.results(broker.fetch(request(entry(0, 1))))
    assert result.problem is not None
    assert result.problem.code == "CORRUPT_RANGE"


def test_what_is_forgotten_is_not_sent() -> None:
    broker = settled(leading(partitions=2), entry(0, 3), entry(1, 3))
    waiting = broker.fetch(request(sequence=1, forgotten=[(TOPIC, 1)]))
    broker.append(partition=1)
    assert waiting not in broker.replies
    broker.append(partition=0)
    assert [r.partition for r in broker.results(waiting)] == [0]


def test_a_follower_that_was_not_waited_for_still_learns_the_high_watermark() -> None:
    """It is not in the ISR yet, so the high watermark moves without it, between its answer and its
    next request."""
    broker = leading(0, isr=[1])
    broker.append(10)
    (result,) = broker.results(broker.fetch(request(entry(0, 0, -1))))
    assert result.high_watermark == 0
    broker.flush()
    assert broker.leader.high_watermark == 10
    waiting = broker.fetch(request(entry(0, 10), sequence=1))
    broker.tick(WAIT_MS)
    assert [r.high_watermark for r in broker.results(waiting)] == [10]


def test_a_new_session_is_told_the_high_watermark_of_what_needs_no_data() -> None:
    """The follower has restarted, or an answer was lost: it holds everything, but does not know
    that it is committed."""
    broker = leading()
    opening = broker.fetch(request(entry(0, 3)))
    broker.tick(20)
    assert [(offsets(r), r.high_watermark) for r in broker.results(opening)] == [([], 3)]


def test_a_partition_that_joins_a_session_is_told_its_high_watermark() -> None:
    """Its follower has just changed leaders. Without a word it could not even say how stale its
    reads are."""
    broker = settled(leading(partitions=2), entry(0, 3))
    joining = broker.fetch(request(entry(1, 3), sequence=1))
    broker.tick(40)
    assert [(r.partition, r.high_watermark) for r in broker.results(joining)] == [(1, 3)]


def test_a_partition_that_is_followed_in_a_new_epoch_is_told_its_high_watermark() -> None:
    broker = settled(leading(), entry(0, 3))
    broker.become(next_leader())
    told = []
    for sequence in (1, 2):
        sent = broker.fetch(request(entry(0, 3, leader_epoch=6), sequence=sequence))
        broker.tick(broker.now_ms + 20)
        if sent in broker.replies:
            told += [r.high_watermark for r in broker.results(sent) if r.leader_epoch == 6]
    assert told == [3]


def test_a_position_counts_when_it_arrives_and_moves_the_high_watermark() -> None:
    broker = leading()
    broker.append(2)
    broker.flush()
    broker.fetch(request(entry(0, 4)))
    assert broker.leader.followers[2].position == 4
    assert broker.leader.followers[2].broker_epoch == 7
    assert broker.leader.high_watermark == 4


VERDICTS = [
    (entry(0, 3, leader_epoch=4), FencedLeaderEpoch.code),
    (entry(0, 9, last_epoch=-1), OffsetOutOfRange.code),
]


@pytest.mark.parametrize(("asked", "code"), VERDICTS)
def test_a_position_that_cannot_count_is_answered_with_the_reason(asked: ReplicaFetchPartition, code: str) -> None:
    broker = leading()
    (result,) = broker.results(broker.fetch(request(asked)))
    assert result.problem is not None
    assert result.problem.code == code
    assert (result.leader_epoch, result.fetch_offset) == (asked.leader_epoch, asked.fetch_offset)
    assert broker.leader.followers[2].position is None


def test_a_diverging_position_is_told_where_and_gets_no_records() -> None:
    broker = leading()
    (result,) = broker.results(broker.fetch(request(entry(0, 2, last_epoch=4))))
    assert (result.diverging, offsets(result)) == ((4, 0), [])
    assert broker.leader.followers[2].position is None


def test_a_broker_that_is_no_replica_is_refused() -> None:
    broker = leading()
    asked = request(entry(0, 3))
    asked.broker_id = 9
    (result,) = broker.results(broker.fetch(asked))
    assert result.problem is not None
    assert result.problem.code == FencedLeaderEpoch.code


def test_who_does_not_lead_says_so() -> None:
    broker = leading()
    broker.replicas[FIRST] = replica_of(follower_of(partition_state(leader=3)))
    (result,) = broker.results(broker.fetch(request(entry(0, 3))))
    assert result.problem is not None
    assert result.problem.code == FencedLeaderEpoch.code


def test_a_position_of_a_coming_epoch_waits_until_that_epoch_is_reached() -> None:
    broker = leading()
    waiting = broker.fetch(request(entry(0, 2, leader_epoch=6)))
    assert broker.leader.followers[2].position is None
    assert waiting not in broker.replies, "no error, no retry loop"
    broker.become(leader_of(partition_state(replicas=[1, 2], leader_epoch=6), log_of((5, 3))))
    assert broker.leader.followers[2].position == 2
    assert [offsets(r) for r in broker.results(waiting)] == [[2]]


def test_the_position_of_an_epoch_that_is_over_is_refused_when_the_role_changes() -> None:
    broker = settled(leading(), entry(0, 3))
    waiting = broker.fetch(request(sequence=1))
    broker.become(leader_of(partition_state(replicas=[1, 2], leader_epoch=6), log_of((5, 3))))
    (result,) = broker.results(waiting)
    assert result.problem is not None
    assert result.problem.code == FencedLeaderEpoch.code
    assert broker.leader.followers[2].position is None, "what it held in epoch 5 proves nothing in epoch 6 (R4)"


def test_records_never_go_to_a_position_that_was_not_counted() -> None:
    broker = leading()
    waiting = broker.fetch(request(entry(0, 2, leader_epoch=6)))
    broker.append()
    assert waiting not in broker.replies


def test_the_leader_itself_refuses_newer_epochs() -> None:
    with pytest.raises(UnknownLeaderEpoch):
        leading().leader.on_fetch(2, 7, position(3, 5, leader_epoch=6), 0)


def test_a_copy_of_a_request_is_refused_and_does_not_disturb_the_session() -> None:
    broker = leading()
    opening = request(entry(0, 3))
    broker.fetch(opening)
    assert broker.refusal(broker.fetch(opening)) == InvalidFetchSession.code
    broker.tick(20)
    first = broker.fetch(request(sequence=1))
    assert broker.refusal(broker.fetch(request(sequence=1))) == InvalidFetchSession.code
    second = broker.fetch(request(sequence=2))
    assert broker.refusal(first) == InvalidFetchSession.code, "replaced by the second"
    broker.append()
    assert [offsets(r) for r in broker.results(second)] == [[3]]


@pytest.mark.parametrize(
    ("sequence", "session_id", "broker_epoch"),
    [(2, 1, 7), (1, 2, 7), (1, 1, 8), (0, 1, 7), (0, 0, 7), (0, 9, 6)],
    ids=["a gap", "another session", "another process", "opened already", "an older session", "an older process"],
)
def test_what_does_not_follow_is_refused(sequence: int, session_id: int, broker_epoch: int) -> None:
    broker = leading()
    waiting = broker.fetch(request(entry(0, 2)))
    refused = broker.fetch(request(entry(0, 3), sequence=sequence, session_id=session_id, broker_epoch=broker_epoch))
    assert broker.refusal(refused) == InvalidFetchSession.code
    assert broker.leader.followers[2].position == 2
    assert waiting in broker.replies


def test_a_request_without_a_session_is_refused() -> None:
    broker = leading()
    assert broker.refusal(broker.fetch(request(sequence=1))) == InvalidFetchSession.code


@pytest.mark.parametrize(("session_id", "broker_epoch"), [(2, 7), (1, 8)])
def test_a_new_session_replaces_the_one_before(session_id: int, broker_epoch: int) -> None:
    broker = settled(leading(partitions=2), entry(0, 3), entry(1, 3))
    old = broker.fetch(request(sequence=1))
    new = broker.fetch(request(entry(0, 3), session_id=session_id, broker_epoch=broker_epoch))
    assert broker.refusal(old) == InvalidFetchSession.code
    broker.append(partition=1)
    assert new not in broker.replies, "the new session does not fetch it"
    broker.append(partition=0)
    assert len(broker.results(new)) == 1


def test_a_follower_that_went_away_is_not_answered() -> None:
    broker = settled(leading(), entry(0, 3))
    gone = broker.fetch(request(sequence=1))
    broker.sessions.on_disconnect(gone)
    broker.append()
    broker.tick(WAIT_MS)
    assert gone not in broker.replies


def test_a_follower_whose_log_begins_too_late_is_asked_again_however_quiet_the_partition_is() -> None:
    """Met by schedule 1630: nothing was written, so nothing was said, and it stayed outside the ISR
    for good."""
    broker = settled(leading(isr=(1,)), replace(entry(0, 3), start_offset=2))
    for sequence in (1, 2):
        waiting = broker.fetch(request(replace(entry(0, 3), start_offset=2), sequence=sequence))
        broker.tick(broker.now_ms + 20)
        assert [result.problem for result in broker.results(waiting)] == [None]
    broker.tick(broker.leader.lacks_max_ms + 20)
    too_long = broker.fetch(request(replace(entry(0, 3), start_offset=2), sequence=3))
    (result,) = broker.results(too_long)
    assert result.problem is not None
    assert result.problem.info["begins_anew"] is True
    again = broker.fetch(request(entry(0, 0, last_epoch=-1), sequence=4))
    assert offsets(broker.results(again)[0]) == [0, 1, 2]
    assert broker.leader.followers[2].position == 0
    broker.fetch(request(entry(0, 3), sequence=5))
    broker.tick(broker.now_ms + 20)
    assert broker.leader.followers[2].position == 3


def test_no_answer_is_larger_than_peers_take_whatever_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilog.core.replication.follower_session.REPLICA_FETCH_BYTES_MAX", 1)
    broker = leading(partitions=2)
    first = broker.fetch(request(entry(0, 0), entry(1, 0), max_bytes=1 << 40))
    assert broker.sent(first) == {0: [0]}
    second = broker.fetch(request(entry(0, 1), sequence=1, max_bytes=1 << 40))
    assert broker.sent(second) == {1: [0]}


def test_a_fetch_says_that_its_sender_followed_after_the_answer_before_it_and_not_when_it_arrives() -> None:
    """R84: it may have been on its way for long."""
    cluster = leading()
    cluster.fetch(request(entry(0, 3)))
    assert cluster.sessions.followed(2, FIRST) == NO_ANSWER, "nothing says when the first one was sent"
    cluster.tick(WAIT_MS)
    cluster.now_ms = 9000
    cluster.fetch(request(sequence=1))
    assert cluster.sessions.followed(2, FIRST).sent_ms == WAIT_MS
    cluster.fetch(request(entry(0, 3), session_id=2))
    assert cluster.sessions.followed(2, FIRST) == NO_ANSWER


def test_a_fetch_says_nothing_of_partitions_it_has_forgotten_or_names_in_another_epoch() -> None:
    cluster = leading(partitions=2)
    second = TopicPartition(TOPIC, 1)
    cluster.fetch(request(entry(0, 3), entry(1, 3)))
    cluster.tick(WAIT_MS)
    cluster.fetch(request(entry(0, 3, leader_epoch=6), sequence=1, forgotten=[(TOPIC, 1)]))
    assert [cluster.sessions.followed(2, p) for p in (FIRST, second)] == [NO_ANSWER, NO_ANSWER]
    assert cluster.sessions.followed(3, FIRST) == NO_ANSWER
