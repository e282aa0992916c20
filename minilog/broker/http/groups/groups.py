"""Consumer groups over JSON, for any language: any broker takes these and passes them on to the
coordinator.

A member's life with nothing but HTTP: PUT its heartbeat with ``member_epoch`` 0; work on what
``assignment`` names; PUT again within the session timeout with the epoch it was told and what it
``owned``; commit with id and epoch; DELETE.

Proxies and networks deliver some requests twice, and late. Commits with a ``sequence``, a DELETE of
a member with its ``member_epoch`` and one of a group with its ``group_epoch`` change nothing then.
What nothing guards: a copy of a *join* whose member has left since makes it a member for one more
session. Two processes that use one member id at the same time are one member, so an id is used by
one process, once. A copy of a commit that made the group, delivered after the group was deleted,
makes it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from minilog.broker.group_lag import measure, with_assigned
from minilog.broker.http.exchange import Exchange, Handler, HttpContext, Reply, checked, json_answer
from minilog.broker.http.groups.group_forward import group_call
from minilog.broker.http.records.cursor import commits_of, cursor_of
from minilog.errors import InvalidRequest, UnknownGroup
from minilog.wire.bounded import Int64
from minilog.wire.group_messages import (
    UNSAID,
    CommitOffsets,
    CommitOffsetsReply,
    CommittedOffsets,
    CommittedOffsetsReply,
    DeleteGroup,
    DeleteGroupReply,
    DescribeGroup,
    DescribeGroupReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    GroupMember,
    GroupRequest,
    LeaveGroup,
    ListGroups,
    ListGroupsReply,
    OffsetCommit,
    TopicPartitions,
)
from minilog.wire.http import topic_name
from minilog.wire.json.json_answers import (
    GroupDeleted,
    GroupDescription,
    GroupsFound,
    MemberLeft,
    MemberState,
    OffsetsCommitted,
    OffsetsFound,
)
from minilog.wire.json.json_records import DECODE_ERRORS, reason
from minilog.wire.json.lag_answers import LagOfGroup
from minilog.wire.messages import Ok

RequestBody = TypeVar("RequestBody", bound=msgspec.Struct)


class HeartbeatBody(msgspec.Struct, forbid_unknown_fields=True):
    """``topics`` or ``pattern``. ``member_epoch`` 0 joins. ``owned`` is what the member works on at
    this moment."""

    member_epoch: Int64 = 0
    topics: list[str] = []
    pattern: str = ""
    owned: list[TopicPartitions] = []
    assignor: str = "sticky"
    instance_id: str = ""
    client_id: str = ""
    session_timeout_ms: Int64 = 10_000
    poll_timeout_ms: Int64 = 300_000


class CommitBody(msgspec.Struct, forbid_unknown_fields=True):
    """``offset`` is the next record to read. In the place of ``offsets``: a ``cursor`` of a whole
    ``topic``, as its records have it. Without ``member_id``: only while the group has no
    members, and ``member_epoch`` may name the group epoch that was seen (0: no group).

    ``sequence``: count the commits of a member id, and keep the number when a request is repeated:
    then a copy that a proxy delivers late takes no offset back. Without it whatever arrives last
    counts."""

    offsets: list[OffsetCommit] | UnsetType = UNSET
    topic: str = ""
    cursor: str = ""
    member_id: str = ""
    member_epoch: Int64 = -1
    sequence: Int64 = -1


_heartbeats = msgspec.json.Decoder(HeartbeatBody)
_commits = msgspec.json.Decoder(CommitBody)
_HEARTBEAT_SHAPE: Final = '{"member_epoch", "topics" or "pattern", "owned"?, "session_timeout_ms"?, ...}'
_COMMIT_SHAPE: Final = (
    '{"offsets": [{"topic", "partition", "offset"}] or "topic" and "cursor", "member_id"?, "member_epoch"?}'
)


async def heartbeat(context: HttpContext, exchange: Exchange) -> web.Response:
    body = await _body(exchange, _heartbeats, _HEARTBEAT_SHAPE)
    exchange.end_with_client()
    fields = {name: getattr(body, name) for name in HeartbeatBody.__struct_fields__}
    message = GroupHeartbeat(exchange.values["group"], exchange.values["member"], **fields)
    reply = await _call(context, message, GroupHeartbeatReply)
    return json_answer(
        MemberState(reply.member_id, reply.member_epoch, reply.heartbeat_interval_ms, reply.assignment, reply.pending)
    )


async def leave(context: HttpContext, exchange: Exchange) -> web.Response:
    group, member = exchange.values["group"], exchange.values["member"]
    await _call(context, LeaveGroup(group, member, exchange.query.get("member_epoch", UNSAID)), Ok)
    return json_answer(MemberLeft(group, member))


async def list_groups(context: HttpContext, exchange: Exchange) -> web.Response:
    reply = await _call(context, ListGroups(), ListGroupsReply)
    return json_answer(GroupsFound(reply.groups, reply.missing))


async def describe_group(context: HttpContext, exchange: Exchange) -> web.Response:
    reply = await _call(context, DescribeGroup(exchange.values["group"]), DescribeGroupReply)
    return json_answer(
        GroupDescription(reply.group, reply.members, reply.coordinator, reply.rebalances, reply.last_rebalance_ms)
    )


async def delete_group(context: HttpContext, exchange: Exchange) -> web.Response:
    group = exchange.values["group"]
    reply = await _call(
        context, DeleteGroup(group, group_epoch=exchange.query.get("group_epoch", UNSAID)), DeleteGroupReply
    )
    if reply.problem is not None:
        raise reply.problem.error()
    return json_answer(GroupDeleted(group))


async def committed_offsets(context: HttpContext, exchange: Exchange) -> web.Response:
    return json_answer(OffsetsFound((await _committed(context, exchange.values["group"])).offsets))


async def commit_offsets(context: HttpContext, exchange: Exchange) -> web.Response:
    body = await _body(exchange, _commits, _COMMIT_SHAPE)
    offsets = _of_cursor(context, body) if isinstance(body.offsets, UnsetType) else body.offsets
    message = CommitOffsets(exchange.values["group"], offsets, body.member_id, body.member_epoch, body.sequence)
    await _call(context, message, CommitOffsetsReply)
    return json_answer(OffsetsCommitted(message.group, len(offsets)))


def _of_cursor(context: HttpContext, body: CommitBody) -> list[OffsetCommit]:
    if not (body.cursor and body.topic):
        raise InvalidRequest(f"the body must be {_COMMIT_SHAPE}: it has neither offsets, nor a cursor and its topic")
    return commits_of(context, topic_name(body.topic), cursor_of("cursor", body.cursor))


async def group_lag(context: HttpContext, exchange: Exchange) -> web.Response:
    group = exchange.values["group"]
    found, members = await asyncio.gather(_committed(context, group), _members(context, group))
    if members is None and not found.offsets:
        raise UnknownGroup(f"there is no group {group!r}: it has no members, and nothing is committed")
    lags = await measure(context.runtime, with_assigned(found.offsets, members or []))
    known = all(lag.lag is not None for lag in lags)
    records = sum(lag.lag or 0 for lag in lags) if known else None
    seconds = max((lag.lag_seconds or 0.0 for lag in lags), default=0.0) if known else None
    return json_answer(LagOfGroup(group, records, seconds, lags, sum(lag.lost or 0 for lag in lags)))


async def _committed(context: HttpContext, group: str) -> CommittedOffsetsReply:
    return await _call(context, CommittedOffsets(group), CommittedOffsetsReply)


async def _members(context: HttpContext, group: str) -> list[GroupMember] | None:
    """None: there is no such group."""
    try:
        return (await _call(context, DescribeGroup(group), DescribeGroupReply)).members
    except UnknownGroup:
        return None


async def _body(exchange: Exchange, decoder: msgspec.json.Decoder[RequestBody], shape: str) -> RequestBody:
    exchange.media_in()
    try:
        return decoder.decode(await exchange.body.read())
    except DECODE_ERRORS as error:
        raise InvalidRequest(f"the body must be {shape}: {reason(error)}") from None


async def _call(context: HttpContext, message: GroupRequest, wanted: type[Reply]) -> Reply:
    """The coordinator's answer; raises the error it stands for."""
    return checked(await group_call(context, message), wanted)


HANDLERS: Final[Mapping[str, Handler]] = {
    "group_heartbeat": heartbeat,
    "leave_group": leave,
    "list_groups": list_groups,
    "describe_group": describe_group,
    "delete_group": delete_group,
    "committed_offsets": committed_offsets,
    "commit_offsets": commit_offsets,
    "group_lag": group_lag,
}
