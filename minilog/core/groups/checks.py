"""What a request about groups must be like before anything is decided. Each refusal names what was
seen and is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from minilog.config import BrokerSettings
from minilog.core.groups.assignment import ASSIGNORS
from minilog.core.groups.membership import Topics, held_id
from minilog.core.groups.state import GroupState
from minilog.errors import (
    GroupChanged,
    InstanceInUse,
    InvalidGroup,
    InvalidRequest,
    NotAssigned,
    StaleMemberEpoch,
    UnknownMember,
    UnknownPartition,
    UnknownTopic,
)
from minilog.wire.group_messages import JOIN, UNSAID, CommitOffsets, GroupHeartbeat
from minilog.wire.journal.group_records import GroupValue, MemberValue

NAME_CHARS_MAX: Final = 249
METADATA_CHARS_MAX: Final = 4096
TOPICS_MAX: Final = 1000
PATTERNS_MAX: Final = 20
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_LEAST_EPOCH: Final = -1


def check_name(group: str) -> None:
    if not _NAME.fullmatch(group):
        raise InvalidGroup(
            f"{group[:300]!r} is no group name; use 1 to {NAME_CHARS_MAX} of the characters A-Z a-z 0-9 . _ -"
        )


def check_heartbeat(request: GroupHeartbeat, settings: BrokerSettings) -> None:
    check_name(request.group)
    if not 1 <= len(request.member_id) <= NAME_CHARS_MAX:
        raise InvalidRequest(f"member_id has 1 to {NAME_CHARS_MAX} characters, this one {len(request.member_id)}")
    if len(request.instance_id) > NAME_CHARS_MAX or len(request.client_id) > NAME_CHARS_MAX:
        raise InvalidRequest(f"instance_id and client_id have at most {NAME_CHARS_MAX} characters")
    if request.member_epoch < JOIN:
        raise InvalidRequest(
            f"member_epoch={request.member_epoch} is not allowed; use {JOIN} to join, or the last one told"
        )
    if request.member_epoch == JOIN and request.owned:
        raise InvalidRequest("a member that joins owns nothing yet; give everything back first, and leave owned empty")
    if bool(request.topics) == bool(request.pattern):
        raise InvalidRequest("a member subscribes to topics or to a pattern: name one of the two, and not both")
    if any(len(topic) > NAME_CHARS_MAX for topic in request.topics):
        raise InvalidRequest(f"names of topics have at most {NAME_CHARS_MAX} characters")
    if len(request.topics) > TOPICS_MAX:
        raise InvalidRequest(f"a subscription names at most {TOPICS_MAX} topics, this one {len(request.topics)}")
    if request.assignor not in ASSIGNORS:
        raise InvalidRequest(f"assignor {request.assignor!r} is not known; use one of {', '.join(sorted(ASSIGNORS))}")
    least, most = settings.group_session_timeout_ms_min, settings.group_session_timeout_ms_max
    if not least <= request.session_timeout_ms <= most:
        raise InvalidRequest(f"session_timeout_ms={request.session_timeout_ms} is not allowed; use {least} to {most}")
    if not 1 <= request.poll_timeout_ms <= 2**31:
        raise InvalidRequest(f"poll_timeout_ms={request.poll_timeout_ms} is not allowed; use 1 to {2**31}")


def check_patterns(request: GroupHeartbeat, members: Mapping[str, MemberValue]) -> None:
    """Every pattern is compared with every topic when a coordinator begins."""
    patterns = {member.pattern for member_id, member in members.items() if member_id != request.member_id}
    if request.pattern and request.pattern not in patterns and len(patterns - {""}) >= PATTERNS_MAX:
        raise InvalidRequest(
            f"the members of group {request.group!r} already use {PATTERNS_MAX} different patterns, the limit; "
            f"use one of them instead of {request.pattern!r}, or name the topics"
        )


def least_epoch(member_id: str, state: GroupState) -> int:
    """The last one the member has named itself, or the one it joined at."""
    joined, session = state.group.members[member_id].joined_epoch, state.sessions.get(member_id)
    return joined if session is None else max(session.named_epoch, joined)


def check_member(member_id: str, member_epoch: int, state: GroupState) -> None:
    group = state.group
    member = group.members.get(member_id)
    if member is None or member.away or state.is_expelled(member_id):
        raise UnknownMember(f"{member_id!r} is no member of the group (any more); drop all partitions and join anew")
    least = least_epoch(member_id, state)
    if not least <= member_epoch <= group.epoch:
        raise StaleMemberEpoch(
            f"member epoch {member_epoch} of {member_id!r} is not between {least}, the last one it was known at, "
            f"and {group.epoch}, the group's; drop all partitions and join anew"
        )


def check_owned(request: GroupHeartbeat, group: GroupValue) -> None:
    member = group.members[request.member_id]
    for entry in request.owned:
        held = member.held.get(entry.topic, {})
        known_id = held_id(group, entry.topic)
        is_other = bool(known_id) and entry.topic_id not in ("", known_id)
        for partition in entry.partitions:
            given = held.get(partition)
            if given is None or is_other:
                raise NotAssigned(
                    f"{request.member_id!r} says it owns {entry.topic}-{partition}, which is not given to it; "
                    "drop all partitions and join anew"
                )
            if given.epoch > request.member_epoch:
                raise StaleMemberEpoch(
                    f"{request.member_id!r} says it owns {entry.topic}-{partition} at epoch {request.member_epoch}, "
                    f"but was given it at {given.epoch}; drop all partitions and join anew"
                )


def check_seen(name: str, seen_epoch: int, state: GroupState | None) -> None:
    """Whoever names an epoch means the group as it was then, 0: no group."""
    epoch = 0 if state is None else state.group.epoch
    if seen_epoch not in (UNSAID, epoch):
        raise GroupChanged(
            f"the request is about group {name!r} at epoch {seen_epoch}, it is at {epoch} now; nothing was changed: "
            "look at the group again",
            group_epoch=epoch,
        )


def check_commit(request: CommitOffsets, topics: Topics) -> None:
    check_name(request.group)
    if not request.offsets:
        raise InvalidRequest("the commit names no partition")
    for entry in request.offsets:
        shape = topics.get(entry.topic)
        if shape is None:
            raise UnknownTopic(f"there is no topic {entry.topic!r}; nothing was committed")
        if not 0 <= entry.partition < shape.partitions:
            raise UnknownPartition(
                f"topic {entry.topic} has partitions 0 to {shape.partitions - 1}, not {entry.partition}; nothing was committed"
            )
        if not 0 <= entry.offset < 2**63 or not _LEAST_EPOCH <= entry.leader_epoch < 2**31:
            raise InvalidRequest(
                f"{entry.topic}-{entry.partition}: offset {entry.offset} at leader epoch {entry.leader_epoch} is not allowed; "
                "offsets are 0 and above, epochs -1 (unknown) and above"
            )
        if len(entry.metadata) > METADATA_CHARS_MAX:
            raise InvalidRequest(
                f"{entry.topic}-{entry.partition}: metadata has {len(entry.metadata)} characters, allowed are {METADATA_CHARS_MAX}"
            )


def unavailable_instance(request: GroupHeartbeat, member_id: str) -> InstanceInUse:
    return InstanceInUse(
        f"instance {request.instance_id!r} of group {request.group!r} is {member_id!r}, which is in session; "
        "it must leave or its session must end first: retry",
        member_id=member_id,
    )
