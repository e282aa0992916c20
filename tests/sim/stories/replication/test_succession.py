"""Stories of leaderships that go back to the preferred replicas, asked for or by themselves."""

from __future__ import annotations

from minilog.wire.admin_messages import BalanceLeaders, BalanceLeadersReply
from minilog.wire.messages import AlterPartition, HeartbeatReply, Message, ReplicaFetch
from tests.sim.cluster import SimCluster

NEVER = {"leader_balance_steady_ms": 10_000_000}
SOON = {"leader_balance_steady_ms": 2000, "leader_balance_pause_ms": 60_000}


def cluster(**timeouts: int) -> SimCluster:
    """Broker 1 is preferred. Broker 2 leads."""
    c = SimCluster(seed=1, brokers=3, timeouts={"replica_lag_max_ms": 1000} | timeouts).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=2)
    c.produce("t")
    c.settle("t")
    c.broker(1).kill()
    c.until(lambda: c.leader("t") in (2, 3))
    c.broker(1).start()
    c.settle("t")
    return c


def balance(c: SimCluster, **how: bool) -> BalanceLeadersReply:
    reply = c.change(BalanceLeaders(**how))  # type: ignore[arg-type]
    assert isinstance(reply, BalanceLeadersReply), reply
    return reply


def test_a_leader_hands_over_to_the_preferred_replica_and_loses_nothing() -> None:
    """R111: also what only it was to hold, which is acknowledged by the leader alone."""
    c = cluster(**NEVER)
    old, epoch = c.leader("t"), c.state("t").leader_epoch
    assert [(m.leader, m.to, m.problem) for m in balance(c, dry_run=True).moves] == [(old, 1, "")]
    c.run(500)
    assert c.leader("t") == old
    held = c.network.hold(ReplicaFetch)
    for _ in range(3):
        c.produce("t", acks=1)
    balance(c)
    c.run(300)
    assert c.leader("t") == old, "nobody holds yet what it has acknowledged"
    c.network.pass_all()
    held.release()
    c.until(lambda: c.leader("t") == 1, "broker 1 leads", 3000)
    c.settle("t")
    assert (c.state("t").leader_epoch, c.ends("t")) == (epoch + 1, [4, 4, 4])
    assert balance(c).moves == []


def _names(message: Message, leader: int) -> bool:
    records = message.records if isinstance(message, HeartbeatReply) else []
    return any(getattr(record, "leader", None) == leader for record in records)


def test_a_leader_whose_successor_may_lead_takes_no_weak_write() -> None:
    """R111: its request is decided, and no answer comes. What it alone acknowledged would be lost."""
    c = cluster(**NEVER)
    old = c.leader("t")
    asked = c.network.copy(AlterPartition, when=lambda m: any(p.leader == 1 for p in m.partitions))  # type: ignore[attr-defined]
    told = c.network.hold(HeartbeatReply, when=lambda message: _names(message, 1))
    balance(c)
    c.until(lambda: c.leader("t") == 1)
    assert asked.messages
    c.run(1500)
    assert c.leads(1, "t") is False
    c.producer.load.attempts_max = 1
    write = c.ended(c.produce("t", acks=1, at=old, wait=False))
    assert write.outcome == "failed"
    assert write.error is not None
    assert write.error.code == "LEADER_NOT_AVAILABLE"
    c.network.pass_all()
    told.release()
    c.until(lambda: c.leads(1, "t"))
    c.settle("t")


def test_a_leader_goes_on_when_its_successor_does_not_catch_up() -> None:
    """R111: no longer than it takes to see that, and the record names nobody any more."""
    c = cluster(**NEVER, replica_lag_max_ms=60_000)
    old = c.leader("t")
    c.network.cut(1, old)
    c.produce("t", acks=1)
    balance(c)
    c.run(1200)
    assert c.leader("t") == old
    c.produce("t", acks=1)
    c.until(lambda: c.state("t").successor == -1)
    assert c.isr("t") == [1, 2, 3]
    c.network.heal()
    c.settle("t")
    assert c.leader("t") == old


def test_leaders_go_back_by_themselves_when_all_has_been_calm_for_a_while() -> None:
    """R112: not to a broker that comes and goes, and once."""
    c = cluster(**SOON)
    began_ms = c.world.now_ms
    for _ in range(3):
        c.run(1200)
        assert c.leader("t") != 1
        c.broker(1).kill()
        c.run(200)
        c.broker(1).start()
        c.settle("t")
    assert c.leader("t") != 1
    c.until(lambda: c.leader("t") == 1, "broker 1 leads again", 5000)
    assert c.world.now_ms - began_ms > 5000
    c.broker(1).kill()
    c.until(lambda: c.leader("t") in (2, 3))
    c.broker(1).start()
    c.settle("t")
    c.run(8000)
    assert c.leader("t") in (2, 3), "not twice within pause_ms"
