"""One keep-alive HTTP/1.1 connection to a peer: one POST at a time, its answer received straight
into one buffer.

Written by hand because the hot path between brokers needs little of HTTP: no pool, no retries, no
redirects, no chunked bodies, and an answer of several megabytes must not be copied on its way in
(``batches`` of a decoded message are views into the buffer made here). The buffer grows with what
arrives: a length that is only stated costs nothing. Anything else than a plain answer with a
Content-Length is garbage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, cast

from minilog.errors import BrokerUnavailable, MinilogError
from minilog.wire.peer_messages import NoAnswer

HEAD_BYTES_MAX = 16 * 1024
JOINED_BYTES_MAX = 64 * 1024
"""Head and body up to this size leave in one segment; above, copying costs more than a second
write."""
BELIEVED_BYTES_MAX = 8 * 1024 * 1024
"""Room made for an answer at its word, so that a usual replica fetch is not copied; beyond that, as
much again as has arrived."""


class Answer(NamedTuple):
    status: int
    content_type: str
    body: memoryview


Outcome = Answer | MinilogError


class Connection(asyncio.BufferedProtocol):
    """``on_outcome`` is called exactly once per ``post``, from the loop. Nothing calls it after
    ``abort``."""

    def __init__(self, body_bytes_max: int) -> None:
        self._body_bytes_max = body_bytes_max
        self._transport: asyncio.Transport | None = None
        self._on_outcome: Callable[[Outcome], None] | None = None
        self._head = bytearray(HEAD_BYTES_MAX)
        self._body = bytearray()
        self._length = 0
        """Of the whole body, as stated. ``_body`` may be shorter yet."""
        self._filled = 0
        self._answer: tuple[int, str] | None = None
        self._keep_alive = True
        self._loop = asyncio.get_running_loop()
        self.received_bytes = 0
        """Of the answer to the request at hand, its head included."""
        self._begun_s = self._heard_s = 0.0

    def due_s(self, patience_s: float, bytes_per_second_min: int) -> float:
        """Until when more must come, by the loop's clock. Call it once something has come."""
        steady_s = self._begun_s + self.received_bytes / bytes_per_second_min
        return min(self._heard_s, steady_s) + patience_s

    @property
    def is_made(self) -> bool:
        return self._transport is not None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def post(self, head: bytes, body: bytes, on_outcome: Callable[[Outcome], None]) -> None:
        """Send one request whose head already states the length of ``body``."""
        assert self._on_outcome is None, "one request at a time"
        assert self._transport is not None
        self._on_outcome = on_outcome
        self._filled = self.received_bytes = 0
        if len(body) <= JOINED_BYTES_MAX:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    def abort(self) -> None:
        self._on_outcome = None
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio calls these ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by what it does

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(BrokerUnavailable("the peer closed the connection before it had answered", reason=NoAnswer.RESET))

    def eof_received(self) -> None:
        """Returning None lets the transport close itself."""

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._answer is not None and self._filled == len(self._body):
            self._make_room()
        return memoryview(self._head if self._answer is None else self._body)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._heard_s = self._loop.time()
        if not self.received_bytes:
            self._begun_s = self._heard_s
        self.received_bytes += nbytes
        try:
            if self._answer is None and not self._read_head():
                return
        except (ValueError, MemoryError) as error:
            self._refuse(str(error) or "there is no memory for it")
            return
        if self._answer is not None and self._filled == self._length:
            self._complete(*self._answer)

    # --- reading ----------------------------------------------------------------------------------

    def _read_head(self) -> bool:
        """True once the head is whole. What came of the body with it is moved over. Raises
        ValueError."""
        if self._on_outcome is None:
            raise ValueError("bytes arrived that answer no request")
        end = self._head.find(b"\r\n\r\n", 0, self._filled)
        if end < 0:
            if self._filled == len(self._head):
                raise ValueError(f"the head of the answer is longer than {HEAD_BYTES_MAX} bytes")
            return False
        status, headers = parse_head(bytes(self._head[:end]))
        length = content_length(headers)
        surplus = self._filled - (end + 4)
        if length > self._body_bytes_max:
            raise ValueError(f"the answer holds {length} bytes, at most {self._body_bytes_max} are taken")
        if surplus > length:
            raise ValueError(f"{surplus - length} bytes follow the answer")
        self._keep_alive = headers.get("connection", "").lower() != "close"
        self._answer = (status, headers.get("content-type", ""))
        self._body = bytearray(min(length, BELIEVED_BYTES_MAX))
        self._body[:surplus] = self._head[end + 4 : self._filled]
        self._length, self._filled = length, surplus
        return True

    def _make_room(self) -> None:
        """Here, and not when bytes have come: then the event loop still holds a view of the
        buffer."""
        try:
            self._body += bytes(min(self._length - self._filled, self._filled))
        except MemoryError:
            self._answer, self._filled = None, 0
            self._refuse("there is no memory for it")

    def _complete(self, status: int, content_type: str) -> None:
        body, self._body = self._body, bytearray()
        self._answer = None
        self._filled = 0
        if not self._keep_alive and self._transport is not None:
            self._transport.close()
        self._finish(Answer(status, content_type, memoryview(body)))

    def _refuse(self, reason: str) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._finish(BrokerUnavailable(f"the peer's answer is not understood: {reason}", reason=NoAnswer.GARBAGE))

    def _finish(self, outcome: Outcome) -> None:
        on_outcome, self._on_outcome = self._on_outcome, None
        if on_outcome is not None:
            on_outcome(outcome)


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """(status, headers by lower-case name) of an answer's head without its final blank line. Raises
    ValueError."""
    status_line, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = status_line.partition(" ")
    code = rest[:3]
    if version != "HTTP/1.1" or not (code.isascii() and code.isdigit() and len(code) == 3):
        raise ValueError(f"it begins with {status_line[:40]!r}, not with an HTTP/1.1 status line")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"the header line {line[:40]!r} has no colon")
        headers[name.lower()] = value.strip()
    return int(code), headers


def content_length(headers: dict[str, str]) -> int:
    value = headers.get("content-length", "")
    if "transfer-encoding" in headers or not (value.isascii() and value.isdigit() and len(value) <= 15):
        raise ValueError(f"it states no plain Content-Length (seen: {value[:20]!r})")
    return int(value)
