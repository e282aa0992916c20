"""Request bodies: admitted before they are read, bounded in size, time and number of bytes held at
once.

What is charged is what has arrived, not what was announced: who announces much and sends nothing
holds nothing. A body gets at most half of what others leave, so large ones leave room, and all of a
client together, where others have some, as much as they leave to them (R45). A small one, as
heartbeats and probes are, is never refused because of others, and connections_max bounds how many
there are. Progress is what keeps a body coming: nothing within body_read_ms, or less than
body_bytes_per_second_min on the whole after that, ends the request.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import HttpVersion11, StreamReader, web

from minilog.config import KIB, Limits
from minilog.core.shares import Shares
from minilog.errors import InvalidRequest, Overloaded, RequestTooLarge, TimedOut, UnsupportedMediaType
from minilog.server.inbound.request_gate import CLIENT
from minilog.wire.http import shown

EXPECT_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SMALL_BYTES: Final = 64 * KIB
"""A body up to this size, or up to a 16th of a small budget, is charged as any other, and never
refused because of others."""
STEP_BYTES: Final = 256 * KIB
"""The charge of a body that is arriving grows by so much at a time."""
PIECES_AT_ONCE: Final = 16
"""Of one body, before others go on."""
PIECE_BYTES_MIN: Final = 1024
"""Smaller pieces are put together as they come: each would cost more than it holds."""
LOOKS: Final = 4
"""How often within body_read_ms it is looked whether something has arrived."""


def refuse_body(request: web.BaseRequest) -> None:
    """Raises InvalidRequest where a request that asks for something brings something. Nobody would
    read that, and while it is not read nobody would see the client leave."""
    if request.body_exists:
        raise InvalidRequest(f"a {request.method} has no body here; what is asked for goes into path and query")


class Budget:
    """Bytes that may be held at the same time, shared by clients (R45). It refuses, it never makes
    anybody wait."""

    def __init__(self, name: str, bytes_max: int) -> None:
        self._name = name
        self.bytes_max = bytes_max
        self._shares = Shares(bytes_max)

    @property
    def used_bytes(self) -> int:
        return self._shares.total

    def hold(self, client: str, count: int, instead_of: int = 0) -> None:
        """``client`` holds ``count`` from now on for what held ``instead_of``. Nobody is asked."""
        if count > instead_of:
            self._shares.take(client, count - instead_of)
        elif count < instead_of:
            self._shares.give_back(client, instead_of - count)

    def share_bytes(self, client: str) -> int:
        """How much more ``client`` may hold: as much as all hold nothing of, less what it holds.
        One that is alone leaves nobody waiting, and has all."""
        free = self.bytes_max - self.used_bytes
        held = self._shares.held[client]
        return free - held if held < self.used_bytes else free

    def check_share(self, client: str, count: int) -> None:
        """Raises Overloaded when ``client`` would hold more than it leaves to others."""
        if count > self.share_bytes(client):
            raise Overloaded(
                f"this client holds {self._shares.held[client]} bytes of {self._name} here, and others hold some too; "
                f"{count} more would be more than it leaves to them of {self.bytes_max} (limits.inflight_bytes_max); "
                "retry later, or ask for and send less at a time"
            )


class Requests(Budget):
    """What all request bodies of a kind hold."""

    def __init__(self, name: str, bytes_max: int) -> None:
        super().__init__(name, bytes_max)
        self.small_bytes = min(SMALL_BYTES, bytes_max // 16)

    def check_body(self, client: str, size: int, held: int = 0) -> None:
        """Raises Overloaded when a body of ``size``, of which ``held`` are charged, is more than
        half of what others leave, or more than the share of its client."""
        if size <= self.small_bytes:
            return
        others = self.used_bytes - held
        free = max(0, self.bytes_max - others)
        if size > (free // 2 if others else free):
            raise Overloaded(
                f"{others} bytes of other {self._name} are held here; {size} more would be more than half of what is left of "
                f"{self.bytes_max} (limits.inflight_bytes_max); retry later, or send less at a time"
            )
        self.check_share(client, size - held)


class RequestBody:
    """The body of one request. ``read`` once. ``release`` always."""

    __slots__ = ("_bytes_max", "_client", "_limits", "_request", "_requests", "_taken", "size_bytes")

    def __init__(self, request: web.BaseRequest, limits: Limits, requests: Requests, bytes_max: int) -> None:
        self._request = request
        self._limits = limits
        self._requests = requests
        self._client = CLIENT.get()
        self._bytes_max = bytes_max
        self._taken = 0
        self.size_bytes = 0

    async def read(self) -> bytes:
        """The whole body. Raises before reading a byte when its stated length or the state of the
        broker forbid it."""
        request = self._request
        length = request.content_length
        is_here = request.content.is_eof() and request.content.exception() is None
        if "Content-Encoding" in request.headers:
            self._check_encoding(request.headers["Content-Encoding"])
        if length is not None:
            self._check_size(length)
            if not is_here:
                self._requests.check_body(self._client, length)
        if "Expect" in request.headers:
            await self._continue(request.headers["Expect"])
        if is_here:
            body = request.content.read_nowait()
            if length is None:
                self._check_size(len(body))
        else:
            body = await self._receive(length)
        self._charge(len(body))
        self.size_bytes = len(body)
        return body

    def release(self) -> None:
        if self._taken:
            self._requests.hold(self._client, 0, self._taken)
            self._taken = 0

    async def _receive(self, length: int | None) -> bytes:
        pieces = Pieces(self._request.content)
        arrival = _Arrival(self._limits)
        try:
            async with asyncio.timeout_at(arrival.end_s) as deadline:
                arrival.watch(deadline)
                while count := await pieces.read():
                    arrival.count += count
                    if arrival.count > self._taken:
                        self._grow(arrival.count, length)
        except TimeoutError:
            raise TimedOut(
                f"the body did not arrive in time: {arrival.count} of {'?' if length is None else length} bytes came in "
                f"{arrival.age_s:.1f} s (limits.body_read_ms, limits.body_bytes_per_second_min)",
                definite=True,
            ) from None
        except (OSError, RuntimeError) as error:
            if self._request.transport is not None:
                raise
            raise ConnectionResetError("the client has left in the middle of its body") from error
        except web.RequestPayloadError as error:
            raise InvalidRequest(f"the body is not valid HTTP/1.1: {shown(str(error))}") from None
        finally:
            arrival.stop()
        return pieces.all()

    def _grow(self, count: int, length: int | None) -> None:
        """Charge ``count`` bytes that have arrived, and some of what is about to."""
        self._check_size(count)
        ahead = count if count <= SMALL_BYTES else count + STEP_BYTES
        self._charge(max(count, min(ahead, self._bytes_max if length is None else length)))

    def _charge(self, count: int) -> None:
        """From now on the body holds ``count``. Raises Overloaded. Then it holds what it held."""
        if count > self._taken:
            self._requests.check_body(self._client, count, self._taken)
        self._requests.hold(self._client, count, self._taken)
        self._taken = count

    def _check_size(self, count: int) -> None:
        if count > self._bytes_max:
            by_limits = " (limits.request_bytes_max)" if self._bytes_max >= self._limits.request_bytes_max else ""
            raise RequestTooLarge(f"the body has {count} bytes or more; allowed here are {self._bytes_max}{by_limits}")

    def _check_encoding(self, encoding: str) -> None:
        if encoding.strip().lower() not in ("", "identity"):
            raise UnsupportedMediaType(
                f"Content-Encoding is {shown(encoding)}; allowed: identity. Compress inside the record batch instead"
            )

    async def _continue(self, expect: str) -> None:
        if expect.strip().lower() != "100-continue":
            raise InvalidRequest(f"Expect is {shown(expect)}; allowed: 100-continue")
        if not self._request.content.is_eof() and self._request.version >= HttpVersion11:
            await self._request.writer.write(EXPECT_CONTINUE)
            self._request.writer.output_size = 0


class Pieces:
    """What comes of a body. A chunk may hold a byte, and fifty thousand of them may be there, so it
    is taken chunk by chunk: ``readany`` returns behind the last one and not before."""

    __slots__ = ("_content", "_large", "_small", "_taken")

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self._large: list[bytes] = []
        self._small = bytearray()
        self._taken = 0

    async def read(self) -> int:
        """How many bytes have come, 0 at the end."""
        self._taken += 1
        if self._taken % PIECES_AT_ONCE == 0:
            await asyncio.sleep(0)
        piece, is_chunks_end = await self._content.readchunk()
        while is_chunks_end and not piece:
            piece, is_chunks_end = await self._content.readchunk()
        if len(piece) < PIECE_BYTES_MIN:
            self._small += piece
        else:
            self._fold()
            self._large.append(piece)
        return len(piece)

    def all(self) -> bytes:
        self._fold()
        return b"".join(self._large)

    def _fold(self) -> None:
        if self._small:
            self._large.append(bytes(self._small))
            self._small.clear()


class _Arrival:
    """How much of a body has come, and until when more of it must. Looks from time to time, so that
    a chunk costs an addition."""

    __slots__ = (
        "_begin_s",
        "_deadline",
        "_limits",
        "_loop",
        "_seen",
        "_seen_s",
        "_timer",
        "_window_s",
        "count",
        "end_s",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._window_s = limits.body_read_ms / 1000
        self._begin_s = self._seen_s = self._loop.time()
        self._seen = 0
        self._deadline: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.count = 0
        self.end_s = self._begin_s + self._window_s

    @property
    def age_s(self) -> float:
        return self._loop.time() - self._begin_s

    def watch(self, deadline: asyncio.Timeout) -> None:
        self._deadline = deadline
        self._timer = self._loop.call_later(self._window_s / LOOKS, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        assert self._deadline is not None
        if self._deadline.expired():
            return
        if self.count > self._seen:
            self._seen, self._seen_s = self.count, self._loop.time()
        due_s = self._begin_s + self.count / self._limits.body_bytes_per_second_min
        self.end_s = min(self._seen_s, due_s) + self._window_s
        self._deadline.reschedule(self.end_s)
        self._timer = self._loop.call_later(self._window_s / LOOKS, self._look)
