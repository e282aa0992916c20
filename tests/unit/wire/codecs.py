"""Both variants of the record codec, pure and compiled."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minilog.errors import CorruptBatch
from minilog.wire import records as wire
from minilog.wire.batch import ACKS_MANY, Batch, split, stamp
from minilog.wire.codec import codec as imported_codec
from minilog.wire.records import (
    Inside,
    Record,
    encode_values,
)

MAX = 1 << 20


SOURCE = Path(wire.__file__).with_name("codec") / "codec.py"


BUILD = "build it with: python setup.py build_ext --inplace"


def pure_codec() -> ModuleType:
    """The source itself, even where the compiled module hides it."""
    spec = importlib.util.spec_from_file_location("pure_codec", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PURE = pure_codec()


COMPILED = imported_codec if imported_codec.COMPILED else None


VARIANTS = [
    pytest.param(PURE, id="pure"),
    pytest.param(COMPILED, id="compiled", marks=pytest.mark.skipif(COMPILED is None, reason=f"not compiled; {BUILD}")),
]


both = pytest.mark.parametrize("variant", VARIANTS)


@contextmanager
def using(variant: ModuleType | None) -> Iterator[None]:
    """``records`` on one variant of its codec."""
    assert variant is not None
    names = vars(wire)
    before = names["codec"]
    names["codec"] = variant
    try:
        yield
    finally:
        names["codec"] = before


def stored(values: Sequence[bytes], base_offset: int, **options: Any) -> Batch:
    (batch,) = split(encode_values(values, 1000, **options), MAX)
    return stamp(batch, base_offset, 3, ACKS_MANY)


def with_headers(record: int, count: int, claimed: int | None = None) -> bytes:
    """A record with ``count`` empty headers."""
    inside = b"\x00\x00" + imported_codec.varint(record) + b"\x01\x01"
    inside += imported_codec.varint(count if claimed is None else claimed) + b"\x00\x01" * count
    return imported_codec.varint(len(inside)) + inside


def decoded(variant: Any, data: bytes, count: int, objects_max: int, times: tuple[int, int]) -> Any:
    """What a look inside has to find, worked out from the records."""
    try:
        found = variant.decode_records(Record, data, count, 0, times[0], count - 1, None, objects_max)
    except CorruptBatch:
        return None
    if any(record.timestamp > times[1] for record in found):
        return None
    objects = sum(1 + len(record.headers) for record in found)
    return Inside(objects, next((record.offset for record in found if record.key is None), None))
