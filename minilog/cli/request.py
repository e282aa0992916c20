"""One HTTP request, with nothing but the standard library: its answer, or how far it came.

Never by way of a proxy: records do not travel so either, and a proxy set for the world outside
knows nobody of a cluster.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from minilog.errors import MinilogError
from minilog.wire.http import error_from_response


class Unanswered(Exception):
    """No answer came. ``was_sent``: some of the request had left, so what it asks for may have
    happened."""

    def __init__(self, reason: str, *, was_sent: bool, is_late: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.was_sent = was_sent
        self.is_late = is_late
        """Nothing went wrong but that time ran out."""


def send(
    url: str,
    method: str,
    timeout_s: float,
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    media: str | None = None,
) -> bytes:
    """The body of a success. Raises the MinilogError that was answered, or Unanswered; redirects of
    a GET are followed.

    With ``media``, a success of another media type is the answer of somebody else, a proxy's page
    perhaps: Unanswered."""
    request = urllib.request.Request(url, data, dict(headers or {}), method=method)
    trace = _Trace()
    try:
        with _opener(trace, url).open(request, timeout=timeout_s) as answer:
            body, kind = bytes(answer.read()), answer.headers.get_content_type()
    except urllib.error.HTTPError as error:
        raise _answered(error, trace, timeout_s) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unanswered(error, trace, timeout_s) from None
    if media is not None and kind != media:
        raise Unanswered(f"no minilog broker answers there: {kind} came, not {media}", was_sent=True, is_late=False)
    return body


def _answered(error: urllib.error.HTTPError, trace: _Trace, timeout_s: float) -> MinilogError | Unanswered:
    try:
        return error_from_response(error.code, dict(error.headers.items()), error.read())
    except (OSError, http.client.HTTPException) as broken:
        return _unanswered(broken, trace, timeout_s)


def _unanswered(error: Exception, trace: _Trace, timeout_s: float) -> Unanswered:
    reason = getattr(error, "reason", error)
    is_late = isinstance(reason, TimeoutError)
    words = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    if is_late:
        words = f"no answer in {timeout_s:g} s" if trace.was_sent else f"no connection in {timeout_s:g} s"
    elif isinstance(reason, http.client.HTTPException):
        words = "the connection ended before the answer was whole"
    return Unanswered(words, was_sent=trace.was_sent, is_late=is_late)


class _Trace:
    """``was_sent`` from just before the first byte of a request is handed to the kernel."""

    was_sent = False


class _Connection(http.client.HTTPConnection):
    trace: _Trace

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.trace.was_sent = True
        super().send(data)


class _SecureConnection(http.client.HTTPSConnection):
    trace: _Trace
    send = _Connection.send


def _traced(kind: type[Any], trace: _Trace) -> Callable[..., Any]:
    def make(host: str, **options: Any) -> Any:
        connection = kind(host, **options)
        connection.trace = trace
        return connection

    return make


def _opener(trace: _Trace, url: str) -> urllib.request.OpenerDirector:
    class Handler(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(_traced(_Connection, trace), request)

    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), Handler()]
    if url.startswith("https:"):

        class SecureHandler(urllib.request.HTTPSHandler):
            def https_open(self, request: urllib.request.Request) -> Any:
                return self.do_open(_traced(_SecureConnection, trace), request)

        handlers.append(SecureHandler())
    return urllib.request.build_opener(*handlers)
