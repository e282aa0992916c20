"""Connections: aiohttp's HTTP/1.1 protocol with the limits it lacks.

A head that does not arrive in ``header_read_ms`` gets 408; connections beyond ``connections_max`` get 503 before a
byte is read from them; malformed HTTP gets a problem document instead of a text page. Nothing of an answer stays
in this process once its request is over: a write waits until the kernel has taken everything, under the deadline
that ``server`` sets.

Reads private attributes of aiohttp's RequestHandler (tests/unit/broker/http/test_connections.py guards them).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

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


class Listener(web.Server):
    """Makes one ``Connection`` per accepted socket and counts them."""

    def __init__(self, handler: Any, limits: Limits, *, handler_cancellation: bool = False) -> None:
        super().__init__(handler, handler_cancellation=handler_cancellation)
        self.limits = limits
        self.open_connections = 0
        self.refused_connections = 0

    def __call__(self) -> RequestHandler:
        return Connection(self, self.limits)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        self.open_connections += 1
        super().connection_made(handler, transport)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        self.open_connections -= 1
        super().connection_lost(handler, exc)


class Connection(RequestHandler):
    __slots__ = ("_any_byte", "_head_timer", "_limits", "_listener", "_refused", "ends_with_it")

    def __init__(self, listener: Listener, limits: Limits) -> None:
        super().__init__(
            listener,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_S,
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
        )
        self._listener = listener
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._any_byte = False
        self._refused = False
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
        super().data_received(data)
        if self._head_timer is not None:
            self._any_byte = True
            if self._messages or self._current_request is not None:
                self._head_timer.cancel()
                self._head_timer = None
        elif data and self._is_idle():
            self._any_byte = True
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

    def _is_idle(self) -> bool:
        """Waiting for a request: none is queued, running or being answered."""
        return self._waiter is not None and not self._waiter.done()

    def _await_head(self) -> None:
        self._head_timer = self._loop.call_later(self._limits.header_read_ms / 1000, self._on_slow_head)

    def _on_slow_head(self) -> None:
        self._head_timer = None
        if self.transport is None or not self._is_idle():
            return
        if self._any_byte:
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
        self._loop.call_later(REFUSED_S, transport.abort)


def _raw_answer(status: str, error: MinilogError) -> bytes:
    body = problem_body(error, int(status[:3]))
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {PROBLEM}\r\nContent-Length: {len(body)}\r\n"
        "Retry-After: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
