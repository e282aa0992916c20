"""How a producer writes values and keys as bytes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from minilog.errors import InvalidRequest
from minilog_client.serializers.serializer import serializer_of


class Encoding:
    """None stays None: a record without a value, or without a key. Raises InvalidRequest where a
    serializer raises anything."""

    __slots__ = ("_key", "_value")

    def __init__(self, value: Any, key: Any) -> None:
        values, keys = serializer_of("value", value), serializer_of("key", key)
        self._value = None if values is None else values.encode
        self._key = None if keys is None else keys.encode

    def value(self, value: Any) -> bytes | None:
        return _encoded("value", self._value, value)

    def key(self, key: Any) -> bytes | None:
        return _encoded("key", self._key, key)

    def pairs(self, values: Iterable[Any], keys: Iterable[Any] | None) -> list[tuple[bytes | None, bytes | None]]:
        """(key, value) as ``send_many`` takes them."""
        encoded = [self.value(value) for value in values]
        if keys is None:
            return [(None, value) for value in encoded]
        own = [self.key(key) for key in keys]
        if len(own) != len(encoded):
            raise ValueError(f"there are {len(encoded)} values but {len(own)} keys")
        return list(zip(own, encoded, strict=True))


def _encoded(name: str, encode: Callable[[Any], bytes] | None, value: Any) -> bytes | None:
    if encode is None or value is None:
        return value  # type: ignore[no-any-return]  # the producer looks at it
    try:
        encoded: Any = encode(value)
    except Exception as error:  # whatever the application's serializer raises
        raise InvalidRequest(f"the {name} cannot be written ({type(error).__name__}: {error})") from error
    if not isinstance(encoded, bytes):
        raise InvalidRequest(f"the serializer of {name} must return bytes, got {type(encoded).__name__}")
    return encoded
