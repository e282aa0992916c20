"""Turn: what the parts of a broker leave for the end of the turn, where ``BrokerCore`` completes
it.

Owns the outcomes of writes, the partitions whose high watermark is to be looked at, and what is to
be flushed later.
"""

from __future__ import annotations

from collections.abc import Iterable

from minilog.core.effects import Effect, Flush
from minilog.core.replication.leader import Outcome
from minilog.core.replication.replica import Replica, Replicas
from minilog.wire.topic_partition import TopicPartition


class Turn:
    def __init__(self) -> None:
        self._outcomes: list[Outcome] = []
        self._advancing: dict[TopicPartition, None] = {}
        self._unsynced: dict[TopicPartition, int] = {}

    def advance(self, partition: TopicPartition) -> None:
        """Positions of this partition moved: its high watermark is looked at when the turn ends."""
        self._advancing[partition] = None

    def next_advancing(self) -> TopicPartition | None:
        """The next partition to look at; None when there is none left."""
        return self._advancing.popitem()[0] if self._advancing else None

    def add_outcomes(self, outcomes: Iterable[Outcome]) -> None:
        self._outcomes += outcomes

    def take_outcomes(self) -> list[Outcome]:
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def appended(self, replica: Replica, now_ms: int) -> list[Effect]:
        """Something was written here: flush it now or later, as the topic's policy says."""
        policy, log = replica.settings.flush_policy, replica.log
        if log.durable_end >= log.end_offset or policy == "never":
            return []
        if policy == "commit":
            return [Flush(replica.partition, log.end_offset)]
        self._unsynced.setdefault(replica.partition, now_ms + replica.settings.flush_ms)
        return []

    def flush_due(self, replicas: Replicas, now_ms: int) -> list[Effect]:
        """flush.policy interval: what was appended at least flush.ms ago."""
        due = [p for p, due_ms in self._unsynced.items() if due_ms <= now_ms]
        for partition in due:
            del self._unsynced[partition]
        return [Flush(p, replicas[p].log.end_offset) for p in due if p in replicas]
