"""Stories of logs that lose their beginnings: who may delete, who is overtaken, and what can be
told apart afterwards."""

from __future__ import annotations

from minilog.wire.messages import Message, ReplicaFetch
from tests.sim.cluster import SimCluster
from tests.sim.nodes.clients import Load

SHORT_MS = 1000
HOUR_MS = 3_600_000


def cluster(retention_ms: int = SHORT_MS) -> SimCluster:
    """Whatever is committed and old goes."""
    c = SimCluster(seed=1, brokers=3, timeouts={"retention_check_ms": 50}).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1, retention_ms=str(retention_ms))
    return c


def starts(c: SimCluster, *broker_ids: int) -> list[int]:
    return [c.log(broker_id, "t").start_offset for broker_id in broker_ids or (1, 2, 3)]


def opens_session(message: Message) -> bool:
    return isinstance(message, ReplicaFetch) and message.sequence == 0


def test_old_records_go_everywhere_and_a_reader_goes_on_where_the_log_begins() -> None:
    """R59: everything that is committed is too old. A reader that was behind is told where to go
    on."""
    c = cluster()
    c.produce("t", 5)
    c.until(lambda: starts(c) == [5, 5, 5])
    reader = c.reader("t")
    c.produce("t", 2)
    c.until(lambda: reader.cursors["t", 0].offset == 7)
    assert reader.overtaken == 1


def test_a_deposed_leader_deletes_nothing() -> None:
    """R58: its followers have another leader by now, so nobody comes back to it after it has
    published a start."""
    c = cluster()
    c.produce("t", 5)
    c.settle("t")
    for other in (-1, 2, 3):
        c.network.cut(1, other)
    c.until(lambda: c.leader("t") in (2, 3))
    c.until(lambda: starts(c) == [0, 5, 5])
    c.run(3 * SHORT_MS)
    assert starts(c) == [0, 5, 5]
    c.network.heal()
    c.until(lambda: starts(c) == [5, 5, 5])


def test_a_fetch_that_was_sent_before_a_start_was_published_does_not_count_for_it() -> None:
    """R58: two followers gave up on a request, opened another session, and moved on, before all of
    this arrives."""
    c = cluster(retention_ms=6000)
    c.produce("t", 5)
    c.settle("t")
    given_up = c.network.hold(ReplicaFetch, when=lambda m: not opens_session(m))
    opening = c.network.hold(ReplicaFetch, when=opens_session)
    c.until(lambda: len(opening.messages) == 2)
    c.network.pass_all()
    for other in (-1, 2, 3):
        c.network.cut(1, other)
    c.until(lambda: starts(c) == [0, 5, 5])
    c.network.heal()
    c.network.cut(1, -1)
    for late in (given_up, opening):
        late.release()
        c.run(5)
    c.run(500)
    assert starts(c) == [0, 5, 5]


def test_a_follower_below_the_log_start_begins_anew_there() -> None:
    c = cluster()
    c.produce("t", 5)
    c.settle("t")
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1, 2])
    c.produce("t", 5)
    c.until(lambda: starts(c, 1, 2) == [10, 10])
    c.produce("t", 2)
    c.broker(3).start()
    c.settle("t")
    assert starts(c, 3)[0] >= 10
    assert c.isr("t") == [1, 2, 3]


def test_a_tail_that_diverges_below_the_log_start_is_not_taken_for_what_has_gone() -> None:
    """R64: at its end nothing is left that it could be compared with, but the epoch of what lay
    there."""
    c = cluster()
    for other in (-1, 2, 3):
        c.network.cut(1, other)
    for _ in range(2):
        c.produce("t", 1, acks=1, at=1)
    c.until(lambda: c.leader("t") in (2, 3))
    c.produce("t", 2)
    c.until(lambda: starts(c, 2, 3) == [2, 2])
    c.network.heal()
    c.until(lambda: c.isr("t") == [1, 2, 3])
    assert starts(c) == [2, 2, 2]
    c.produce("t", 1)
    c.settle("t")


def test_a_replica_that_may_be_elected_gives_its_log_up_for_nobody() -> None:
    """R63: 3 heard of a start that 2 has not heard of, and is empty from there on. It comes back in
    the ELR."""
    c = SimCluster(seed=1, brokers=3, timeouts={"retention_check_ms": 50}).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2, retention_ms=str(SHORT_MS))
    c.broker(2).set_wall_clock(-HOUR_MS)
    c.produce("t", 5)
    c.settle("t")
    c.network.cut(1, 2)
    c.until(lambda: starts(c) == [0, 0, 5])
    c.broker(1).kill()
    c.until(lambda: c.leads(2, "t") and c.isr("t") == [2, 3])
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [2] and c.elr("t") == [3])
    c.broker(3).start()
    c.until(lambda: c.isr("t") == [2, 3])
    assert starts(c, 2, 3) == [0, 5]


def test_a_log_that_begins_later_than_its_leaders_does_not_join_before_it_holds_the_rest() -> None:
    """R62, R18: broker 2 is empty from offset 5 on, since retention took all. Broker 1 has a new
    disk and begins at 0."""
    c = SimCluster(seed=1, brokers=2, timeouts={"retention_check_ms": 50}).start()
    c.create_topic("t", assignment=[[1, 2]], min_isr=1, retention_ms="60000")
    c.produce("t", 5)
    c.until(lambda: [c.log(b, "t").start_offset for b in (1, 2)] == [5, 5], within_ms=90_000)
    c.broker(2).kill()
    c.until(lambda: c.isr("t") == [1])
    c.broker(1).wipe()
    c.accept_loss("t")
    c.broker(1).start()
    c.run(1000)
    c.elect(unclean=True, leader=1)
    c.until(lambda: c.leads(1, "t"))
    for _ in range(7):
        c.produce("t")
    c.broker(2).start()
    c.until(lambda: c.isr("t") == [1, 2])
    assert c.log(2, "t").start_offset == 0
    c.produce("t")
    c.broker(1).kill()
    c.until(lambda: c.leader("t") == 2)
    c.broker(1).start()
    c.settle("t")
    assert [(c.log(b, "t").start_offset, c.log(b, "t").end_offset) for b in (1, 2)] == [(0, 8), (0, 8)]


def test_who_was_last_known_to_be_complete_gives_nothing_up_and_is_not_waited_for() -> None:
    """R63, R18: the power fails when broker 2 has heard of a new log start and its leader has not
    heard that yet. After the recovery broker 1 cannot know what is committed, and so lets nothing
    go, without broker 2."""
    c = SimCluster(seed=1, brokers=2, timeouts={"retention_check_ms": 10_000}).start()
    c.create_topic("t", assignment=[[1, 2]], min_isr=2, retention_ms="20000", segment_ms="1000")
    producer = c.add_producer("load", Load(interval_ms=200, acks=(-1,)))
    producer.partitions = [("t", 0)]
    producer.begin()
    c.network.hold(ReplicaFetch, when=lambda _: c.leads(1, "t") and c.replica(1, "t").role.log_start.published > 0)  # type: ignore[union-attr]
    c.until(lambda: starts(c, 2)[0] > 0, within_ms=60_000)
    c.run(300)
    producer.active = False
    before = starts(c, 1, 2)
    assert before[0] == 0
    for broker_id in (1, 2):
        c.broker(broker_id).crash()
    c.network.pass_all()
    c.run(3000)
    c.start_all()
    c.until(lambda: c.leads(1, "t"))
    c.until(lambda: c.isr("t") == [1, 2], within_ms=1000)
    assert starts(c, 1, 2) == before
