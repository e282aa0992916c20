"""Stories of logs that lose their beginnings: who may delete, who is overtaken, and what can be told apart afterwards."""

from __future__ import annotations

from minilog.wire.messages import ReplicaFetch
from tests.sim.cluster import SimCluster

SHORT_MS = 1000


def cluster() -> SimCluster:
    """Whatever is committed and older than a second goes."""
    c = SimCluster(seed=1, brokers=3, timeouts={"retention_check_ms": 50}).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=1, retention_ms=str(SHORT_MS))
    return c


def starts(c: SimCluster, *broker_ids: int) -> list[int]:
    return [c.log(broker_id, "t").start_offset for broker_id in broker_ids or (1, 2, 3)]


def test_old_records_go_everywhere_and_a_reader_goes_on_where_the_log_begins() -> None:
    c = cluster()
    c.produce("t", 5)
    c.until(lambda: starts(c) == [5, 5, 5])
    reader = c.reader("t")
    c.produce("t", 2)
    c.until(lambda: reader.cursors["t", 0].offset == 7)
    assert reader.overtaken == 1


def test_a_deposed_leader_deletes_nothing() -> None:
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
    """A follower gives up and opens another session; when that request arrives, it has long moved on."""
    c = cluster()
    c.produce("t", 5)
    c.settle("t")
    late = c.network.hold(ReplicaFetch, when=lambda m: m.broker_id in (2, 3) and m.sequence == 0)
    for follower in (2, 3):
        c.network.cut(1, follower, both=False)
    c.until(lambda: len({m.broker_id for m in late.messages}) == 2)
    c.network.pass_all()
    c.network.cut(1, -1)
    c.until(lambda: c.leader("t") in (2, 3))
    c.until(lambda: starts(c, 2, 3) == [5, 5])
    late.release()
    c.run(200)
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
    """At its end nothing is left that it could be compared with, but the epoch of what lay there."""
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
