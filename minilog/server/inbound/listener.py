"""The listener of a process: aiohttp's HTTP server, whose connections have places (R45).

Connections together hold at most ``connections_max`` places. When all are held, one that waits for
nothing but its client's next request gives way. Where nobody can, the newcomer has a reserved place
on trial: a request of the cluster keeps it, any other gets 503. So idle strangers keep no broker
from registering, and no follower from fetching.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from minilog.config import Limits
from minilog.server.inbound.accepted_connection import Connection
from minilog.server.inbound.admissions import Admissions
from minilog.server.inbound.http_rules import LastAnswer, refusal_of

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Listener(web.Server):
    """Makes one ``Connection`` per accepted socket and counts them."""

    def __init__(self, handler: Handler, limits: Limits, *, handler_cancellation: bool = False) -> None:
        super().__init__(self._serve, handler_cancellation=handler_cancellation)
        self.limits = limits
        self.admissions = Admissions(limits, ends_with_clients=handler_cancellation)
        self.open_connections = 0
        self._handler = handler

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.begin(request)
        try:
            refusal = refusal_of(request) or self.admissions.trial_refusal(connection, request)
            if refusal is not None:
                return LastAnswer(connection.answer_last, refusal)
            answer = await self._handler(request)
            if connection.is_on_trial:
                answer.force_close()
            return answer
        finally:
            connection.end()

    def __call__(self) -> Connection:
        return Connection(self, self.admissions, self.limits)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        self.open_connections += 1
        super().connection_made(handler, transport)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        self.open_connections -= 1
        super().connection_lost(handler, exc)
