"""Failovers: the timeline of each broker loss, for people: last heard, detected, fenced, elected,
published.

Owns the last hundred. Soft state, observed and never consulted by a decision. All times of one
failover are stamped by the wall clock as it stood when the failover began: a step of the clock
meanwhile changes none of its durations.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from minilog.wire.messages import FailoverInfo
from minilog.wire.topic_partition import TopicPartition

KEPT_MAX = 100


class FailoverKind(StrEnum):
    """How the controller knew that a broker was gone."""

    REFUSED = "refused"
    """Its address refuses connections: the process is dead."""
    REPLACED = "replaced"
    """Another process answers at its address."""
    TIMEOUT = "timeout"
    """Nothing was heard for a session timeout."""
    SHUTDOWN = "shutdown"
    """It said that it leaves."""


class Failovers:
    def __init__(self) -> None:
        self.wall_ahead_ms = 0
        self.recent: deque[FailoverInfo] = deque(maxlen=KEPT_MAX)
        self._open: list[tuple[FailoverInfo, set[TopicPartition], list[int], int]] = []

    def begin(self, info: FailoverInfo, leaderless: set[TopicPartition]) -> None:
        """``leaderless``: partitions that still wait for an election; empty when the same step
        named all leaders.

        ``info`` has the times of turns."""
        wall_ahead_ms = self.wall_ahead_ms
        info.last_heard_ms += wall_ahead_ms
        info.detected_ms += wall_ahead_ms
        info.fenced_ms += wall_ahead_ms
        self.recent.append(info)
        self._open.append((info, leaderless, [], wall_ahead_ms))

    def on_elected(self, partition: TopicPartition) -> None:
        for _, leaderless, _, _ in self._open:
            leaderless.discard(partition)

    def on_deleted(self, topic: str) -> None:
        """A partition that is gone waits for no leader."""
        for _, leaderless, _, _ in self._open:
            leaderless -= {partition for partition in leaderless if partition.topic == topic}

    def on_committed(self, metadata_offset: int, now_ms: int) -> None:
        """Journalled and replayed up to ``metadata_offset``: what has no leaderless partition left
        is elected."""
        for info, leaderless, published_at, wall_ahead_ms in self._open:
            if not leaderless and info.elected_ms is None:
                info.elected_ms = now_ms + wall_ahead_ms
                published_at.append(metadata_offset)

    def on_applied(self, everywhere: int, now_ms: int) -> None:
        """Every live broker has applied metadata up to ``everywhere``."""
        still_open = []
        for entry in self._open:
            info, _, published_at, wall_ahead_ms = entry
            if published_at and everywhere >= published_at[0]:
                info.published_ms = now_ms + wall_ahead_ms
            else:
                still_open.append(entry)
        self._open = still_open
