"""Every field of every message has a bound, by its type (R44): nothing without one is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from minilog.errors import InvalidRequest
from minilog.wire.bounded import FEW_MAX, ID_CHARS_MAX, NAME_CHARS_MAX, TEXT_CHARS_MAX
from minilog.wire.journal import metadata_records
from minilog.wire.messages import AnyMessage, NotAMessage, Problem, decode, encode

MESSAGES = get_args(AnyMessage)
JOURNAL = {name for name, kind in vars(metadata_records).items() if isinstance(kind, type)}
"""What a journal holds, of whatever version, must be read by all. Replicas that a broker names are
checked in core/controller/journal/foreign_values.py."""
BODIES = (inspect.MemoryViewType, inspect.BytesType, inspect.RawType)
"""As long as the body that holds them, which has a limit."""
CHOSEN = (inspect.BoolType, inspect.NoneType, inspect.EnumType, inspect.LiteralType, inspect.FloatType)


def unbounded(kind: Any, path: str, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Paths of what has no bound."""
    match kind:
        case inspect.StructType() if kind.cls.__name__ in JOURNAL or kind.cls.__name__ in seen:
            return
        case inspect.StructType():
            for field in kind.fields:
                yield from unbounded(field.type, f"{path}.{field.name}", seen | {kind.cls.__name__})
        case inspect.UnionType():
            for one in kind.types:
                yield from unbounded(one, path, seen)
        case inspect.ListType() | inspect.VarTupleType() | inspect.SetType():
            if kind.max_length is None:
                yield f"{path}[]"
            yield from unbounded(kind.item_type, f"{path}[]", seen)
        case inspect.TupleType():
            for one in kind.item_types:
                yield from unbounded(one, f"{path}()", seen)
        case inspect.DictType():
            if kind.max_length is None:
                yield f"{path}{{}}"
            yield from unbounded(kind.key_type, f"{path}{{key}}", seen)
            yield from unbounded(kind.value_type, f"{path}{{}}", seen)
        case inspect.StrType():
            if kind.max_length is None:
                yield path
        case inspect.IntType():
            if kind.ge is None or kind.le is None:
                yield path
        case inspect.AnyType():  # extras of an error, and nowhere else
            if not path.endswith(".info{}"):
                yield path
        case _ if not isinstance(kind, (*BODIES, *CHOSEN)):
            yield f"{path}: {type(kind).__name__}"


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_every_field_of_every_message_has_a_bound(message: type) -> None:
    assert list(unbounded(inspect.type_info(message), message.__name__)) == []


def test_the_walk_finds_what_has_none() -> None:
    class Free(msgspec.Struct):
        text: str
        number: int
        several: list[tuple[str, int]]

    assert list(unbounded(inspect.type_info(Free), "F")) == [
        "F.text", "F.number", "F.several[]", "F.several[]()", "F.several[]()"
    ]  # fmt: skip


EXTREMES: dict[type, Any] = {
    inspect.StrType: "x" * (16 * 1024 * 1024 + 1),
    inspect.IntType: 2**64 - 1,
    inspect.ListType: [None] * (2**20 + 1),
    inspect.DictType: {str(number): None for number in range(2**20 + 1)},
}


def fields_of(message: type) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(message)
    assert isinstance(info, inspect.StructType)
    return info.fields


def least(kind: Any) -> Any:
    """The smallest thing of that type."""
    match kind:
        case inspect.IntType():
            return max(0, kind.ge or 0)
        case inspect.StrType():
            return ""
        case inspect.BoolType():
            return False
        case inspect.UnionType():
            return least(kind.types[0])
        case inspect.StructType():
            members = {field.encode_name: least(field.type) for field in kind.fields if field.required}
            return list(members.values()) if kind.array_like else members
        case inspect.DictType():
            return {}
        case inspect.MemoryViewType():
            return b""
        case inspect.NoneType():
            return None
        case _:
            return []


LISTED = [(message, field) for message in MESSAGES for field in fields_of(message) if type(field.type) in EXTREMES]


@settings(deadline=None)
@given(st.sampled_from(LISTED))
def test_what_lies_beyond_its_bound_is_no_message(found: tuple[type, inspect.Field]) -> None:
    message, field = found
    members = {known.encode_name: least(known.type) for known in fields_of(message) if known.required}
    good = {"type": message.__name__, **members, field.encode_name: least(field.type)}
    assert type(decode(msgspec.msgpack.encode(good))) is message
    with pytest.raises(NotAMessage):
        decode(msgspec.msgpack.encode({**good, field.encode_name: EXTREMES[type(field.type)]}))


def test_a_sentence_that_quotes_a_megabyte_is_cut_before_it_is_sent() -> None:
    problem = Problem.of(InvalidRequest("x" * 10**6))
    assert len(problem.detail) == TEXT_CHARS_MAX
    assert decode(encode(problem)) == problem


def test_the_bounds_are_wider_than_what_names_may_be() -> None:
    assert NAME_CHARS_MAX > 255
    assert ID_CHARS_MAX > 32
    assert FEW_MAX > 32
