"""First writes: when this broker, as a new leader, has acknowledged its first write in its epoch.
It ends a failover as applications see it.

Owns what was not yet told. Soft state: a controller that has restarted calls unknown what it has
not heard.

Invariant: each leadership is told of once it is answered, and no more is told at a time than a
heartbeat should hold.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from minilog.core.replication.leader import LeaderState
from minilog.wire.messages import FirstWrite
from minilog.wire.topic_partition import TopicPartition

TOLD_MAX: Final = 100


class FirstWrites:
    def __init__(self) -> None:
        self._untold: dict[TopicPartition, tuple[int, int]] = {}
        """Leader epoch, and when."""
        self._told: list[FirstWrite] = []

    def see(self, role: LeaderState, now_ms: int) -> None:
        """Something was acknowledged. The first leadership of a partition replaces nobody."""
        if not role.has_acknowledged and role.leader_epoch > 0:
            self._untold[role.partition] = (role.leader_epoch, now_ms)
        role.has_acknowledged = True

    def tell(self, now_ms: int) -> list[FirstWrite]:
        """For a heartbeat, and again until one is answered."""
        first = islice(self._untold.items(), TOLD_MAX)
        self._told = [FirstWrite(*partition, epoch, now_ms - at_ms) for partition, (epoch, at_ms) in first]
        return self._told

    def on_answered(self) -> None:
        for told in self._told:
            partition = TopicPartition(told.topic, told.partition)
            if self._untold.get(partition, (-1, 0))[0] == told.leader_epoch:
                del self._untold[partition]
        self._told = []
