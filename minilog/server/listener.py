"""Connections: aiohttp's HTTP/1.1 protocol with the limits it lacks.

A head that does not arrive in ``header_read_ms`` gets 408; connections beyond ``connections_max``
get 503 before a byte is read from them; malformed HTTP gets a problem document instead of a text
page. Nothing of an answer stays in this process once its request is over: a write waits until the
kernel has taken everything, under the deadline that ``server`` sets.

What comes behind a request that is not answered yet is charged to nobody. So little of it is taken:
beyond AHEAD_BYTES_MAX nothing is read until most of that is answered. While nothing is read nobody
sees a client leave. So a request that ends with its client is refused when nothing has been read
for UNSEEN_S, whether this module has stopped reading or aiohttp.

Nothing here reads private state of aiohttp, so an application may bring any version of it.
``Listener`` tells each connection when a handler begins and ends. What comes on a connection
without a handler, after the body that was announced, is the next head.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import StreamReader, web

from minilog.config import KIB, Limits
from minilog.errors import InternalError, InvalidRequest, MinilogError, Overloaded, TimedOut
from minilog.wire.http import PROBLEM, problem_body, shown

log = logging.getLogger("minilog.http")

IDLE_S: Final = 600
"""Longer than any client of ours uses a connection again (``lane.IDLE_S``, the Python client's 30
s): were it this side that closes, a request in that moment would be lost, and nobody could say
whether it was carried out."""
LINGER_S: Final = 10
REFUSED_S: Final = 1
READ_BUFFER_BYTES: Final = 1024 * 1024
HEAD_BYTES_MAX: Final = 2 * 1024 * 1024
"""Not all versions of aiohttp bound the number of headers. Much larger than any head, because a
body may follow in the turns before its handler begins."""
AHEAD_BYTES_MAX: Final = 64 * KIB
"""Of requests behind one that is not answered yet. One read of the transport more may be held."""
LINE_BYTES: Final = 16
"""Of a line of the head, beside what it says, at most."""
UNSEEN_S: Final = 1.0
"""How long a client may be able to leave unseen. Whatever does not wait is answered by then."""
GRACE_S: Final = 0.02
"""aiohttp begins the handler a few turns of the loop after the head has come: a head that came just
in time is not late."""
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Listener(web.Server):
    """Makes one ``Connection`` per accepted socket and counts them."""

    def __init__(self, handler: Handler, limits: Limits, *, handler_cancellation: bool = False) -> None:
        super().__init__(self._serve, handler_cancellation=handler_cancellation)
        self.limits = limits
        self.open_connections = 0
        self.refused_connections = 0
        self.ends_with_clients = handler_cancellation
        self._handler = handler

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.begin(request)
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
        "_ahead_bytes",
        "_ahead_timer",
        "_body",
        "_clock",
        "_head_bytes",
        "_head_timer",
        "_is_busy",
        "_is_held",
        "_limits",
        "_listener",
        "_refused",
        "_request",
        "_unseen_timer",
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
        self._ahead_bytes = 0
        """What has come behind the request at hand, or a little less."""
        self._ahead_timer: asyncio.TimerHandle | None = None
        self._unseen_timer: asyncio.TimerHandle | None = None
        self._refused = False
        self._is_busy = False
        self._is_held = False
        """Nothing is read, because too much has come ahead."""
        self._request: web.BaseRequest | None = None
        self._body: StreamReader | None = None
        """Of the last request: what of it has not come yet is no new head."""
        self.ends_with_it: asyncio.Task[Any] | None = None
        """What ``end_with_client`` was told. Nobody waits for what it reads."""

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
        if not (is_head and data):
            return
        self._head_bytes += len(data)
        if self._is_busy or self._ahead_timer is not None:
            self._ahead_bytes += len(data)
            self._look_ahead()
        elif self._head_bytes > HEAD_BYTES_MAX:
            self._on_large_head()
        elif self._head_timer is None:
            self._await_head()

    def begin(self, request: web.BaseRequest) -> None:
        """A head has come whole: its handler begins."""
        self._is_busy, self._head_bytes = True, 0
        self._request, self._body = request, request.content
        self._head_timer = _cancel(self._head_timer)
        self._ahead_timer = _cancel(self._ahead_timer)
        self._unseen_timer = _cancel(self._unseen_timer)
        if self._ahead_bytes:
            self._ahead_bytes -= min(self._ahead_bytes, _size_of(request)) if self._body.is_eof() else self._ahead_bytes
            if self._ahead_bytes <= AHEAD_BYTES_MAX // 2:
                self._read_on()
        self._look_ahead()

    def end_with_client(self, handler: asyncio.Task[Any] | None) -> None:
        """Cancel ``handler`` when the client leaves. Call it once the body is read."""
        self.ends_with_it = handler
        self._look_ahead()

    def end(self) -> None:
        """The handler is over. What came meanwhile, behind the body, begins the next head."""
        self._is_busy, self._request = False, None
        self._unseen_timer = _cancel(self._unseen_timer)
        if self._head_bytes:
            self._await_head()
        if self._ahead_bytes:
            self._ahead_timer = self._clock.call_later(GRACE_S, self._on_idle)

    def _on_idle(self) -> None:
        """No handler has followed the last one: whatever came ahead whole is answered."""
        self._ahead_timer, self._ahead_bytes = None, 0
        self._read_on()
        if self._head_bytes and self._head_timer is None:
            self._await_head()

    def _look_ahead(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if self._ahead_bytes > AHEAD_BYTES_MAX:
            self._is_held = True
            self.transport.pause_reading()
        ends_with_client = self._is_busy and (self._listener.ends_with_clients or self.ends_with_it is not None)
        if ends_with_client and self._unseen_timer is None and not self.transport.is_reading():
            self._unseen_timer = self._clock.call_later(UNSEEN_S, self._on_unseen)

    def _read_on(self) -> None:
        if self._is_held and self.transport is not None:
            self._is_held = False
            self.transport.resume_reading()

    def _on_unseen(self) -> None:
        """Nobody would see this client leave. So its request ends now."""
        self._unseen_timer = None
        if self.transport is None or self.transport.is_closing() or self.transport.is_reading():
            return
        if self._request is not None and self._request.writer.output_size == 0:
            error = InvalidRequest(
                "more came behind this request than is read before it is answered; send the next one when this "
                "one is answered; the connection is closed",
                definite=False,  # its handler has begun
            )
            self._end_with(_raw_answer("400 Bad Request", error))
        else:
            self._end_with(b"")

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_timer = _cancel(self._head_timer)
        self._ahead_timer = _cancel(self._ahead_timer)
        self._unseen_timer = _cancel(self._unseen_timer)
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
        """What aiohttp calls for bytes it cannot parse, and for exceptions that ``server`` should
        have caught."""
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
            self._end_with(_raw_answer("400 Bad Request", error))

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
            self._end_with(_raw_answer("408 Request Timeout", error))
        else:
            self._end_with(b"")

    def _end_with(self, answer: bytes) -> None:
        """The last bytes of the connection. A client that takes nothing keeps it no longer."""
        assert self.transport is not None
        self._clock.call_later(REFUSED_S, self.transport.abort)
        self.transport.write(answer)
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


def _size_of(request: web.BaseRequest) -> int:
    """How many bytes it took, or a little more: nobody is held up for what has gone."""
    head = len(request.method) + len(request.raw_path) + LINE_BYTES
    head += sum(len(name) + len(value) + LINE_BYTES for name, value in request.raw_headers)
    if request.content_length is None:
        return head + (AHEAD_BYTES_MAX if request.body_exists else 0)
    return head + request.content_length


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """None, which is what the timer is from now on."""
    if timer is not None:
        timer.cancel()
    return None


def _raw_answer(status: str, error: MinilogError) -> bytes:
    body = problem_body(error, int(status[:3]))
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {PROBLEM}\r\nContent-Length: {len(body)}\r\n"
        "Retry-After: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
