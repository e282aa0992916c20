"""Moves as the controller decides on them: steps, refusals, and what people are told."""

from __future__ import annotations

from minilog.wire.admin_messages import ConfigureTopic, MovedReplicas, MoveReplicas, MoveReplicasReply, ReplicaMove
from minilog.wire.messages import AddPartitions, Message
from tests.unit.core.builders import TOPIC
from tests.unit.core.controller.controller_bench import ControllerBench

STEADY = {"leader_balance_steady_ms": 10_000_000}


def bench(*assignment: list[int], min_isr: int = 2) -> ControllerBench:
    made = ControllerBench((1, 2, 3, 4), **STEADY)
    made.create(*(assignment or ([1, 2, 3],)), min_isr=min_isr)
    return made


def change(made: ControllerBench, request: Message) -> Message:
    """The answer comes when every broker knows of the change."""
    request_id = made.handle(request)
    made.beat()
    return made.replies[request_id]


def move(made: ControllerBench, *replicas: int, partition: int = 0, dry_run: bool = False) -> list[MovedReplicas]:
    reply = change(made, MoveReplicas([ReplicaMove(TOPIC, partition, [*replicas])], dry_run))
    assert isinstance(reply, MoveReplicasReply), reply
    return reply.moves


def in_sync(made: ControllerBench, *isr: int) -> None:
    made.ask(made.alter(made.state().leader, made.proposal(isr)))


def sentences(made: ControllerBench, kind: str) -> list[str]:
    return [noted.event.sentence for noted in made.core.image.events if noted.event.kind == kind]


def test_a_move_is_complete_in_the_step_that_parts_with_who_goes() -> None:
    made = bench()
    epoch = made.state().leader_epoch
    (answer,) = move(made, 1, 2, 4)
    assert (answer.before, answer.replicas, answer.adding) == ([1, 2, 3], [1, 2, 4], [4])
    in_sync(made, 1, 2, 3, 4)
    assert made.state().target == [1, 2, 4]
    in_sync(made, 1, 2, 4)
    state = made.state()
    assert (state.replicas, state.target, state.isr, state.leader) == ([1, 2, 4], [], [1, 2, 4], 1)
    assert state.leader_epoch == epoch + 1
    assert sentences(made, "replicas_moving") == [
        "replicas of orders-0 begin to move from brokers 1, 2, 3 to 1, 2, 4, from where it was asked for is not known"
    ]
    assert sentences(made, "replicas_moved") == ["replicas of orders-0 have moved to brokers 1, 2, 4"]
    assert not sentences(made, "isr_shrunk")
    assert made.core.elections.counts()["clean"] == 0


def test_who_goes_is_fenced_and_that_completes_the_move() -> None:
    made = bench()
    move(made, 1, 2, 4)
    in_sync(made, 1, 2, 3, 4)
    made.kill(3)
    assert made.state().replicas == [1, 2, 4]


def test_a_leader_that_goes_is_given_a_successor_and_hands_over() -> None:
    made = bench()
    move(made, 4, 2, 3)
    made.run(1000)
    assert made.state().successor == -1
    in_sync(made, 1, 2, 3, 4)
    made.run(1200)
    assert (made.state().leader, made.state().successor) == (1, 4)
    proposal = made.proposal((1, 2, 3, 4))
    proposal.leader = 4
    made.ask(made.alter(1, proposal))
    assert (made.state().leader, made.state().target) == (4, [4, 2, 3])
    in_sync(made, 2, 3, 4)
    assert (made.state().replicas, made.state().target) == ([4, 2, 3], [])


def test_a_minimum_that_becomes_lower_lets_a_move_go_back() -> None:
    made = bench(min_isr=3)
    move(made, 4, 2, 3)
    in_sync(made, 1, 2, 3, 4)
    made.kill(2)
    in_sync(made, 1, 3, 4)
    move(made)
    in_sync(made, 1, 3)
    assert made.state().target == [1, 2, 3]
    change(made, ConfigureTopic(TOPIC, {"min.insync.replicas": "2"}))
    made.run(1200)
    assert (made.state().replicas, made.state().target) == ([1, 2, 3], [])
    assert sentences(made, "move_cancelled")[0].startswith("replicas of orders-0 go back to brokers 1, 2, 3")


def test_a_dry_run_changes_nothing() -> None:
    made = bench()
    before = made.core.image.metadata_offset
    (answer,) = move(made, 3, 4, dry_run=True)
    assert (answer.replicas, answer.adding) == ([3, 4], [4])
    assert made.core.image.metadata_offset == before


def test_the_same_move_again_changes_nothing_and_another_one_is_refused() -> None:
    made = bench()
    move(made, 1, 2, 4)
    offset = made.core.image.metadata_offset
    move(made, 1, 2, 4)
    assert made.core.image.metadata_offset == offset
    assert made.problem(MoveReplicas([ReplicaMove(TOPIC, 0, [1, 3, 4])])) == "REPLICAS_MOVING"
    move(made)
    assert made.state().target == []
    offset = made.core.image.metadata_offset
    move(made)
    move(made, 1, 2, 3)
    assert made.core.image.metadata_offset == offset


def test_a_plan_that_is_older_than_the_partition_is_refused() -> None:
    made = bench()
    old = made.state().partition_epoch
    in_sync(made, 1, 2)
    assert made.problem(MoveReplicas([ReplicaMove(TOPIC, 0, [1, 4], "", old)])) == "REPLICAS_MOVING"
    assert made.state().target == []


def test_all_of_a_request_or_none() -> None:
    made = bench([1, 2, 3], [2, 3, 1])
    asked = [ReplicaMove(TOPIC, 0, [1, 2, 4]), ReplicaMove(TOPIC, 1, [2, 3, 9])]
    assert made.problem(MoveReplicas(asked)) == "INVALID_REPLICATION_FACTOR"
    assert made.problem(MoveReplicas([asked[0], asked[0]])) == "INVALID_REQUEST"
    assert (made.state(0).target, made.state(1).target) == ([], [])
    reply = change(made, MoveReplicas([asked[0], ReplicaMove(TOPIC, 1, [2, 4])]))
    assert isinstance(reply, MoveReplicasReply)
    assert [m.partition for m in reply.moves] == [0, 1]
    assert sentences(made, "replicas_moving")[0].startswith("replicas of 2 partitions (orders-0, orders-1) begin")


def test_what_is_asked_of_a_topic_that_moves_goes_by_both_ends_of_the_move() -> None:
    made = bench()
    assert made.problem(MoveReplicas([ReplicaMove(TOPIC, 0, [4])])) == "INVALID_CONFIG"
    move(made, 1, 4)
    assert made.problem(ConfigureTopic(TOPIC, {"min.insync.replicas": "3"})) == "INVALID_CONFIG"
    change(made, AddPartitions(TOPIC, 2))
    assert len(made.state(1).replicas) == 2


def test_a_restart_of_the_controller_goes_on_with_the_moves() -> None:
    made = bench()
    move(made, 1, 2, 4)
    made.restart()
    made.beat()
    in_sync(made, 1, 2, 3, 4)
    in_sync(made, 1, 2, 4)
    assert made.state().replicas == [1, 2, 4]
