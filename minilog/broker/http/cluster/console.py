"""The console at ``/``, and the stream that feeds it, as this broker sees the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from aiohttp import web

import minilog
from minilog.broker.http.cluster.metadata import ask_controller
from minilog.broker.http.exchange import Exchange, Handler, HttpContext, answer, json_answer
from minilog.console.live import ANSWER_TIMEOUT_MS, KEEP_ALIVE_S
from minilog.console.page import page
from minilog.core.health import Knowledge
from minilog.core.image import BrokerState, ClusterImage
from minilog.errors import MinilogError
from minilog.wire.figure_messages import DescribeBroker, DescribeBrokerReply
from minilog.wire.http import EVENTS, HTML, JSON


class BrokerSource:
    """The cluster as this broker can tell it."""

    role: Final = "broker"

    def __init__(self, context: HttpContext) -> None:
        self._context = context

    @property
    def broker_id(self) -> int:
        return self._context.broker_id

    @property
    def image(self) -> ClusterImage:
        return self._context.runtime.image

    def wall_ms(self) -> int:
        return self._context.runtime.clock.wall_ms()

    async def knowledge(self) -> Knowledge:
        return await ask_controller(self._context, ANSWER_TIMEOUT_MS)

    async def figures(self, broker: BrokerState) -> DescribeBrokerReply | None:
        if broker.broker_id == self._context.broker_id:
            with suppress(MinilogError):
                return await self._context.figures.tell()
            return None
        reply = await self._context.runtime.call(broker.url, DescribeBroker(), ANSWER_TIMEOUT_MS)
        return reply if isinstance(reply, DescribeBrokerReply) and reply.broker_id == broker.broker_id else None


async def root(context: HttpContext, exchange: Exchange) -> web.Response:
    if exchange.media_out() == HTML:
        console = page()
        return answer(console.body, f"{HTML}; charset=utf-8", headers=console.headers)
    image = context.runtime.image
    about = {
        "name": "minilog",
        "version": minilog.__version__,
        "what": "a partitioned, replicated log broker that speaks HTTP",
        "broker_id": context.broker_id,
        "cluster_id": image.cluster_id,
        "routes": "/openapi.json",
        "look_at": ["/v1/cluster", "/v1/cluster/health", "/v1/topics", "/metrics", "/healthz", "/readyz"],
        "produce": "POST /v1/topics/{topic}/records",
        "fetch": "GET /v1/topics/{topic}/partitions/{partition}/records?offset=earliest",
    }
    return json_answer(about, headers={"Vary": "Accept"})


async def live(context: HttpContext, exchange: Exchange) -> web.StreamResponse:
    media = exchange.media_out()
    assert context.image is not None  # raises where this broker knows nothing yet
    if media != EVENTS:
        return answer(await context.live.once(), JSON)
    stream = exchange.event_stream()
    async with context.live.watching() as watcher:
        await stream.open()
        while not context.closing and stream.is_open:
            data = b": keep-alive\n\n"
            with suppress(TimeoutError):
                data = b"data: %b\n\n" % await asyncio.wait_for(watcher.next(), KEEP_ALIVE_S)
            await stream.write(data)
    await stream.close()
    return stream.response


HANDLERS: Final[Mapping[str, Handler]] = {"root": root, "live": live}
