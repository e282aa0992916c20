"""Batches out of records and records out of batches, in one call: what tests need, and no process
does."""

from __future__ import annotations

from collections.abc import Iterable

from minilog.errors import RecordTooLarge
from minilog.wire.batch import ACKS_UNKNOWN, EXPANDED_BYTES_MAX, split
from minilog.wire.codec.codec import RECORD_BYTES_MIN
from minilog.wire.codec.compression import codec_for, compress
from minilog.wire.records import BatchBuilder, Record, batch_head, decode_batch

UNBOUNDED = 2**63


def encode_batch(
    records: Iterable[Record],
    *,
    compression: str = "none",
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    acks_level: int = ACKS_UNKNOWN,
) -> bytes:
    """One batch of ``records`` (at least one), numbered from 0 whatever their offsets say. Raises
    RecordTooLarge."""
    builder = BatchBuilder()
    for record in records:
        if not builder.append(record.key, record.value, record.headers, record.timestamp):
            raise RecordTooLarge("more records than a batch may hold")
    return builder.build(
        compression=compression,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        acks_level=acks_level,
    )


def decode_all(
    data: bytes | memoryview, *, batch_bytes_max: int = UNBOUNDED, expanded_bytes_max: int = EXPANDED_BYTES_MAX
) -> list[Record]:
    """The records of all batches in ``data``, as they lie in a log; raises CorruptBatch,
    RecordTooLarge."""
    records: list[Record] = []
    for batch in split(data, batch_bytes_max, stored=True):
        records += decode_batch(batch, expanded_bytes_max=expanded_bytes_max)
    return records


def unreadable(
    count: int = 1, compression: str = "none", producer_id: int = -1, producer_epoch: int = -1, base_sequence: int = -1
) -> bytes:
    """A batch with a right checksum whose records nobody can read: what brokers took that did not
    look inside."""
    codec = codec_for(compression)
    tail = (codec, count - 1, 1000, 1000, producer_id, producer_epoch, base_sequence, count)
    payload = compress(codec, b"\xff" * (RECORD_BYTES_MIN * count))
    return batch_head(payload, 0, -1, tail) + payload
