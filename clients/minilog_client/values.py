"""What applications hand in, checked: keys, values and headers are bytes, and the error says what
was seen.

Wrong types raise TypeError, right types with impossible values InvalidRequest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple, Protocol

from minilog.errors import InvalidRequest
from minilog.wire.codec.codec import Headers

_TIMESTAMP_END: Final = 2**63
_ROW_OVERHEAD_BYTES: Final = 64


class RecordFields(Protocol):
    """A record as consumers get it, or anything with these attributes."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Any: ...
    @property
    def timestamp(self) -> int: ...


PartitionKey = tuple[str, int]
"""(topic, partition): a plain pair, so that applications need no class of ours to name a
partition."""

HeadersLike = Mapping[str, bytes | None] | Iterable[tuple[str, bytes | None]]
RecordLike = bytes | tuple[bytes | None, bytes | None] | RecordFields
Row = tuple[bytes | None, bytes | None, Headers, int | None]
"""(value, key, headers, timestamp); None: the timestamp of the call."""


class Rows(NamedTuple):
    """Many records by column; None: the column is empty."""

    values: Sequence[bytes | None]
    keys: Sequence[bytes | None] | None = None
    headers: Sequence[Headers] | None = None
    timestamps: Sequence[int | None] | None = None

    @property
    def is_plain(self) -> bool:
        """Nothing but values, none of them None."""
        return self.keys is None and self.headers is None

    def chunks(self, rows_max: int, bytes_max: int) -> Iterator[tuple[Iterable[Row], int]]:
        """``rows_max`` rows at a time and an upper bound of their size but for headers; single rows
        where so many are larger than ``bytes_max``."""
        for start in range(0, len(self.values), rows_max):
            part = self.part(start, start + rows_max)
            if (size := part.bytes_max) <= bytes_max or len(part.values) == 1:
                yield part.rows(), size
            else:
                yield from part.chunks(1, bytes_max)

    def part(self, start: int, end: int) -> Rows:
        keys, headers, timestamps = self.keys, self.headers, self.timestamps
        return Rows(
            self.values[start:end],
            None if keys is None else keys[start:end],
            None if headers is None else headers[start:end],
            None if timestamps is None else timestamps[start:end],
        )

    @property
    def bytes_max(self) -> int:
        size = len(self.values) * _ROW_OVERHEAD_BYTES + sum(map(len, filter(None, self.values)))
        return size if self.keys is None else size + sum(map(len, filter(None, self.keys)))

    def rows(self) -> Iterator[Row]:
        return zip(
            self.values,
            self.keys or repeat(None),
            self.headers or repeat(()),
            self.timestamps or repeat(None),
            strict=False,  # an empty column has no end
        )


def counted(count: int, noun: str, one: str = "", many: str = "") -> str:
    """``1 record was`` of ``("record", "was", "were")``, and ``2 records were``."""
    return f"{count} {noun} {one}".rstrip() if count == 1 else f"{count} {noun}s {many}".rstrip()


def text_of(error: BaseException) -> str:
    """What an application's exception says. One that cannot say it raises nothing here."""
    try:
        return str(error)
    except Exception as failure:
        return f"its text cannot be told, {type(failure).__name__}"


def check_count(max_records: Any) -> None:
    if isinstance(max_records, bool) or not isinstance(max_records, int):
        raise TypeError(f"max_records must be a whole number, got {max_records!r}")
    if max_records < 1:
        raise InvalidRequest(f"max_records is {max_records}; allowed are whole numbers >= 1")


def check_partition(partition: Any) -> None:
    if type(partition) is not int:
        raise TypeError(f"partition must be a whole number, got {partition!r}")
    if partition < 0:
        raise InvalidRequest(
            f"partition is {partition}; allowed are whole numbers from 0 on, or None to let the key choose"
        )


def checked_timestamp(timestamp_ms: Any) -> int:
    if isinstance(timestamp_ms, bool) or not isinstance(timestamp_ms, int):
        raise TypeError(f"timestamp_ms must be a whole number of ms since the epoch, got {timestamp_ms!r}")
    if not 0 <= timestamp_ms < _TIMESTAMP_END:
        raise InvalidRequest(f"timestamp_ms is {timestamp_ms}; allowed are 0 to 2^63 - 1 ms since the epoch")
    return timestamp_ms


def checked_timeout(timeout_ms: Any, default_ms: int) -> int:
    if timeout_ms is None:
        return default_ms
    limit_ms = checked_wait("timeout_ms", timeout_ms)
    if limit_ms < 0:
        raise InvalidRequest(f"timeout_ms is {limit_ms}; allowed are whole numbers from 0 on")
    return limit_ms


def checked_wait(name: str, wait_ms: Any) -> int:
    """Waits are whole ms, so seconds with a fraction are no wait of less than one."""
    if isinstance(wait_ms, bool) or not isinstance(wait_ms, int):
        hint = f"; {wait_ms:g} s are {wait_ms * 1000:.0f} ms" if isinstance(wait_ms, float) and wait_ms < 1000 else ""
        raise TypeError(f"{name} must be a whole number of ms, got {wait_ms!r}{hint}")
    return wait_ms


def checked_bytes(name: str, value: Any) -> bytes | None:
    """``value`` as bytes; None stays None."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    hint = f"; encode it, for example {name}.encode()" if isinstance(value, str) else ""
    raise TypeError(f"{name} must be bytes, got {type(value).__name__}{hint}")


def checked_rows(values: Any, keys: Any = None) -> Rows:
    """Bytes, (key, value) pairs or records, and ``keys`` beside them if they are bytes."""
    data = _many("values", values)
    kinds = set(map(type, data))
    if kinds <= {bytes}:
        return Rows(data, None if keys is None else checked_keys(keys, len(data)))
    if keys is not None:
        return Rows(checked_values(data), checked_keys(keys, len(data)))
    if kinds == {tuple} and set(map(len, data)) == {2}:
        own_keys, own_values = zip(*data, strict=True)
        if set(map(type, own_values)) | set(map(type, own_keys)) <= {bytes, type(None)}:
            return Rows(own_values, own_keys)
    rows = [_row(index, item) for index, item in enumerate(data)]
    if all(row[0] is not None and row[1:] == (None, (), None) for row in rows):
        return Rows([row[0] for row in rows])
    columns = zip(*rows, strict=True)
    return Rows(*columns)


def _many(name: str, values: Any) -> Sequence[Any]:
    if isinstance(values, str | bytes | bytearray | memoryview):
        raise TypeError(
            f"{name} must be many bytes objects, got one {type(values).__name__}; use send() for one record"
        )
    if isinstance(values, list | tuple):
        return values
    try:
        return list(values)
    except TypeError:
        if hasattr(values, "__iter__"):
            raise
        raise TypeError(f"{name} must be many bytes objects, got one {type(values).__name__}") from None


def _row(index: int, item: Any) -> Row:
    name = f"values[{index}]"
    if type(item) is tuple:
        if len(item) != 2:
            raise TypeError(f"{name} is a tuple of {len(item)}; a pair is (key, value)")
        return checked_bytes(f"the value of {name}", item[1]), checked_bytes(f"the key of {name}", item[0]), (), None
    if hasattr(item, "value") and hasattr(item, "key"):
        timestamp, headers = getattr(item, "timestamp", None), getattr(item, "headers", None)
        return (
            checked_bytes(f"the value of {name}", item.value),
            checked_bytes(f"the key of {name}", item.key),
            checked_headers(headers) if headers else (),
            None if timestamp is None else checked_timestamp(timestamp),
        )
    return _one(index, item), None, (), None


def checked_values(values: Any) -> Sequence[bytes]:
    """A sequence that holds nothing but bytes."""
    data = _many("values", values)
    if set(map(type, data)) <= {bytes}:
        return data
    return [_one(index, value) for index, value in enumerate(data)]


def checked_keys(keys: Any, count: int) -> Sequence[bytes | None]:
    """``count`` keys, each bytes or None."""
    data = _many("keys", keys)
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
    if not isinstance(headers, Iterable):
        raise TypeError(f"headers must be a mapping or pairs of name and bytes, got {type(headers).__name__}")
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    checked: list[tuple[str, bytes | None]] = []
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(f"a header must be a pair of name and bytes, got {pair!r}")
        name, value = pair
        if not isinstance(name, str):
            raise TypeError(f"a header's name must be a string, got {type(name).__name__}")
        if not name.isascii():
            _check_utf8(name)
        checked.append((name, checked_bytes(f"header {name}", value)))
    return tuple(checked)


def _check_utf8(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"the header name {name!r} cannot be written as UTF-8") from None
