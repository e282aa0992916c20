"""Pages of other origins: what a browser must be told before a script may see an answer (the Fetch
standard, "CORS protocol"). Off unless ``cors_origins`` names origins.

A redirect to another broker is one origin more, and a browser calls what comes behind it "null". So
what such a page reads of a partition is asked of its leader from here, and never redirected
(partition_reader.py).
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from minilog.broker.http.exchange import SERVER
from minilog.config import cors_origins
from minilog.wire.routes import ROUTES

MAX_AGE_S: Final = 600
ALLOWED_HEADERS: Final = (
    "Accept, Content-Type, If-Match, Last-Event-ID, Minilog-Producer-Id, Minilog-Producer-Epoch, Minilog-Sequence"
)
EXPOSED_HEADERS: Final = (
    "ETag, Location, Retry-After, Minilog-Next-Offset, Minilog-High-Watermark, Minilog-Log-Start-Offset, "
    "Minilog-Leader-Epoch, Minilog-Topic-Id, Minilog-Replica-Lag-Ms, Minilog-Replica-Lag-Records"
)
_METHODS: Final = ", ".join(sorted({route.method for route in ROUTES}))


class Origins:
    """Whose pages may read and write."""

    def __init__(self, setting: str) -> None:
        self._allowed = frozenset(cors_origins(setting))

    def headers(self, request: web.BaseRequest) -> dict[str, str]:
        """For every answer to this request; empty where nobody of another origin is allowed."""
        if not self._allowed:
            return {}
        if "*" in self._allowed:
            return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": EXPOSED_HEADERS}
        origin = request.headers.get("Origin", "")
        if origin not in self._allowed:
            return {"Vary": "Origin"}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": EXPOSED_HEADERS,
            "Vary": "Origin",
        }

    def preflight(self, request: web.BaseRequest) -> web.Response | None:
        """The answer to a browser that asks whether it may send a request; None when this is no
        such question, or the origin is not allowed."""
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return None
        headers = self.headers(request)
        if "Access-Control-Allow-Origin" not in headers:
            return None
        headers |= {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": ALLOWED_HEADERS,
            "Access-Control-Max-Age": str(MAX_AGE_S),
            "Server": SERVER,
        }
        return web.Response(status=204, headers=headers)
