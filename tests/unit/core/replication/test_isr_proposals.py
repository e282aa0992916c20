"""ISR proposals on their way through a broker: one request in flight, and given up only on proof
(R14, R15)."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from minilog.core.effects import CONTROLLER_ID
from minilog.core.replication.isr_proposals import RETRY_MS
from minilog.core.replication.leader_isr import REFUSED_MS
from minilog.errors import (
    BrokerUnavailable,
    IneligibleReplica,
    InvalidRequest,
    InvalidUpdateVersion,
    MinilogError,
    NotController,
    StaleBrokerEpoch,
)
from minilog.wire.journal.metadata_records import BrokerFenced, BrokerRegistered, BrokerUnfenced
from minilog.wire.messages import (
    ACKS_ALL,
    AlterPartition,
    AlterPartitionReply,
    IsrDecision,
    IsrMember,
    ProbeReply,
    Problem,
)
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.builders import TOPIC, TOPIC_ID, partition_state


def proposing() -> BrokerBench:
    """Broker 3 is outside the ISR and has just caught up."""
    bench = BrokerBench.started(partition_state(isr=[1, 2]))
    bench.acknowledge(2, 0)
    bench.acknowledge(3, 0)
    return bench


def decide(bench: BrokerBench, request: AlterPartition, error: MinilogError | None = None) -> None:
    decision = IsrDecision(TOPIC, TOPIC_ID, 0, None if error is None else Problem.of(error))
    reply = AlterPartitionReply(request.broker_epoch, request.sequence, [decision])
    bench.respond(CONTROLLER_ID, request, reply)


def test_a_follower_that_caught_up_is_proposed_at_once() -> None:
    bench = proposing()
    (request,) = bench.alters
    assert (request.broker_id, request.broker_epoch, request.controller_epoch, request.sequence) == (1, 2, 1, 1)
    (proposal,) = request.partitions
    assert proposal.isr == [IsrMember(1, 2), IsrMember(2, 4), IsrMember(3, 6)]


def test_one_request_in_flight_with_every_open_proposal_in_the_next() -> None:
    states = [partition_state(isr=[1, 2], partition=p) for p in range(3)]
    bench = BrokerBench.started(*states)
    for partition in range(3):
        bench.acknowledge(2, 0, partition)
        bench.acknowledge(3, 0, partition)
    assert [[p.partition for p in request.partitions] for request in bench.alters] == [[0]]
    decide(bench, bench.alters[0])
    bench.tick(RETRY_MS)
    assert [p.partition for p in bench.alters[1].partitions] == [0, 1, 2]


@pytest.mark.parametrize(
    "error",
    [BrokerUnavailable("no answer"), NotController("not me"), Problem.of(StaleBrokerEpoch("who?")), None],
    ids=["unavailable", "not controller", "problem", "odd"],
)
def test_no_answer_proves_nothing_so_it_is_asked_again_under_a_higher_number(
    error: MinilogError | Problem | None,
) -> None:
    bench = proposing()
    bench.respond(CONTROLLER_ID, bench.alters[0], error or ProbeReply(1, "?"))
    assert bench.leader().maximal_isr == {1, 2, 3}
    bench.tick(RETRY_MS - 1)
    assert len(bench.alters) == 1
    bench.tick(1)
    first, again = bench.alters
    assert again.sequence > first.sequence
    assert again.partitions == first.partitions


@pytest.mark.parametrize("error", [InvalidUpdateVersion("late"), NotController("older"), InvalidRequest("odd")])
def test_a_refusal_that_could_hide_an_earlier_success_does_not_end_it(error: MinilogError) -> None:
    bench = proposing()
    decide(bench, bench.alters[0], error)
    assert bench.leader().maximal_isr == {1, 2, 3}


def test_a_definite_refusal_ends_it() -> None:
    bench = proposing()
    decide(bench, bench.alters[0], IneligibleReplica("fenced"))
    assert bench.leader().maximal_isr == {1, 2}


def test_a_refusal_that_answers_another_request_does_not_end_it() -> None:
    bench = proposing()
    (request,) = bench.alters
    decision = IsrDecision(TOPIC, TOPIC_ID, 0, Problem.of(IneligibleReplica("fenced")))
    reply = AlterPartitionReply(request.broker_epoch, request.sequence + 1, [decision])
    bench.respond(CONTROLLER_ID, request, reply)
    assert bench.leader().maximal_isr == {1, 2, 3}


@pytest.mark.parametrize(
    ("reply", "decision"),
    [
        ({"broker_epoch": 1}, {}),
        ({"broker_epoch": 3}, {}),
        ({"sequence": 0}, {}),
        ({}, {"topic_id": "another"}),
        ({}, {"topic": "payments"}),
        ({}, {"partition": 1}),
    ],
)
def test_a_refusal_of_anything_else_does_not_end_it(reply: dict[str, Any], decision: dict[str, Any]) -> None:
    """Meant for another process, another request, another topic of that name."""
    bench = proposing()
    (request,) = bench.alters
    refused = replace(IsrDecision(TOPIC, TOPIC_ID, 0, Problem.of(IneligibleReplica("fenced"))), **decision)
    answer = AlterPartitionReply(request.broker_epoch, request.sequence, [refused])
    bench.respond(CONTROLLER_ID, request, replace(answer, **reply))
    assert bench.leader().maximal_isr == {1, 2, 3}
    bench.tick(RETRY_MS)
    assert len(bench.alters) == 2, "it is asked again"


def test_a_late_refusal_of_the_first_copy_does_not_end_the_second() -> None:
    bench = proposing()
    bench.respond(CONTROLLER_ID, bench.alters[0], BrokerUnavailable("no answer"))
    bench.tick(RETRY_MS)
    decide(bench, bench.alters[0], IneligibleReplica("fenced"))
    assert bench.leader().maximal_isr == {1, 2, 3}


def test_an_agreed_proposal_stays_open_until_the_metadata_says_so() -> None:
    bench = proposing()
    decide(bench, bench.alters[0])
    assert bench.leader().proposal is not None
    assert bench.leader().state.isr == [1, 2]
    bench.metadata(partition_state(partition_epoch=11))
    assert bench.leader().proposal is None
    assert bench.leader().state.isr == [1, 2, 3]
    bench.tick(RETRY_MS)
    assert len(bench.alters) == 1


def test_a_process_that_replaced_the_proposed_one_is_not_vouched_for() -> None:
    """KIP-903 through the whole broker: the proposal is asked again after broker 3 came back
    empty."""
    bench = BrokerBench.started(partition_state(isr=[1, 2]))
    bench.produce(b"a", acks=0)
    bench.flush()
    bench.acknowledge(2, 1)
    bench.acknowledge(3, 1)
    bench.respond(CONTROLLER_ID, bench.alters[0], BrokerUnavailable("no answer"))
    epoch = len(bench.journal) + 2
    bench.metadata(
        BrokerFenced(3, 6), BrokerRegistered(3, epoch, "empty", "http://broker-3:8082"), BrokerUnfenced(3, epoch)
    )
    bench.acknowledge(3, 0, broker_epoch=epoch)
    bench.tick(RETRY_MS)
    for request in bench.alters:
        assert IsrMember(3, epoch) not in request.partitions[0].isr, "it holds nothing, whatever process it is"


def test_a_silent_follower_is_proposed_to_leave() -> None:
    bench = BrokerBench.started(partition_state(), replica_lag_max_ms=4000)
    bench.acknowledge(2, 0)
    bench.run(4000)
    bench.acknowledge(2, 0)
    assert bench.alters == []
    bench.run(501)
    (request,) = bench.alters
    assert [m.broker_id for m in request.partitions[0].isr] == [1, 2]


def test_a_fenced_follower_is_not_proposed() -> None:
    bench = BrokerBench.started(partition_state(isr=[1, 2]))
    bench.metadata(BrokerFenced(3, 6))
    bench.acknowledge(3, 0)
    assert bench.alters == []


# --- waiting for one that is about to join --------------------------------------------------------


def waiting_for_a_joiner() -> tuple[BrokerBench, int]:
    """Broker 3 has caught up and is about to be proposed. A write waits for it, and then it falls
    silent."""
    bench = BrokerBench.started(partition_state(isr=[1]), replica_lag_max_ms=4000)
    bench.acknowledge(3, 0)
    decide(bench, bench.alters[0], IneligibleReplica("not yet"))
    bench.run(REFUSED_MS)
    sent = bench.produce(b"a", acks=ACKS_ALL)
    bench.flush()
    assert sent not in bench.replies
    return bench, sent


def test_a_joiner_that_falls_behind_holds_up_nobody() -> None:
    bench, sent = waiting_for_a_joiner()
    bench.run(4001)
    for request in bench.alters[1:]:
        decide(bench, request, IneligibleReplica("not yet"))
    bench.run(501)
    assert sent in bench.replies


def test_who_may_not_join_is_not_waited_for_until_it_may_be_asked_for_again() -> None:
    """A write that came while the proposal was open is answered when that is refused."""
    bench = BrokerBench.started(partition_state(isr=[1]), replica_lag_max_ms=4000)
    bench.acknowledge(3, 0)
    sent = bench.produce(b"a", acks=ACKS_ALL)
    bench.flush()
    assert sent not in bench.replies
    decide(bench, bench.alters[0], IneligibleReplica("its disk is full"))
    assert sent in bench.replies
    later = bench.produce(b"b", acks=ACKS_ALL)
    bench.flush()
    assert later in bench.replies


def test_a_joiner_that_is_fenced_holds_up_nobody() -> None:
    bench, sent = waiting_for_a_joiner()
    for request in bench.alters[1:]:
        decide(bench, request, IneligibleReplica("not yet"))
    bench.metadata(BrokerFenced(3, 6))
    assert sent in bench.replies
