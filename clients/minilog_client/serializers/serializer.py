"""Serializers: a pair of functions between an application's type and bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

import msgspec

from minilog.errors import InvalidRequest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Serializer(Generic[T]):
    """``encode`` and ``decode`` may raise what they like. A producer raises InvalidRequest then,
    a consumer UndecodableRecord (or it does what ``undecodable`` says)."""

    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]


SerializerLike = type[T] | Serializer[T]

JSON: Final[Serializer[Any]] = Serializer(msgspec.json.encode, msgspec.json.decode)
"""Any JSON, as dicts, lists, texts and numbers."""
TEXT: Final[Serializer[str]] = Serializer(str.encode, bytes.decode)
"""UTF-8, without quotes: as a key that is a JSON string has it on every way into a topic."""


def json_of(kind: type[T]) -> Serializer[T]:
    """JSON that must fit ``kind``: a msgspec.Struct, a dataclass, a TypedDict, ``list[int]``, or a
    model of pydantic. Raises InvalidRequest for a type that cannot be written as JSON."""
    validate = getattr(kind, "model_validate_json", None)
    if validate is not None:
        return Serializer(_dump_model, validate)
    try:
        decoder = msgspec.json.Decoder(kind)
    except TypeError as error:
        raise InvalidRequest(f"{kind!r} cannot be read as JSON: {error}; give a Serializer(encode, decode)") from None
    return Serializer(partial(_encode_as, kind), decoder.decode)


def msgpack_of(kind: type[T]) -> Serializer[T]:
    """The same as MessagePack, which is smaller."""
    try:
        decoder = msgspec.msgpack.Decoder(kind)
    except TypeError as error:
        raise InvalidRequest(f"{kind!r} cannot be read as MessagePack: {error}") from None
    return Serializer(msgspec.msgpack.encode, decoder.decode)


def serializer_of(name: str, what: Any) -> Serializer[Any] | None:
    """What the application has given as ``name``. None: bytes, as they are."""
    if what is None or what is bytes:
        return None
    if isinstance(what, Serializer):
        return what
    if what is str:
        return TEXT
    if isinstance(what, type) or hasattr(what, "__origin__"):
        return json_of(what)
    raise TypeError(
        f"{name} must be bytes, str, a type that JSON is read as, or a Serializer (JSON is one), got {what!r}"
    )


def _encode_as(kind: Any, value: Any) -> bytes:
    """A dict in the place of a Struct would be written, and nobody could say what is missing."""
    own = kind if isinstance(kind, type) and not hasattr(kind, "__total__") else None
    if own is not None and not hasattr(kind, "__origin__") and not isinstance(value, own):
        raise TypeError(f"must be {own.__name__}, got {type(value).__name__}")
    return msgspec.json.encode(value)


def _dump_model(model: Any) -> bytes:
    dumped: str = model.model_dump_json()
    return dumped.encode()
