"""Committed offsets of one group: who may commit, what is shown, what goes. Pure: records out,
nothing changes here.

Invariants: a commit is all or nothing. One by a member counts only for partitions it holds, given
to it no later than the epoch it names, so no zombie can move an offset of a partition that is
another's by now. An offset of a topic that was deleted means nothing for a later topic of the same
name. A member that counts its commits is not taken back by a copy of an older one, by any
coordinator: each offset says which commit it is of.
"""

from __future__ import annotations

from msgspec.structs import replace

from minilog.core.groups.assignment import TopicPart
from minilog.core.groups.membership import Topics, held_id, parts_of
from minilog.core.groups.state import GroupState
from minilog.errors import (
    GroupChanged,
    GroupNotEmpty,
    InconsistentTopicId,
    NotAssigned,
    StaleMemberEpoch,
    UnknownMember,
    UnknownTopic,
)
from minilog.wire.group_messages import (
    UNSAID,
    CommitOffsets,
    CommittedOffset,
    CommittedOffsets,
    CommittedOffsetsReply,
    OffsetCommit,
    TopicPartitions,
)
from minilog.wire.journal.group_records import GroupKey, GroupRecord, GroupValue, OffsetKey, OffsetValue

Records = list[GroupRecord]


def commit(request: CommitOffsets, state: GroupState | None, topics: Topics, wall_ms: int) -> Records:
    """Raises UnknownMember, StaleMemberEpoch, NotAssigned, UnknownTopic, InconsistentTopicId,
    GroupChanged or GroupNotEmpty. Offsets are checked already."""
    if request.member_id:
        _check_member(request, state)
    elif state is not None and state.group.members:
        raise GroupNotEmpty(
            f"group {request.group!r} has {len(state.group.members)} members, so only they may commit; "
            "name member_id and member_epoch, or stop them first"
        )
    records = []
    for entry in request.offsets:
        topic_id = topics[entry.topic].topic_id
        _check_topic(entry, topic_id, state if request.member_id else None)
        _check_order(request, entry, state)
        who = (request.member_id, request.sequence) if request.member_id else ("", UNSAID)
        value = OffsetValue(entry.offset, entry.leader_epoch, entry.metadata, wall_ms, topic_id, *who)
        records.append(GroupRecord(OffsetKey(request.group, entry.topic, entry.partition), value))
    return records


def _check_order(request: CommitOffsets, entry: OffsetCommit, state: GroupState | None) -> None:
    """No later commit of this member is here already."""
    last = None if state is None else state.offsets.get((entry.topic, entry.partition))
    if last is None or request.sequence == UNSAID or last.member_id != request.member_id:
        return
    if request.sequence < last.sequence:
        raise GroupChanged(
            f"{entry.topic}-{entry.partition}: {request.member_id!r} has made commit {last.sequence} since, to offset "
            f"{last.offset}; this is {request.sequence}, and nothing of it was committed"
        )


def _check_topic(entry: OffsetCommit, topic_id: str, state: GroupState | None) -> None:
    """The offset is of the topic there is, and not of one of that name that was deleted."""
    held = "" if state is None else held_id(state.group, entry.topic)
    if held not in ("", topic_id):
        raise UnknownTopic(
            f"{entry.topic} was deleted and made anew: the offset is of topic id {entry.topic_id or held}, the partition "
            f"was given with {held}, the topic there is has {topic_id}; nothing was committed",
            topic_id=topic_id,
        )
    if entry.topic_id not in ("", topic_id):
        raise InconsistentTopicId(
            f"the offset is of topic id {entry.topic_id}, the topic {entry.topic} that the coordinator knows has {topic_id}: "
            "one of the two is old; nothing was committed",
            topic_id=topic_id,
        )


def _check_member(request: CommitOffsets, state: GroupState | None) -> None:
    """Its epoch may be older than the last one it has named: a commit may be on its way while a
    heartbeat is answered."""
    member = None if state is None else state.group.members.get(request.member_id)
    if state is None or member is None or member.away or state.is_expelled(request.member_id):
        raise UnknownMember(
            f"{request.member_id!r} is no member of group {request.group!r} (any more); nothing was committed"
        )
    if not member.joined_epoch <= request.member_epoch <= state.group.epoch:
        raise StaleMemberEpoch(
            f"member epoch {request.member_epoch} of {request.member_id!r} is not between {member.joined_epoch}, "
            f"when it joined, and {state.group.epoch}, the group's; nothing was committed"
        )
    for entry in request.offsets:
        given = member.held.get(entry.topic, {}).get(entry.partition)
        if given is None:
            raise NotAssigned(
                f"{entry.topic}-{entry.partition} is not given to {request.member_id!r}; nothing was committed"
            )
        if given.epoch > request.member_epoch:
            raise StaleMemberEpoch(
                f"{entry.topic}-{entry.partition} was given to {request.member_id!r} at epoch {given.epoch}, "
                f"the commit is of {request.member_epoch}; nothing was committed"
            )


def committed(request: CommittedOffsets, state: GroupState | None, topics: Topics) -> CommittedOffsetsReply:
    offsets = {} if state is None else {p: v for p, v in state.offsets.items() if _is_current(p, v, topics)}
    if request.partitions is None:
        return CommittedOffsetsReply([_shown(part, offsets[part]) for part in sorted(offsets)])
    shown = []
    for entry in request.partitions:
        for partition in entry.partitions:
            value = offsets.get((entry.topic, partition))
            is_meant = value is not None and entry.topic_id in ("", value.topic_id)
            shown.append(_shown((entry.topic, partition), value if is_meant else None))
    return CommittedOffsetsReply(shown)


def _shown(part: TopicPart, value: OffsetValue | None) -> CommittedOffset:
    if value is None:
        return CommittedOffset(*part)
    topic, partition = part
    return CommittedOffset(
        topic, partition, value.offset, value.leader_epoch, value.metadata, value.committed_ms, value.topic_id
    )


def _is_current(part: TopicPart, value: OffsetValue, topics: Topics) -> bool:
    shape = topics.get(part[0])
    return shape is not None and shape.topic_id == value.topic_id


def outlived(name: str, state: GroupState, topics: Topics) -> Records:
    """Tombstones for the offsets of topics that are gone."""
    gone = [part for part, value in state.offsets.items() if not _is_current(part, value, topics)]
    return [GroupRecord(OffsetKey(name, *part), None) for part in gone]


def forget(name: str, state: GroupState, partitions: list[TopicPartitions]) -> Records:
    """Tombstones for some offsets of a group; raises GroupNotEmpty when one of the partitions is a
    member's, or will be."""
    records = []
    heirs = {part: member_id for member_id, member in state.group.members.items() for part in parts_of(member.target)}
    for entry in partitions:
        for partition in entry.partitions:
            owner = state.owners.get((entry.topic, partition))
            if owner is not None:
                raise GroupNotEmpty(f"{entry.topic}-{partition} is given to member {owner!r}; nothing was deleted")
            heir = heirs.get((entry.topic, partition))
            if heir is not None:
                raise GroupNotEmpty(
                    f"{entry.topic}-{partition} is to be given to member {heir!r}, which goes on where the group is; "
                    "nothing was deleted"
                )
            value = state.offsets.get((entry.topic, partition))
            if value is not None and entry.topic_id in ("", value.topic_id):
                records.append(GroupRecord(OffsetKey(name, entry.topic, partition), None))
    return records


def next_epoch(name: str, group: GroupValue) -> GroupRecord:
    """Nobody's commit is known by the epoch it makes: a copy of it names an older one."""
    return GroupRecord(GroupKey(name), replace(group, epoch=group.epoch + 1, unused_ms=0))


def farewell(name: str, state: GroupState) -> Records:
    """Tombstones for the group and everything it has committed."""
    records = [GroupRecord(OffsetKey(name, *part), None) for part in state.offsets]
    return [*records, GroupRecord(GroupKey(name), None)]
