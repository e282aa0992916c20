"""Headers that every answer carries, and those that say how to be let in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from minilog.core.access.rates import Standing
from minilog.wire.http import RETRY_AFTER_S

SAFE: Final[Mapping[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Nothing that is answered is a page, is kept, or is taken for another type. The console says its
own."""
ASK_FOR_TOKEN: Final[Mapping[str, str]] = {"WWW-Authenticate": 'Bearer realm="minilog", Basic realm="minilog"'}
"""A browser asks its person for a name and a password: the password is the token."""


def make_safe(answer: web.StreamResponse) -> None:
    for name, value in SAFE.items():
        answer.headers.setdefault(name, value)


def retry_after_s(info: Mapping[str, Any]) -> int:
    """Of an error that says how long to wait, in whole seconds."""
    wait_ms = info.get("retry_after_ms")
    return -(-wait_ms // 1000) if isinstance(wait_ms, int) and wait_ms > 0 else RETRY_AFTER_S


def rate_headers(standing: Standing) -> dict[str, str]:
    """As the IETF's draft on RateLimit headers has them."""
    reset_s = -(-standing.wait_ms // 1000) or 1
    return {
        "RateLimit-Policy": f'"{standing.unit}";q={standing.limit};w=1',
        "RateLimit": f'"{standing.unit}";r={standing.left};t={reset_s}',
    }
