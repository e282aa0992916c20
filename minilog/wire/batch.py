"""(contract; being written) Header view of one record batch, Kafka format v2. See the design note storage.md."""

from __future__ import annotations

from typing import NamedTuple

HEADER_BYTES = 61
ACKS_UNKNOWN, ACKS_ZERO, ACKS_ONE, ACKS_MANY = 0, 1, 2, 3


class Batch(NamedTuple):
    """One whole batch inside ``buffer``. ``bytes_total`` = 12 + the length field. ``end_offset`` is exclusive."""

    base_offset: int
    bytes_total: int
    leader_epoch: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int
    buffers: tuple[bytes | memoryview, ...]
    """The batch's bytes in order: one view, or a stamped header followed by the untouched payload."""

    @property
    def end_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1


def split(data: bytes | memoryview, batch_bytes_max: int) -> list[Batch]:
    """Cut concatenated batches apart and validate each (magic, lengths, counts, CRC); raises CorruptBatch, RecordTooLarge."""
    raise NotImplementedError


def stamp(batch: Batch, base_offset: int, leader_epoch: int, acks_level: int, append_timestamp: int | None = None) -> Batch:
    """The same batch with offset, epoch and acks level set and the CRC recomputed; the payload is shared, not copied."""
    raise NotImplementedError
