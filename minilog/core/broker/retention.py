"""Retention: looks at each log in turn, some in every tick: is its active segment old, and may its oldest records go?

A leader's answer is published first (log_start.py); followers begin new segments here, and catch up with what was published.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from minilog.core.effects import TopicPartition
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica
from minilog.errors import CorruptRange, DiskFull

if TYPE_CHECKING:
    from minilog.core.broker.broker import BrokerCore

LOOKS_MAX = 16
"""Logs looked at in one tick: each look may seal a segment."""


class Retention:
    def __init__(self, core: BrokerCore) -> None:
        self._core = core
        self._due_ms = 0
        self._waiting: deque[TopicPartition] = deque()

    def tick(self, now_ms: int) -> None:
        if not self._waiting and now_ms >= self._due_ms:
            self._due_ms = now_ms + self._core.settings.retention_check_ms
            self._waiting.extend(self._core.replicas)
        for _ in range(min(LOOKS_MAX, len(self._waiting))):
            self._look(self._waiting.popleft(), now_ms)

    def _look(self, partition: TopicPartition, now_ms: int) -> None:
        replica = self._core.replicas.get(partition)
        if replica is None:
            return
        try:
            self._look_at(replica, now_ms)
        except CorruptRange:  # of this log the controller hears once; the others are looked at
            self._core.roles.on_damaged(replica)

    def _look_at(self, replica: Replica, now_ms: int) -> None:
        with suppress(DiskFull):
            replica.log.maybe_roll(self._core.wall_ms(now_ms))
        role = replica.role
        if isinstance(role, FollowerState):
            role.follow_start()
        if isinstance(role, LeaderState) and role.high_watermark_known and not self._core.is_isolated(now_ms):
            if role.log_start.plan(self._core.wall_ms(now_ms), role.high_watermark):
                self._core.sessions.on_high_watermark(replica.partition)
            if role.log_start.published > replica.log.start_offset:
                self._core.advance(replica.partition)
