"""Many records as columns, for programs that work on a column at a time: no object is made for a
record before somebody asks for it.

Pure, but for Arrow, which is imported when it is asked for."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar, overload

import msgspec

from minilog.errors import InvalidRequest
from minilog.wire.batch import Batch
from minilog.wire.codec import codec
from minilog.wire.codec.codec import Headers
from minilog_client.consumer.records import AnyRecord, Record, inside
from minilog_client.serializers.type_variables import K, V

_BYTES: Final = (bytes, type(None))
S = TypeVar("S")


class _Fields(NamedTuple):
    """In the order of the fields of ``Record``."""

    topic: list[str]
    partition: array[int]
    leader_epoch: array[int]
    offset: array[int]
    timestamp_ms: array[int]
    key: list[Any]
    value: list[Any]
    headers: list[Headers]


class Columns(Sequence[Record[V, K]], Generic[V, K]):
    """Records by column. ``columns.offset[3]`` is the offset of the fourth record, and
    ``columns[3]`` is that record. A slice has the same columns of fewer records.

    ``partition``, ``leader_epoch``, ``offset`` and ``timestamp_ms`` are arrays of machine integers
    (``array.array``), which numpy takes without a copy. ``topic``, ``key``, ``value`` and
    ``headers`` are lists. What is handed out belongs to the application."""

    __slots__ = ("_fields", "headers", "key", "leader_epoch", "offset", "partition", "timestamp_ms", "topic", "value")

    def __init__(self, fields: _Fields) -> None:
        self._fields = fields
        self.topic = fields.topic
        self.partition = fields.partition
        self.leader_epoch = fields.leader_epoch
        self.offset = fields.offset
        self.timestamp_ms = fields.timestamp_ms
        self.key: list[K | None] = fields.key
        self.value: list[V | None] = fields.value
        self.headers = fields.headers

    def __len__(self) -> int:
        return len(self.offset)

    def __repr__(self) -> str:
        return f"Columns({len(self)} records)"

    def __eq__(self, other: object) -> bool:
        return self._fields == other._fields if isinstance(other, Columns) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, index: int) -> Record[V, K]: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Record[V, K] | Self:
        found: list[Any] = [column[index] for column in self._fields]
        return type(self)(_Fields(*found)) if isinstance(index, slice) else Record(*found)

    def __iter__(self) -> Iterator[Record[V, K]]:
        return map(Record, *self._fields)

    def as_dict(self, *, headers: bool = False) -> dict[str, Any]:
        """The columns by name, as ``pandas.DataFrame`` and ``polars.DataFrame`` take them."""
        found = dict(self._fields._asdict())
        del found["leader_epoch"]
        return found if headers else {name: column for name, column in found.items() if name != "headers"}

    def to_arrow(self, *, headers: bool = False) -> Any:
        """The same as a ``pyarrow.Table``. Keys and values that are not bytes become what Arrow
        makes of their JSON: a struct has a field for each of theirs.

        Raises InvalidRequest where pyarrow is not installed."""
        try:
            import pyarrow as pa
        except ImportError:
            raise InvalidRequest(
                'Arrow needs pyarrow, which is not installed: pip install "minilog-broker[arrow]"'
            ) from None
        columns = {
            "topic": pa.array(self.topic, pa.string()),
            "partition": _numbers(pa, self.partition, pa.int32()),
            "offset": _numbers(pa, self.offset, pa.int64()),
            "timestamp_ms": _numbers(pa, self.timestamp_ms, pa.int64()),
            "key": _objects(pa, self.key),
            "value": _objects(pa, self.value),
        }
        if headers:
            header = pa.struct([pa.field("name", pa.string(), nullable=False), pa.field("value", pa.binary())])
            rows = [[{"name": name, "value": value} for name, value in each] for each in self.headers]
            columns["headers"] = pa.array(rows, pa.list_(header))
        return pa.table(columns)


def columns_of(records: Sequence[AnyRecord]) -> Columns[Any, Any]:
    """The same records."""
    return records if isinstance(records, Columns) else joined([records])


def joined(parts: Iterable[Sequence[AnyRecord]]) -> Columns[Any, Any]:
    """All records of ``parts``, in that order. Nothing of the result is shared with them."""
    fields: Sequence[Any] = _Fields([], array("i"), array("i"), array("q"), array("q"), [], [], [])
    for part in parts:
        found = part._fields if isinstance(part, Columns) else _rows(part)
        for column, more in zip(fields, found, strict=True):
            column.extend(more)
    return Columns(_Fields(*fields))


def _rows(records: Sequence[AnyRecord]) -> Iterable[Iterable[Any]]:
    rows = list(zip(*map(msgspec.structs.astuple, records), strict=True))
    return rows or repeat((), len(_Fields._fields))


def decode_columns(topic: str, partition: int, batch: Batch, from_offset: int) -> Columns[bytes, bytes]:
    """The records of ``batch`` at ``from_offset`` and after; raises CorruptBatch."""
    if batch.record_count == 0 or batch.is_control:
        return joined([])
    offsets, timestamps, keys, values, headers = codec.decode_columns(*inside(batch))
    start = bisect_left(offsets, from_offset) if from_offset > batch.base_offset else 0
    count = len(offsets) - start
    return Columns(
        _Fields(
            [topic] * count,
            array("i", [partition]) * count,
            array("i", [batch.leader_epoch]) * count,
            array("q", _from(offsets, start)),
            array("q", _from(timestamps, start)),
            _from(keys, start),
            _from(values, start),
            _from(headers, start),
        )
    )


def _from(column: list[S], start: int) -> list[S]:
    return column[start:] if start else column


def _numbers(pa: Any, column: array[int], kind: Any) -> Any:
    """Without a copy."""
    return pa.Array.from_buffers(kind, len(column), [None, pa.py_buffer(column)])


def _objects(pa: Any, column: list[Any]) -> Any:
    if all(isinstance(each, _BYTES) for each in column):
        return pa.array(column, pa.binary())
    return pa.array(msgspec.to_builtins(column, builtin_types=_ARROW_TYPES, enc_hook=_fields_of))


_ARROW_TYPES: Final = (bytes,)


def _fields_of(value: Any) -> Any:
    """Of a model of pydantic."""
    if not hasattr(value, "model_dump"):
        raise InvalidRequest(
            f"Arrow cannot hold a {type(value).__name__}; read without value= and key=, or use as_dict()"
        )
    return value.model_dump()
