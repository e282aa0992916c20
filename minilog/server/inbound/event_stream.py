"""A stream of server-sent events, or of lines: an answer that goes out piece by piece, each within
the write deadline."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from minilog.server.inbound.answer_delivery import Delivery
from minilog.wire.http import EVENTS


class EventStream:
    def __init__(
        self, request: web.BaseRequest, delivery: Delivery, headers: Mapping[str, str], media: str = EVENTS
    ) -> None:
        own = {"Content-Type": media, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        self.response = web.StreamResponse(headers={**own, **headers})
        self._request = request
        self._delivery = delivery

    @property
    def is_open(self) -> bool:
        return self._request.transport is not None and self._request.method != "HEAD"

    async def open(self) -> None:
        await self.response.prepare(self._request)

    async def write(self, data: bytes) -> None:
        """Raises Overloaded, or ConnectionError when the client is gone or too slow."""
        await self._delivery.write(self.response, data)

    async def close(self) -> None:
        await self._delivery.end(self.response)
