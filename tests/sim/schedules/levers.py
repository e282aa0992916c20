"""Levers: what operators change in the cluster while all else goes on, and goes wrong.

Nothing here loosens a promise: minimums never go below that of the schedule."""

from __future__ import annotations

from minilog.core.image import PartitionState
from minilog.wire.admin_messages import BalanceLeaders, ConfigureTopic, MoveReplicas, ReplicaMove
from minilog.wire.messages import PersonsChange
from tests.sim.cluster import SimCluster
from tests.sim.schedules.options import Options


class Levers:
    def __init__(self, cluster: SimCluster, options: Options) -> None:
        self.cluster, self.options = cluster, options
        self.rng = cluster.world.rng("levers")

    def pull(self) -> None:
        topics = [t for t in self.cluster.invariants.truth.topics if t.startswith("t")]
        if topics:
            self.cluster.admin.request(self._request(self.rng.choice(topics)))

    def move(self) -> None:
        """Some partitions of one topic, be it that of the groups, to any brokers, or back to where
        they were."""
        topics = list(self.cluster.invariants.truth.topics.values())
        if topics:
            topic = self.rng.choice(topics)
            chosen = self.rng.sample(sorted(topic.partitions), self.rng.randint(1, len(topic.partitions)))
            self.cluster.admin.request(MoveReplicas([self._move(topic.partitions[number]) for number in chosen]))

    def _move(self, state: PartitionState) -> ReplicaMove:
        brokers = sorted(self.cluster.brokers)
        count = self.rng.randint(min(self.options.min_isr, len(brokers)), len(brokers))
        target = [] if state.target and self.rng.random() < 0.5 else self.rng.sample(brokers, count)
        epoch = self.rng.choice((-1, state.partition_epoch))
        return ReplicaMove(state.topic, state.partition, target, state.topic_id, epoch)

    def _request(self, topic: str) -> PersonsChange:
        return self.rng.choice((self._configure(topic), BalanceLeaders([topic]), BalanceLeaders()))

    def _configure(self, topic: str) -> ConfigureTopic:
        options = self.options
        policies = ("commit", options.flush_policy)
        config = {
            "min.insync.replicas": str(self.rng.randint(options.min_isr, options.replicas)),
            "flush.policy": self.rng.choice(policies),
            "segment.bytes": self.rng.choice(("4096", str(options.segment_bytes))),
        }
        chosen = self.rng.sample(sorted(config), self.rng.randint(1, len(config)))
        return ConfigureTopic(topic, {key: config[key] for key in chosen})
