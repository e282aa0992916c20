"""What applications hand in, checked: keys, values and headers are bytes, and the error says what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from minilog.wire.codec import Headers

HeadersLike = Mapping[str, bytes | None] | Iterable[tuple[str, bytes | None]]


def checked_bytes(name: str, value: Any) -> bytes | None:
    """``value`` as bytes; None stays None."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    hint = f"; encode it, for example {name}.encode()" if isinstance(value, str) else ""
    raise TypeError(f"{name} must be bytes, got {type(value).__name__}{hint}")


def checked_values(values: Any) -> Sequence[bytes]:
    """A sequence that holds nothing but bytes."""
    if isinstance(values, str | bytes | bytearray | memoryview):
        raise TypeError(
            f"values must be many bytes objects, got one {type(values).__name__}; use send() for one record"
        )
    data: Sequence[Any] = values if isinstance(values, list | tuple) else list(values)
    if set(map(type, data)) <= {bytes}:
        return data
    return [_one(index, value) for index, value in enumerate(data)]


def checked_keys(keys: Any, count: int) -> Sequence[bytes | None]:
    """``count`` keys, each bytes or None."""
    data: Sequence[Any] = keys if isinstance(keys, list | tuple) else list(keys)
    if len(data) != count:
        raise ValueError(f"there are {count} values but {len(data)} keys")
    if set(map(type, data)) <= {bytes, type(None)}:
        return data
    return [checked_bytes(f"keys[{index}]", key) for index, key in enumerate(data)]


def _one(index: int, value: Any) -> bytes:
    checked = checked_bytes(f"values[{index}]", value)
    if checked is None:
        raise TypeError(f"values[{index}] is None; send a record without a value with send()")
    return checked


def checked_headers(headers: Any) -> Headers:
    """Headers as pairs, in order; names are strings, values bytes or None."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    checked: list[tuple[str, bytes | None]] = []
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(f"a header must be a pair of name and bytes, got {pair!r}")
        name, value = pair
        if not isinstance(name, str):
            raise TypeError(f"a header's name must be a string, got {type(name).__name__}")
        checked.append((name, checked_bytes(f"header {name}", value)))
    return tuple(checked)
