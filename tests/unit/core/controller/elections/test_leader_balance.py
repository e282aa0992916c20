"""Leaderships that go back to the first replicas: who is named, who may take over, and when."""

from __future__ import annotations

from msgspec.structs import replace

from minilog.wire.admin_messages import BalanceLeaders, BalanceLeadersReply
from minilog.wire.messages import AlterPartitionReply
from tests.unit.core.builders import TOPIC
from tests.unit.core.controller.controller_bench import ControllerBench

NEVER = 10_000_000


def bench(**settings: int) -> ControllerBench:
    """Broker 1 is preferred, broker 2 leads, and all are in sync."""
    made = ControllerBench(**{"leader_balance_steady_ms": NEVER, **settings})  # type: ignore[arg-type]
    made.create([2, 1, 3])
    state = replace(made.state(), replicas=[1, 2, 3], isr=[1, 2, 3])
    for image in (made.core.image, *(broker.image for broker in made.brokers.values())):
        image.topics[TOPIC].partitions[0] = state
    return made


def balance(made: ControllerBench, *topics: str, dry_run: bool = False) -> BalanceLeadersReply:
    reply = made.ask(BalanceLeaders([*topics], dry_run))
    assert isinstance(reply, BalanceLeadersReply), reply
    return reply


def problem_of(made: ControllerBench, leader: int, isr: tuple[int, ...] = (1, 2, 3)) -> str:
    """What the controller says to its leader, who asks for ``leader`` to be the next one."""
    proposal = made.proposal(isr)
    proposal.leader = leader
    reply = made.ask(made.alter(2, proposal))
    assert isinstance(reply, AlterPartitionReply), reply
    problem = reply.partitions[0].problem
    return "" if problem is None else problem.code


def test_the_preferred_replica_is_named_and_takes_over_when_its_leader_says_so() -> None:
    made = bench()
    epoch = made.state().leader_epoch
    assert [(m.leader, m.to, m.problem) for m in balance(made, dry_run=True).moves] == [(2, 1, "")]
    assert made.state().successor == -1
    balance(made, TOPIC)
    assert (made.state().leader, made.state().successor) == (2, 1)
    assert problem_of(made, 1) == ""
    state = made.state()
    assert (state.leader, state.successor, state.leader_epoch, state.isr) == (1, -1, epoch + 1, [1, 2, 3])
    made.core.image.check_invariants()
    assert balance(made).moves == []


def test_nobody_takes_over_who_was_not_named() -> None:
    """R111."""
    made = bench()
    assert problem_of(made, 1) == "INELIGIBLE_REPLICA"
    balance(made)
    assert problem_of(made, 3) == "INELIGIBLE_REPLICA"
    assert problem_of(made, 1, isr=(2, 3)) == "INELIGIBLE_REPLICA"
    assert made.state().leader == 2


def test_who_leaves_the_isr_succeeds_nobody() -> None:
    made = bench()
    balance(made)
    made.ask(made.alter(2, made.proposal([2, 3])))
    assert (made.state().isr, made.state().successor) == ([2, 3], -1)
    assert [m.problem for m in balance(made).moves] == ["broker 1 is not in sync"]


def test_a_successor_that_dies_is_named_no_more() -> None:
    made = bench()
    balance(made)
    made.kill(1)
    assert (made.state().leader, made.state().successor) == (2, -1)
    assert [m.problem for m in balance(made).moves] == ["broker 1 is not running"]


def test_a_leader_that_dies_before_it_has_handed_over_is_replaced_by_an_election() -> None:
    made = bench()
    balance(made)
    made.kill(2)
    assert made.state().successor == -1
    made.core.image.check_invariants()


def test_a_topic_that_is_not_there_is_refused_and_nothing_is_decided() -> None:
    made = bench()
    assert made.problem(BalanceLeaders([TOPIC, "absent"])) == "UNKNOWN_TOPIC_OR_PARTITION"
    assert made.state().successor == -1


def test_by_itself_once_the_broker_was_steady_and_not_twice() -> None:
    """R112."""
    made = bench(leader_balance_steady_ms=1000, leader_balance_pause_ms=60_000)
    made.run(500)
    assert made.state().successor == -1
    made.run(2000)
    assert made.state().successor == 1
    made.run(7000)
    assert made.state().successor == -1, "its leader did not hand over in time"
    made.run(20_000)
    assert made.state().successor == -1, "not again within pause_ms"


def test_a_few_that_are_led_by_others_are_left_where_they_are() -> None:
    """R112."""
    made = bench(leader_balance_steady_ms=100, leader_balance_skew_percent=100)
    made.run(5000)
    assert made.state().successor == -1


def test_it_can_be_switched_off() -> None:
    made = bench(leader_balance_steady_ms=100, leader_balance=False)
    made.run(5000)
    assert made.state().successor == -1
