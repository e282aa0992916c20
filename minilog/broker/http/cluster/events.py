"""What happened in the cluster, from this broker's copy of the journal: so that it is told also
while the controller is away.

An answer holds what was noted behind ``after``. As server-sent events the stream goes on, each
event with its number as ``id``, so that a client that comes back with Last-Event-ID misses nothing
that is still kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from itertools import takewhile
from typing import Final

import msgspec
from aiohttp import web

from minilog.broker.http.cluster.event_stream import KEEP_ALIVE_MS
from minilog.broker.http.exchange import Exchange, Handler, HttpContext, json_answer
from minilog.core.image import ClusterImage
from minilog.errors import Overloaded
from minilog.server.inbound.event_stream import EventStream
from minilog.server.inbound.request_gate import CLIENT
from minilog.wire.http import EVENTS, integer
from minilog.wire.json.json_answers import EventList, NotedEvent

LISTED_MAX: Final = 100


async def events(context: HttpContext, exchange: Exchange) -> web.StreamResponse:
    after = exchange.query.get("after", -1)
    since_ms = exchange.query.get("since_ms", 0)
    if exchange.media_out() == EVENTS:
        return await _stream(context, exchange, after, since_ms)
    image = context.image
    noted = _behind(image, after, since_ms)
    limit = exchange.query.get("limit", LISTED_MAX)
    shown = noted[:limit] if after >= 0 else noted[-limit:]
    return json_answer(EventList(shown, shown[-1].number if shown else max(after, image.metadata_offset)))


def _behind(image: ClusterImage, after: int, since_ms: int) -> list[NotedEvent]:
    """From the newest on: most have seen all but the last one."""
    new = takewhile(lambda noted: noted.number > after, reversed(image.events))
    return [NotedEvent(noted.number, noted.event) for noted in new if noted.event.at_ms >= since_ms][::-1]


async def _stream(context: HttpContext, exchange: Exchange, after: int, since_ms: int) -> web.StreamResponse:
    header = exchange.request.headers.get("Last-Event-ID")
    if header:
        after = integer("Last-Event-ID", header.encode(), 0, 2**63 - 1)
    image, client = context.image, CLIENT.get()
    if after < 0 and not since_ms:
        after = image.metadata_offset
    if not context.streams.may_take(client):
        raise Overloaded(
            f"{context.streams.total} streams of events are open here, of which this client has its share; close others, "
            "or ask another broker"
        )
    context.streams.take(client)
    try:
        return await _follow(context, exchange.event_stream(), after, since_ms)
    finally:
        context.streams.give_back(client)


async def _follow(context: HttpContext, stream: EventStream, after: int, since_ms: int) -> web.StreamResponse:
    await stream.open()
    while not context.closing and stream.is_open:
        changed = context.runtime.metadata_changed
        noted = _behind(context.runtime.image, after, since_ms)
        if noted:
            after = noted[-1].number
            await stream.write(b"".join(b"id: %d\ndata: %b\n\n" % (n.number, msgspec.json.encode(n)) for n in noted))
            continue
        with suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), KEEP_ALIVE_MS / 1000)
            continue
        await stream.write(b": keep-alive\n\n")
    await stream.close()
    return stream.response


HANDLERS: Final[Mapping[str, Handler]] = {"events": events}
