"""Requests and responses of consumer groups (the protocol in the spirit of KIP-848).

A group lives on its *coordinator*: the leader of partition ``murmur2(group) % partitions`` of the
internal topic ``__groups``. Any broker takes these messages and forwards them to it. A broker that
gets one it is not the coordinator for and that must not be forwarded again answers NotCoordinator.

A member is known by an id it makes itself, so joining is idempotent. It says in every heartbeat
what it subscribes to and what it owns. The answer says what it is to own. A partition is given to a
member only after its last owner has said that it owns it no more, has left, or was fenced.
``member_epoch`` is the group epoch of the assignment the member has been told last; 0 joins.
"""

from __future__ import annotations

import msgspec

from minilog.wire.bounded import Id, Int64, Many, Milliseconds, Name, Text
from minilog.wire.message_base import Message, Problem

GROUPS_TOPIC = "__groups"
JOIN = 0
UNSAID = -1
"""For an epoch or a number that a request does not name."""


class TopicPartitions(msgspec.Struct, order=True, omit_defaults=True):
    """Partitions of one topic, ascending. ``topic_id``: of the very topic; "" where a request does
    not say."""

    topic: Name
    partitions: Many[Int64]
    topic_id: Id = ""


class GroupHeartbeat(Message):
    """Join (``member_epoch`` 0) and heartbeat in one. ``topics`` or ``pattern`` (a whole-name
    regular expression in RE2's subset), not both. ``owned``: what the member holds and processes
    now, also what it is about to give back. A join of a member that is in the group is taken for a
    copy: what is new in it counts when it is said with the epoch that the member was told.

    ``instance_id``, when given, makes a static member: when the old one has left or its session is
    over, a new member id takes over its place, until then it is refused with InstanceInUse and asks
    again. ``poll_timeout_ms`` bounds how long a member may take to give partitions back."""

    group: Name
    member_id: Name
    member_epoch: Int64
    topics: Many[Name] = []
    pattern: Name = ""
    owned: Many[TopicPartitions] = []
    assignor: Name = "sticky"
    instance_id: Name = ""
    client_id: Name = ""
    session_timeout_ms: Milliseconds = 10_000
    poll_timeout_ms: Milliseconds = 300_000


class GroupHeartbeatReply(Message):
    """``assignment`` is all the member may hold at ``member_epoch``: it gives back what is missing
    in it, says so with its next heartbeat, and may start on what is new at once. ``pending`` counts
    partitions that it will get as soon as their owners have let go."""

    member_id: Name
    member_epoch: Int64
    heartbeat_interval_ms: Milliseconds
    assignment: Many[TopicPartitions]
    pending: Int64 = 0


class LeaveGroup(Message):
    """Frees the member's partitions at once. Those of a static member wait for its next process
    until its session is over. Leaving a group twice is not an error. Answered by Ok.

    ``member_epoch``: the last one the member was told. A copy that arrives late is of a membership
    that is over, and changes nothing. -1 speaks of whoever has the id now: only for ids that are
    used once."""

    group: Name
    member_id: Name
    member_epoch: Int64 = -1


class OffsetCommit(msgspec.Struct, omit_defaults=True):
    """``offset``: the next record to read. ``leader_epoch``: of the record before it, -1 unknown
    (R23).

    ``topic_id``: of the topic that was read. Without one it is the topic the member was given, or
    the one there is."""

    topic: Name
    partition: Int64
    offset: Int64
    leader_epoch: Int64 = -1
    metadata: Text = ""
    topic_id: Id = ""


class CommitOffsets(Message):
    """All or nothing per request. By a member: with its id and epoch, for partitions it was given
    and has not given back. Without a member (``member_id`` empty): only while the group has no
    members, and ``member_epoch``, if it is not -1, is the group epoch that was seen (0: there was
    no group).

    ``sequence``: the member counts its commits. A repeated request keeps its number. A copy that
    arrives after a later commit of that member to one of the partitions is refused with
    GroupChanged. -1: whatever comes last counts."""

    group: Name
    offsets: Many[OffsetCommit]
    member_id: Name = ""
    member_epoch: Int64 = -1
    sequence: Int64 = -1


class CommitOffsetsReply(Message):
    """Durable on the coordinator's ISR."""


class CommittedOffset(msgspec.Struct, omit_defaults=True):
    """``offset`` None: nothing is committed. ``committed_ms``: when, in ms since the epoch."""

    topic: Name
    partition: Int64
    offset: Int64 | None = None
    leader_epoch: Int64 = -1
    metadata: Text = ""
    committed_ms: Milliseconds = 0
    topic_id: Id = ""


class CommittedOffsets(Message):
    """``partitions`` None: everything the group has committed."""

    group: Name
    partitions: Many[TopicPartitions] | None = None


class CommittedOffsetsReply(Message):
    offsets: Many[CommittedOffset]


class GroupMember(msgspec.Struct, omit_defaults=True):
    """``owned`` as last heard from the member, ``assignment`` what it is to own in the end."""

    member_id: Name
    member_epoch: Int64
    client_id: Name = ""
    instance_id: Name = ""
    topics: Many[Name] = []
    pattern: Name = ""
    owned: Many[TopicPartitions] = []
    assignment: Many[TopicPartitions] = []
    heartbeat_age_ms: Milliseconds = 0


class GroupInfo(msgspec.Struct, omit_defaults=True):
    """``state``: empty, rebalancing, stable."""

    group: Name
    state: Name
    group_epoch: Int64
    members: Int64
    assignor: Name = ""
    rebalances: Int64 = 0
    """That have ended since its coordinator of the moment has been it."""


class MissingGroups(msgspec.Struct, order=True):
    """A partition of the groups' topic whose groups could not be listed, and why."""

    partition: Int64
    code: Name
    detail: Text


class ListGroups(Message):
    """The groups the receiver coordinates. From a client: all groups of the cluster."""


class ListGroupsReply(Message):
    """``groups`` of the ``partitions`` that answered. Those of ``missing`` are not among them, if
    there are any."""

    groups: Many[GroupInfo]
    partitions: Many[Int64] = []
    missing: Many[MissingGroups] = []


class DescribeGroup(Message):
    group: Name


class DescribeGroupReply(Message):
    group: GroupInfo
    members: Many[GroupMember]
    coordinator: Int64
    rebalances: Int64 = 0
    last_rebalance_ms: Milliseconds | None = None
    """How long the last one took, from the change to the last member at the new epoch."""


class DeleteGroup(Message):
    """Only a group without members. With ``partitions``: only the offsets of those.

    ``group_epoch``: the one that was seen; refused with GroupChanged when it is another one now. A
    group that is made anew has a greater one than any of that name before it. -1: whichever group
    has the name now."""

    group: Name
    partitions: Many[TopicPartitions] | None = None
    group_epoch: Int64 = -1


class DeleteGroupReply(Message):
    problem: Problem | None = None


class ForwardedGroupRequest(Message):
    """From broker to broker: ``message`` is one of the requests above, encoded. The receiver
    answers for itself and sends it on to nobody."""

    message: memoryview
    principal: Name = ""


GroupRequest = GroupHeartbeat | LeaveGroup | CommitOffsets | CommittedOffsets | ListGroups | DescribeGroup | DeleteGroup
