"""Replicas that are damaged or without room: told, and neither leading nor elected (R53)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    PartitionChanged,
    TopicCreated,
    TopicDeleted,
)
from minilog.wire.messages import (
    Heartbeat,
    ReplicaFetchReply,
    ReplicaName,
)
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.broker.standing.standing_bench import FIRST, ask_positions, heartbeat
from tests.unit.core.builders import TOPIC, TOPIC_ID, partition_state

UNFIT = [ReplicaName(TOPIC, TOPIC_ID, 0)]


def next_heartbeat(bench: BrokerBench) -> Heartbeat:
    bench.metadata()
    return heartbeat(bench)


def damaged(*states: PartitionChanged) -> BrokerBench:
    """The log of the first partition is found damaged while it is in use."""
    bench = BrokerBench.started(*states)
    assert heartbeat(bench).unfit == []
    bench.log().is_damaged = True
    bench.tick(500)
    return bench


def test_damage_is_noted_before_the_controller_is_told_and_again_when_there_was_no_room() -> None:
    bench = BrokerBench.started(partition_state())
    bench.log().is_damaged, bench.log().room = True, 0
    bench.tick(500)
    assert next_heartbeat(bench).unfit == UNFIT, "it cannot be noted, and is told all the same"
    assert not bench.log().damage_noted
    bench.log().room = None
    bench.tick(500)
    assert bench.log().damage_noted


@pytest.mark.parametrize("leader", [1, 2, NO_LEADER])
def test_a_damaged_replica_is_told_to_the_controller_with_every_heartbeat(leader: int) -> None:
    bench = damaged(partition_state(leader=leader), partition_state(partition=1))
    assert [next_heartbeat(bench).unfit for _ in range(2)] == [UNFIT, UNFIT]


def test_a_damaged_follower_takes_nothing_more_over() -> None:
    bench = damaged(partition_state(leader=2), partition_state(partition=1, leader=2))
    ((_, request),) = bench.fetches
    bench.respond(2, request, ReplicaFetchReply(request.session_id, request.sequence, []))
    assert bench.fetches[-1][1].forgotten == [FIRST]
    bench.metadata(partition_state(leader=3, leader_epoch=6, partition_epoch=11, isr=[2, 3]))
    assert [node for node, _ in bench.fetches] == [2, 2], "nor does it from the next leader"


def test_a_damaged_leader_serves_on_until_another_leads() -> None:
    bench = damaged(partition_state())
    assert bench.leader().leader_epoch == 5
    bench.metadata(partition_state(leader=2, leader_epoch=6, partition_epoch=11, isr=[2, 3]))
    assert bench.follower().leader == 2
    assert bench.fetches == []


def test_a_damaged_replica_does_not_stand_for_election() -> None:
    bench = damaged(partition_state())
    (position,) = ask_positions(bench, 6).partitions
    assert position.problem is not None
    assert "damaged log" in position.problem.detail
    assert bench.follower().leader_epoch == 6, "and the older epoch ends all the same"


def test_a_damaged_replica_of_a_topic_that_is_gone_is_told_no_more() -> None:
    bench = damaged(partition_state())
    again = replace(partition_state(partition_epoch=0, leader_epoch=0), topic_id="second")
    bench.metadata(TopicDeleted(TOPIC, TOPIC_ID), TopicCreated(TOPIC, "second", {}), again)
    bench.tick(500)
    assert next_heartbeat(bench).unfit == []


def test_a_replica_that_found_no_room_is_unfit_until_it_is_open() -> None:
    bench = BrokerBench(partition_state())
    bench.store.is_full = True
    bench.tick()
    bench.register()
    bench.metadata()
    assert heartbeat(bench).unfit == UNFIT
    bench.store.is_full = False
    bench.tick(500)
    assert next_heartbeat(bench).unfit == []


def test_a_replica_that_is_unfit_makes_no_leader_of_others_unsure() -> None:
    """The controller is told of it with every heartbeat. What this broker leads with a whole log
    stays here."""
    bench = damaged(partition_state(leader=2), partition_state(partition=1))
    assert next_heartbeat(bench).unfit == UNFIT
    bench.tick(150)
    assert bench.core.state.unsure_ms(bench.now_ms) == 0


def test_who_leads_with_a_damaged_log_is_not_sure_while_the_controller_has_not_answered() -> None:
    bench = damaged(partition_state())
    assert next_heartbeat(bench).unfit == UNFIT
    asked_ms = bench.now_ms
    bench.tick(150)
    assert bench.core.state.unsure_ms(bench.now_ms) == bench.now_ms - asked_ms == 150
    bench.metadata(partition_state(leader=2, leader_epoch=6, partition_epoch=11, isr=[2, 3]))
    bench.tick(150)
    assert bench.core.state.unsure_ms(bench.now_ms) == 0
