"""Turn: what the parts of a broker leave for the end of the turn, where ``BrokerCore`` completes
it. And what they leave for later turns, because it is more than one may take (R42).

Owns the outcomes of writes, the partitions whose high watermark is to be looked at, what is to be
flushed later, and who goes on in later turns. One of these goes on in each, in turn, and all that
has come meanwhile is served between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from minilog.core.effects import Effect, Flush, GoOn
from minilog.core.replication.leader import Outcome
from minilog.core.replication.replica import Replica, Replicas
from minilog.wire.topic_partition import TopicPartition

Work = Callable[[int], list[Effect]]
"""Does some of what is left at a time, and leaves the rest."""


class Turn:
    def __init__(self) -> None:
        self._outcomes: list[Outcome] = []
        self._advancing: dict[TopicPartition, None] = {}
        self._unsynced: dict[TopicPartition, int] = {}
        self._left: dict[Work, None] = {}
        self._is_called = False
        """A GoOn is under way."""

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

    def leave(self, work: Work) -> None:
        """There is more to do than this turn may take."""
        self._left[work] = None

    def call(self) -> list[Effect]:
        if self._is_called or not self._left:
            return []
        self._is_called = True
        return [GoOn()]

    def go_on(self, now_ms: int) -> list[Effect]:
        self._is_called = False
        work = next(iter(self._left), None)
        if work is None:
            return []
        del self._left[work]
        return work(now_ms)

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
