"""Delivery: the answer to one request, from the records read for it until its client has taken the
last byte.

Owns two bounds. ``Answers`` is what all answers of a broker may hold at one time: an answer gets at
most half of what is free, so large ones leave room for small ones, and clients that take nothing of
theirs stop nobody else's reads. One alone is never refused. Every answer that can become large asks
for its room while refusing is still possible: a read before it is answered, a write before anything
is written. Progress is what keeps a connection: who takes no byte within response_write_ms loses
it, however large the answer is, and so does who takes less than body_bytes_per_second_min on the
whole.

A large answer is handed to the transport piece by piece, because the transport copies what the
kernel does not take. So what is charged, the body and one piece, is what is held.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from aiohttp import web

from minilog import machine
from minilog.config import Limits
from minilog.errors import Overloaded
from minilog.server.inbound.request_body import SMALL_BYTES, Budget
from minilog.server.inbound.request_gate import CLIENT
from minilog.wire.http import shown

log = logging.getLogger("minilog.http")

PIECE_BYTES: Final = 2 * 1024 * 1024
LOOKS: Final = 4
"""How often within response_write_ms it is looked whether a client has taken something."""


class Answers(Budget):
    """What all answers hold. It refuses, it never makes anybody wait."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__("answers", bytes_max)

    def check(self, client: str, count: int) -> None:
        """Raises Overloaded when ``count`` is more than half of what the others leave free, or more
        than the share of its client. One alone is never refused, however large: it would be so at
        any later time.

        A small answer, as health and an empty poll are, is never refused: connections_max bounds
        how many there are."""
        if count <= SMALL_BYTES or not self.used_bytes:
            return
        if count > (self.bytes_max - self.used_bytes) // 2:
            raise Overloaded(
                f"this broker holds {self.used_bytes} bytes of answers that are not taken yet; {count} more would be more "
                f"than half of what is left of {self.bytes_max} (limits.inflight_bytes_max); retry later, or ask for less"
            )
        self.check_share(client, count)

    def room_bytes(self, client: str) -> int:
        """The most that one more answer of ``client`` may hold now."""
        free = self.bytes_max - self.used_bytes
        return max(SMALL_BYTES, min(free // 2, self.share_bytes(client)) if self.used_bytes else free)


class Delivery:
    """``expect`` while refusing is still possible, then ``send``, or ``write`` piece by piece and
    ``end``. ``release`` always."""

    __slots__ = ("_answers", "_client", "_held_bytes", "_limits", "_request")

    def __init__(self, request: web.BaseRequest, answers: Answers, limits: Limits) -> None:
        self._request = request
        self._answers = answers
        self._client = CLIENT.get()
        self._limits = limits
        self._held_bytes = 0

    def room_bytes(self) -> int:
        """How large this answer may become. Raises Overloaded when there is hardly any room: then
        nothing needs to be read."""
        room = self._answers.room_bytes(self._client)
        if room <= SMALL_BYTES:
            self._answers.check(self._client, SMALL_BYTES + 1)
        return room

    def expect(self, count: int) -> None:
        """So much will be held for this answer, instead of what was said before. Raises
        Overloaded."""
        self.release()
        self._answers.check(self._client, count)
        self._answers.hold(self._client, count)
        self._held_bytes = count

    def release(self) -> None:
        if self._held_bytes:
            self._answers.hold(self._client, 0, self._held_bytes)
            self._held_bytes = 0

    async def send(self, response: web.StreamResponse) -> web.StreamResponse:
        """The whole answer. What is returned is what went out."""
        transport = self._request.transport
        if transport is None:
            return response
        if not self._request.content.is_eof() and "Expect" in self._request.headers:
            response.force_close()  # whether the body will still come is unknown
        if "Upgrade" in self._request.headers:
            response.force_close()  # not all versions of aiohttp read on behind an upgrade that was declined
        size = response.content_length or 0
        held_bytes = _held(size)  # whether there is room was asked where refusing was still possible
        self._answers.hold(self._client, held_bytes, self._held_bytes)
        self._held_bytes = held_bytes
        watch = _watch(self._request, transport, self._limits, size)
        try:
            if size <= PIECE_BYTES or self._request.method == "HEAD" or not isinstance(response, web.Response):
                await response.prepare(self._request)
                await response.write_eof()
                return response
            return await self._send_pieces(response)
        finally:
            watch.cancel()
            if log.isEnabledFor(logging.DEBUG):
                asked = self._request.method, shown(self._request.raw_path), self._request.remote
                log.debug("%s %s from %s: %d, %d bytes", *asked, response.status, size)

    async def write(self, stream: web.StreamResponse, data: bytes) -> None:
        """The next part of an answer without an end. Raises Overloaded, or ConnectionError when the
        client is gone."""
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the client has left")
        self.expect(_held(len(data)))
        watch = _watch(self._request, transport, self._limits, len(data))
        try:
            await self._write_pieces(stream, data)
        finally:
            watch.cancel()
            self.release()

    async def end(self, stream: web.StreamResponse) -> None:
        """The end of an answer that was written piece by piece, in the time of a small piece."""
        transport = self._request.transport
        if transport is None:
            return
        watch = _watch(self._request, transport, self._limits, 0)
        try:
            await stream.write_eof()
        finally:
            watch.cancel()

    async def _send_pieces(self, response: web.Response) -> web.StreamResponse:
        body = response.body
        assert isinstance(body, bytes | bytearray)
        stream = web.StreamResponse(status=response.status, headers=response.headers)
        stream.content_length = len(body)
        if response.keep_alive is False:
            stream.force_close()
        await stream.prepare(self._request)
        await self._write_pieces(stream, body)
        await stream.write_eof()
        return stream

    async def _write_pieces(self, stream: web.StreamResponse, body: bytes | bytearray) -> None:
        view = memoryview(body)
        for start in range(0, len(view), PIECE_BYTES):
            await stream.write(view[start : start + PIECE_BYTES])
            await self._request.writer.drain()


def _held(size: int) -> int:
    """The body, and the transport's copy of a piece of it."""
    return 2 * size if size < PIECE_BYTES else size + PIECE_BYTES


class Watch(Protocol):
    def cancel(self) -> None: ...


def _watch(request: web.BaseRequest, transport: asyncio.Transport, limits: Limits, size: int) -> Watch:
    """Cuts the connection off when the client takes nothing, or too little. Until it is
    cancelled."""
    window_s, deadline_s = limits.response_write_ms / 1000, size / limits.body_bytes_per_second_min
    if deadline_s <= window_s:  # the whole of it is due by the first look
        return asyncio.get_running_loop().call_later(window_s, transport.abort)
    return _Progress(request, transport, window_s, deadline_s)


class _Progress:
    """Looks again and again whether the client has taken something."""

    __slots__ = ("_end_s", "_loop", "_request", "_taken", "_taken_s", "_timer", "_transport", "_window_s")

    def __init__(
        self, request: web.BaseRequest, transport: asyncio.Transport, window_s: float, deadline_s: float
    ) -> None:
        self._request = request
        self._transport = transport
        self._window_s = window_s
        self._loop = asyncio.get_running_loop()
        self._end_s = self._loop.time() + deadline_s
        self._taken = self._taken_bytes()
        self._taken_s = self._loop.time()
        """When it was last seen to be more."""
        self._timer = self._loop.call_later(window_s / LOOKS, self._look)

    def cancel(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now_s, taken = self._loop.time(), self._taken_bytes()
        if taken > self._taken:
            self._taken, self._taken_s = taken, now_s
        left_s = min(self._taken_s + self._window_s, self._end_s) - now_s
        if left_s <= 0:
            self._transport.abort()
            return
        self._timer = self._loop.call_later(min(self._window_s / LOOKS, left_s), self._look)

    def _taken_bytes(self) -> int:
        """What the client's machine has acknowledged. Where the kernel does not tell, what this
        kernel has taken."""
        written = self._request.writer.output_size
        return written - self._transport.get_write_buffer_size() - unacknowledged(self._transport)


def unacknowledged(transport: asyncio.BaseTransport) -> int:
    """Bytes that this kernel holds for the other side."""
    connection = transport.get_extra_info("socket")
    return 0 if connection is None or connection.fileno() < 0 else machine.unsent_bytes(connection.fileno())
