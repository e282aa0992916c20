"""Records as consumers get them."""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from operator import attrgetter
from typing import Any, Final, Generic

import msgspec

from minilog.errors import CorruptBatch
from minilog.wire.batch import EXPANDED_BYTES_MAX, Batch
from minilog.wire.codec import codec
from minilog.wire.codec.codec import Headers
from minilog.wire.codec.compression import decompress
from minilog_client.serializers.type_variables import K, V

_offset_of: Final = attrgetter("offset")


class Record(msgspec.Struct, Generic[V, K], frozen=True, gc=False):
    """One record, as it was read. ``timestamp`` is in ms since the epoch; None for an absent key or
    value. ``Record[Order]`` is a record whose value was read as an ``Order``.

    ``leader_epoch`` and ``offset`` together name the record for ever: after a forced, lossy
    election the same offset may come again in a higher epoch."""

    topic: str
    partition: int
    leader_epoch: int
    offset: int
    timestamp: int
    key: K | None
    value: V | None
    headers: Headers


AnyRecord = Record[Any, Any]
"""Where it does not matter what the value is."""


def decode(topic: str, partition: int, batch: Batch, from_offset: int) -> list[Record]:
    """The records of ``batch`` at ``from_offset`` and after; raises CorruptBatch."""
    if batch.record_count == 0 or batch.is_control:
        return []
    records = codec.decode_records(partial(Record, topic, partition, batch.leader_epoch), *inside(batch))
    if from_offset > batch.base_offset:
        return records[bisect_left(records, from_offset, key=_offset_of) :]
    return records


def inside(batch: Batch) -> tuple[bytes, int, int, int, int, int | None]:
    """What the codec is to know of a batch, to decode its records; raises CorruptBatch."""
    return (
        decompress(batch.codec, batch.payload, EXPANDED_BYTES_MAX),
        batch.record_count,
        batch.base_offset,
        batch.base_timestamp,
        batch.last_offset_delta,
        batch.max_timestamp if batch.timestamp_type else None,
    )


def undecodable(topic: str, partition: int, batch: Batch, position: int, error: CorruptBatch) -> CorruptBatch:
    first, end = max(position, batch.base_offset), batch.end_offset
    return CorruptBatch(
        f"{topic}-{partition}: the records from {first} up to {end} cannot be decoded, as their producer sent them "
        f'({error.detail}); seek to {end} to go on behind them, or read with errors_tolerance="all"',
        topic=topic,
        partition=partition,
        offset=first,
        end_offset=end,
    )
