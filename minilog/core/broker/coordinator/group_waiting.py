"""What waits at a coordinator: replies, and what must be known before each is shown."""

from __future__ import annotations

from typing import NamedTuple

from minilog.core.broker.coordinator.successors import Moment
from minilog.errors import MinilogError
from minilog.wire.group_messages import GroupInfo, ListGroupsReply, MissingGroups
from minilog.wire.messages import Message, Problem
from minilog.wire.topic_partition import TopicPartition


class ParkedGroupRequest:
    """A reply that waits for one partition or, a list of groups, for several. ``open``: those.
    None left: it is answered."""

    def __init__(self, request_id: int, reply: Message, deadline_ms: int) -> None:
        self.request_id, self.reply, self.deadline_ms = request_id, reply, deadline_ms
        self.is_write = False
        self.open: set[TopicPartition] = set()

    def fail(self, lost: set[TopicPartition], error: MinilogError) -> None:
        """What ``lost`` decided will not be confirmed."""
        self.reply, self.open = Problem.of(error), set()


class Listing(ParkedGroupRequest):
    """A list of groups: the partition that refuses or does not confirm is missing in it, and the
    list says so."""

    def __init__(self, request_id: int, deadline_ms: int) -> None:
        super().__init__(request_id, ListGroupsReply([]), deadline_ms)
        self.found: dict[int, list[GroupInfo]] = {}
        self.missing: list[MissingGroups] = []

    def fail(self, lost: set[TopicPartition], error: MinilogError) -> None:
        for partition in sorted(lost):
            self.found.pop(partition.partition, None)
            self.missing.append(MissingGroups(partition.partition, error.code, error.detail))
        self.open = self.open - lost
        self.finish()

    def finish(self) -> None:
        groups = sorted((info for infos in self.found.values() for info in infos), key=lambda info: info.group)
        self.reply = ListGroupsReply(groups, sorted(self.found), sorted(self.missing))


class WaitingRead(NamedTuple):
    """What was read, and what must be known before it is shown: that all of it is committed, and
    that nobody else had led when it was asked for."""

    end_offset: int
    asked: Moment
    parked: ParkedGroupRequest
