"""Loaded into schemathesis (SCHEMATHESIS_HOOKS): the media type that it does not know."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import schemathesis


@schemathesis.serializer("application/msgpack")
def to_msgpack(ctx: Any, value: Any) -> Any:
    try:
        return value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
    except OverflowError:  # a number that msgpack has no form for
        return b"\xc1"


@schemathesis.deserializer("application/msgpack")
def from_msgpack(ctx: Any, response: Any) -> Any:
    return _as_json(msgspec.msgpack.decode(response.content))


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: _as_json(content) for name, content in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return value
