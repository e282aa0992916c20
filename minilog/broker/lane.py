"""A lane: requests to one address, one after the other, on one connection that is made when needed.

Order is the point (R5, R15): a request leaves only after its predecessor was answered or given up, and giving one
up closes the connection, so that no late answer can meet a later request. Nothing is ever sent twice.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from minilog.broker.connection import Answer, Connection, Outcome
from minilog.errors import BrokerUnavailable, MinilogError, Overloaded, TimedOut
from minilog.wire.http import MSGPACK

CONNECT_TIMEOUT_MS = 500
QUEUE_MAX = 1024
IDLE_S = 300
"""A connection idle for longer is not used again: the other side may be about to close it (``listener.IDLE_S``)."""
RPC_PATH = "/internal/rpc"


class Address(NamedTuple):
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises ValueError for anything but ``http://host[:port]``."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} is no http://host:port")
        return cls(parts.hostname, parts.port or 80)


class Call:
    """One request on its way. ``on_outcome`` is called once, unless the call is withdrawn before."""

    __slots__ = ("address", "body", "on_outcome", "timeout_ms", "timer")

    def __init__(self, address: Address, body: bytes, timeout_ms: int, on_outcome: Callable[[Outcome], None]) -> None:
        self.address = address
        self.body = body
        self.timeout_ms = timeout_ms
        self.on_outcome = on_outcome
        self.timer: asyncio.TimerHandle | None = None


class Lane:
    """``fresh`` makes a new connection for every call: only connecting tells a dead process from a silent one."""

    def __init__(self, tasks: asyncio.TaskGroup, name: str, body_bytes_max: int, *, fresh: bool = False) -> None:
        self.name = name
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
        """When the last answer came."""

    @property
    def load(self) -> int:
        return len(self._waiting) + (self._current is not None)

    def send(self, call: Call) -> None:
        """Queue a call; its outcome never comes from inside this method."""
        if len(self._waiting) >= QUEUE_MAX:
            error = Overloaded(f"{QUEUE_MAX} requests already wait for {call.address.host}:{call.address.port}")
            self._loop.call_soon(call.on_outcome, error)
            return
        call.timer = self._loop.call_later(call.timeout_ms / 1000, self._expire, call)
        self._waiting.append(call)
        self._advance()

    def withdraw(self, call: Call) -> None:
        """The caller no longer wants the outcome; a call already sent costs the connection."""
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

    def _advance(self) -> None:
        if self._current is not None or not self._waiting:
            return
        call = self._current = self._waiting.popleft()
        connection = self._connection
        usable = connection is not None and connection.is_open and self._loop.time() - self._used_s < IDLE_S
        if connection is not None and usable and self._address == call.address and not self._fresh:
            self._post(connection, call)
        else:
            self._disconnect()
            self._connecting = self._tasks.create_task(self._connect(call), name=f"connect {self.name}")

    async def _connect(self, call: Call) -> None:
        try:
            async with asyncio.timeout(min(CONNECT_TIMEOUT_MS, call.timeout_ms) / 1000):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._body_bytes_max), call.address.host, call.address.port
                )
        except (OSError, TimeoutError) as error:
            if call is self._current:
                self._settle(call, connect_error(error, call.address))
            return
        if call is not self._current:
            connection.abort()
            return
        self._connecting = None
        self._connection, self._address = connection, call.address
        self._post(connection, call)

    def _post(self, connection: Connection, call: Call) -> None:
        host = f"[{call.address.host}]" if ":" in call.address.host else call.address.host
        head = (
            f"POST {RPC_PATH} HTTP/1.1\r\nHost: {host}:{call.address.port}\r\n"
            f"Content-Type: {MSGPACK}\r\nContent-Length: {len(call.body)}\r\n\r\n"
        )
        connection.post(head.encode("ascii"), call.body, lambda outcome: self._settle(call, outcome))

    def _settle(self, call: Call, outcome: Outcome) -> None:
        assert call is self._current
        assert call.timer is not None
        call.timer.cancel()
        self._current = None
        self._connecting = None
        self._used_s = self._loop.time()
        if not isinstance(outcome, Answer):
            self._disconnect()
        self._advance()
        call.on_outcome(outcome)

    def _expire(self, call: Call) -> None:
        """Time is up: definite as long as no byte of the request has been handed to a connection."""
        if call is not self._current:
            self._waiting.remove(call)
            call.on_outcome(_timed_out(call, "it was not sent: earlier requests are unanswered", definite=True))
            return
        sent = self._connecting is None
        self._give_up_current()
        self._advance()
        where = "its answer did not come" if sent else "the connection was not made"
        call.on_outcome(_timed_out(call, where, definite=not sent))

    def _give_up_current(self) -> None:
        self._current = None
        self._connecting = None  # not cancelled: the task finds its call given up and closes what it made
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None


def connect_error(error: BaseException, address: Address) -> MinilogError:
    """Nothing was sent, so each of these is definite."""
    where = f"{address.host}:{address.port}"
    if isinstance(error, TimeoutError) and not getattr(error, "errno", None):
        return TimedOut(f"{where} did not accept a connection in time", definite=True, reason="connect")
    if isinstance(error, ConnectionRefusedError) or getattr(error, "errno", None) == errno.ECONNREFUSED:
        return BrokerUnavailable(f"{where} refused the connection", definite=True, reason="refused")
    return BrokerUnavailable(f"{where} cannot be reached: {error}", definite=True, reason="unreachable")


def _timed_out(call: Call, where: str, *, definite: bool) -> TimedOut:
    address = f"{call.address.host}:{call.address.port}"
    return TimedOut(f"no answer from {address} in {call.timeout_ms} ms: {where}", definite=definite, reason="timeout")
