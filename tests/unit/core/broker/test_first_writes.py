"""A new leader tells when it has acknowledged its first write, until that is answered."""

from __future__ import annotations

from minilog.core.broker.standing.first_writes import TOLD_MAX, FirstWrites
from minilog.core.replication.leader import LeaderState
from minilog.wire.messages import FirstWrite, Heartbeat
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.builders import TOPIC, leader_of, log_of, partition_state


def leader(partition: int = 0, leader_epoch: int = 5) -> LeaderState:
    return leader_of(partition_state(partition=partition, leader_epoch=leader_epoch), log_of((leader_epoch, 3)))


def test_it_is_told_with_its_age_until_it_is_answered_and_once_a_leadership() -> None:
    writes, role = FirstWrites(), leader()
    writes.see(role, 1000)
    writes.see(role, 1500)
    assert writes.tell(1600) == [FirstWrite(TOPIC, 0, 5, 600)]
    assert writes.tell(1700) == [FirstWrite(TOPIC, 0, 5, 700)], "the answer was lost"
    writes.on_answered()
    writes.see(role, 2000)
    assert writes.tell(2000) == []


def test_the_first_leadership_of_a_partition_replaces_nobody() -> None:
    writes = FirstWrites()
    writes.see(leader(leader_epoch=0), 1000)
    assert writes.tell(1000) == []


def test_a_later_leadership_is_not_forgotten_with_the_answer_about_the_one_before() -> None:
    writes = FirstWrites()
    writes.see(leader(leader_epoch=5), 1000)
    writes.tell(1000)
    writes.see(leader(leader_epoch=7), 1100)
    writes.on_answered()
    assert writes.tell(1100) == [FirstWrite(TOPIC, 0, 7, 0)]


def test_a_heartbeat_tells_no_more_than_it_should_hold() -> None:
    writes = FirstWrites()
    for partition in range(TOLD_MAX + 7):
        writes.see(leader(partition), 1000)
    assert len(writes.tell(1000)) == TOLD_MAX
    writes.on_answered()
    assert len(writes.tell(1000)) == 7


def test_a_leader_tells_once_it_has_acknowledged_and_not_when_it_leads() -> None:
    bench = BrokerBench.started(partition_state(replicas=[1], isr=[1]))
    heartbeat = bench.to_controller
    assert isinstance(heartbeat, Heartbeat)
    assert heartbeat.first_writes == []
    bench.produce(acks=1)
    bench.flush()
    bench.tick(30)
    bench.metadata()
    heartbeat = bench.to_controller
    assert isinstance(heartbeat, Heartbeat)
    assert [(write.topic, write.partition, write.leader_epoch) for write in heartbeat.first_writes] == [(TOPIC, 0, 5)]
