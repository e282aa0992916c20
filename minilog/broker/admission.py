"""Request bodies: admitted before they are read, bounded in size, time and number of bytes held at once."""

from __future__ import annotations

import asyncio

from aiohttp import web

from minilog.config import Limits
from minilog.errors import InvalidRequest, Overloaded, RequestTooLarge, TimedOut, UnsupportedMediaType
from minilog.wire.http import shown

EXPECT_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Budget:
    """Bytes that may be held at the same time. It refuses, it never makes anybody wait."""

    def __init__(self, name: str, bytes_max: int) -> None:
        self._name = name
        self.bytes_max = bytes_max
        self.used_bytes = 0

    def check(self, count: int) -> None:
        """Raises Overloaded when ``count`` more would be too much."""
        if self.used_bytes + count > self.bytes_max:
            raise Overloaded(
                f"this broker holds {self.used_bytes} bytes of {self._name}; {count} more would pass its limit of "
                f"{self.bytes_max} (limits.inflight_bytes_max); retry later"
            )

    def take(self, count: int) -> None:
        self.check(count)
        self.used_bytes += count

    def give_back(self, count: int) -> None:
        self.used_bytes -= count
        assert self.used_bytes >= 0, "more given back than taken"


class Body:
    """The body of one request. ``read`` once; ``release`` always."""

    __slots__ = ("_budget", "_bytes_max", "_limits", "_request", "_taken", "size_bytes")

    def __init__(self, request: web.BaseRequest, limits: Limits, budget: Budget, bytes_max: int) -> None:
        self._request = request
        self._limits = limits
        self._budget = budget
        self._bytes_max = bytes_max
        self._taken = 0
        self.size_bytes = 0

    async def read(self) -> bytes:
        """The whole body. Raises before reading a byte when its stated length or the state of the broker forbid it."""
        request = self._request
        length = request.content_length
        if "Content-Encoding" in request.headers:
            self._check_encoding(request.headers["Content-Encoding"])
        if length is not None:
            self._check_size(length)
            self._take(length)
        if "Expect" in request.headers:
            await self._continue(request.headers["Expect"])
        if request.content.is_eof() and request.content.exception() is None:
            body = request.content.read_nowait()
        else:
            body = await self._read_within_deadline(length)
        if self._taken < len(body):
            self._check_size(len(body))
            self._take(len(body) - self._taken)
        self.size_bytes = len(body)
        return body

    def release(self) -> None:
        if self._taken:
            self._budget.give_back(self._taken)
            self._taken = 0

    async def _read_within_deadline(self, length: int | None) -> bytes:
        """The deadline of a chunked body moves with what has arrived."""
        content = self._request.content
        chunks: list[bytes] = []
        total = 0
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            async with asyncio.timeout_at(begin + self._allowance_s(length or 0)) as deadline:
                while chunk := await content.readany():
                    chunks.append(chunk)
                    total += len(chunk)
                    if length is None:
                        self._check_size(total)
                        self._take(len(chunk))
                        deadline.reschedule(begin + self._allowance_s(total))
        except TimeoutError:
            raise TimedOut(
                f"the body did not arrive in time: {total} of {'?' if length is None else length} bytes came in "
                f"{loop.time() - begin:.1f} s (limits.body_read_ms, limits.body_bytes_per_second_min)",
                definite=True,
            ) from None
        except web.RequestPayloadError as error:
            raise InvalidRequest(f"the body is not valid HTTP/1.1: {shown(str(error))}") from None
        return b"".join(chunks)

    def _allowance_s(self, count: int) -> float:
        return max(self._limits.body_read_ms / 1000, count / self._limits.body_bytes_per_second_min)

    def _check_size(self, count: int) -> None:
        if count > self._bytes_max:
            raise RequestTooLarge(
                f"the body has {count} bytes or more; allowed are {self._bytes_max} (limits.request_bytes_max)"
            )

    def _take(self, count: int) -> None:
        self._budget.take(count)
        self._taken += count

    def _check_encoding(self, encoding: str) -> None:
        if encoding.strip().lower() not in ("", "identity"):
            raise UnsupportedMediaType(
                f"Content-Encoding is {shown(encoding)}; allowed: identity. Compress inside the record batch instead"
            )

    async def _continue(self, expect: str) -> None:
        if expect.strip().lower() != "100-continue":
            raise InvalidRequest(f"Expect is {shown(expect)}; allowed: 100-continue")
        if not self._request.content.is_eof():
            await self._request.writer.write(EXPECT_CONTINUE)
            self._request.writer.output_size = 0
