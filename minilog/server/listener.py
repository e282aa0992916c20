"""Connections: aiohttp's HTTP/1.1 protocol with the limits it lacks.

A head that does not arrive in ``header_read_ms`` gets 408; connections beyond ``connections_max`` get 503 before a
byte is read from them; malformed HTTP gets a problem document instead of a text page. Nothing of an answer stays
in this process once its request is over: a write waits until the kernel has taken everything, under the deadline
that ``server`` sets.

Nothing here reads private state of aiohttp, so an application may bring any version of it. ``Listener`` tells each connection
when a handler begins and ends. What comes on a connection without a handler, after the body that was announced, is the next head.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import StreamReader, web

from minilog.config import Limits
from minilog.errors import InternalError, InvalidRequest, MinilogError, Overloaded, TimedOut
from minilog.wire.http import PROBLEM, problem_body, shown

log = logging.getLogger("minilog.http")

IDLE_S: Final = 600
"""Longer than any client of ours uses a connection again (``lane.IDLE_S``, the Python client's 30 s): were it this side that
closes, a request in that moment would be lost, and nobody could say whether it was carried out."""
LINGER_S: Final = 10
REFUSED_S: Final = 1
READ_BUFFER_BYTES: Final = 1024 * 1024
HEAD_BYTES_MAX: Final = 2 * 1024 * 1024
"""Not all versions of aiohttp bound the number of headers. Much larger than any head, because a body may follow in the turns
before its handler begins."""
GRACE_S: Final = 0.02
"""aiohttp begins the handler a few turns of the loop after the head has come: a head that came just in time is not late."""
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Listener(web.Server):
    """Makes one ``Connection`` per accepted socket and counts them."""

    def __init__(self, handler: Handler, limits: Limits, *, handler_cancellation: bool = False) -> None:
        super().__init__(self._serve, handler_cancellation=handler_cancellation)
        self.limits = limits
        self.open_connections = 0
        self.refused_connections = 0
        self._handler = handler

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.begin(request.content)
        try:
            return await self._handler(request)
        finally:
            connection.end()

    def __call__(self) -> web.RequestHandler:
        return Connection(self, self.limits)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        self.open_connections += 1
        super().connection_made(handler, transport)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        self.open_connections -= 1
        super().connection_lost(handler, exc)


class Connection(web.RequestHandler):
    __slots__ = (
        "_body",
        "_clock",
        "_head_bytes",
        "_head_timer",
        "_is_busy",
        "_limits",
        "_listener",
        "_refused",
        "ends_with_it",
    )

    def __init__(self, listener: Listener, limits: Limits) -> None:
        self._clock = asyncio.get_running_loop()
        super().__init__(
            listener,
            loop=self._clock,
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_S,
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
        )
        self._listener = listener
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        """What has come of the next head, and perhaps behind it."""
        self._refused = False
        self._is_busy = False
        self._body: StreamReader | None = None
        """Of the last request: what of it has not come yet is no new head."""
        self.ends_with_it: asyncio.Task[Any] | None = None
        """The handler that is cancelled when the client leaves: nobody waits for what it reads."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self._listener.open_connections >= self._limits.connections_max:
            self._refuse(transport)
            return
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        is_head = self._body is None or self._body.is_eof()
        super().data_received(data)
        if is_head and data:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._on_large_head()
            elif self._head_timer is None and not self._is_busy:
                self._await_head()

    def begin(self, body: StreamReader) -> None:
        """A head has come whole: its handler begins."""
        self._is_busy, self._head_bytes, self._body = True, 0, body
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def end(self) -> None:
        """The handler is over. What came meanwhile, behind the body, begins the next head."""
        self._is_busy = False
        if self._head_bytes:
            self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        if not self._refused:
            super().connection_lost(exc)
        if self.ends_with_it is not None:
            self.ends_with_it.cancel()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp calls for bytes it cannot parse, and for exceptions that ``server`` should have caught."""
        if isinstance(exc, ConnectionError):
            log.debug("a client left in the middle of a request: %s", exc)
            raise exc  # aiohttp expects it, and closes
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun; it cannot become another one")
        error: MinilogError
        if status == 400:
            reason = (message or str(exc)).strip().split("\n")[0].rstrip(":. ")
            error = InvalidRequest(f"this is not a valid HTTP/1.1 request: {shown(reason)}; the connection is closed")
        else:
            log.error("unhandled error in a request", exc_info=exc)
            error = InternalError("a fault inside minilog; the broker's log says more")
        headers = {"Content-Type": PROBLEM, "Connection": "close"}
        response = web.Response(body=problem_body(error), status=error.http_status, headers=headers)
        response.force_close()
        return response

    def _on_large_head(self) -> None:
        error = InvalidRequest(
            f"this is not a valid HTTP/1.1 request: {self._head_bytes} bytes came and no head was whole; the connection is closed"
        )
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(_raw_answer("400 Bad Request", error))
            self.force_close()

    def _await_head(self) -> None:
        self._head_timer = self._clock.call_later(self._limits.header_read_ms / 1000, self._on_slow_head)

    def _on_slow_head(self) -> None:
        self._head_timer = self._clock.call_later(GRACE_S, self._on_late_head)

    def _on_late_head(self) -> None:
        self._head_timer = None
        if self.transport is None:
            return
        if self._head_bytes:
            error = TimedOut(
                f"no whole request head arrived within {self._limits.header_read_ms} ms (limits.header_read_ms)",
                definite=True,
            )
            self.transport.write(_raw_answer("408 Request Timeout", error))
        self.force_close()

    def _refuse(self, transport: asyncio.Transport) -> None:
        self._refused = True
        self._listener.refused_connections += 1
        error = Overloaded(
            f"{self._limits.connections_max} connections are open, the limit (limits.connections_max); retry later"
        )
        transport.write(_raw_answer("503 Service Unavailable", error))
        if transport.can_write_eof():
            transport.write_eof()
        self._clock.call_later(REFUSED_S, transport.abort)


def _raw_answer(status: str, error: MinilogError) -> bytes:
    body = problem_body(error, int(status[:3]))
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {PROBLEM}\r\nContent-Length: {len(body)}\r\n"
        "Retry-After: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
