"""The console at ``/`` of the controller, and the stream that feeds it. What only brokers know,
records and groups, the page looks for there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgspec
from aiohttp import web

import minilog
from minilog.console.live import ANSWER_TIMEOUT_MS, KEEP_ALIVE_S, Live
from minilog.console.page import page, wants_page
from minilog.controller.runtime import Runtime
from minilog.core.health import Knowledge
from minilog.core.image import BrokerState, ClusterImage
from minilog.server.inbound.answer_delivery import Delivery
from minilog.server.inbound.event_stream import EventStream
from minilog.server.security.answer_headers import SAFE
from minilog.wire.figure_messages import DescribeBroker, DescribeBrokerReply
from minilog.wire.http import EVENTS, HTML, JSON, accepted
from minilog.wire.messages import DescribeClusterReply

Describe = Callable[[], Awaitable[DescribeClusterReply]]
NO_BROKER: Final = -1
CLOCK_SKEW_MAX_MS: Final = 60_000
"""The brokers' default of their setting, which this process does not have."""


class ControllerSource:
    role: Final = "controller"
    broker_id: Final = None

    def __init__(self, runtime: Runtime, describe: Describe) -> None:
        self._runtime, self._describe = runtime, describe

    @property
    def image(self) -> ClusterImage:
        return self._runtime.image

    def wall_ms(self) -> int:
        return self._runtime.clock.wall_ms()

    async def knowledge(self) -> Knowledge:
        return Knowledge(NO_BROKER, await self._describe(), "", 0, "", self.wall_ms(), CLOCK_SKEW_MAX_MS)

    async def figures(self, broker: BrokerState) -> DescribeBrokerReply | None:
        reply = await self._runtime.peers.call(broker.url, DescribeBroker(), ANSWER_TIMEOUT_MS)
        return reply if isinstance(reply, DescribeBrokerReply) and reply.broker_id == broker.broker_id else None


class Console:
    def __init__(self, runtime: Runtime, describe: Describe) -> None:
        self._runtime = runtime
        self._live = Live(ControllerSource(runtime, describe))

    async def root(self, request: web.BaseRequest, _: Delivery) -> web.Response:
        if wants_page(request.headers.get("Accept")):
            console = page()
            headers = {"Content-Type": f"{HTML}; charset=utf-8", **console.headers}
            return web.Response(body=console.body, headers=headers)
        about = {
            "name": "minilog controller",
            "version": minilog.__version__,
            "cluster_id": self._runtime.image.cluster_id,
            "routes": "/openapi.json",
            "brokers": [broker.url for broker in self._runtime.image.brokers.values()],
        }
        return web.Response(body=msgspec.json.encode(about), content_type=JSON, headers={"Vary": "Accept"})

    async def live(self, request: web.BaseRequest, delivery: Delivery) -> web.StreamResponse:
        if accepted(request.headers.get("Accept"), (JSON, EVENTS)) != EVENTS:
            return web.Response(body=await self._live.once(), content_type=JSON)
        stream = EventStream(request, delivery, SAFE)
        async with self._live.watching() as watcher:
            await stream.open()
            while stream.is_open:
                data = b": keep-alive\n\n"
                with suppress(TimeoutError):
                    data = b"data: %b\n\n" % await asyncio.wait_for(watcher.next(), KEEP_ALIVE_S)
                await stream.write(data)
        await stream.close()
        return stream.response
