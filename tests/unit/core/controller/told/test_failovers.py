"""Failovers are in the journal: their times are true, or said to be unknown, whatever restarts."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from minilog.core.controller.told.failovers import phases
from minilog.core.image import TopicImage
from minilog.wire.journal.events import ERROR, Event, EventKind, SeenEvent
from minilog.wire.journal.failovers import FailoverInfo
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    BrokerFenced,
    BrokerRegistered,
    ControllerStarted,
    EventNoted,
    FailoverNoted,
    PartitionChanged,
)
from minilog.wire.messages import FirstWrite, Heartbeat
from tests.unit.core.controller.controller_bench import TICK_MS, ControllerBench


def lost_and_elected(bench: ControllerBench, broker_id: int = 1) -> None:
    bench.create([1, 2, 3], [2, 1, 3])
    bench.run(100)
    bench.kill(broker_id)
    for other in bench.brokers:
        bench.answer_positions(other)


def info(bench: ControllerBench) -> FailoverInfo:
    return bench.core.image.failovers[-1]


def test_it_begins_in_the_step_that_fences_and_is_elected_in_the_step_that_elects() -> None:
    bench = ControllerBench()
    lost_and_elected(bench)
    bench.run(2 * TICK_MS)
    noted = [index for index, record in enumerate(bench.journal) if isinstance(record, FailoverNoted)]
    fenced = next(i for i, record in enumerate(bench.journal) if isinstance(record, BrokerFenced))
    begun, elected = bench.journal[noted[0]], bench.journal[noted[1]]
    step = bench.journal[fenced : noted[0]]
    assert not any(isinstance(record, ControllerStarted | BrokerRegistered) for record in step)
    assert isinstance(begun, FailoverNoted)
    assert isinstance(elected, FailoverNoted)
    assert (begun.info.names, begun.info.elected_ms) == (["orders-0"], None)
    leaders = [i for i, r in enumerate(bench.journal) if isinstance(r, PartitionChanged) and r.leader != NO_LEADER]
    assert leaders[-1] < noted[1], "behind the records it tells of"
    assert elected.info.elected_ms is not None


def test_a_restart_of_the_controller_forgets_no_time_that_was_known() -> None:
    bench = ControllerBench()
    lost_and_elected(bench)
    bench.run(200)
    before = info(bench)
    assert None not in (before.elected_ms, before.served_ms, before.published_ms)
    bench.restart()
    bench.run(200)
    assert info(bench) == before


def test_what_a_controller_did_not_see_stays_unknown() -> None:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.kill(1)
    bench.restart()
    bench.run(3000)
    for other in (2, 3):
        bench.answer_positions(other)
    bench.run(200)
    assert bench.state().leader != NO_LEADER
    found = info(bench)
    assert (found.elected_ms, found.published_ms) == (None, None)
    assert found.controller_epoch < bench.core.image.controller_epoch


def test_who_was_lost_before_the_controller_began_was_not_heard_when_it_began() -> None:
    """R46: it may have been away for hours. What is counted from there is said to be longer."""
    for is_heard in (True, False):
        bench = ControllerBench()
        bench.create([1, 2, 3])
        bench.run(100)
        bench.silence(1)
        if not is_heard:
            bench.restart()
        bench.run(5000)
        (found,) = [one for one in bench.core.image.failovers if one.broker_id == 1]
        (fenced,) = [r for r in bench.journal if isinstance(r, BrokerFenced) and r.broker_id == 1]
        assert found.is_heard == is_heard
        assert (fenced.silent_ms >= 0) == is_heard
        assert bool(list(phases(None, found))) == is_heard
        told = [r.event for r in bench.journal if isinstance(r, EventNoted) and r.event.broker_id == 1]
        assert any("it was last heard" in event.sentence for event in told) == is_heard


def test_it_is_over_when_the_broker_is_in_sync_everywhere_also_by_another_controller() -> None:
    for restarts in (False, True):
        bench = ControllerBench()
        lost_and_elected(bench)
        bench.run(200)
        bench.join(1)
        if restarts:
            bench.restart()
            bench.run(200)
        for partition in (0, 1):
            assert info(bench).restored_ms is None
            leader = bench.state(partition).leader
            bench.ask(bench.alter(leader, bench.proposal([1, 2, 3], partition)))
            bench.beat()
        assert info(bench).restored_ms == bench.now_ms


def test_what_was_cut_is_counted_where_it_belongs() -> None:
    bench = ControllerBench()
    lost_and_elected(bench)
    bench.run(200)
    broker = bench.join(1)
    facts: dict[str, int | str | list[str]] = {"acks_unknown": 0, "acks_0": 1, "acks_1": 5, "acks_many": 2}
    cut = SeenEvent(1, Event(9, EventKind.RECORDS_CUT, ERROR, "cut", 1, count=8, facts=facts))
    for _ in range(2):
        broker.sequence += 1
        offset = broker.image.metadata_offset
        bench.handle(
            Heartbeat(1, broker.epoch, broker.incarnation, broker.sequence, offset, 1, waits=False, events=[cut])
        )
    assert info(bench).records_cut == (0, 1, 5, 2)


def test_what_one_step_tells_of_a_failover_takes_nothing_back_that_it_tells_besides() -> None:
    """The broker is back before its successor is elected. Its heartbeat says that now all know that
    one, and what was cut."""
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.run(100)
    bench.kill(1)
    back = bench.join(1)
    for other in (2, 3):
        bench.answer_positions(other)
    bench.tick()
    for broker in (bench.brokers[2], bench.brokers[3], back):
        assert info(bench).elected_ms is not None
        assert info(bench).published_ms is None
        bench.hear(broker)
        bench.heartbeat(broker, events=[cut_of(1, 5)] if broker is back else [])
    found = info(bench)
    assert found.records_cut == (0, 0, 5, 0)
    assert found.published_ms == bench.now_ms
    bench.run(100)
    assert info(bench).published_ms == found.published_ms


def cut_of(broker_id: int, count: int) -> SeenEvent:
    facts: dict[str, int | str | list[str]] = {"acks_unknown": 0, "acks_0": 0, "acks_1": count, "acks_many": 0}
    return SeenEvent(1, Event(9, EventKind.RECORDS_CUT, ERROR, "cut", broker_id, count=count, facts=facts))


def test_a_broker_that_was_lost_often_is_looked_for_once_in_a_step() -> None:
    """Its replicas are all the partitions of the cluster, perhaps."""
    bench = ControllerBench()
    lost_and_elected(bench)
    for _ in range(20):
        bench.join(1)
        bench.kill(1)
    bench.join(1)
    assert sum(f.restored_ms is None for f in bench.core.image.failovers) == 21
    topics = bench.core.image.topics = Walked(bench.core.image.topics)
    bench.core.failovers.in_step([bench.state(1)], bench.now_ms)
    before, topics.walks = topics.walks, 0
    changed = replace(bench.state(1), isr=[1, 2, 3])
    bench.core.failovers.in_step([changed], bench.now_ms)
    assert (before, topics.walks) == (0, 1)


class Walked(dict[str, TopicImage]):
    """Counts how often all of it is gone through."""

    walks = 0

    def values(self) -> Any:
        self.walks += 1
        return super().values()


def test_a_hundred_are_kept() -> None:
    bench = ControllerBench(brokers=(1,))
    for _ in range(103):
        bench.kill(1)
        bench.run(TICK_MS)
        bench.join(1)
    kept = bench.core.image.failovers
    assert len(kept) == 100
    assert [f.broker_epoch for f in kept] == sorted(f.broker_epoch for f in kept)


def test_no_number_that_a_broker_tells_makes_the_journal_unreadable() -> None:
    bench = ControllerBench()
    lost_and_elected(bench)
    bench.run(200)
    broker = bench.join(1)
    for number, told in enumerate([2**63 - 1, 2**63 - 1, -5, 7], 1):
        facts: dict[str, int | str | list[str]] = {"acks_unknown": told, "acks_0": told, "acks_1": "x", "acks_many": []}
        cut = SeenEvent(number, Event(9, EventKind.RECORDS_CUT, ERROR, "cut", 1, facts=facts))
        broker.sequence += 1
        offset = broker.image.metadata_offset
        bench.handle(
            Heartbeat(1, broker.epoch, broker.incarnation, broker.sequence, offset, 1, waits=False, events=[cut])
        )
        for record in bench.journal[offset:]:
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=type(record)) == record
    assert info(bench).records_cut == (2**63 - 1, 2**63 - 1, 0, 0)


def written(bench: ControllerBench, broker_id: int, *writes: FirstWrite) -> None:
    bench.beat()
    broker = bench.brokers[broker_id]
    bench.heartbeat(broker, waits=False, first_writes=list(writes))
    bench.beat()


def two_lost(bench: ControllerBench) -> None:
    """Broker 1 led partitions 0 and 2, and brokers 2 and 3 lead them now."""
    bench.create([1, 2, 3], [2, 1, 3], [1, 3, 2])
    bench.run(100)
    bench.kill(1)
    for other in (2, 3):
        bench.answer_positions(other)
    bench.run(100)


def test_the_first_write_of_each_partition_is_told_by_its_new_leader() -> None:
    bench = ControllerBench()
    two_lost(bench)
    epoch = bench.state(0).leader_epoch
    assert (info(bench).first_write_ms, info(bench).published_ms is None) == (None, False)
    bench.run(1000)
    written(bench, bench.state(2).leader, FirstWrite("orders", 2, bench.state(2).leader_epoch, 100))
    at_ms = bench.now_ms - 100
    assert info(bench).first_write_ms == at_ms
    bench.run(500)
    written(bench, bench.state(0).leader, FirstWrite("orders", 0, epoch, 20), FirstWrite("orders", 1, 9, 0))
    found = info(bench)
    assert found.first_write_ms == at_ms, "the first one"
    assert dict(found.first_writes) == {
        "orders-2": at_ms - found.last_heard_ms,
        "orders-0": bench.now_ms - 20 - found.last_heard_ms,
    }


def test_a_write_of_an_epoch_before_it_is_none_and_one_that_is_told_twice_counts_once() -> None:
    bench = ControllerBench()
    two_lost(bench)
    epoch, leader = bench.state(0).leader_epoch, bench.state(0).leader
    written(bench, leader, FirstWrite("orders", 0, epoch - 1, 0))
    assert info(bench).first_write_ms is None
    for _ in range(3):
        written(bench, leader, FirstWrite("orders", 0, epoch, 0))
        bench.run(300)
    assert [name for name, _ in info(bench).first_writes] == ["orders-0"]


def test_no_clock_of_a_broker_puts_a_first_write_before_the_loss_or_after_now() -> None:
    for ago_ms in (-5000, 2**50):
        bench = ControllerBench()
        two_lost(bench)
        written(bench, bench.state(0).leader, FirstWrite("orders", 0, bench.state(0).leader_epoch, ago_ms))
        found = info(bench)
        assert found.first_write_ms is not None
        assert found.last_heard_ms <= found.first_write_ms <= bench.now_ms


def test_what_nobody_has_heard_because_the_controller_restarted_stays_unknown() -> None:
    bench = ControllerBench()
    two_lost(bench)
    bench.restart()
    bench.run(200)
    written(bench, bench.state(0).leader, FirstWrite("orders", 0, bench.state(0).leader_epoch, 0))
    assert info(bench).first_write_ms is None
    assert info(bench).controller_epoch < bench.core.image.controller_epoch


def test_partitions_that_nobody_writes_are_not_waited_for_without_end() -> None:
    bench = ControllerBench(brokers=(1, 2))
    bench.create([1, 2], [2, 1])
    for _ in range(110):
        bench.kill(1)
        bench.answer_positions(2)
        bench.run(TICK_MS)
        bench.join(1)
        bench.ask(bench.alter(2, bench.proposal([1, 2], 0)))
        bench.kill(2)
        bench.answer_positions(1)
        bench.run(TICK_MS)
        bench.join(2)
        bench.ask(bench.alter(1, bench.proposal([1, 2], 0), bench.proposal([1, 2], 1)))
    assert len(bench.core.failovers._open) <= 101
