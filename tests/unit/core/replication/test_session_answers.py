"""What a leader's answers tell of roles, topics, and how sure it is."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from minilog.core.replication.leader import LeaderState
from minilog.wire.messages import (
    ReplicaFetchPartition,
    ReplicaFetchReply,
)
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.builders import (
    TOPIC,
    TOPIC_ID,
    fetched,
    leader_of,
    log_of,
    partition_state,
)
from tests.unit.core.replication.leading_bench import (
    FIRST,
    WAIT_MS,
    Leading,
    entry,
    leading,
    next_leader,
    offsets,
    request,
    settled,
)


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
