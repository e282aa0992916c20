"""Producer ids (R33): given away once each, from blocks of the controller's. Whoever waits is
answered."""

from __future__ import annotations

from minilog.core.broker.requests.producer_ids import REFILL_BELOW
from minilog.errors import BrokerUnavailable
from minilog.wire.messages import AllocateProducerIdsReply, InitProducer, InitProducerReply, Problem
from tests.unit.core.broker.broker_bench import BrokerBench


def asked(bench: BrokerBench) -> int:
    return bench.send(InitProducer())


def id_of(bench: BrokerBench, request_id: int) -> int:
    reply = bench.replies[request_id]
    assert isinstance(reply, InitProducerReply), reply
    return reply.producer_id


def allocate(bench: BrokerBench, first: int, end: int) -> None:
    bench.respond(-1, bench.allocates[-1], AllocateProducerIdsReply(first, end))


def test_a_registered_broker_has_ids_before_somebody_wants_one() -> None:
    """So a producer begins also while the controller is away."""
    bench = BrokerBench.started()
    assert [(sent.broker_id, sent.broker_epoch) for sent in bench.allocates] == [(1, 2)]
    allocate(bench, 0, 1000)
    assert id_of(bench, asked(bench)) == 0
    assert len(bench.allocates) == 1


def test_the_first_clients_wait_for_the_first_block() -> None:
    bench = BrokerBench.started()
    first, second = asked(bench), asked(bench)
    assert not bench.replies
    assert len(bench.allocates) == 1
    assert (bench.allocates[0].broker_id, bench.allocates[0].broker_epoch) == (1, 2)
    allocate(bench, 5000, 6000)
    assert (id_of(bench, first), id_of(bench, second)) == (5000, 5001)
    assert id_of(bench, asked(bench)) == 5002
    assert len(bench.allocates) == 1


def test_the_next_block_is_asked_for_ahead_of_need_and_ids_go_on_meanwhile() -> None:
    bench = BrokerBench.started()
    asked(bench)
    allocate(bench, 0, REFILL_BELOW + 3)
    assert id_of(bench, asked(bench)) == 1
    assert len(bench.allocates) == 1
    assert id_of(bench, asked(bench)) == 2
    assert len(bench.allocates) == 2
    allocate(bench, 7000, 8000)
    given = [id_of(bench, asked(bench)) for _ in range(REFILL_BELOW + 1)]
    assert given[-2:] == [REFILL_BELOW + 2, 7000]
    assert len(bench.allocates) == 2


def test_an_answer_that_comes_twice_gives_no_id_twice() -> None:
    bench = BrokerBench.started()
    first = asked(bench)
    allocate(bench, 0, 2)
    allocate(bench, 0, 2)
    second, third = asked(bench), asked(bench)
    assert [id_of(bench, sent) for sent in (first, second)] == [0, 1]
    assert third not in bench.replies
    allocate(bench, 0, 2)
    assert third not in bench.replies
    allocate(bench, 2, 4)
    assert id_of(bench, third) == 2


def test_without_an_answer_everybody_is_told_to_come_back_and_that_asks_again() -> None:
    bench = BrokerBench.started()
    waiting = [asked(bench), asked(bench)]
    bench.respond(-1, bench.allocates[-1], BrokerUnavailable("the controller is away"))
    for request_id in waiting:
        problem = bench.refusal(request_id)
        assert (problem.code, problem.definite) == ("LEADER_NOT_AVAILABLE", True)
    bench.tick(1000)
    assert len(bench.allocates) == 1
    again = asked(bench)
    assert len(bench.allocates) == 2
    allocate(bench, 0, 1000)
    assert id_of(bench, again) == 0


def test_a_late_failure_takes_nothing_from_those_who_wait_for_the_next_answer() -> None:
    bench = BrokerBench.started()
    asked(bench)
    first = bench.allocates[-1]
    bench.respond(-1, first, BrokerUnavailable("no answer in time"))
    again = asked(bench)
    bench.respond(-1, first, BrokerUnavailable("the same, once more"))
    assert again not in bench.replies
    allocate(bench, 0, 1000)
    assert id_of(bench, again) == 0


def test_a_client_that_went_away_takes_no_id() -> None:
    bench = BrokerBench.started()
    gone, here = asked(bench), asked(bench)
    bench.disconnect(gone)
    allocate(bench, 0, 1000)
    assert gone not in bench.replies
    assert id_of(bench, here) == 0


def test_a_broker_that_is_not_registered_has_none() -> None:
    bench = BrokerBench()
    reply = bench.replies[asked(bench)]
    assert isinstance(reply, Problem)
    assert reply.code == "LEADER_NOT_AVAILABLE"
    assert bench.allocates == []
