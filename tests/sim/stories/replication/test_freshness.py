"""Stories of how stale a replica says it is: silence is not "nothing new", and what comes late was
true earlier.

``R7`` is what a leader may show. Here it is asked what a reader may believe of ``lag_ms``
(``max_lag_ms``).
"""

from __future__ import annotations

from minilog.core.replication.follower import FollowerState
from minilog.wire.messages import Fetch, FetchPartition, FetchReply, ReplicaFetchReply
from tests.sim.cluster import SimCluster
from tests.sim.nodes.clients import Load, Producer
from tests.sim.nodes.network import Response

TOLERANCE_MS = 60
"""A round trip, a tick and the clients' way."""


def cluster(brokers: int = 2, **timeouts: int) -> SimCluster:
    c = SimCluster(seed=1, brokers=brokers, timeouts=timeouts).start()
    members = list(range(1, brokers + 1))
    for topic in ("busy", "quiet"):
        c.create_topic(topic, assignment=[members])
    c.produce("quiet")
    c.settle("quiet")
    return c


def load(c: SimCluster) -> Producer:
    producer = c.add_producer("load", Load(interval_ms=1, acks=(1,), inflight_max=50))
    producer.partitions = [("busy", 0)]
    producer.begin()
    c.run(500)
    return producer


def lag_ms(c: SimCluster, broker_id: int) -> int | None:
    """What a reader of "quiet" is told there; None: refused."""
    answers: list[Response] = []
    request = Fetch([FetchPartition("quiet", 0, 0)], any_replica=True)
    c.admin.ask(broker_id, request, answers.append, 2000)
    c.until(lambda: bool(answers), "an answer")
    assert isinstance(answers[0], FetchReply)
    result = answers[0].partitions[0]
    return None if result.problem is not None else result.lag_ms


def understated_ms(c: SimCluster, broker_id: int, end_offset: int, since_ms: int) -> int:
    """The most by which it says less than it is behind, until it shows what was committed at
    ``since_ms``."""
    worst = 0
    for _ in range(400):
        replica = c.replica(broker_id, "quiet")
        if replica is not None and replica.log.high_watermark >= end_offset:
            break
        said = lag_ms(c, broker_id)
        if said is not None:
            worst = max(worst, c.world.now_ms - since_ms - said)
        c.run(5)
    return worst


def test_under_load_of_a_neighbour_a_follower_hears_of_what_is_committed() -> None:
    """R54, R7: no request of the follower ever waits, so no answer may leave out what moved."""
    c = cluster()
    producer = load(c)
    receipt = c.produce("quiet").receipt
    assert receipt is not None
    assert receipt.end_offset is not None
    assert understated_ms(c, 2, receipt.end_offset, c.world.now_ms) <= TOLERANCE_MS
    producer.active = False


def test_under_load_of_a_neighbour_old_records_go() -> None:
    """R54: the new log start travels with the high watermark."""
    c = cluster(retention_check_ms=50)
    c.create_topic("old", assignment=[[1, 2]], retention_ms="500")
    producer = load(c)
    c.produce("old", 5)
    c.until(lambda: [c.log(b, "old").start_offset for b in (1, 2)] == [5, 5], within_ms=3000)
    producer.active = False


def test_an_answer_that_was_on_its_way_for_long_is_as_old_as_its_request() -> None:
    """R54, R5: it says what was committed when it was given, however late it comes. Since then the
    leader went on alone."""
    c = cluster(peer_timeout_ms=5000, replica_lag_max_ms=400)
    held = c.network.hold(ReplicaFetchReply)
    c.until(lambda: bool(held.messages))
    c.network.pass_all()
    c.network.cut(1, 2)
    c.until(lambda: c.isr("quiet") == [1])
    c.produce("quiet")
    since_ms = c.world.now_ms
    c.run(1000)
    c.network.heal()
    role = c.replica(2, "quiet").role  # type: ignore[union-attr]
    assert isinstance(role, FollowerState)
    held.release()
    while c.log(2, "quiet").high_watermark < 2:
        c.run(1)
        said = role.lag_ms(c.world.now_ms)
        shows_all = c.log(2, "quiet").high_watermark == 2
        assert shows_all or said is None or said >= c.world.now_ms - since_ms - TOLERANCE_MS
    c.settle("quiet")


def test_who_follows_a_deposed_leader_does_not_say_that_it_is_fresh() -> None:
    """R54, R30: both are cut off together. The others have elected somebody else, and go on."""
    c = cluster(3, replica_lag_max_ms=400)
    for near in (1, 2):
        for far in (-1, 3):
            c.network.cut(near, far)
    c.until(lambda: c.leader("quiet") == 3)
    c.producer.leaders["quiet", 0] = (3, c.state("quiet").leader_epoch)
    receipt = c.produce("quiet").receipt
    since_ms = c.world.now_ms
    assert receipt is not None
    c.run(3000)
    for broker_id in (1, 2):
        said = lag_ms(c, broker_id)
        assert said is None or said >= c.world.now_ms - since_ms - TOLERANCE_MS, broker_id
    c.network.heal()
    c.settle("quiet")


def test_who_follows_a_leader_that_does_not_know_the_end_does_not_say_that_it_is_fresh() -> None:
    """R54, R7: follower and next leader have not heard that a record is committed. Then nobody else
    can commit."""
    c = cluster(3)
    told = c.network.hold(ReplicaFetchReply, when=lambda m: any(r.high_watermark >= 2 for r in m.partitions))  # type: ignore[attr-defined]
    receipt = c.produce("quiet").receipt
    since_ms = c.world.now_ms
    assert receipt is not None
    assert not told.messages or c.log(2, "quiet").high_watermark == 1
    c.broker(1).kill()
    c.network.cut(2, 3, both=False)  # 3 hears the leader's answers, if it is 2. Its positions do not arrive
    c.until(lambda: c.leader("quiet") in (2, 3))
    follower = 3 if c.leader("quiet") == 2 else 2
    c.run(300)
    said = lag_ms(c, follower)
    shown = c.log(follower, "quiet").high_watermark
    assert shown >= 2 or said is None or said >= c.world.now_ms - since_ms - TOLERANCE_MS
    c.network.pass_all()
    c.network.heal()
