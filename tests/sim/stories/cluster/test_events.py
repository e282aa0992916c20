"""Stories of what is told: each thing that happened once, and what was lost with its numbers."""

from __future__ import annotations

from minilog.core.image import ClusterImage
from minilog.wire.journal.events import EventKind
from minilog.wire.journal.metadata_records import EventNoted
from minilog.wire.messages import Heartbeat, HeartbeatReply, Message
from tests.sim.cluster import SimCluster


def image(c: SimCluster) -> ClusterImage:
    core = c.controller.core
    assert core is not None
    return core.image


def cuts(c: SimCluster) -> list[EventNoted]:
    return [noted for noted in image(c).events if noted.event.kind == EventKind.RECORDS_CUT]


def tells_of_a_cut(message: Message) -> bool:
    return isinstance(message, Heartbeat) and any(e.event.kind == EventKind.RECORDS_CUT for e in message.events)


def test_what_a_weaker_level_lost_is_told_once_with_its_numbers() -> None:
    """R98: the leader is cut off with three records that it alone has. The first heartbeat that
    tells of the cut is lost, and so are answers to the next, and the controller restarts."""
    c = SimCluster(seed=1, brokers=3).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t", 2)
    c.cut_off(1)
    c.produce("t", 3, acks=1, at=1)
    c.until(lambda: c.leader("t") in (2, 3))
    c.produce("t", 1)
    asked = c.network.hold(Heartbeat, when=tells_of_a_cut)
    c.network.heal()
    c.until(lambda: bool(asked.messages))
    c.network.pass_all()
    answers = c.network.hold(HeartbeatReply, when=lambda m: bool(cuts(c)))
    c.until(lambda: bool(cuts(c)))
    c.run(1000)
    assert answers.messages
    c.network.pass_all()
    c.controller.kill()
    c.run(100)
    c.controller.start()
    c.settle("t")
    c.run(3000)
    assert len(cuts(c)) == 1
    noted = cuts(c)[0]
    assert (noted.event.broker_id, noted.event.topic, noted.event.count) == (1, "t", 3)
    assert (noted.event.facts["base_offset"], noted.event.facts["acks_1"]) == (2, 3)
    for broker_id in (1, 2, 3):
        core = c.broker(broker_id).core
        assert core is not None
        assert list(core.image.events) == list(image(c).events), "any broker tells it"


def test_a_failover_and_what_it_cost_outlive_everybody() -> None:
    """R99: all processes die after it. Its times, and what was cut, are what they were."""
    c = SimCluster(seed=1, brokers=3).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t", 2)
    c.cut_off(1)
    c.produce("t", 3, acks=1, at=1)
    c.until(lambda: c.leader("t") in (2, 3))
    c.until(lambda: image(c).failovers[-1].published_ms is not None)
    c.produce("t", 1)
    c.until(lambda: image(c).failovers[-1].first_write_ms is not None)
    c.network.heal()
    c.settle("t")
    c.until(lambda: image(c).failovers[-1].restored_ms is not None and bool(sum(image(c).failovers[-1].records_cut)))
    before = image(c).failovers[0]
    c.controller.kill()
    for broker_id in (1, 2, 3):
        c.broker(broker_id).kill()
    c.run(100)
    c.controller.start()
    for broker_id in (1, 2, 3):
        c.broker(broker_id).start()
    c.settle("t")
    assert image(c).failovers[0] == before
    assert (before.broker_id, before.kind, before.names, before.records_cut) == (1, "timeout", ["t-0"], (0, 0, 3, 0))
    moments = [before.detected_ms, before.elected_ms, before.served_ms, before.published_ms, before.restored_ms]
    assert moments == sorted(m for m in moments if m is not None)
    assert before.first_write_ms is not None
    assert before.elected_ms is not None
    assert before.first_write_ms >= before.elected_ms, "a new leader took it"
    assert before.first_writes == [("t-0", before.first_write_ms - before.last_heard_ms)]


def tells_of_a_first_write(message: Message) -> bool:
    return isinstance(message, Heartbeat) and bool(message.first_writes)


def test_a_first_write_is_known_although_the_heartbeat_that_told_of_it_was_lost() -> None:
    """R99: the leader is cut off. Its successor acknowledges a write, and what it tells of that
    does not arrive at first. It takes so long that the successor is taken for lost, too."""
    c = SimCluster(seed=1, brokers=3).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1)
    c.produce("t", 2)
    c.cut_off(1)
    c.until(lambda: c.leader("t") in (2, 3))
    asked = c.network.hold(Heartbeat, when=tells_of_a_first_write)
    c.produce("t", 1)
    c.until(lambda: bool(asked.messages))
    assert image(c).failovers[0].first_write_ms is None
    c.network.pass_all()
    c.until(lambda: image(c).failovers[0].first_write_ms is not None)
    told = image(c).failovers[0]
    assert told.first_writes == [("t-0", (told.first_write_ms or 0) - told.last_heard_ms)]
