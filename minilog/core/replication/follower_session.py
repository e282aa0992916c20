"""FollowerSession: what one follower has asked for and has not been told yet.

Owns the position of every partition it fetches from here, what is to be told of each, and its
request while that is parked. ``FollowerSessions`` decides what happens with it.

Invariants
* An answer holds at most REPLICA_FETCH_BYTES_MAX of batches and one batch more, whatever was asked
  for: peers take that.
* A request is no evidence of when it arrives, for it may have been on its way for long. It proves
  that its sender followed after the answer before it was sent (``followed``). The first request of
  a session has none before it, and proves no time.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from minilog.config import REPLICA_FETCH_BYTES_MAX
from minilog.wire.messages import ReplicaFetch, ReplicaFetchPartition, ReplicaFetchResult
from minilog.wire.topic_partition import TopicPartition


class SentAnswer(NamedTuple):
    """An answer to a replica fetch: when this broker sent it, and the how-manieth of all it was."""

    sent_ms: int
    number: int


NO_ANSWER: Final = SentAnswer(-(2**60), 0)


class ParkedReplicaFetch:
    __slots__ = ("arrived_ms", "deadline_ms", "request_id")

    def __init__(self, request_id: int, arrived_ms: int, deadline_ms: int) -> None:
        self.request_id, self.arrived_ms, self.deadline_ms = request_id, arrived_ms, deadline_ms


class FollowerSession:
    """``fresh``: arrived, not yet counted. ``dirty``: the follower may lack data. ``stale``: it
    lacks a high watermark."""

    def __init__(self, request: ReplicaFetch) -> None:
        self.broker_id = request.broker_id
        self.broker_epoch = request.broker_epoch
        self.session_id = request.session_id
        self.next_sequence = 0
        self.answered = NO_ANSWER
        self.followed = NO_ANSWER
        """The answer that the last request has come after: then at the earliest its sender followed
        what it names."""
        self.max_bytes = min(request.max_bytes, REPLICA_FETCH_BYTES_MAX)
        self.partitions: dict[TopicPartition, ReplicaFetchPartition] = {}
        self.fresh: dict[TopicPartition, None] = {}
        self.dirty: dict[TopicPartition, None] = {}
        self.stale: dict[TopicPartition, None] = {}
        self.lacking: dict[TopicPartition, None] = {}
        """Partitions whose log begins later at the follower than here."""
        self.unsent_results: list[ReplicaFetchResult] = []
        """Errors and divergences found when positions were counted. The next answer carries
        them."""
        self.expected_partitions: dict[TopicPartition, int] = {}
        """Partitions led from here that the follower has not named yet, and how many early ends
        that is still worth."""
        self.ends_early = False
        self.parked: ParkedReplicaFetch | None = None

    @property
    def order(self) -> tuple[int, int]:
        return self.broker_epoch, self.session_id

    def take(self, request: ReplicaFetch) -> None:
        self.next_sequence = request.sequence + 1
        self.followed, self.max_bytes = self.answered, min(request.max_bytes, REPLICA_FETCH_BYTES_MAX)
        self.ends_early = False
        for topic, partition in request.forgotten:
            self.forget(TopicPartition(topic, partition))
        for entry in request.partitions:
            key = TopicPartition(entry.topic, entry.partition)
            known = self.partitions.get(key)
            if known is None or (known.topic_id, known.leader_epoch) != (entry.topic_id, entry.leader_epoch):
                self.stale[key] = None
            self.partitions[key] = entry
            self.fresh[key] = None
            self.dirty.pop(key, None)

    def forget(self, partition: TopicPartition) -> None:
        self.partitions.pop(partition, None)
        for marks in (self.fresh, self.dirty, self.stale, self.lacking):
            marks.pop(partition, None)
