"""The contract of wire/group_messages.py a second time, in its plainest form, behind the fake
cluster's transport.

Everything is recomputed whenever anybody asks; sessions are deadlines in the loop's time.
``owners`` is the truth that tests compare with: a partition has one owner at most, from the answer
that gives it away until that member says that it has it no more, leaves, or is fenced.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any

from minilog.errors import (
    BrokerUnavailable,
    GroupChanged,
    GroupNotEmpty,
    InconsistentGroup,
    InconsistentTopicId,
    InstanceInUse,
    InvalidRequest,
    NotAssigned,
    NotCoordinator,
    StaleMemberEpoch,
    UnknownGroup,
    UnknownMember,
    UnknownTopic,
)
from minilog.wire.group_messages import (
    GROUPS_TOPIC,
    UNSAID,
    CommitOffsets,
    CommitOffsetsReply,
    CommittedOffset,
    CommittedOffsets,
    CommittedOffsetsReply,
    DeleteGroup,
    DeleteGroupReply,
    DescribeGroup,
    DescribeGroupReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    GroupInfo,
    GroupMember,
    LeaveGroup,
    ListGroups,
    ListGroupsReply,
    MissingGroups,
    TopicPartitions,
)
from minilog.wire.messages import AddPartitions, Message, Ok
from minilog_client.group.membership import by_topic
from tests.unit.client.fake_cluster import FakeCluster

Key = tuple[str, int]


@dataclass
class Member:
    said: GroupHeartbeat
    epoch: int = 0
    told: set[Key] = field(default_factory=set)
    deadline_s: float = 0.0
    revoking_since_s: float | None = None
    away: bool = False
    """A static member that has left. Its place is kept until its session ends."""


@dataclass
class Group:
    epoch: int = 0
    members: dict[str, Member] = field(default_factory=dict)
    owners: dict[Key, str] = field(default_factory=dict)
    topic_ids: dict[Key, str] = field(default_factory=dict)
    """Of the topics as they were when the owners were given their partitions."""
    target: dict[Key, str] = field(default_factory=dict)
    offsets: dict[Key, CommittedOffset] = field(default_factory=dict)
    commits: list[CommitOffsets] = field(default_factory=list)


class FakeCoordinator:
    """Of all groups. ``broker`` coordinates, every other one forwards."""

    def __init__(self, cluster: FakeCluster, interval_ms: int = 500) -> None:
        self.cluster = cluster
        self.interval_ms = interval_ms
        self.groups: dict[str, Group] = {}
        self.missing: list[MissingGroups] = []
        self.broker = 1
        self.forwards = True
        cluster.create(GROUPS_TOPIC)[0].leader = 1
        cluster.groups = self.handle

    def move(self, broker: int) -> None:
        """A failover: what was durable is known to the new coordinator, sessions begin anew."""
        self.broker = broker
        self.cluster.move(self.cluster.logs[GROUPS_TOPIC][0], broker)
        for group in self.groups.values():
            for member in group.members.values():
                member.deadline_s = _now() + member.said.session_timeout_ms / 1000

    def group(self, name: str) -> Group:
        return self.groups.setdefault(name, Group())

    def fence(self, name: str, member_id: str) -> None:
        group = self.group(name)
        group.members.pop(member_id)
        for key in [key for key, owner in group.owners.items() if owner == member_id]:
            del group.owners[key]

    def committed(self, group: str, topic: str = "t") -> dict[int, int | None]:
        return {key[1]: found.offset for key, found in self.group(group).offsets.copy().items() if key[0] == topic}

    def owned(self, group: str) -> dict[str, list[Key]]:
        owned: dict[str, list[Key]] = {member: [] for member in self.group(group).members}
        for key, owner in sorted(self.group(group).owners.items()):
            owned[owner].append(key)
        return owned

    # --- requests ---------------------------------------------------------------------------------

    def handle(self, broker: int, message: Any) -> Message | None:
        answers: dict[type, Any] = {
            GroupHeartbeat: self._heartbeat,
            LeaveGroup: self._leave,
            CommitOffsets: self._commit,
            CommittedOffsets: self._committed,
            ListGroups: self._list,
            DescribeGroup: self._describe,
            DeleteGroup: self._delete,
            AddPartitions: self._add_partitions,
        }
        answer = answers.get(type(message))
        if answer is None:
            return None
        if broker != self.broker:
            if not self.forwards:
                raise NotCoordinator(f"broker {self.broker} coordinates")
            if self.broker in self.cluster.refusing | self.cluster.silent:
                raise BrokerUnavailable("the coordinator does not answer", definite=False)
        for group in self.groups.values():
            self.expire(group)
        reply: Message = answer(message)
        return reply

    def expire(self, group: Group) -> None:
        for name, member in list(group.members.items()):
            patience_s = member.said.poll_timeout_ms / 1000
            is_slow = member.revoking_since_s is not None and _now() > member.revoking_since_s + patience_s
            if _now() > member.deadline_s or is_slow:
                self._remove(group, name)

    def _remove(self, group: Group, member_id: str) -> None:
        group.members.pop(member_id, None)
        group.owners = {key: owner for key, owner in group.owners.items() if owner != member_id}

    def _heartbeat(self, said: GroupHeartbeat) -> GroupHeartbeatReply:
        group = self.group(said.group)
        member = group.members.get(said.member_id)
        if said.member_epoch == 0:
            member = self._join(group, said)
        elif member is None or member.away:
            raise UnknownMember(f"there is no member {said.member_id}")
        elif said.member_epoch != member.epoch:
            raise StaleMemberEpoch(f"epoch {said.member_epoch} is not {member.epoch}")
        owned = {(entry.topic, partition) for entry in said.owned for partition in entry.partitions}
        for entry in said.owned:
            known = {group.topic_ids.get((entry.topic, partition)) for partition in entry.partitions}
            if entry.topic_id and known != {entry.topic_id}:
                raise NotAssigned(f"{entry.topic} was given with topic id {known}, not {entry.topic_id}")
        for key in member.told - owned:
            if group.owners.get(key) == said.member_id:
                del group.owners[key]
        member.told &= owned
        member.said = said
        member.deadline_s = _now() + said.session_timeout_ms / 1000
        return self._assign(group, said.member_id, member)

    def _join(self, group: Group, said: GroupHeartbeat) -> Member:
        for other in group.members.values():
            if other.said.assignor != said.assignor:
                raise InconsistentGroup(f"the group uses {other.said.assignor}")
        self._remove(group, said.member_id)
        for name, other in list(group.members.items()):
            if said.instance_id and other.said.instance_id == said.instance_id:
                if not other.away:
                    raise InstanceInUse(f"{name} has this instance and is in session")
                group.members[said.member_id] = group.members.pop(name)
                group.owners = {key: said.member_id if owner == name else owner for key, owner in group.owners.items()}
                group.target = {key: said.member_id if owner == name else owner for key, owner in group.target.items()}
                group.members[said.member_id].away = False
                return group.members[said.member_id]
        member = group.members[said.member_id] = Member(said)
        return member

    def _assign(self, group: Group, member_id: str, member: Member) -> GroupHeartbeatReply:
        target = self._target(group)
        if target != group.target:
            group.target = target
            group.epoch += 1
        member.epoch = group.epoch
        wanted = {key for key, name in target.items() if name == member_id}
        ids = self.cluster.topic_ids
        stale = {key for key in group.owners if group.topic_ids[key] != ids[key[0]]}
        free = {key for key in wanted - stale if group.owners.get(key, member_id) == member_id}
        for key in free:
            group.owners[key] = member_id
            group.topic_ids[key] = ids[key[0]]
        mine = {key for key, owner in group.owners.items() if owner == member_id}
        member.told = set(mine)
        member.revoking_since_s = (member.revoking_since_s or _now()) if mine - free else None
        pending = len(wanted) - len(free)
        return GroupHeartbeatReply(
            member_id, group.epoch, 100 if pending else self.interval_ms, _named(free, group.topic_ids), pending
        )

    def _target(self, group: Group) -> dict[Key, str]:
        """Everybody keeps what it has, up to its share. The rest goes to whoever has least."""
        wants = {name: self._topics(member.said) for name, member in group.members.items()}
        keys = sorted({(t, log.partition) for topics in wants.values() for t in topics for log in self.cluster.logs[t]})
        share = -(-len(keys) // max(1, len(wants)))
        target: dict[Key, str] = {}
        count = dict.fromkeys(sorted(wants), 0)
        for key in keys:
            name = group.target.get(key)
            if name in count and key[0] in wants[name] and count[name] < share:
                target[key] = name
                count[name] += 1
        for key in keys:
            able = [name for name in count if key[0] in wants[name]]
            if key not in target and able:
                target[key] = min(able, key=lambda name: count[name])
                count[target[key]] += 1
        poor, rich = min(count, key=lambda n: count[n], default=""), max(count, key=lambda n: count[n], default="")
        while count and count[rich] - count[poor] > 1:
            key = next(key for key, name in target.items() if name == rich)
            target[key] = poor
            count[rich], count[poor] = count[rich] - 1, count[poor] + 1
            poor, rich = min(count, key=lambda n: count[n]), max(count, key=lambda n: count[n])
        return target

    def _topics(self, said: GroupHeartbeat) -> list[str]:
        if said.pattern:
            return [topic for topic in self.cluster.logs if re.fullmatch(said.pattern, topic)]
        return [topic for topic in said.topics if topic in self.cluster.logs]

    def _leave(self, message: LeaveGroup) -> Ok:
        member = self.group(message.group).members.get(message.member_id)
        if member is not None and member.said.instance_id:
            member.away = True
            return Ok()
        self._remove(self.group(message.group), message.member_id)
        return Ok()

    def _commit(self, message: CommitOffsets) -> CommitOffsetsReply:
        group = self.group(message.group)
        if not message.member_id and group.members:
            raise GroupNotEmpty(f"the group has {len(group.members)} members")
        if not message.member_id and message.member_epoch not in (UNSAID, group.epoch):
            raise GroupChanged(f"the group is at epoch {group.epoch}")
        if message.member_id:
            member = group.members.get(message.member_id)
            if member is None:
                raise UnknownMember(f"there is no member {message.member_id}")
            if message.member_epoch != member.epoch:
                raise StaleMemberEpoch(f"epoch {message.member_epoch} is not {member.epoch}")
            for entry in message.offsets:
                if group.owners.get((entry.topic, entry.partition)) != message.member_id:
                    raise NotAssigned(f"{entry.topic}-{entry.partition} is not this member's")
                if group.topic_ids[entry.topic, entry.partition] != self.cluster.topic_ids.get(entry.topic):
                    raise UnknownTopic(f"{entry.topic} was deleted and made anew")
        for entry in message.offsets:
            if entry.topic_id not in ("", self.cluster.topic_ids[entry.topic]):
                raise InconsistentTopicId(f"{entry.topic} does not have topic id {entry.topic_id}")
        if not message.member_id:
            group.epoch += 1
        group.commits.append(message)  # before the offsets, which another thread may wait for
        for entry in message.offsets:
            group.offsets[entry.topic, entry.partition] = CommittedOffset(
                entry.topic, entry.partition, entry.offset, entry.leader_epoch, entry.metadata, 1,
                self.cluster.topic_ids[entry.topic],
            )  # fmt: skip
        return CommitOffsetsReply()

    def _committed(self, message: CommittedOffsets) -> CommittedOffsetsReply:
        ids = self.cluster.topic_ids
        offsets = {
            key: found for key, found in self.group(message.group).offsets.items() if found.topic_id == ids.get(key[0])
        }
        if message.partitions is None:
            return CommittedOffsetsReply([offsets[key] for key in sorted(offsets)])
        shown = []
        for entry in message.partitions:
            for partition in entry.partitions:
                found = offsets.get((entry.topic, partition))
                is_meant = found is not None and entry.topic_id in ("", found.topic_id)
                shown.append(found if found and is_meant else CommittedOffset(entry.topic, partition))
        return CommittedOffsetsReply(shown)

    def _info(self, name: str) -> GroupInfo:
        group = self.groups[name]
        state = "stable" if group.members else "empty"
        return GroupInfo(name, state, group.epoch, len(group.members), "sticky")

    def _list(self, _message: ListGroups) -> ListGroupsReply:
        return ListGroupsReply([self._info(name) for name in sorted(self.groups)], missing=self.missing)

    def _describe(self, message: DescribeGroup) -> DescribeGroupReply:
        if message.group not in self.groups:
            raise UnknownGroup(f"there is no group {message.group!r}")
        owned = self.owned(message.group)
        members = [
            GroupMember(name, member.epoch, topics=member.said.topics, owned=member.said.owned,
                        assignment=by_topic(owned[name]))
            for name, member in self.groups[message.group].members.items()
        ]  # fmt: skip
        return DescribeGroupReply(self._info(message.group), members, self.broker)

    def _delete(self, message: DeleteGroup) -> DeleteGroupReply:
        if message.group not in self.groups:
            raise UnknownGroup(f"there is no group {message.group!r}")
        group = self.groups[message.group]
        if group.members:
            raise GroupNotEmpty(f"the group has {len(group.members)} members")
        if message.group_epoch not in (UNSAID, group.epoch):
            raise GroupChanged(f"the group is at epoch {group.epoch}")
        if message.partitions is None:
            del self.groups[message.group]
        for entry in message.partitions or []:
            for partition in entry.partitions:
                group.offsets.pop((entry.topic, partition), None)
        return DeleteGroupReply()

    def _add_partitions(self, message: AddPartitions) -> Ok:
        if message.topic_id not in ("", self.cluster.topic_ids[message.topic]):
            raise UnknownTopic(f"there is no {message.topic} with topic id {message.topic_id}")
        there = len(self.cluster.logs[message.topic])
        if message.partitions <= there:
            raise InvalidRequest(f"{message.topic} has {there} partitions and cannot have {message.partitions}")
        self.cluster.grow(message.topic, message.partitions)
        return Ok(self.cluster.metadata_offset)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _named(keys: set[Key], topic_ids: dict[Key, str]) -> list[TopicPartitions]:
    """By topic. All partitions of one that are held are of the same topic id."""
    topics = {topic: sorted(partition for name, partition in keys if name == topic) for topic, _ in sorted(keys)}
    return [TopicPartitions(topic, found, topic_ids[topic, found[0]]) for topic, found in topics.items()]


def partitions(*numbers: int, topic: str = "t") -> list[TopicPartitions]:
    return [TopicPartitions(topic, list(numbers))]
