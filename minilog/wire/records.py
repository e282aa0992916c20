"""Records: what applications see of a batch.

Owns: the way from values, keys and headers to the bytes of a whole batch, and back. The loops over
single records are in codec.py, which is compiled when it can be. This module is the same few steps
per batch either way.

Producers fill a ``BatchBuilder`` (or call ``encode_values``). Its batches have base offset 0 and
leader epoch -1, as Kafka's producers send them. Consumers call ``decode_batch`` on what
``batch.split`` has validated. What compaction leaves of a batch is made in cleaned_batch.py.

Invariant: a batch built here passes ``batch.split``, and decoding gives back what was put in.
Decoding raises nothing but CorruptBatch, whatever the bytes (the payload of a batch is a producer's
word: its CRC says only that it is what the producer sent).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final, NamedTuple, TypeVar

import msgspec
from crc32c import crc32c

from minilog.errors import CorruptBatch, RecordTooLarge
from minilog.wire.batch import (
    ACKS_SHIFT,
    ACKS_UNKNOWN,
    CRC_START,
    EXPANDED_BYTES_MAX,
    HEADER,
    HEADER_BYTES,
    LOG_APPEND_TIME,
    MAGIC,
    PREFIX_BYTES,
    Batch,
)
from minilog.wire.codec import codec
from minilog.wire.codec.codec import HEADERS_MAX, OBJECTS_MAX, RECORD_BYTES_MIN, Headers
from minilog.wire.codec.compression import NONE, codec_for, compress, decompress

NO_TIMESTAMP: Final = -1
REQUEST_RATIO: Final = 8
"""Clients fill requests as if nothing expanded to more than so many times its size."""
Made = TypeVar("Made")
_UNBOUNDED: Final = 2**31 - 1
_offset_of: Final = attrgetter("offset")


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record. ``timestamp`` is in ms since the epoch. Key and value may be absent (None), which
    is not empty.

    A msgspec struct because building it costs a fifth of a named tuple. It cannot be part of a
    reference cycle.
    """

    offset: int
    timestamp: int
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()


class SealedBatch(NamedTuple):
    """Records that are encoded, of a batch whose producer, epoch and sequence are still open:
    giving it a number, or another one, costs a header and not a copy of the payload."""

    attributes: int
    base_timestamp: int
    max_timestamp: int
    record_count: int
    payload: bytes
    expanded_bytes: int = 0
    """Size of the payload before compression, as far as it is known."""

    @classmethod
    def of(cls, batch: Batch) -> SealedBatch:
        """The records of a producer's batch, whatever number it has."""
        times = batch.base_timestamp, batch.max_timestamp
        return cls(batch.attributes, *times, batch.record_count, bytes(batch.payload))

    @property
    def bytes_total(self) -> int:
        return HEADER_BYTES + len(self.payload)

    @property
    def weight_bytes(self) -> int:
        """What it adds to a request. Brokers bound what a request is, and what it expands to."""
        return max(self.bytes_total, self.expanded_bytes // REQUEST_RATIO)

    def head(self, producer_id: int = -1, producer_epoch: int = -1, base_sequence: int = -1) -> bytes:
        """The header that makes ``payload`` a whole batch."""
        last = self.record_count - 1
        times = (self.base_timestamp, self.max_timestamp)
        producer = (producer_id, producer_epoch, base_sequence)
        return batch_head(self.payload, 0, -1, (self.attributes, last, *times, *producer, self.record_count))


class BatchBuilder:
    """Collects records into one batch. The bytes of a record are worked out when it is added, and
    copied once.

    Keys and values are ``bytes`` and nothing like them: the caller has checked, for here it would
    cost too much.
    """

    __slots__ = (
        "_count_max",
        "_parts",
        "_payload_bytes",
        "_room_bytes",
        "base_timestamp",
        "batch_bytes_max",
        "max_timestamp",
        "record_count",
    )

    def __init__(self, batch_bytes_max: int = _UNBOUNDED) -> None:
        self.batch_bytes_max = batch_bytes_max
        self.record_count = 0
        self.base_timestamp = NO_TIMESTAMP
        self.max_timestamp = NO_TIMESTAMP
        self._parts: list[bytes] = []
        self._count_max = OBJECTS_MAX
        self._payload_bytes = 0
        self._room_bytes = batch_bytes_max - HEADER_BYTES

    @property
    def bytes_total(self) -> int:
        """Size of the batch so far, with its header and before compression."""
        return HEADER_BYTES + self._payload_bytes

    def append(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        timestamp_ms: int,
    ) -> int:
        """Add one record and return its size; 0 if the batch has no room left for it (nothing is
        added).

        Raises RecordTooLarge if no batch has room for it.
        """
        count = self.record_count
        if headers:
            _check_headers(len(headers))
            if count + len(headers) >= self._count_max:
                return 0
        if count == 0:  # a record may be older than 1970, and a batch is not
            self.base_timestamp = self.max_timestamp = max(timestamp_ms, NO_TIMESTAMP)
        parts = self._parts
        mark = len(parts)
        record_bytes = codec.append_record(parts, count, timestamp_ms - self.base_timestamp, key, value, headers)
        if self._payload_bytes + record_bytes > self._room_bytes or count == self._count_max:
            del parts[mark:]
            if count == 0:
                raise _too_large(record_bytes, self.batch_bytes_max)
            return 0
        if timestamp_ms > self.max_timestamp:
            self.max_timestamp = timestamp_ms
        self.record_count = count + 1
        if headers:
            self._count_max -= len(headers)
        self._payload_bytes += record_bytes
        return record_bytes

    def extend(self, values: Sequence[bytes], timestamp_ms: int, start: int = 0) -> int:
        """Add ``values[start:]``, as many as there is room for, as records without key and headers.

        Returns the index of the first value left out: ``len(values)`` when all are in. Raises
        RecordTooLarge if the first of them has no room in any batch, TypeError for a value that is
        None (then none is added).
        """
        if self.record_count == 0:
            self.base_timestamp = self.max_timestamp = max(timestamp_ms, NO_TIMESTAMP)
        mark = len(self._parts)
        room_bytes = self._room_bytes - self._payload_bytes
        delta_ms = timestamp_ms - self.base_timestamp
        count_max = self._count_max - self.record_count
        try:
            end, added_bytes = codec.append_values(
                self._parts, values, start, self.record_count, delta_ms, room_bytes, count_max
            )
        except TypeError:
            del self._parts[mark:]
            raise
        if end > start:
            self.max_timestamp = max(self.max_timestamp, timestamp_ms)
            self.record_count += end - start
            self._payload_bytes += added_bytes
        elif self.record_count == 0 and start < len(values):
            raise _too_large(len(values[start]), self.batch_bytes_max)
        return end

    def build(
        self,
        *,
        compression: str = "none",
        producer_id: int = -1,
        producer_epoch: int = -1,
        base_sequence: int = -1,
        acks_level: int = ACKS_UNKNOWN,
    ) -> bytes:
        """The batch. ``acks_level`` saves the leader a pass over the payload when it is what the
        leader will set."""
        sealed = self.seal(compression=compression, acks_level=acks_level)
        return b"".join((sealed.head(producer_id, producer_epoch, base_sequence), sealed.payload))

    def seal(self, *, compression: str = "none", acks_level: int = ACKS_UNKNOWN) -> SealedBatch:
        """The batch but for its number. What compression makes no smaller is left as it is. It
        would not fit where its records do."""
        assert self.record_count > 0, "a batch holds at least one record"
        codec_id = codec_for(compression)
        records = b"".join(self._parts)
        payload = compress(codec_id, records)
        if len(payload) >= len(records):
            codec_id, payload = NONE, records
        attributes = codec_id | acks_level << ACKS_SHIFT
        times = self.base_timestamp, self.max_timestamp
        return SealedBatch(attributes, *times, self.record_count, payload, len(records))


def encode_values(
    values: Sequence[bytes],
    timestamp_ms: int,
    *,
    keys: Sequence[bytes | None] | None = None,
    compression: str = "none",
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    acks_level: int = ACKS_UNKNOWN,
) -> bytes:
    """One batch of ``values`` (at least one), with the key of the same index if there are ``keys``.
    Raises RecordTooLarge."""
    builder = BatchBuilder()
    if keys is None:
        if builder.extend(values, timestamp_ms) < len(values):
            raise _too_many()
    else:
        for key, value in zip(keys, values, strict=True):
            if not builder.append(key, value, (), timestamp_ms):
                raise _too_many()
    return builder.build(
        compression=compression,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        acks_level=acks_level,
    )


def decode_batch(
    batch: Batch, *, from_offset: int | None = None, expanded_bytes_max: int = EXPANDED_BYTES_MAX
) -> list[Record]:
    """The records of a batch from ``split``, those at ``from_offset`` and after; raises
    CorruptBatch.

    The whole payload is checked even if only its end is wanted. ``expanded_bytes_max`` caps what a
    compressed payload may expand to.
    """
    records = decode_with(Record, batch, expanded_bytes_max)
    if from_offset is not None and from_offset > batch.base_offset:
        return records[bisect_left(records, from_offset, key=_offset_of) :]
    return records


def decode_with(
    make: Callable[[int, int, bytes | None, bytes | None, Headers], Made],
    batch: Batch,
    expanded_bytes_max: int = EXPANDED_BYTES_MAX,
) -> list[Made]:
    """What ``make(offset, timestamp, key, value, headers)`` returns of each record, in order. What
    it raises ends the decoding.

    Raises CorruptBatch."""
    return decode_payload(make, batch, expand(batch, expanded_bytes_max)) if batch.record_count else []


def expand(batch: Batch, expanded_bytes_max: int = EXPANDED_BYTES_MAX) -> bytes:
    """The payload before compression; raises CorruptBatch."""
    return decompress(batch.codec, batch.payload, expanded_bytes_max)


def decode_payload(
    make: Callable[[int, int, bytes | None, bytes | None, Headers], Made],
    batch: Batch,
    payload: bytes,
    objects_max: int = OBJECTS_MAX,
) -> list[Made]:
    """``decode_with`` for what ``expand`` has returned: at most ``objects_max`` records and
    headers. Raises CorruptBatch."""
    append_timestamp = batch.max_timestamp if batch.timestamp_type else None
    times = (batch.base_timestamp, batch.last_offset_delta, append_timestamp)
    return codec.decode_records(make, payload, batch.record_count, batch.base_offset, *times, objects_max)


class Inside(NamedTuple):
    """What a look into a batch found: how many records and headers, and the first record without a
    key."""

    objects: int
    keyless: int | None


def look_inside(batch: Batch, payload: bytes, objects_max: int = OBJECTS_MAX) -> Inside:
    """Whether a producer's batch can be read by everybody: ``payload`` is what ``expand`` has
    returned of it. Raises CorruptBatch.

    Other threads go on in between. Nothing is made of the records, and nothing copied."""
    count = batch.record_count
    if count > objects_max:
        raise CorruptBatch(f"it claims {count} records; allowed are {objects_max} records and headers together")
    if count * RECORD_BYTES_MIN > len(payload):
        raise CorruptBatch(f"{count} records cannot fit into {len(payload)} bytes")
    times = batch.base_timestamp, batch.max_timestamp
    position, index, keyless, spare = 0, 0, -1, objects_max
    while index < count:
        position, index, keyless, spare = codec.check_records(payload, position, index, count, *times, keyless, spare)
        if spare < count - index:  # each record still to come is an object, too
            raise CorruptBatch(
                f"the {count} records have more headers than a batch may; allowed are {objects_max} records and headers together"
            )
    return Inside(objects_max - spare, keyless if keyless >= 0 else None)


def first_timestamp(batch: Batch) -> int:
    """When the first record of a whole batch was: from the header, or from inside where cleaning
    has been at work. The batch's latest time when nothing can tell."""
    known = batch.first_timestamp
    if known is not None:
        return known
    try:
        times = decode_with(lambda offset, timestamp, key, value, headers: timestamp, batch)
    except CorruptBatch:
        return batch.max_timestamp
    return times[0] if times else batch.max_timestamp


def first_record_at(batch: Batch, timestamp_ms: int) -> tuple[int, int] | None:
    """(offset, timestamp) of the first record of ``batch`` at or after ``timestamp_ms``, to the
    record if that is cheap.

    None when it has none: compaction leaves a batch's latest time as it is."""
    if batch.record_count == 0:
        return None
    if batch.codec == 0 and batch.timestamp_type != LOG_APPEND_TIME:
        try:
            records = decode_batch(batch)
        except CorruptBatch:  # a producer's own fault, under a good CRC: the batch is as exact as it gets
            return batch.base_offset, batch.max_timestamp
        return next(((r.offset, r.timestamp) for r in records if r.timestamp >= timestamp_ms), None)
    return batch.base_offset, batch.max_timestamp


def batch_head(payload: bytes, base_offset: int, leader_epoch: int, tail: tuple[int, ...]) -> bytes:
    """The header that makes ``payload`` a batch. ``tail`` is the header from attributes on."""
    length = HEADER_BYTES - PREFIX_BYTES + len(payload)
    unsigned = HEADER.pack(base_offset, length, leader_epoch, MAGIC, 0, *tail)
    crc = crc32c(payload, crc32c(unsigned[CRC_START:]))
    return HEADER.pack(base_offset, length, leader_epoch, MAGIC, crc, *tail)


def _check_headers(count: int) -> None:
    if count > HEADERS_MAX:
        raise RecordTooLarge(f"a record has {count} headers; allowed are {HEADERS_MAX}")


def _too_many() -> RecordTooLarge:
    return RecordTooLarge(
        f"a batch holds at most {OBJECTS_MAX} records and headers and {_UNBOUNDED} bytes; make more of them"
    )


def _too_large(record_bytes: int, batch_bytes_max: int) -> RecordTooLarge:
    return RecordTooLarge(
        f"a record of {record_bytes} bytes exceeds what a batch may hold: "
        f"{batch_bytes_max} bytes with its header of {HEADER_BYTES}"
    )
