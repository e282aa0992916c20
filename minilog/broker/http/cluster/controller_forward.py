"""Passing admin messages on to the controller, and waiting until what it changed is known here."""

from __future__ import annotations

import asyncio
from typing import Final

from minilog.broker.http.exchange import Exchange, HttpContext
from minilog.config import CONTROLLER_PATIENCE_MS
from minilog.errors import NotController
from minilog.wire.admin_messages import BalanceLeadersReply, ConfigureTopicReply, MoveReplicasReply
from minilog.wire.messages import ClaimLost, CreateTopicReply, ElectLeaderReply, Message, Ok, PersonsChange, Problem

APPLY_WAIT_MS: Final = 2000
POLL_MS: Final = 5
CHANGED: Final = (
    CreateTopicReply,
    ElectLeaderReply,
    ConfigureTopicReply,
    BalanceLeadersReply,
    MoveReplicasReply,
    Ok,
)
"""Answers that name the record up to which a change reaches."""
STARTED_POLL_MS: Final = 50


def asked_by(context: HttpContext, exchange: Exchange) -> str:
    """From where a change is asked for, and by whom where that is known, for people."""
    name = exchange.principal.name
    address = exchange.request.remote or "an unknown address"
    return f"{f'{name} at ' if name else ''}{address} by way of broker {context.broker_id}"


async def to_controller(context: HttpContext, message: Message) -> Message:
    """The controller's answer, a Problem when it failed.

    After a change, returns once this broker has applied it, so that the next request here finds the
    topic. A broker that does not hear of it in APPLY_WAIT_MS answers all the same: the change is
    made."""
    settings = context.runtime.settings
    patience_ms = CONTROLLER_PATIENCE_MS if isinstance(message, PersonsChange | ClaimLost) else settings.peer_timeout_ms
    reply = await _answer(context, message, patience_ms)
    if isinstance(reply, CHANGED) and reply.metadata_offset:
        await _wait_applied(context, reply.metadata_offset)
    return reply


async def _answer(context: HttpContext, message: Message, patience_ms: int) -> Message:
    """A controller that has just started says so, and is asked again: nothing was done."""
    deadline_ms = context.runtime.clock.now_ms() + patience_ms
    while True:
        reply = await context.runtime.call(context.runtime.controller_url, message, patience_ms)
        has_started = isinstance(reply, Problem) and reply.code == NotController.code and reply.definite
        patience_ms = deadline_ms - context.runtime.clock.now_ms()
        if not has_started or patience_ms <= STARTED_POLL_MS or context.closing:
            return reply
        await asyncio.sleep(STARTED_POLL_MS / 1000)


async def _wait_applied(context: HttpContext, metadata_offset: int) -> None:
    for _ in range(APPLY_WAIT_MS // POLL_MS):
        if context.runtime.image.metadata_offset >= metadata_offset or context.closing:
            return
        await asyncio.sleep(POLL_MS / 1000)
