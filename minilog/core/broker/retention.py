"""Retention: looks at each log in turn, some in every tick: is its active segment old, and may its
oldest records go?

A leader's answer is published first (log_start.py). Followers begin new segments here, and catch up
with what was published. By its age nothing goes while this broker's clock is not the controller's
(R40).
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from minilog.core.broker.replicate import Replication
from minilog.core.broker.state import LocalState
from minilog.core.broker.turn import Turn
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.follower_sessions import FollowerSessions
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica
from minilog.errors import CorruptRange, DiskFull
from minilog.wire.topic_partition import TopicPartition

LOOKS_MAX = 16
"""Logs looked at in one tick: each look may seal a segment."""


class Retention:
    def __init__(self, state: LocalState, turn: Turn, followers: FollowerSessions, replication: Replication) -> None:
        self._state, self._turn, self._followers, self._replication = state, turn, followers, replication
        self._due_ms = 0
        self._waiting: deque[TopicPartition] = deque()

    def tick(self, now_ms: int) -> None:
        if not self._waiting and now_ms >= self._due_ms:
            self._due_ms = now_ms + self._state.settings.retention_check_ms
            self._waiting.extend(self._state.replicas)
        for _ in range(min(LOOKS_MAX, len(self._waiting))):
            self._look(self._waiting.popleft(), now_ms)

    def _look(self, partition: TopicPartition, now_ms: int) -> None:
        replica = self._state.replicas.get(partition)
        if replica is None:
            return
        try:
            self._look_at(replica, now_ms)
        except CorruptRange:  # of this log the controller hears once. The others are looked at
            self._replication.on_damaged(replica, now_ms)

    def _look_at(self, replica: Replica, now_ms: int) -> None:
        replica.log.look(now_ms)
        wall_ms = self._state.sure_wall_ms(now_ms)
        with suppress(DiskFull):
            replica.log.maybe_roll(wall_ms)
        role = replica.role
        if isinstance(role, FollowerState):
            role.follow_start()
        if isinstance(role, LeaderState) and role.high_watermark_known and not self._state.is_isolated(now_ms):
            if role.log_start.plan(wall_ms, role.high_watermark):
                self._followers.on_high_watermark(replica.partition)
            if role.log_start.published > replica.log.start_offset:
                self._turn.advance(replica.partition)
