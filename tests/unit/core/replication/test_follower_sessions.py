"""A leader's side of replica fetching: positions counted once, answers given once, copies refused
(R4, R5, R35)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from minilog.core.effects import Effect, Reply
from minilog.core.replication.follower_session import NO_ANSWER, FollowerSession
from minilog.core.replication.follower_sessions import FollowerSessions
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica
from minilog.errors import FencedLeaderEpoch, InvalidFetchSession, OffsetOutOfRange, UnknownLeaderEpoch
from minilog.wire.batch import split
from minilog.wire.messages import (
    Problem,
    ReplicaFetch,
    ReplicaFetchPartition,
    ReplicaFetchReply,
    ReplicaFetchResult,
)
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.builders import (
    LAG_MAX_MS,
    TOPIC,
    TOPIC_ID,
    extend,
    fetched,
    follower_of,
    leader_of,
    log_of,
    memory_log,
    partition_state,
    position,
    replica_of,
)

FIRST = TopicPartition(TOPIC, 0)
WAIT_MS = 500


class Leading:
    """Broker 1 and its sessions, as BrokerCore drives them: count, advance, answer at the end of
    each turn."""

    def __init__(self, *leaders: LeaderState) -> None:
        self.replicas: dict[TopicPartition, Replica] = {each.partition: replica_of(each) for each in leaders}
        self.sessions = FollowerSessions(self.replicas)
        self.replies: dict[int, Problem | ReplicaFetchReply] = {}
        self.next_id = 1
        self.now_ms = self.unsure_ms = 0

    @property
    def leader(self) -> LeaderState:
        role = self.replicas[FIRST].role
        assert isinstance(role, LeaderState)
        return role

    def fetch(self, request: ReplicaFetch) -> int:
        request_id, self.next_id = self.next_id, self.next_id + 1
        session, effects = self.sessions.on_request(request_id, request, self.now_ms + WAIT_MS, self.now_ms)
        if session is not None:
            self.count(session)
        self.finish(effects)
        return request_id

    def count(self, session: FollowerSession) -> None:
        for leader in self.sessions.count(session, self.now_ms):
            self.advance(leader)

    def advance(self, leader: LeaderState) -> None:
        before = leader.high_watermark
        leader.advance(self.now_ms, LAG_MAX_MS)
        if leader.high_watermark != before:
            self.sessions.on_high_watermark(leader.partition)

    def append(self, count: int = 1, partition: int = 0) -> None:
        key = TopicPartition(TOPIC, partition)
        extend(memory_log(self.replicas[key].role), self.replicas[key].leader_epoch, count, synced=False)
        self.sessions.on_append(key)
        self.finish([])

    def flush(self, partition: int = 0) -> None:
        replica = self.replicas[TopicPartition(TOPIC, partition)]
        memory_log(replica.role).sync()
        assert isinstance(replica.role, LeaderState)
        self.advance(replica.role)
        self.finish([])

    def become(self, role: LeaderState) -> None:
        self.replicas[role.partition] = replica_of(role)
        self.sessions.on_role_changed(role.partition)
        session = self.sessions.of(2)
        assert session is not None
        self.count(session)
        self.finish([])

    def tick(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.finish(self.sessions.answer_late(now_ms, self.unsure_ms))

    def finish(self, effects: Sequence[Effect]) -> None:
        for effect in [*effects, *self.sessions.answer_ready(self.now_ms, self.unsure_ms)]:
            assert isinstance(effect, Reply)
            assert effect.request_id not in self.replies, "answered twice"
            assert isinstance(effect.response, Problem | ReplicaFetchReply)
            self.replies[effect.request_id] = effect.response

    def results(self, request_id: int) -> list[ReplicaFetchResult]:
        reply = self.replies[request_id]
        assert isinstance(reply, ReplicaFetchReply)
        return reply.partitions

    def sent(self, request_id: int) -> dict[int, list[int]]:
        """Base offsets by partition, of those whose result carries data."""
        return {r.partition: offsets(r) for r in self.results(request_id) if len(r.batches)}

    def refusal(self, request_id: int) -> str:
        reply = self.replies[request_id]
        assert isinstance(reply, Problem)
        return reply.code


def request(
    *entries: ReplicaFetchPartition,
    sequence: int = 0,
    session_id: int = 1,
    broker_epoch: int = 7,
    max_bytes: int = 1 << 20,
    forgotten: Sequence[tuple[str, int]] = (),
) -> ReplicaFetch:
    return ReplicaFetch(2, broker_epoch, 1, session_id, sequence, WAIT_MS, max_bytes, list(entries), list(forgotten))


def entry(partition: int, fetch_offset: int, last_epoch: int = 5, leader_epoch: int = 5) -> ReplicaFetchPartition:
    return ReplicaFetchPartition(TOPIC, TOPIC_ID, partition, leader_epoch, fetch_offset, last_epoch)


def leading(records: int = 3, *, isr: Sequence[int] = (1, 2), partitions: int = 1) -> Leading:
    leaders = [
        leader_of(partition_state(replicas=[1, 2], isr=isr, partition=p), log_of((5, records), high_watermark=records))
        for p in range(partitions)
    ]
    return Leading(*leaders)


def settled(broker: Leading, *entries: ReplicaFetchPartition) -> Leading:
    """A session is open with these positions and the follower has been told all there is to tell;
    next is sequence 1."""
    broker.fetch(request(*entries))
    broker.tick(broker.now_ms + 20)
    return broker


def offsets(found: ReplicaFetchResult) -> list[int]:
    return [batch.base_offset for batch in split(found.batches, 1 << 20, stored=True)]


# --- answering ------------------------------------------------------------------------------------


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


# --- counting -------------------------------------------------------------------------------------


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


def next_leader(partition: int = 0) -> LeaderState:
    """The same broker leads on in epoch 6."""
    log = log_of((5, 3), high_watermark=3)
    return leader_of(partition_state(replicas=[1, 2], leader_epoch=6, partition=partition), log)


def test_a_long_poll_ends_early_when_a_new_role_waits_to_be_named() -> None:
    """The follower can name the new epoch only in its next request, which it may not send while
    this one is parked."""
    broker = settled(leading(), entry(0, 3))
    waiting = broker.fetch(request(sequence=1))
    broker.become(next_leader())
    assert waiting in broker.replies
    again = broker.fetch(request(sequence=2))
    broker.tick(40)
    assert broker.results(again) == [], "the follower did not know the new epoch yet"
    broker.fetch(request(entry(0, 3, leader_epoch=6), sequence=3))
    broker.tick(60)
    assert broker.leader.followers[2].position == 3
    named = broker.fetch(request(entry(0, 3, leader_epoch=6), sequence=4))
    broker.tick(80)
    broker.tick(100)
    assert named not in broker.replies, "named: it waits as long as it likes again"


def test_a_long_poll_ends_at_once_when_a_partition_is_led_that_it_does_not_know_of() -> None:
    broker = settled(leading(), entry(0, 3))
    waiting = broker.fetch(request(sequence=1))
    broker.become(next_leader(1))
    assert broker.results(waiting) == []


def test_a_high_watermark_is_not_forgotten_while_a_position_waits_for_its_epoch() -> None:
    broker = leading()
    broker.fetch(request(entry(0, 3, leader_epoch=6)))
    broker.sessions.on_high_watermark(FIRST)
    broker.tick(20)
    broker.become(next_leader())
    broker.tick(40)
    assert [r.high_watermark for r in broker.results(1)] == [3]


def test_a_follower_that_never_names_it_is_not_hurried_for_ever() -> None:
    broker = leading()
    broker.fetch(request(entry(0, 3)))
    broker.become(leader_of(partition_state(replicas=[1, 2], leader_epoch=6), log_of((5, 3))))
    early = 0
    for sequence in range(1, 200):
        waiting = broker.fetch(request(sequence=sequence))
        broker.tick(broker.now_ms + 20)
        if waiting not in broker.replies:
            break
        early += 1
    assert 0 < early < 100


# --- how fresh an answer is -----------------------------------------------------------------------


def reply_of(broker: Leading, request_id: int) -> ReplicaFetchReply:
    reply = broker.replies[request_id]
    assert isinstance(reply, ReplicaFetchReply)
    return reply


@pytest.mark.parametrize("after_ms", [0, 1, 300, WAIT_MS])
def test_an_answer_says_how_long_the_request_was_held_and_how_unsure_its_leader_is(after_ms: int) -> None:
    broker = settled(leading(), entry(0, 3))
    waiting = broker.fetch(request(sequence=1))
    broker.now_ms += after_ms
    broker.unsure_ms = 2 * after_ms
    broker.append()
    reply = reply_of(broker, waiting)
    assert (reply.held_ms, reply.unsure_ms, reply.untold) == (after_ms, 2 * after_ms, [])


def test_an_answer_at_its_deadline_says_so_too() -> None:
    broker = settled(leading(), entry(0, 3))
    waiting = broker.fetch(request(sequence=1))
    broker.unsure_ms = 77
    broker.tick(broker.now_ms + WAIT_MS)
    reply = reply_of(broker, waiting)
    assert (reply.held_ms, reply.unsure_ms, reply.partitions) == (WAIT_MS, 77, [])


def test_what_had_no_room_is_untold() -> None:
    broker = leading(partitions=3)
    first = broker.fetch(request(entry(0, 0), entry(1, 0), entry(2, 3), max_bytes=1))
    assert broker.sent(first) == {0: [0]}
    assert reply_of(broker, first).untold == [(TOPIC, 1), (TOPIC, 2)], "that nothing is new in 2 was not looked at"
    second = broker.fetch(request(entry(0, 1), sequence=1, max_bytes=1 << 20))
    assert broker.sent(second) == {0: [1, 2], 1: [0, 1, 2]}
    assert reply_of(broker, second).untold == []


@pytest.mark.parametrize(
    "asked",
    [entry(1, 3, leader_epoch=6), ReplicaFetchPartition(TOPIC, "another", 1, 5, 3, 5), entry(9, 3)],
    ids=["a coming epoch", "another topic of that name", "a partition that is not here"],
)
def test_what_is_not_led_here_as_it_was_asked_for_is_untold_in_every_answer(asked: ReplicaFetchPartition) -> None:
    broker = leading(partitions=2)
    sent = broker.fetch(request(entry(0, 2), asked))
    for sequence in range(1, 4):
        assert reply_of(broker, sent).untold == [(TOPIC, asked.partition)]
        assert all(found.partition == 0 for found in broker.results(sent))
        sent = broker.fetch(request(sequence=sequence))
        broker.tick(broker.now_ms + WAIT_MS)
    assert broker.leader.followers[2].position == 2


def test_what_was_closed_here_is_untold_from_then_on() -> None:
    """Its files may be gone, or the broker has registered anew and does not know what it has
    yet."""
    broker = settled(leading(partitions=2), entry(0, 3), entry(1, 3))
    second = TopicPartition(TOPIC, 1)
    del broker.replicas[second]
    broker.sessions.on_role_changed(second)
    sent = broker.fetch(request(sequence=1))
    broker.tick(broker.now_ms + WAIT_MS)
    assert reply_of(broker, sent).untold == [second]


# --- topics of one name ---------------------------------------------------------------------------


def remade(leader_epoch: int = 5) -> LeaderState:
    state = replace(partition_state(replicas=[1, 2], leader_epoch=leader_epoch), topic_id="another")
    return leader_of(state, log_of((4, 3)))


@pytest.mark.parametrize("leader_epoch", [4, 5, 6])
def test_a_position_in_another_topic_of_that_name_is_not_counted_and_gets_no_records(leader_epoch: int) -> None:
    broker = settled(leading(), entry(0, 3))
    waiting = broker.fetch(request(sequence=1))
    broker.become(remade(leader_epoch))
    broker.append(2)
    broker.tick(broker.now_ms + WAIT_MS)
    assert broker.leader.followers[2].position is None
    assert broker.leader.high_watermark == 0
    assert broker.results(waiting) == []
    named = ReplicaFetchPartition(TOPIC, "another", 0, leader_epoch, 3, 4)
    asked = broker.fetch(request(named, sequence=2))
    assert broker.leader.followers[2].position == 3
    assert [(r.topic_id, offsets(r)) for r in broker.results(asked)] == [("another", [3, 4])]


def test_a_partition_that_is_forgotten_under_an_earlier_topic_id_keeps_its_position() -> None:
    broker = leading()
    broker.fetch(request(ReplicaFetchPartition(TOPIC, "another", 0, 5, 3, 5)))
    fetched(broker.leader, 2, 3)
    broker.fetch(request(sequence=1, forgotten=[FIRST]))
    assert broker.leader.followers[2].position == 3


def test_every_result_names_its_topic_and_whether_its_high_watermark_is_the_true_one() -> None:
    broker = Leading(leader_of(partition_state(replicas=[1, 2]), log_of((4, 3), high_watermark=1)))
    sent = broker.fetch(request(entry(0, 1, 4)))
    assert [(r.topic_id, r.is_exact, r.high_watermark) for r in broker.results(sent)] == [(TOPIC_ID, False, 1)]
    sent = broker.fetch(request(entry(0, 3, 4), sequence=1))
    broker.tick(20)
    assert [(r.topic_id, r.is_exact, r.high_watermark) for r in broker.results(sent)] == [(TOPIC_ID, True, 3)]


# --- order and copies (R5, R35) -------------------------------------------------------------------


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


# --- evidence -------------------------------------------------------------------------------------


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
