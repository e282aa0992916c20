"""The page: its sources put together into one document that asks for nothing from elsewhere.

What the page may do is said in the headers. Its script and its style are named by their hashes, so
nothing that gets into the document runs. It may ask this process and nobody else. No text becomes
HTML: browsers that know trusted types refuse it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

from minilog.wire.http import HTML, JSON, accepted

SCRIPTS: Final = (
    "text", "elements", "state", "shapes", "overview", "topics", "records", "groups", "incidents", "brokers", "console",
)  # fmt: skip
"""In this order. They share one scope, which is nobody else's."""
PAGE_BYTES_MAX: Final = 150 * 1024


class Page(NamedTuple):
    body: bytes
    headers: Mapping[str, str]


@functools.cache
def page() -> Page:
    folder = resources.files("minilog.console") / "page"
    style = _read(folder, "console.css")
    script = '"use strict";{\n' + "\n".join(_read(folder, f"{name}.js") for name in SCRIPTS) + "}\n"
    body = _read(folder, "index.html").replace("/*style*/", style).replace("/*script*/", script).encode()
    assert len(body) <= PAGE_BYTES_MAX, f"the console has {len(body)} bytes; allowed are {PAGE_BYTES_MAX}"
    return Page(body, _headers(script, style))


def wants_page(accept: str | None) -> bool:
    """Programs get JSON, and so does who takes either. Raises NotAcceptable."""
    return accepted(accept, (JSON, HTML)) == HTML


def _read(folder: Traversable, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def _headers(script: str, style: str) -> dict[str, str]:
    policy = (
        "default-src 'none'",
        f"script-src {_hash(script)}",
        f"style-src {_hash(style)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
        "Vary": "Accept",
    }


def _hash(text: str) -> str:
    """As a policy names an inline element: its very characters count."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
