"""Group messages: any broker takes them, and passes each on once to the coordinator of its group.

What the local core answers decides: it knows who coordinates. A coordinator that is being made,
elected or loaded is waited for a little, because all three take a moment only, and every client
would ask again in just the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from minilog.broker.http.exchange import HttpContext
from minilog.core.image import ClusterImage
from minilog.errors import CoordinatorNotAvailable, InvalidRequest, NotCoordinator
from minilog.wire.group_messages import (
    GROUPS_TOPIC,
    ForwardedGroupRequest,
    GroupInfo,
    GroupRequest,
    ListGroups,
    ListGroupsReply,
    MissingGroups,
)
from minilog.wire.journal.metadata_records import NO_LEADER, PartitionChanged
from minilog.wire.messages import Message, NotAMessage, Problem, decode, encode
from minilog.wire.sizes import check_size

PATIENCE_MS: Final = 1500
"""How long a coordinator that is not there yet is waited for."""
PAUSE_MS: Final = 50


async def group_call(context: HttpContext, message: GroupRequest) -> Message:
    """The coordinator's answer, wherever it is. A Problem when it failed there or on the way."""
    if isinstance(message, ListGroups):
        return await _list_all(context, message)
    loop = asyncio.get_running_loop()
    give_up = loop.time() + PATIENCE_MS / 1000
    while True:
        reply = await _call_once(context, message)
        if not _may_come(reply) or loop.time() >= give_up:
            return reply
        await asyncio.sleep(PAUSE_MS / 1000)


async def answer_forwarded(
    context: HttpContext, message: ForwardedGroupRequest, permit: Callable[[Message], None]
) -> Message:
    """A group message that another broker has sent on: answered here or nowhere. ``permit`` raises
    Forbidden where who has asked may not (R127)."""
    try:
        check_size(message.message)
        inner = decode(message.message)
    except NotAMessage as error:
        raise InvalidRequest(f"what was forwarded is not one message in msgpack: {error}") from None
    if not isinstance(inner, GroupRequest):
        raise InvalidRequest(f"what was forwarded is a {type(inner).__name__}; only group messages are")
    permit(inner)
    return await context.runtime.submit(inner)


def _may_come(reply: Message) -> bool:
    return isinstance(reply, Problem) and reply.code in (CoordinatorNotAvailable.code, NotCoordinator.code)


async def _call_once(context: HttpContext, message: GroupRequest) -> Message:
    reply = await context.runtime.submit(message)
    if not isinstance(reply, Problem) or reply.code != NotCoordinator.code:
        return reply
    return await _forward(context, str(reply.info["coordinator_url"]), message)


async def _forward(context: HttpContext, url: str, message: GroupRequest) -> Message:
    settings = context.runtime.settings
    forwarded = ForwardedGroupRequest(memoryview(encode(message)))
    return await context.runtime.call(url, forwarded, settings.group_wait_ms + settings.peer_timeout_ms)


async def _list_all(context: HttpContext, message: ListGroups) -> Message:
    """Everybody's groups, and which partitions of the groups' topic are missing in them. A Problem
    when nobody answers."""
    image = context.image
    others = [b for b in image.brokers.values() if not b.fenced and b.broker_id != context.broker_id]
    asked = [context.broker_id, *(b.broker_id for b in others)]
    calls = [context.runtime.submit(message), *(_forward(context, b.url, message) for b in others)]
    replies = dict(zip(asked, await asyncio.gather(*calls), strict=True))
    if not any(isinstance(reply, ListGroupsReply) for reply in replies.values()):
        return replies[context.broker_id]
    return listed(image, replies)


def listed(image: ClusterImage, replies: Mapping[int, Message]) -> ListGroupsReply:
    """One list of what each broker answered. Pure. A partition that anybody answered for is not
    missing."""
    found: dict[str, GroupInfo] = {}
    answered: set[int] = set()
    missing: dict[int, MissingGroups] = {}
    topic = image.topics.get(GROUPS_TOPIC)
    states = {} if topic is None else topic.partitions
    for reply in replies.values():
        if isinstance(reply, ListGroupsReply):
            found.update({info.group: info for info in reply.groups})
            answered.update(reply.partitions)
            missing.update({entry.partition: entry for entry in reply.missing})
    for partition, state in states.items():
        missing.setdefault(partition, MissingGroups(partition, *_reason(state, replies.get(state.leader))))
    return ListGroupsReply(
        [found[name] for name in sorted(found)],
        sorted(answered),
        [missing[partition] for partition in sorted(missing) if partition not in answered],
    )


def _reason(state: PartitionChanged, reply: Message | None) -> tuple[str, str]:
    """Why nobody has answered for this partition."""
    name = f"{state.topic}-{state.partition}"
    if state.leader == NO_LEADER:
        return CoordinatorNotAvailable.code, f"{name} has no leader at the moment"
    if isinstance(reply, Problem):
        return reply.code, f"broker {state.leader}, which leads {name}: {reply.detail}"
    return CoordinatorNotAvailable.code, f"{name} is led by broker {state.leader}, which has not answered for it"
