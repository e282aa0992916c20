"""Live tails: one partition as server-sent events, until the client leaves or falls behind its
write deadline.

Each record is an event ``id: <partition>-<offset>-<topic id>``. A client that comes back with
Last-Event-ID goes on behind that record, or hears that its topic was deleted, whatever has the name
by now. The topic id may be left out. Comments keep the connection alive. An error ends the stream
as an event named ``error``. A browser then reconnects to the same URL, which redirects to whoever
leads by now.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from minilog.broker.http.exchange import Exchange, HttpContext
from minilog.broker.http.records.partition_reader import Reader
from minilog.broker.http.records.record_page import Page
from minilog.errors import InvalidRequest, MinilogError
from minilog.wire.http import Start, integer, problem_body, shown, topic_id
from minilog.wire.messages import LATEST

KEEP_ALIVE_MS: Final = 5000


async def tail(context: HttpContext, exchange: Exchange, reader: Reader) -> web.StreamResponse:
    """Raises only before the stream has begun: afterwards an error is an event."""
    await reader.begin(_start(exchange, reader))
    wait_ms = min(KEEP_ALIVE_MS, context.limits.wait_ms_max)
    events = await _next_events(reader, 0)
    stream = exchange.event_stream()
    await stream.open()
    try:
        while not context.closing and stream.is_open:
            await stream.write(events or b": keep-alive\n\n")
            events = await _next_events(reader, wait_ms)
    except MinilogError as error:
        await stream.write(b"event: error\ndata: " + problem_body(error) + b"\n\n")
    await stream.close()
    return stream.response


def _start(exchange: Exchange, reader: Reader) -> Start:
    header = exchange.request.headers.get("Last-Event-ID")
    if not header:
        start: Start = exchange.query.get("offset", Start(at=LATEST))
        return start
    number, dash, rest = header.partition("-")
    offset, _, meant = rest.partition("-")
    if not dash or number != str(reader.partition):
        raise InvalidRequest(
            f"Last-Event-ID is {shown(header)}; it must be {reader.partition}-<offset>-<topic id>, as the events of this "
            "partition say"
        )
    if meant:
        reader.topic_id = reader.topic_id or topic_id("the topic id in Last-Event-ID", meant.encode())
    reader.last_epoch = -1  # the URL's leader_epoch is about the URL's offset
    return Start(offset=integer("the offset in Last-Event-ID", offset.encode(), 0, 2**63 - 2) + 1)


async def _next_events(reader: Reader, wait_ms: int) -> bytes:
    result = await reader.read(wait_ms, 1)
    return (await reader.page(result, lambda page: _events(reader, page), is_shared=True))[1]


def _events(reader: Reader, page: Page) -> bytes:
    partition, named = reader.partition, reader.topic_id.encode()
    rows = zip(page.offsets, page.texts, strict=True)
    return b"".join(b"id: %d-%d-%b\ndata: %b\n\n" % (partition, offset, named, text) for offset, text in rows)
