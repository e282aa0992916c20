"""Replica: what this broker holds of one partition: its log and its role of the moment."""

from __future__ import annotations

from minilog.config import TopicSettings
from minilog.core.ports import ReplicaLog
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState
from minilog.wire.topic_partition import TopicPartition


class Replica:
    __slots__ = (
        "bytes_in",
        "isr_expands",
        "isr_shrinks",
        "log",
        "looked_damaged",
        "partition",
        "records_in",
        "role",
        "settings",
        "topic_id",
    )

    def __init__(
        self,
        partition: TopicPartition,
        topic_id: str,
        settings: TopicSettings,
        log: ReplicaLog,
        role: LeaderState | FollowerState,
    ) -> None:
        self.partition, self.topic_id, self.settings, self.log = partition, topic_id, settings, log
        self.role: LeaderState | FollowerState = role
        self.looked_damaged = False
        """It was found damaged while it was in use, also by what the log itself takes no note
        of."""
        self.isr_shrinks = self.isr_expands = 0
        """How often the ISR lost, or got back, members in the eyes of this broker as leader."""
        self.records_in = self.bytes_in = 0
        """What producers have written here while it led."""

    @property
    def is_damaged(self) -> bool:
        """Something that was durable here cannot be read any more: not to lead, not to count as in
        sync."""
        return self.looked_damaged or self.log.is_damaged

    @property
    def leader_epoch(self) -> int:
        return self.role.leader_epoch


Replicas = dict[TopicPartition, Replica]
