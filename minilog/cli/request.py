"""One HTTP request, with nothing but the standard library: its answer, or how far it came.

Never by way of a proxy: records do not travel so either, and a proxy set for the world outside
knows nobody of a cluster.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from minilog.cli.access import credential as own_credential
from minilog.errors import MinilogError
from minilog.wire.http import JSON, error_from_response
from minilog.wire.routes import path_of

if TYPE_CHECKING:
    from minilog_client.credential import Credential

METADATA_TIMEOUT_S: Final = 3.0


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
    credential: Credential | None = None,
) -> bytes:
    """The body of a success. Raises the MinilogError that was answered, or Unanswered; redirects of
    a GET are followed.

    With ``media``, a success of another media type is the answer of somebody else, a proxy's page
    perhaps: Unanswered. ``credential`` None: what options and the environment name."""
    shown = credential or own_credential()
    request = urllib.request.Request(url, data, dict(headers or {}), method=method)
    for name, value in shown.headers(url).items() if shown is not None else ():
        request.add_unredirected_header(name, value)  # a redirect shows it to hosts that are known, and to no other
    trace = _Trace()
    try:
        with _opener(trace, url, shown).open(request, timeout=timeout_s) as answer:
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


class _Traced(http.client.HTTPConnection):
    trace: _Trace

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.trace.was_sent = True
        super().send(data)


class _TracedSecure(_Traced, http.client.HTTPSConnection):
    """The same over TLS."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """A broker sends on to the leader. The token goes along to a process of the cluster, never from
    TLS to plain HTTP."""

    def __init__(self, shown: Credential) -> None:
        self._shown = shown

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        there = super().redirect_request(req, fp, code, msg, headers, newurl)
        if there is not None and self._is_of_cluster(req.full_url, newurl):
            for name, value in self._shown.headers(newurl).items():
                there.add_unredirected_header(name, value)
        return there

    def _is_of_cluster(self, from_url: str, to_url: str) -> bool:
        """As the broker's metadata says."""
        before, after = urlsplit(from_url), urlsplit(to_url)
        if not self._shown.headers(from_url) or (before.scheme == "https" and after.scheme != "https"):
            return False
        base = f"{before.scheme}://{before.netloc}"
        known = msgspec.json.decode(send(base + path_of("brokers"), "GET", METADATA_TIMEOUT_S, media=JSON))
        named = {urlsplit(broker["url"]).netloc for broker in known["brokers"]}
        return after.netloc in named


def _traced(kind: type[Any], trace: _Trace) -> Callable[..., Any]:
    def make(host: str, **options: Any) -> Any:
        connection = kind(host, **options)
        connection.trace = trace
        return connection

    return make


def _opener(trace: _Trace, url: str, shown: Credential | None) -> urllib.request.OpenerDirector:
    class Handler(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(_traced(_Traced, trace), request)

    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), Handler()]
    if shown is not None:
        handlers.append(_Redirects(shown))
    if url.startswith("https:"):

        class SecureHandler(urllib.request.HTTPSHandler):
            def https_open(self, request: urllib.request.Request) -> Any:
                return self.do_open(_traced(_TracedSecure, trace), request, context=shown and shown.context())

        handlers.append(SecureHandler())
    return urllib.request.build_opener(*handlers)
