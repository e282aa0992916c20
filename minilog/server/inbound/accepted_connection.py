"""Connections that were accepted: aiohttp's HTTP/1.1 protocol with the limits it lacks.

A head that does not arrive in ``header_read_ms`` gets 408; connections for which there is no place
get 503; malformed HTTP gets a problem document instead of a text page. Nothing of an answer stays
in this process once its request is over: a write waits until the kernel has taken everything, under
the deadline that ``server`` sets.

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
from http import HTTPStatus
from typing import Any, Final, cast

from aiohttp import StreamReader, web

from minilog.config import KIB, Limits
from minilog.core.places import Entry, client_of
from minilog.errors import InternalError, InvalidRequest, TimedOut
from minilog.server.inbound.admissions import Admissions, Occupant
from minilog.server.inbound.http_rules import LastAnswer, last_answer, refusal_of_bytes, size_of
from minilog.server.inbound.request_gate import CLIENT

log = logging.getLogger("minilog.http")

IDLE_S: Final = 600
"""Longer than any client of ours uses a connection again (``lane.IDLE_S``, the Python client's 30
s): were it this side that closes, a request in that moment would be lost, and nobody could say
whether it was carried out."""
TRIAL_MS: Final = 1000
"""How long a connection without a place of its own has for its first request."""
LINGER_S: Final = 10
REFUSED_S: Final = 1
READ_BUFFER_BYTES: Final = 1024 * 1024
HEAD_BYTES_MAX: Final = 2 * 1024 * 1024
"""Not all versions of aiohttp bound the number of headers. Much larger than any head, because a
body may follow in the turns before its handler begins."""
AHEAD_BYTES_MAX: Final = 64 * KIB
"""Of requests behind one that is not answered yet. One read of the transport more may be held."""
LINE_BYTES_MAX: Final = 8300
"""No line of a head is longer: aiohttp takes 8190 bytes of a target."""
READS: Final = ("GET", "HEAD")
UNSEEN_S: Final = 1.0
"""How long a client may be able to leave unseen. Whatever does not wait is answered by then."""
GRACE_S: Final = 0.02
"""aiohttp begins the handler a few turns of the loop after the head has come: a head that came just
in time is not late."""


class Connection(web.RequestHandler):
    __slots__ = (
        "_admissions",
        "_ahead_bytes",
        "_ahead_timer",
        "_body",
        "_client",
        "_clock",
        "_eof_timer",
        "_gone",
        "_has_line",
        "_head_bytes",
        "_head_timer",
        "_is_busy",
        "_is_held",
        "_is_over",
        "_limits",
        "_refused",
        "_request",
        "_unseen_timer",
        "ends_with_it",
        "follows",
    )

    def __init__(self, server: web.Server, admissions: Admissions, limits: Limits) -> None:
        self._clock = asyncio.get_running_loop()
        super().__init__(
            server,
            loop=self._clock,
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_S,
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
        )
        self._admissions = admissions
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
        self._is_over = False
        """The last answer is out."""
        self._has_line = False
        """Some line of the next head has come to its end."""
        self._eof_timer: asyncio.TimerHandle | None = None
        """Runs since the client sent its last byte."""
        self._gone: asyncio.Future[None] = self._clock.create_future()
        self._client = ""
        self._request: web.BaseRequest | None = None
        self._body: StreamReader | None = None
        """Of the last request: what of it has not come yet is no new head."""
        self.ends_with_it: asyncio.Task[Any] | None = None
        """What ``end_with_client`` was told. Nobody waits for what it reads."""
        self.follows: Occupant | None = None  # the handshake whose place it takes over

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one by what it does
        self._client = client_of(transport.get_extra_info("peername"))
        if self.follows is not None:
            self._admissions.places.leave(self.follows)
        entry, leaver = self._admissions.places.enter(self, self._client, self._now_ms)
        if leaver is not None:
            leaver.give_way()
        if entry is Entry.REFUSED:
            self._refuse(transport)
            return
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=1, low=0)  # with TLS 0 would be reached by an empty buffer, for ever
        self._await_head()

    @property
    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)

    @property
    def is_waited_for(self) -> bool:
        """Nothing is carried out for it: what it has asked for, if it has, has not come whole."""
        return not self._is_busy or (self._body is not None and not self._body.is_eof())

    @property
    def is_on_trial(self) -> bool:
        return self._admissions.places.is_on_trial(self)

    def vouch(self, *, is_clusters: bool) -> None:
        """What came is read: whether it is the cluster's own request, which keeps its place. Raises
        Overloaded where nothing else does."""
        if is_clusters:
            self._admissions.places.vouch(self)
        elif self.is_on_trial:
            raise self._admissions.refusal[1]

    def give_way(self) -> None:
        """Its place is another's now. Nothing is done for it. If it closes, it is cut off."""
        if self.transport is None:
            return
        if self.transport.is_closing():
            self.transport.abort()
            return
        self._admissions.displaced += 1
        told = self._body is None or self._is_busy or self._head_bytes > 0  # else it asks for nothing
        self._end_with(last_answer(self._admissions.refusal) if told else b"")

    def data_received(self, data: bytes) -> None:
        if self._refused or self._is_over:
            return
        if is_head := self._body is None or self._body.is_eof():
            self._has_line = (self._head_bytes > 0 and self._has_line) or data.find(b"\n", 0, LINE_BYTES_MAX) >= 0
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

    def eof_received(self) -> bool | None:  # type: ignore[override]  # as asyncio has it
        """The client sends nothing more. It may still read: what it has asked for whole is
        answered (RFC 9112, 9.6), if that comes soon, because nobody would see it leave.

        Where a client that leaves has to be noticed at once, it has left. TLS knows no half of a
        connection."""
        body_is_whole = self._body is None or self._body.is_eof()
        if self._refused or self._is_over or not (self._is_busy or self._head_bytes) or not body_is_whole:
            return None
        if self._is_busy and self._leaves_with_eof():
            return None
        self._restart_eof(UNSEEN_S)
        return self.transport is not None and self.transport.get_extra_info("sslcontext") is None

    def _leaves_with_eof(self) -> bool:
        """A peer that dies is to be noticed at once, and so is a client of what only waits. Reads
        end by themselves, all but some, and have UNSEEN_S."""
        ends = self._admissions.ends_with_clients or self.ends_with_it is not None
        return ends and self._request is not None and self._request.method not in READS

    def _restart_eof(self, delay_s: float) -> None:
        _cancel(self._eof_timer)
        self._eof_timer = self._clock.call_later(delay_s, self._leave)

    def _leave(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def begin(self, request: web.BaseRequest) -> None:
        """A head has come whole: its handler begins."""
        self._is_busy, self._head_bytes = True, 0
        self._request, self._body = request, request.content
        CLIENT.set(self._client)
        if self._body.is_eof():
            self._admissions.places.work(self)
        else:
            self._admissions.places.rest(self, self._now_ms)
        self._head_timer = _cancel(self._head_timer)
        self._ahead_timer = _cancel(self._ahead_timer)
        self._unseen_timer = _cancel(self._unseen_timer)
        if self._ahead_bytes:
            self._ahead_bytes -= (
                min(self._ahead_bytes, size_of(request, AHEAD_BYTES_MAX)) if self._body.is_eof() else self._ahead_bytes
            )
            if self._ahead_bytes <= AHEAD_BYTES_MAX // 2:
                self._read_on()
        if self._eof_timer is not None:
            self._restart_eof(0 if self._leaves_with_eof() else UNSEEN_S)
        self._look_ahead()

    def end_with_client(self, handler: asyncio.Task[Any] | None) -> None:
        """Cancel ``handler`` when the client leaves. Call it once the body is read."""
        self.ends_with_it = handler
        if self._eof_timer is not None and self._leaves_with_eof():
            self._leave()
        self._look_ahead()

    def end(self) -> None:
        """The handler is over. What came meanwhile, behind the body, begins the next head."""
        self._is_busy, self._request = False, None
        self._admissions.places.rest(self, self._now_ms)
        self._unseen_timer = _cancel(self._unseen_timer)
        if self._eof_timer is not None:
            self._restart_eof(GRACE_S)  # one more may have come before it
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
        ends_with_client = self._is_busy and (self._admissions.ends_with_clients or self.ends_with_it is not None)
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
            self._end_with(last_answer((HTTPStatus.BAD_REQUEST, error)))
        else:
            self._end_with(b"")

    def connection_lost(self, exc: BaseException | None) -> None:
        self._admissions.places.leave(self)
        self._head_timer = _cancel(self._head_timer)
        self._ahead_timer = _cancel(self._ahead_timer)
        self._unseen_timer = _cancel(self._unseen_timer)
        self._eof_timer = _cancel(self._eof_timer)
        if not self._gone.done():
            self._gone.set_result(None)
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
        if status == 400:
            refusal = refusal_of_bytes(exc, message, is_target=not self._has_line)
        else:
            log.error("unhandled error in a request", exc_info=exc)
            error = InternalError("a fault inside minilog; the broker's log says more")
            refusal = HTTPStatus.INTERNAL_SERVER_ERROR, error
        return LastAnswer(self.answer_last, refusal)

    def _on_large_head(self) -> None:
        error = InvalidRequest(
            f"this is not a valid HTTP/1.1 request: {self._head_bytes} bytes came and no head was whole; the connection is closed"
        )
        self._end_gently(last_answer((HTTPStatus.BAD_REQUEST, error)))

    def _await_head(self) -> None:
        limit_ms = self._limits.header_read_ms
        if self.is_on_trial:
            limit_ms = min(limit_ms, TRIAL_MS)
        self._head_timer = self._clock.call_later(limit_ms / 1000, self._on_slow_head)

    def _on_slow_head(self) -> None:
        self._head_timer = self._clock.call_later(GRACE_S, self._on_late_head)

    def _on_late_head(self) -> None:
        self._head_timer = None
        if self.transport is None:
            return
        if self.is_on_trial:
            self._end_gently(last_answer(self._admissions.refusal))
        elif self._head_bytes:
            error = TimedOut(
                f"no whole request head arrived within {self._limits.header_read_ms} ms (limits.header_read_ms)",
                definite=True,
            )
            self._end_with(last_answer((HTTPStatus.REQUEST_TIMEOUT, error)))
        else:
            self._end_with(b"")

    async def answer_last(self, answer: bytes) -> None:
        """The last bytes of the connection. Returns when it is closed."""
        self._end_gently(answer)
        await self._gone

    def _end_gently(self, answer: bytes) -> None:
        """The last bytes of the connection, which is closed when the client has closed it, soon in
        any case. What comes until then is thrown away: were it left unread, the kernel would take
        the answer back from who is still sending (RFC 9112, 9.6)."""
        transport = self.transport
        if transport is None or transport.is_closing() or self._is_over:
            return
        self._is_over = True
        self._clock.call_later(REFUSED_S, transport.abort)
        transport.write(answer)
        if transport.can_write_eof():
            transport.write_eof()
        transport.resume_reading()

    def _end_with(self, answer: bytes) -> None:
        """The last bytes of the connection. A client that takes nothing keeps it no longer."""
        assert self.transport is not None
        if self._is_over:  # they are out, and nothing can be written behind the end
            self.transport.abort()
            return
        self._clock.call_later(REFUSED_S, self.transport.abort)
        self.transport.write(answer)
        self.force_close()

    def _refuse(self, transport: asyncio.Transport) -> None:
        self._refused = True
        self._admissions.on_refused(transport)
        transport.write(last_answer(self._admissions.refusal))
        if transport.can_write_eof():
            transport.write_eof()
        self._clock.call_later(REFUSED_S, transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """None, which is what the timer is from now on."""
    if timer is not None:
        timer.cancel()
    return None
