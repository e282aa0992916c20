"""What RFC 9110 and RFC 9112 ask of a server beyond what aiohttp looks at: which requests it may
not serve, and what the last answer of a connection is.

What the parser itself refuses comes as an exception that says little. A request line with a version
that nobody knows is one like any other that is malformed: 400, where 505 would say more.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from aiohttp import HttpVersion11, http_exceptions, web

from minilog.errors import InvalidRequest, MinilogError, Overloaded, TimedOut
from minilog.wire.http import PROBLEM, problem_body, shown

_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*(?::[0-9]*)?|\[[0-9A-Fa-fVv:.%A-Za-z_~-]+\](?::[0-9]*)?"
)
"""``uri-host [ ":" port ]``. It may be empty."""
UNKNOWN_METHOD: Final = getattr(http_exceptions, "BadHttpMethod", http_exceptions.BadStatusLine)
"""What aiohttp calls a method that it does not know; before 3.11 it had no name of its own."""
LINE_BYTES: Final = 16
"""Of a line of the head, beside what it says, at most."""
Refusal = tuple[HTTPStatus, MinilogError]


def refusal_of(request: web.BaseRequest) -> Refusal | None:
    """Why the head of a request is one that must not be served, or None."""
    headers = request.headers
    hosts = headers.getall("Host", [])
    if len(hosts) > 1 or (not hosts and request.version == HttpVersion11):  # newer versions of aiohttp look themselves
        return HTTPStatus.BAD_REQUEST, InvalidRequest(f"{len(hosts)} Host headers came; HTTP/1.1 wants one")
    host = hosts[0] if hosts else None
    if host is not None and _HOST.fullmatch(host.strip(" \t")) is None:
        return HTTPStatus.BAD_REQUEST, InvalidRequest(f"Host is {shown(host)}; it must be a host, or host:port")
    if not (1, 0) <= request.version <= HttpVersion11:
        said = ".".join(map(str, request.version))
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, InvalidRequest(
            f"this is HTTP/{said}; allowed: HTTP/1.1, HTTP/1.0"
        )
    if "Transfer-Encoding" in headers and headers["Transfer-Encoding"].strip(" \t").lower() != "chunked":
        return HTTPStatus.NOT_IMPLEMENTED, InvalidRequest(
            f"Transfer-Encoding is {shown(headers['Transfer-Encoding'])}; allowed: chunked"
        )
    return None


def refusal_of_bytes(error: BaseException | None, message: str | None, *, is_target: bool) -> Refusal:
    """What to answer to bytes that the parser refused. ``is_target``: the first line is not over
    yet."""
    reason = (message or str(error)).strip().split("\n")[0].rstrip(":. ")
    status = HTTPStatus.BAD_REQUEST
    if isinstance(error, http_exceptions.LineTooLong):
        status = HTTPStatus.REQUEST_URI_TOO_LONG if is_target else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    elif isinstance(error, UNKNOWN_METHOD):
        status = HTTPStatus.NOT_IMPLEMENTED
    return status, InvalidRequest(f"this is not a valid HTTP/1.1 request: {shown(reason)}; the connection is closed")


def last_answer(refusal: Refusal) -> bytes:
    """The bytes after which a connection is closed."""
    status, error = refusal
    body = problem_body(error, status)
    later = "Retry-After: 1\r\n" if isinstance(error, Overloaded | TimedOut) else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {PROBLEM}\r\nContent-Length: {len(body)}\r\n"
        f"Date: {formatdate(usegmt=True)}\r\nServer: minilog\r\n{later}Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


class LastAnswer(web.StreamResponse):
    """An answer whose bytes are known, with which the connection ends. ``end`` writes them."""

    def __init__(self, end: Callable[[bytes], Awaitable[None]], refusal: Refusal) -> None:
        super().__init__()
        self.force_close()
        self._end = end
        self._answer = last_answer(refusal)

    async def prepare(self, request: web.BaseRequest) -> None:
        """There is nothing to prepare."""

    async def write_eof(self, data: bytes = b"") -> None:
        await self._end(self._answer)


def size_of(request: web.BaseRequest, unstated_bytes: int) -> int:
    """How many bytes it took, or a little more: nobody is held up for what has gone. A body whose
    length was not stated counts as ``unstated_bytes``."""
    head = len(request.method) + len(request.raw_path) + LINE_BYTES
    head += sum(len(name) + len(value) + LINE_BYTES for name, value in request.raw_headers)
    if request.content_length is None:
        return head + (unstated_bytes if request.body_exists else 0)
    return head + request.content_length
