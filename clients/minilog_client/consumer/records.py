"""Records as consumers get them."""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from operator import attrgetter
from typing import Final

import msgspec

from minilog.wire.batch import EXPANDED_BYTES_MAX, Batch
from minilog.wire.codec import codec
from minilog.wire.codec.codec import Headers
from minilog.wire.codec.compression import decompress

_offset_of: Final = attrgetter("offset")


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record, as it was read. ``timestamp`` is in ms since the epoch; None for an absent key or
    value.

    ``leader_epoch`` and ``offset`` together name the record for ever: after a forced, lossy
    election the same offset may come again in a higher epoch."""

    topic: str
    partition: int
    leader_epoch: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def decode(topic: str, partition: int, batch: Batch, from_offset: int) -> list[Record]:
    """The records of ``batch`` at ``from_offset`` and after; raises CorruptBatch."""
    if batch.record_count == 0 or batch.is_control:
        return []
    records = codec.decode_records(
        partial(Record, topic, partition, batch.leader_epoch),
        decompress(batch.codec, batch.payload, EXPANDED_BYTES_MAX),
        batch.record_count,
        batch.base_offset,
        batch.base_timestamp,
        batch.last_offset_delta,
        batch.max_timestamp if batch.timestamp_type else None,
    )
    if from_offset > batch.base_offset:
        return records[bisect_left(records, from_offset, key=_offset_of) :]
    return records
