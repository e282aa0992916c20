"""A coordinator's groups in memory, and members that talk to them."""

from __future__ import annotations

from typing import Any

from minilog.config import BrokerSettings
from minilog.core.groups.groups import GroupDecision, Groups, OneGroupRequest
from minilog.wire.group_messages import (
    CommitOffsets,
    CommittedOffsets,
    CommittedOffsetsReply,
    DescribeGroup,
    DescribeGroupReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    LeaveGroup,
    OffsetCommit,
    TopicPartitions,
)
from minilog.wire.journal.group_records import TopicShape, decode_record, encode_record
from minilog.wire.message_base import Message

RETENTION_MS = 60_000


STEP_MS = 500


SETTINGS = BrokerSettings(
    broker_id=1, data_dir="/", group_members_max=5, groups_max=3, group_offsets_retention_ms=RETENTION_MS
)


Owned = set[tuple[str, int]]


class Bench:
    """A coordinator's Groups with a log of its own: what is decided is written and replayed at
    once."""

    def __init__(self, **topics: int) -> None:
        self.now_ms = 1_000_000
        self.log: list[tuple[bytes, bytes | None]] = []
        self.said: list[OneGroupRequest] = []
        self.shapes = {name: TopicShape(f"{name}-id", count) for name, count in (topics or {"t": 4}).items()}
        self.groups = self.new_groups()
        self.groups.on_topics(self.shapes)
        self.groups.begin(self.now_ms, 0)

    def new_groups(self) -> Groups:
        return Groups(SETTINGS, 1, log_end=lambda: len(self.log))

    def do(self, request: OneGroupRequest) -> Message:
        self.said.append(request)
        decision = self.groups.decide(request, self.now_ms)
        self.apply(decision)
        return decision.reply

    def apply(self, decision: GroupDecision) -> None:
        records = [encode_record(record) for record in decision.records]
        self.log += records
        self.groups.applied(decision._replace(records=[decode_record(*record) for record in records]))

    def tick(self, after_ms: int = 0) -> None:
        end_ms = self.now_ms + after_ms
        while True:
            self.now_ms = min(self.now_ms + STEP_MS, end_ms)
            for decision in self.groups.tick(self.now_ms):
                self.apply(decision)
            if self.now_ms == end_ms:
                return

    def fail_over(self, *, compacted: bool) -> None:
        """Another coordinator, from the log or from the last record of each key."""
        records = list(dict(self.log).items()) if compacted else self.log
        self.groups = self.new_groups()
        for record in records:
            self.groups.replay(decode_record(*record))
        self.groups.on_topics(self.shapes)
        self.groups.begin(self.now_ms, 2000)

    def topics(self, **topics: int | str) -> None:
        """Partitions by topic, or the id of one made anew."""
        self.shapes = dict(self.shapes)
        for name, what in topics.items():
            if isinstance(what, str):
                self.shapes[name] = TopicShape(what, self.shapes[name].partitions)
            elif what:
                self.shapes[name] = TopicShape(f"{name}-id", what)
            else:
                del self.shapes[name]
        self.groups.on_topics(self.shapes)

    # --- short forms ------------------------------------------------------------------------------

    def beat(
        self, member: str, epoch: int = 0, owned: Owned | None = None, group: str = "g", **more: Any
    ) -> GroupHeartbeatReply:
        given = {"topics": ["t"], **more}
        if "pattern" in more:
            given["topics"] = []
        reply = self.do(GroupHeartbeat(group, member, epoch, owned=listed(owned or set()), **given))
        assert isinstance(reply, GroupHeartbeatReply)
        return reply

    def join(self, *members: str, **more: Any) -> dict[str, GroupHeartbeatReply]:
        """They join, and go on until everybody has what it is to have."""
        told = {m: self.beat(m, **more) for m in members}
        for _ in range(3):
            told = {m: self.beat(m, told[m].member_epoch, parts(told[m]), **more) for m in members}
        return told

    def commit(self, member: str, epoch: int, *offsets: tuple[int, int], topic: str = "t") -> Message:
        return self.do(CommitOffsets("g", [OffsetCommit(topic, p, o) for p, o in offsets], member, epoch))

    def committed(self, group: str = "g") -> dict[int, int | None]:
        reply = self.do(CommittedOffsets(group))
        assert isinstance(reply, CommittedOffsetsReply)
        return {o.partition: o.offset for o in reply.offsets}

    def describe(self) -> DescribeGroupReply:
        reply = self.do(DescribeGroup("g"))
        assert isinstance(reply, DescribeGroupReply)
        return reply


def parts(reply: GroupHeartbeatReply) -> Owned:
    return {(entry.topic, p) for entry in reply.assignment for p in entry.partitions}


def listed(owned: Owned) -> list[TopicPartitions]:
    topics = sorted({topic for topic, _ in owned})
    return [TopicPartitions(t, sorted(p for topic, p in owned if topic == t)) for t in topics]


def leave(member: str, epoch: int = -1) -> LeaveGroup:
    return LeaveGroup("g", member, epoch)


def alone(offset: int, epoch: int = -1) -> CommitOffsets:
    """A commit of nobody's, for the group as it was at ``epoch``."""
    return CommitOffsets("g", [OffsetCommit("t", 0, offset)], member_epoch=epoch)
