"""Stories of settings that change while records are written."""

from __future__ import annotations

from typing import Any

import pytest

from minilog.core.replication.leader import LeaderState
from minilog.wire.admin_messages import ConfigureTopic, ConfigureTopicReply
from minilog.wire.messages import ReplicaFetch
from tests.sim.cluster import SimCluster


def cluster(min_isr: int, **config: Any) -> SimCluster:
    c = SimCluster(seed=1, brokers=3, timeouts={"replica_lag_max_ms": 1000}).start()
    c.create_topic("t", assignment=[[1, 2, 3]], min_isr=min_isr, **config)
    c.produce("t")
    c.settle("t")
    return c


def configure(c: SimCluster, **config: str) -> ConfigureTopicReply:
    reply = c.change(ConfigureTopic("t", {key.replace("_", "."): value for key, value in config.items()}))
    assert isinstance(reply, ConfigureTopicReply), reply
    return reply


def test_who_was_complete_by_a_higher_minimum_is_not_by_a_lower_one() -> None:
    """R110: the leader alone commits from then on. Whoever has not got that may not be elected."""
    c = cluster(min_isr=2)
    c.broker(2).kill()
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1] and len(c.elr("t")) == 1)
    assert configure(c, min_insync_replicas="1").under_min_isr == []
    assert c.elr("t") == []
    c.produce("t", 5)
    c.broker(1).kill()
    c.broker(2).start()
    c.broker(3).start()
    c.run(5000)
    assert c.leader("t") == -1
    c.broker(1).start()
    c.settle("t")
    assert c.ends("t") == [6, 6, 6]


def test_a_write_that_a_higher_minimum_cannot_have_is_told_so() -> None:
    """R110: it waits for a replica that is cut off, and the minimum becomes more than the ISR."""
    c = cluster(min_isr=1)
    c.broker(3).kill()
    c.until(lambda: c.isr("t") == [1, 2])
    c.run(100)
    c.network.hold(ReplicaFetch)
    c.producer.load.attempts_max = 1
    write = c.produce("t", wait=False)
    c.run(50)
    assert write.outcome is None
    assert configure(c, min_insync_replicas="3").under_min_isr == [0]
    c.until(lambda: write.outcome is not None, "the write to end", 400)
    assert write.error is not None
    assert write.error.code == "NOT_ENOUGH_REPLICAS_AFTER_APPEND"
    c.network.pass_all()
    c.broker(3).start()
    c.settle("t")


@pytest.mark.parametrize("policy", ["interval", "never"])
def test_what_was_written_before_is_flushed_when_commits_are_to_be_durable(policy: str) -> None:
    c = cluster(min_isr=2, flush_policy=policy, flush_ms="3600000")
    c.produce("t", 5)
    c.run(500)
    assert any(c.log(r, "t").durable_end < 6 for r in (1, 2, 3))
    configure(c, flush_policy="commit")
    c.until(lambda: all(c.log(r, "t").durable_end == 6 for r in (1, 2, 3)), "all of it is durable", 1000)
    c.produce("t", 1, acks=3)
    configure(c, flush_policy=policy)
    c.produce("t", 1)
    c.settle("t")


def test_settings_outlive_everybody_and_reach_who_was_away() -> None:
    c = cluster(min_isr=2)
    c.broker(3).kill()
    configure(c, retention_ms="5000", min_insync_replicas="1")
    c.kill_all()
    c.start_all()
    c.settle("t")
    for broker_id in (1, 2, 3):
        replica = c.replica(broker_id, "t")
        assert replica is not None
        assert (replica.settings.retention_ms, replica.settings.min_insync_replicas) == (5000, 1)
    leader = c.replica(c.leader("t"), "t")
    assert leader is not None
    assert isinstance(leader.role, LeaderState)
    assert leader.role.min_isr == 1
