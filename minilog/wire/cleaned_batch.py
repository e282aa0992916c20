"""What compaction leaves of a batch: the same batch with some records gone, every kept record at
its old offset.

Invariant: what is made here passes ``batch.split`` as a stored batch, and decodes to the records
that were kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from minilog.wire.batch import DELETE_HORIZON_BIT, EXPANDED_BYTES_MAX, HEADER_BYTES, Batch, split
from minilog.wire.codec import codec
from minilog.wire.codec.compression import compress
from minilog.wire.records import Record, batch_head

_INT64_END: Final = 1 << 63


def retain(batch: Batch, records: Sequence[Record], delete_horizon_ms: int | None = None) -> Batch:
    """``batch`` with only ``records``, a selection of its own in order: all else about it stays,
    even its span.

    The offsets, producer id and sequence, epoch, codec and kind of timestamp are kept, so that a
    reader sees the same log with holes. It may be left with no records at all.
    ``delete_horizon_ms`` notes from when on its tombstones may go, in the place of the base
    timestamp (KIP-534). The records' times stay. Two things keep it out: a record too far from it
    in time for a delta of 64 bits, and a batch that would outgrow what readers and followers take,
    for such deltas are longer. Then the tombstones stay for good, which is better than a batch
    nobody can read.
    """
    left: Batch | None = None
    if delete_horizon_ms is not None and _can_count_from(delete_horizon_ms, batch, records):
        attributes = batch.attributes | DELETE_HORIZON_BIT
        left = _rewritten(batch._replace(attributes=attributes, base_timestamp=delete_horizon_ms), records)
    if left is None and len(records) < batch.record_count:
        left = _rewritten(batch, records)
    return batch if left is None else left


def _rewritten(batch: Batch, records: Sequence[Record]) -> Batch | None:
    """``batch``'s header with ``records``; None if they outgrow EXPANDED_BYTES_MAX."""
    parts: list[bytes] = []
    for record in records:
        assert batch.base_offset <= record.offset < batch.end_offset, "only the batch's own records can stay"
        delta_ms = 0 if batch.timestamp_type else record.timestamp - batch.base_timestamp
        offset_delta = record.offset - batch.base_offset
        codec.append_record(parts, offset_delta, delta_ms, record.key, record.value, record.headers)
    expanded = b"".join(parts)
    payload = compress(batch.codec, expanded) if parts else b""
    if max(len(expanded), HEADER_BYTES + len(payload)) > EXPANDED_BYTES_MAX:
        return None
    tail = (batch.attributes, *batch[5:11], len(records))
    data = batch_head(payload, batch.base_offset, batch.leader_epoch, tail) + payload
    return split(data, len(data), stored=True)[0]


def _can_count_from(base_timestamp: int, batch: Batch, records: Sequence[Record]) -> bool:
    """Every time can be written as a delta to it that ``decode_batch`` takes."""
    if not -_INT64_END <= base_timestamp < _INT64_END:
        return False
    deltas = (record.timestamp - base_timestamp for record in records)
    return bool(batch.timestamp_type) or all(-_INT64_END <= delta < _INT64_END for delta in deltas)
