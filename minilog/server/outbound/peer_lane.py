"""A lane: requests to one address, one after the other, on one connection that is made when needed.

Order is the point (R5, R15): a request leaves only after its predecessor was answered or given up,
and giving one up closes the connection, so that no late answer can meet a later request. Nothing is
ever sent twice.

The time limit of a call is for the beginning of its answer. From then on progress counts, as for
request bodies. A peer that sends nothing for as long again is late, and so is one that is slower
than BYTES_PER_SECOND_MIN on the whole. So a large answer comes over a slow link, and a silent peer
is given up as early as ever.

Whatever goes wrong on the way is an outcome: nothing that a peer, its name or its address does ends
this process. A connection that nothing has used for IDLE_S is closed from this side, long before
the peer's listener would (its own IDLE_S), so that no request leaves just as the other side closes.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from minilog.config import KIB, ascii_host
from minilog.errors import BrokerUnavailable, MinilogError, Overloaded, TimedOut
from minilog.server.outbound.connection import Answer, Connection, Outcome
from minilog.server.outbound.dial import Unreached, dial
from minilog.server.outbound.host_names import Names, is_numeric
from minilog.server.outbound.peer_credential import NOTHING_SHOWN, AsPeer
from minilog.wire.http import MSGPACK
from minilog.wire.peer_messages import RPC_PATH, NoAnswer

log = logging.getLogger("minilog.peers")

CONNECT_TIMEOUT_MS = 500
IDLE_S: Final = 60.0
"""A connection idle for so long is closed, and not used again: the other side may be about to close
it (``accepted_connection.IDLE_S``)."""
BYTES_PER_SECOND_MIN: Final = 64 * KIB
"""As ``limits.body_bytes_per_second_min`` by default: a link that is slower carries no replica."""
QUEUE_MAX = 1024


class Address(NamedTuple):
    host: str
    port: int
    is_tls: bool = False

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises ValueError for anything but ``http[s]://host[:port]``. A host beyond ASCII becomes
        IDNA."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError(f"{url!r} is no http://host:port")
        is_tls = parts.scheme == "https"
        return cls(ascii_host(parts.hostname), parts.port or (443 if is_tls else 80), is_tls)

    @property
    def is_name(self) -> bool:
        """Its host has to be looked up."""
        return not is_numeric(self.host)

    def __str__(self) -> str:
        """As in a URL and in a Host header."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Call:
    """One request on its way. ``on_outcome`` is called once, unless the call is withdrawn
    before."""

    __slots__ = ("address", "body", "on_outcome", "queued_s", "timeout_ms", "timer")

    def __init__(self, address: Address, body: bytes, timeout_ms: int, on_outcome: Callable[[Outcome], None]) -> None:
        self.address = address
        self.body = body
        self.timeout_ms = timeout_ms
        self.on_outcome = on_outcome
        self.timer: asyncio.TimerHandle | None = None
        self.queued_s = 0.0
        """When it was sent off, by the loop's clock."""


class PeerLane:
    """``fresh`` makes a new connection for every call: only connecting tells a dead process from a
    silent one.

    ``on_start`` is told how many seconds a call has waited before this lane turned to it."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        name: str,
        body_bytes_max: int,
        *,
        fresh: bool = False,
        names: Names | None = None,
        as_peer: AsPeer = NOTHING_SHOWN,
        on_start: Callable[[float], None] = lambda seconds: None,
        on_idle: Callable[[PeerLane], None] = lambda lane: None,
    ) -> None:
        """``on_idle`` is told when the lane has closed itself for want of use."""
        self.name = name
        self._names = names or Names()
        self._as_peer = as_peer
        self._on_start = on_start
        self._on_idle = on_idle
        self._idle_timer: asyncio.TimerHandle | None = None
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._body_bytes_max = body_bytes_max
        self._fresh = fresh
        self._waiting: deque[Call] = deque()
        self._current: Call | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._address: Address | None = None
        self._used_s = 0.0
        """When the last answer came, or the last call."""

    @property
    def load(self) -> int:
        return len(self._waiting) + (self._current is not None)

    def send(self, call: Call) -> None:
        """Queue a call. Its outcome never comes from inside this method."""
        if len(self._waiting) >= QUEUE_MAX:
            error = Overloaded(f"{QUEUE_MAX} requests already wait for {call.address}")
            self._loop.call_soon(call.on_outcome, error)
            return
        call.timer = self._loop.call_later(call.timeout_ms / 1000, self._expire, call)
        call.queued_s = self._loop.time()
        self._waiting.append(call)
        self._advance()
        self._watch_idle()

    def withdraw(self, call: Call) -> None:
        """The caller no longer wants the outcome. A call already sent costs the connection."""
        if call.timer is not None:
            call.timer.cancel()
        if call is self._current:
            self._give_up_current()
            self._advance()
        elif call in self._waiting:
            self._waiting.remove(call)

    def close(self) -> None:
        for call in (self._current, *self._waiting):
            if call is not None and call.timer is not None:
                call.timer.cancel()
        self._waiting.clear()
        self._give_up_current()
        if self._idle_timer is not None:
            self._idle_timer.cancel()

    def _advance(self) -> None:
        if self._current is not None or not self._waiting:
            return
        call = self._current = self._waiting.popleft()
        self._on_start(self._loop.time() - call.queued_s)
        connection = self._connection
        usable = connection is not None and connection.is_open and self._loop.time() - self._used_s < IDLE_S
        if connection is not None and usable and self._address == call.address and not self._fresh:
            self._post(connection, call)
        else:
            self._disconnect()
            self._connecting = self._tasks.create_task(self._connect(call), name=f"connect {self.name}")

    async def _connect(self, call: Call) -> None:
        connection = Connection(self._body_bytes_max)
        try:
            address, timeout_s = call.address, min(CONNECT_TIMEOUT_MS, call.timeout_ms) / 1000
            connected = await dial(self._names, address.host, address.port, timeout_s)
            async with asyncio.timeout(timeout_s):
                await self._adopt(connected, connection, address)
        except Exception as error:  # also what nobody has thought of: it is this address's, not this process's end
            if call is self._current:
                self._settle(call, connect_error(error, call.address))
            return
        if call is not self._current:
            connection.abort()
            return
        self._connecting = None
        self._connection, self._address = connection, call.address
        self._post(connection, call)

    async def _adopt(self, connected: socket.socket, connection: Connection, address: Address) -> None:
        """With TLS the peer's certificate must name the host that was asked for."""
        context = self._as_peer().context if address.is_tls else None
        if address.is_tls and context is None:
            context = ssl.create_default_context()
        name = address.host if context is not None else None
        try:
            await self._loop.create_connection(lambda: connection, sock=connected, ssl=context, server_hostname=name)
        except BaseException:
            if connection.is_made:  # then the socket is its transport's to close
                connection.abort()
            else:
                connected.close()
            raise

    def _post(self, connection: Connection, call: Call) -> None:
        token = self._as_peer().token
        shown = f"Authorization: Bearer {token}\r\n" if token else ""
        head = (
            f"POST {RPC_PATH} HTTP/1.1\r\nHost: {call.address}\r\n{shown}"
            f"Content-Type: {MSGPACK}\r\nContent-Length: {len(call.body)}\r\n\r\n"
        )
        connection.post(head.encode("ascii"), call.body, lambda outcome: self._settle(call, outcome))

    def _settle(self, call: Call, outcome: Outcome) -> None:
        assert call is self._current
        assert call.timer is not None
        call.timer.cancel()
        self._current = None
        self._connecting = None
        if self._fresh or not isinstance(outcome, Answer):
            self._disconnect()
        self._used_s = self._loop.time()
        self._advance()
        call.on_outcome(outcome)

    def _expire(self, call: Call) -> None:
        """Time is up, unless the answer is coming in.

        Definite as long as no byte of the request has been handed to a connection."""
        if call is not self._current:
            self._waiting.remove(call)
            why = "it was not sent: earlier requests are unanswered"
            call.on_outcome(timed_out(call.address, call.timeout_ms, why, definite=True))
            return
        coming = self._connection if self._connection is not None and self._connection.received_bytes else None
        if coming is not None:
            due_s = coming.due_s(call.timeout_ms / 1000, BYTES_PER_SECOND_MIN)
            if due_s > self._loop.time():
                call.timer = self._loop.call_at(due_s, self._expire, call)
                return
        sent = self._connecting is None
        self._give_up_current()
        self._advance()
        why = "its answer did not come" if sent else "the connection was not made"
        if coming is not None:
            why = f"it stopped, or was too slow, after {coming.received_bytes} bytes"
        call.on_outcome(timed_out(call.address, call.timeout_ms, why, definite=not sent))

    def _give_up_current(self) -> None:
        self._current = None
        self._connecting = None  # not cancelled: the task finds its call given up and closes what it made
        self._disconnect()

    def _watch_idle(self) -> None:
        """One timer for all calls: it looks when the last one was, instead of being set anew by
        each."""
        self._used_s = self._loop.time()
        if self._idle_timer is None:
            self._idle_timer = self._loop.call_later(IDLE_S, self._on_idle_timer)

    def _on_idle_timer(self) -> None:
        left_s = self._used_s + IDLE_S - self._loop.time()
        if self.load or left_s > 0:
            self._idle_timer = self._loop.call_later(left_s if left_s > 0 else IDLE_S, self._on_idle_timer)
            return
        self._idle_timer = None
        self._disconnect()
        self._on_idle(self)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None


def connect_error(error: BaseException, address: Address) -> MinilogError:
    """Nothing was sent, so each of these is definite. "refused" is said only when every address of
    the host refused."""
    if isinstance(error, TimeoutError) and not error.errno:
        return TimedOut(f"{address} did not accept a connection in time", definite=True, reason=NoAnswer.NOT_CONNECTED)
    if isinstance(error, Unreached) and error.refused:
        return BrokerUnavailable(f"{address} refused the connection", definite=True, reason=NoAnswer.REFUSED)
    if not isinstance(error, (OSError, ValueError)):
        log.warning("connecting to %s failed in a way of its own: %r", address, error, exc_info=error)
    if isinstance(error, socket.gaierror):
        why = f"its name is not resolved ({error.strerror})"
    else:
        why = str(error) or type(error).__name__
    return BrokerUnavailable(f"{address} cannot be reached: {why}", definite=True, reason=NoAnswer.UNREACHABLE)


def timed_out(address: Address, timeout_ms: int, why: str, *, definite: bool) -> TimedOut:
    return TimedOut(
        f"no answer from {address} in time ({timeout_ms} ms): {why}", definite=definite, reason=NoAnswer.TIMED_OUT
    )
