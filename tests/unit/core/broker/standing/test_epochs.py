"""Positions told in elections, epochs that end, and leaders that step down."""

from __future__ import annotations

from typing import Any

import pytest

from minilog.core.controller.elections.partition_change import most_up_to_date
from minilog.core.replication.leader import LeaderState
from minilog.errors import (
    BrokerUnavailable,
    StaleBrokerEpoch,
)
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    TopicDeleted,
)
from minilog.wire.messages import (
    ReplicaFetch,
    ReplicaFetchReply,
    ReplicaFetchResult,
)
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.broker.standing.standing_bench import FIRST, ask_positions, positions
from tests.unit.core.builders import TOPIC, TOPIC_ID, batch_at, extend, partition_state


@pytest.mark.parametrize("more", [{"broker_id": 2}, {"broker_epoch": 1}, {"broker_epoch": 3}, {"broker_epoch": -1}])
def test_a_question_for_another_process_is_not_answered_and_ends_nothing(more: dict[str, Any]) -> None:
    """Another broker has its address by now, or another process its id: its log is not the one that
    was meant."""
    bench = BrokerBench.started(partition_state())
    sent = bench.send(positions(bench, 6, **more, controller_epoch=9))
    assert bench.refusal(sent).code == StaleBrokerEpoch.code
    assert bench.store.controller_epoch == 1
    assert bench.leader().leader_epoch == 5


def test_a_position_says_whose_it_is_and_of_what() -> None:
    bench = BrokerBench.started(partition_state())
    reply = ask_positions(bench, 6)
    assert (reply.broker_id, reply.broker_epoch) == (1, 2)
    assert [(p.topic, p.topic_id, p.partition) for p in reply.partitions] == [(TOPIC, TOPIC_ID, 0)]


def test_a_log_that_retention_has_emptied_stands_for_election_with_the_epoch_of_what_has_gone() -> None:
    """Else one that lost its end would win, and offsets that were committed would be given a second
    time."""
    bench = BrokerBench.started(partition_state(leader=2))
    bench.log().reset(9, start_epoch=3)
    (position,) = ask_positions(bench, 6).partitions
    assert (position.last_epoch, position.end_offset) == (3, 9)
    assert most_up_to_date({1: (position.last_epoch, position.end_offset), 2: (3, 7)}, [2, 1]) == 1


def test_a_position_says_where_the_last_epochs_end_in_the_log() -> None:
    bench = BrokerBench.started(partition_state(leader=2))
    for epoch in range(10):
        extend(bench.log(), epoch, epoch + 1)
    (position,) = ask_positions(bench, 20).partitions
    assert position.epoch_ends == [(9, 55), (8, 45), (7, 36), (6, 28), (5, 21), (4, 15), (3, 10), (2, 6)]
    bench.log().truncate(1)
    (position,) = ask_positions(bench, 20).partitions
    assert (position.start_offset, position.epoch_ends) == (0, [(0, 1)])


def test_answering_a_position_query_ends_the_older_epoch() -> None:
    bench = BrokerBench.started(partition_state())
    sent = bench.produce(b"a", b"b")
    (position,) = ask_positions(bench, 6).partitions
    assert (position.problem, position.leader_epoch, position.last_epoch, position.end_offset) == (None, 6, 5, 2)
    (result,) = bench.produced(sent)
    assert result.problem is not None
    assert result.problem.code == "LEADERSHIP_LOST"
    assert (bench.follower().leader_epoch, bench.follower().leader) == (6, NO_LEADER)
    refused = bench.produced(bench.produce(b"c"))[0].problem
    assert refused is not None
    assert (refused.code, refused.definite) == ("LEADER_NOT_AVAILABLE", True)


def test_a_fenced_follower_stops_fetching_from_the_old_leader() -> None:
    bench = BrokerBench.started(partition_state(leader=2))
    ((_, request),) = bench.fetches
    ask_positions(bench, 6)
    bench.respond(2, request, BrokerUnavailable("gone"))
    bench.tick(1000)
    assert len(bench.fetches) == 1


@pytest.mark.parametrize("epoch", [5, 6])
def test_metadata_of_an_epoch_that_was_fenced_brings_no_role_back(epoch: int) -> None:
    bench = BrokerBench.started(partition_state(leader=2))
    ask_positions(bench, 7)
    bench.metadata(partition_state(leader=1, leader_epoch=epoch, partition_epoch=11))
    assert bench.follower().leader_epoch == 7
    bench.metadata(partition_state(leader=1, leader_epoch=7, partition_epoch=12))
    assert bench.leader().leader_epoch == 7


@pytest.mark.parametrize(("leader_epoch", "topic_id"), [(4, TOPIC_ID), (6, "another")])
def test_a_position_that_cannot_be_told_is_a_problem_and_ends_nothing(leader_epoch: int, topic_id: str) -> None:
    bench = BrokerBench.started(partition_state())
    (position,) = ask_positions(bench, leader_epoch, topic_id=topic_id).partitions
    assert position.problem is not None
    assert isinstance(bench.core.replicas[FIRST].role, LeaderState)


def test_asking_in_the_current_epoch_ends_nothing() -> None:
    bench = BrokerBench.started(partition_state(leader=NO_LEADER))
    (position,) = ask_positions(bench, 5).partitions
    assert position.problem is None


def test_a_leader_that_steps_down_makes_its_tail_durable_before_it_fetches() -> None:
    bench = BrokerBench.started(partition_state())
    bench.produce(b"a", acks=0)
    bench.flushes.clear()
    bench.metadata(partition_state(leader=2, leader_epoch=6, partition_epoch=11, isr=[2, 3]))
    assert [f.end_offset for f in bench.flushes] == [1]
    assert bench.fetches == []
    bench.flush()
    ((node_id, request),) = bench.fetches
    assert (node_id, request.partitions[0].fetch_offset, request.partitions[0].last_epoch) == (2, 1, 5)


def test_a_flush_that_was_under_way_at_the_change_is_not_taken_for_the_whole_tail() -> None:
    bench = BrokerBench.started(partition_state())
    bench.produce(b"a", acks=0)
    bench.produce(b"b", acks=0)
    bench.metadata(partition_state(leader=2, leader_epoch=6, partition_epoch=11, isr=[2, 3]))
    bench.flush(end_offset=1)
    assert bench.fetches == []
    bench.flush()
    assert [request.partitions[0].fetch_offset for _, request in bench.fetches] == [2]


def test_a_fetch_of_an_earlier_process_is_refused() -> None:
    bench = BrokerBench.started(partition_state())
    sent = bench.acknowledge(2, 0, broker_epoch=3)
    assert bench.refusal(sent).code == StaleBrokerEpoch.code
    assert bench.leader().followers[2].position is None


def test_a_fetch_for_another_broker_is_refused_and_leaves_the_followers_session_alone() -> None:
    """That broker had this address, or says it has."""
    bench = BrokerBench.started(partition_state())
    bench.acknowledge(2, 0)
    session = bench.core.sessions.of(2)
    sent = bench.send(ReplicaFetch(2, 4, 3, 99, 0, 500, 1000, []))
    assert bench.refusal(sent).code == "BROKER_UNAVAILABLE"
    assert bench.core.sessions.of(2) is session
    assert bench.leader().followers[2].position == 0


def test_the_answer_of_a_leader_that_is_followed_no_more_changes_nothing() -> None:
    bench = BrokerBench.started(partition_state(leader=2))
    ((node_id, request),) = bench.fetches
    bench.metadata(TopicDeleted(TOPIC, TOPIC_ID))
    batches = memoryview(batch_at(0, 5, b"late").tobytes())
    result = ReplicaFetchResult(TOPIC, TOPIC_ID, 0, 5, 0, 1, 0, batches=batches)
    bench.respond(node_id, request, ReplicaFetchReply(request.session_id, request.sequence, [result]))
    bench.respond(3, request, ReplicaFetchReply(request.session_id, request.sequence, [result]))
    assert bench.core.replicas == {}
    assert bench.store.logs == {}


def test_a_follower_under_flush_policy_interval_flushes_later() -> None:
    bench = BrokerBench.started(partition_state(leader=2), config={"flush.policy": "interval", "flush.ms": "100"})
    ((node_id, request),) = bench.fetches
    batches = memoryview(batch_at(0, 5, b"v").tobytes())
    result = ReplicaFetchResult(TOPIC, TOPIC_ID, 0, 5, 0, 1, 0, batches=batches)
    bench.respond(node_id, request, ReplicaFetchReply(request.session_id, request.sequence, [result]))
    assert [r.partitions[0].fetch_offset for _, r in bench.fetches] == [0, 1], "it acknowledges what is written"
    assert bench.flushes == []
    bench.tick(100)
    assert [f.end_offset for f in bench.flushes] == [1]


def test_a_leader_counts_how_often_its_isr_shrank_and_grew() -> None:
    bench = BrokerBench.started(partition_state(isr=[1, 2, 3]), min_isr=1)
    for epoch, isr in enumerate(([1, 2], [1, 2], [1], [1, 3], [1, 2, 3]), 11):
        bench.metadata(partition_state(isr=isr, partition_epoch=epoch))
    led = bench.core.replica_statistics(bench.core.hosted(), bench.now_ms)[0]
    assert (led.isr_shrinks, led.isr_expands) == (2, 2)
