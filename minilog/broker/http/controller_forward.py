"""Passing admin messages on to the controller, and waiting until what it changed is known here."""

from __future__ import annotations

import asyncio
from typing import Final

from minilog.broker.http.exchange import HttpContext
from minilog.wire.messages import AddPartitions, CreateTopic, CreateTopicReply, DeleteTopic, Message, Ok

CONTROLLER_TIMEOUT_MS: Final = 10_000
APPLY_WAIT_MS: Final = 2000
POLL_MS: Final = 5


async def to_controller(context: HttpContext, message: Message) -> Message:
    """The controller's answer, a Problem when it failed.

    After a change, returns once this broker has applied it, so that the next request here finds the
    topic. A broker that does not hear of it in APPLY_WAIT_MS answers all the same: the change is
    made."""
    settings = context.runtime.settings
    patience_ms = (
        CONTROLLER_TIMEOUT_MS
        if isinstance(message, CreateTopic | DeleteTopic | AddPartitions)
        else settings.peer_timeout_ms
    )
    reply = await context.runtime.call(settings.controller_url, message, patience_ms)
    if isinstance(reply, CreateTopicReply | Ok) and reply.metadata_offset:
        await _wait_applied(context, reply.metadata_offset)
    return reply


async def _wait_applied(context: HttpContext, metadata_offset: int) -> None:
    for _ in range(APPLY_WAIT_MS // POLL_MS):
        if context.runtime.image.metadata_offset >= metadata_offset or context.closing:
            return
        await asyncio.sleep(POLL_MS / 1000)
