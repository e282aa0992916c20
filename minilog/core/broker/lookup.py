"""Lookup: where a partition is: its replica here, or the error that says where to go.

Owns nothing. Every refusal that names another broker is made here, from the metadata that this
broker knows.
"""

from __future__ import annotations

from minilog.core.broker.state import LocalState
from minilog.core.image import check_topic_id
from minilog.core.replication.replica import Replica
from minilog.errors import LeaderNotAvailable, MinilogError, NotLeader, UnknownPartition, UnknownTopic
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.topic_partition import TopicPartition


class Lookup:
    def __init__(self, state: LocalState) -> None:
        self._state = state

    def find(self, topic: str, partition: int, topic_id: str) -> Replica:
        """The local replica. Raises UnknownTopic, UnknownPartition, InconsistentTopicId, or
        NotLeader when it lives elsewhere."""
        replica = self._state.replicas.get(TopicPartition(topic, partition))
        if replica is not None:
            check_topic_id(topic, topic_id, replica.topic_id)
            return replica
        self.check_informed()
        found = self._state.image.topics.get(topic)
        if found is None:
            raise UnknownTopic(f"there is no topic {topic!r}")
        check_topic_id(topic, topic_id, found.topic_id)
        state = found.partitions.get(partition)
        if state is None:
            raise UnknownPartition(f"topic {topic} has partitions 0 to {len(found.partitions) - 1}, not {partition}")
        raise self.not_leader(TopicPartition(topic, partition), state.leader)

    def topic_id_of(self, topic: str) -> str:
        """For an answer that says no: which topic has the name, as far as this broker knows; "" for
        none."""
        found = self._state.image.topics.get(topic)
        return "" if found is None else found.topic_id

    def check_informed(self) -> None:
        if not self._state.informed:
            raise LeaderNotAvailable(
                f"broker {self._state.broker_id} has just started and does not know the topics yet; retry shortly or ask another"
            )

    def check_not_isolated(self, replica: Replica, now_ms: int) -> None:
        """R30: one that may have been replaced refuses writes, and reads that must not be stale."""
        if self._state.is_isolated(now_ms):
            raise LeaderNotAvailable(
                f"broker {self._state.broker_id} has not heard from the controller and may not lead {replica.partition} any more; retry"
            )

    def not_leader(self, partition: TopicPartition, leader: int) -> MinilogError:
        """The error that says where to go instead."""
        state = self._state.image.partition(*partition)
        if state is not None and leader == NO_LEADER:
            leader = state.leader
        broker = self._state.image.brokers.get(leader)
        if leader in (NO_LEADER, self._state.broker_id) or broker is None:
            return LeaderNotAvailable(
                f"{partition} has no leader at the moment; an election is under way or its replicas are down"
            )
        epoch = state.leader_epoch if state is not None else -1
        return NotLeader(
            f"{partition} is led by broker {leader} at {broker.url}, not by broker {self._state.broker_id}",
            leader=leader,
            leader_url=broker.url,
            leader_epoch=epoch,
        )
