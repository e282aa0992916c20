"""Header view of one record batch: Kafka's format v2 (magic 2), byte for byte.

Owns: the 61-byte header. ``split`` cuts untrusted bytes into validated batches, ``stamp`` gives one
its place in a log, ``peek`` reads a header without touching the payload. Records stay opaque here
(records.py decodes them).

    base offset i64 | length i32 | partition leader epoch i32 | magic i8 | CRC-32C u32
    | attributes i16 | last offset delta i32 | base timestamp i64 | max timestamp i64
    | producer id i64 | producer epoch i16
    | base sequence i32 | record count i32 | records

Attributes: bits 0-2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon, 8-9 the
acks level the producer asked for (unused by Kafka, so its readers ignore them), the rest reserved.
With bit 6 the base timestamp field holds the delete horizon: from then on tombstones in the batch
may go; times of records are relative to it all the same.

Invariants:
* A ``Batch`` from ``split`` has a length within its data, a matching CRC, a known codec and
  consistent counts.
* Nothing is allocated or skipped on the word of a length or count before that field has been
  checked.
* The CRC covers attributes onward: base offset and leader epoch may change without touching it, the
  acks level and an append time may not. ``stamp`` computes the CRC over the shared payload only
  when it must.

Why a NamedTuple: built once per batch on the hot path, and building a tuple is the cheapest
construction there is. Source: KIP-98 (format v2), KIP-32 (timestamp types), KIP-534 (delete
horizon).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from crc32c import crc32c

from minilog.errors import CorruptBatch, InvalidAcks, RecordTooLarge
from minilog.wire.codec.codec import OBJECTS_MAX, RECORD_BYTES_MIN

HEADER_BYTES: Final = 61
PREFIX_BYTES: Final = 12
"""Base offset and length field: what the length field itself does not count."""
CRC_START: Final = 21
"""The CRC covers everything from here, the attributes, to the end."""
MAGIC: Final = 2
ACKS_SHIFT: Final = 8
ACKS_UNKNOWN, ACKS_ZERO, ACKS_ONE, ACKS_MANY = 0, 1, 2, 3
CREATE_TIME, LOG_APPEND_TIME = 0, 1
CODEC_MAX: Final = 4
NO_PRODUCER_ID: Final = -1
EXPANDED_BYTES_MAX: Final = 64 * 1024 * 1024
"""What the compressed payload of one batch may expand to, for whoever reads it."""
RECORDS_MAX: Final = 2**31 - 1
"""Records that the batches of one partition in one request may claim together: a segment's indexes
count so far."""

_CODEC_MASK: Final = 0x07
_APPEND_TIME_BIT: Final = 0x08
_TRANSACTIONAL_BIT: Final = 0x10
_CONTROL_BIT: Final = 0x20
DELETE_HORIZON_BIT: Final = 0x40
_ACKS_MASK: Final = 0x03 << ACKS_SHIFT
_PRODUCER_MASK: Final = _CODEC_MASK | _ACKS_MASK
_OFFSET_MAX: Final = 2**63 - 1
_LENGTH_MIN: Final = HEADER_BYTES - PREFIX_BYTES

HEADER: Final = struct.Struct(">qiibIHiqqqhii")
"""The whole header, fields in the order of the module docstring."""
_pack_prefix: Final = struct.Struct(">qiibI").pack
_pack_checked: Final = struct.Struct(">Hiqqqhii").pack
_unpack_header: Final = HEADER.unpack_from
# Past NamedTuple's own constructor, a Python-level function that costs as much as the rest of peek.
_new: Final = tuple.__new__


class Batch(NamedTuple):
    """One whole batch. ``bytes_total`` = 12 + the length field. ``end_offset`` is exclusive; times
    are ms.

    ``base_timestamp`` is the field as it stands: what the deltas of the records' times count from,
    and nobody's time. Who wants to know when something was uses ``first_timestamp``,
    ``max_timestamp`` or ``delete_horizon_ms``.
    """

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
    """The batch's bytes in order: one view, or a stamped header followed by the untouched payload.
    Empty in a batch from ``peek``, which saw the header only."""

    @property
    def end_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def acks_level(self) -> int:
        """ACKS_UNKNOWN, ACKS_ZERO, ACKS_ONE or ACKS_MANY."""
        return (self.attributes & _ACKS_MASK) >> ACKS_SHIFT

    @property
    def codec(self) -> int:
        """0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd (compression.py)."""
        return self.attributes & _CODEC_MASK

    @property
    def timestamp_type(self) -> int:
        """CREATE_TIME, or LOG_APPEND_TIME: every record's time is then ``max_timestamp``."""
        return LOG_APPEND_TIME if self.attributes & _APPEND_TIME_BIT else CREATE_TIME

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & _CONTROL_BIT)

    @property
    def delete_horizon_ms(self) -> int | None:
        """From when on the tombstones in it may go (KIP-534); None before cleaning has met them."""
        return self.base_timestamp if self.attributes & DELETE_HORIZON_BIT else None

    @property
    def first_timestamp(self) -> int | None:
        """Time of the first record. None when the header does not say it, because cleaning has
        taken records away or has put the delete horizon into the field. ``records.first_timestamp``
        looks inside then."""
        if self.attributes & _APPEND_TIME_BIT:
            return self.max_timestamp
        if self.attributes & DELETE_HORIZON_BIT or self.record_count <= self.last_offset_delta:
            return None
        return self.base_timestamp

    @property
    def last_sequence(self) -> int:
        """Sequence of the last record; sequences wrap to 0 after 2^31 - 1. -1 without a producer
        id."""
        if self.base_sequence < 0:
            return -1
        return (self.base_sequence + self.last_offset_delta) & 0x7FFFFFFF

    @property
    def payload(self) -> memoryview:
        """The records, as stored: possibly compressed."""
        if len(self.buffers) == 2:
            return memoryview(self.buffers[1])
        return memoryview(self.buffers[0])[HEADER_BYTES:]

    def tobytes(self) -> bytes:
        return b"".join(self.buffers)


def acks_level_for(acks: int) -> int:
    """The acks level of a produce request's ``acks``: 0, 1, N > 1 copies, or -1 for all; raises
    InvalidAcks."""
    if acks == -1 or acks > 1:
        return ACKS_MANY
    if acks == 1:
        return ACKS_ONE
    if acks == 0:
        return ACKS_ZERO
    raise InvalidAcks(f"acks is {acks}; allowed are 0, 1, a number of copies above 1, or -1 for all")


def split(data: bytes | memoryview, batch_bytes_max: int, *, stored: bool = False) -> list[Batch]:
    """Cut concatenated batches apart and validate each: magic, lengths, CRC-32C, codec, counts,
    times.

    The batches are views into ``data``. Without ``stored`` the rules for producers hold: records
    numbered without a gap, no control or transactional batch, no attribute that is the leader's to
    set. ``stored`` is for batches from a log (replication, recovery, consumer fetch): compaction
    may have left gaps, even none of the records. Raises CorruptBatch or RecordTooLarge, with
    ``info["position"]``, the byte where the bad batch starts.
    """
    view = memoryview(data)
    end = len(view)
    position = 0
    batches: list[Batch] = []
    while position < end:
        batch = batch_at(view, position, batch_bytes_max, stored)
        batches.append(batch)
        position += batch.bytes_total
    if len(batches) > 1 and not stored:
        records = sum(batch.record_count for batch in batches)
        if records > RECORDS_MAX:
            raise _corrupt(0, f"it and those behind it claim {records} records, allowed are {RECORDS_MAX}")
    return batches


def first_batches(data: memoryview, count_max: int) -> tuple[int, int, int]:
    """The first ``count_max`` of concatenated batches: the byte where they end, how many they are,
    and the offset where they end. All of ``data`` when it goes on as no batch does: ``split`` says
    what is wrong."""
    position = count = end_offset = 0
    while position < len(data) and count < count_max:
        try:
            header = peek(data, position)
        except CorruptBatch:
            return len(data), count, end_offset
        position, count, end_offset = position + header.bytes_total, count + 1, header.end_offset
    return min(position, len(data)), count, end_offset


def batch_at(view: memoryview, position: int, batch_bytes_max: int, stored: bool = False) -> Batch:
    """The validated batch that starts at ``position``. ``stored`` and errors as in ``split``."""
    header = peek(view, position)
    bytes_total = header[1]
    check_size(bytes_total, position, batch_bytes_max)
    whole = view[position : position + bytes_total]
    if len(whole) != bytes_total:
        raise _corrupt(position, f"its length field claims {bytes_total} bytes, {len(whole)} are there")
    crc = crc32c(whole[CRC_START:])
    if crc != header[3]:
        raise _corrupt(position, f"its CRC-32C is {crc:#010x}, the header says {header[3]:#010x}")
    fault = fault_of(header) or (None if stored else _producer_fault(header))
    if fault is not None:
        raise _corrupt(position, fault)
    return _new(Batch, (*header[:12], (whole,)))


def check_size(bytes_total: int, position: int, batch_bytes_max: int) -> None:
    """Raises RecordTooLarge."""
    if bytes_total > batch_bytes_max:
        raise RecordTooLarge(
            f"a batch of {bytes_total} bytes (at byte {position}) exceeds the {batch_bytes_max} bytes allowed",
            position=position,
        )


def peek(view: bytes | memoryview, position: int = 0) -> Batch:
    """The header at ``position``, without its payload (``buffers`` is empty) and without checking
    the CRC.

    Checks only what a scan needs to step on: 61 bytes are there, the magic, and a length that holds
    a header. Raises CorruptBatch. The rest is to be trusted only after ``split``.
    """
    if len(view) - position < HEADER_BYTES:
        raise _corrupt(position, f"{len(view) - position} bytes are left, a header takes {HEADER_BYTES}")
    base_offset, length, leader_epoch, magic, crc, attributes, delta, base, latest, pid, epoch, sequence, count = (
        _unpack_header(view, position)
    )
    if magic != MAGIC:
        raise _corrupt(position, f"its magic is {magic}, only {MAGIC} is supported")
    if length < _LENGTH_MIN:
        raise _corrupt(position, f"its length field is {length}, at least {_LENGTH_MIN} is needed")
    bytes_total = length + PREFIX_BYTES
    return _new(
        Batch,
        (base_offset, bytes_total, leader_epoch, crc, attributes, delta, base, latest, pid, epoch, sequence, count, ()),
    )


def is_compressed(batches: bytes | memoryview) -> bool:
    """Whether any of the batches expands when it is read, as far as they can be told apart."""
    position = 0
    while len(batches) - position >= HEADER_BYTES:
        try:
            header = peek(batches, position)
        except CorruptBatch:
            return False
        if header.codec:
            return True
        position += header.bytes_total
    return False


def stamp(
    batch: Batch, base_offset: int, leader_epoch: int, acks_level: int, append_timestamp: int | None = None
) -> Batch:
    """The same batch with offset, epoch and acks level set. The payload is shared, not copied.

    ``append_timestamp`` (ms) makes it a log-append-time batch. The CRC is recomputed when a field
    it covers changes, from the payload that ``split`` has verified.
    """
    assert base_offset >= 0, "a place in a log is never negative"
    assert ACKS_UNKNOWN <= acks_level <= ACKS_MANY, "two bits hold the acks level"
    _, bytes_total, _, crc, old_attributes, delta, base, old_latest, pid, epoch, sequence, count, _ = batch
    payload = batch.payload
    attributes = (old_attributes & ~_ACKS_MASK) | (acks_level << ACKS_SHIFT)
    latest = old_latest
    if append_timestamp is not None:
        attributes |= _APPEND_TIME_BIT
        latest = append_timestamp
    checked = _pack_checked(attributes, delta, base, latest, pid, epoch, sequence, count)
    if attributes != old_attributes or latest != old_latest:
        crc = crc32c(payload, crc32c(checked))
    head = _pack_prefix(base_offset, bytes_total - PREFIX_BYTES, leader_epoch, MAGIC, crc) + checked
    buffers = (head, payload)
    return _new(
        Batch,
        (
            base_offset,
            bytes_total,
            leader_epoch,
            crc,
            attributes,
            delta,
            base,
            latest,
            pid,
            epoch,
            sequence,
            count,
            buffers,
        ),
    )


def is_filler(header: Batch) -> bool:
    """It stands for offsets whose records compaction has taken away, and for nothing else."""
    return header.record_count == 0 and header.producer_id == NO_PRODUCER_ID and not header.is_control


def filler(last: Batch, base_offset: int) -> Batch:
    """A batch without records from ``base_offset`` to the end of ``last``, in its epoch and with
    its latest time.

    So a log without some of its records still has every offset: a hole can be told from a loss."""
    delta = last.last_offset - base_offset
    assert 0 <= delta < 2**31
    checked = _pack_checked(0, delta, last.max_timestamp, last.max_timestamp, NO_PRODUCER_ID, -1, -1, 0)
    head = _pack_prefix(base_offset, _LENGTH_MIN, last.leader_epoch, MAGIC, crc32c(checked)) + checked
    return _new(Batch, (*peek(head)[:12], (head,)))


def _corrupt(position: int, fault: str) -> CorruptBatch:
    return CorruptBatch(f"the batch at byte {position} is corrupt: {fault}", position=position)


def fault_of(header: Batch) -> str | None:
    """What no batch may be, wherever it comes from."""
    base_offset, bytes_total, _, _, attributes, delta, _, _, _, _, _, count, _ = header
    codec = attributes & _CODEC_MASK
    if codec > CODEC_MAX:
        return f"its compression codec is {codec}, known are 0 to {CODEC_MAX}"
    if delta < 0:
        return f"its last offset delta is {delta}, it cannot be negative"
    if not 0 <= base_offset < _OFFSET_MAX - delta:
        return f"its base offset is {base_offset}, allowed are 0 and above, with an end of at most 2^63 - 1"
    if not 0 <= count <= delta + 1:
        return f"its record count is {count}, its last offset delta {delta}"
    if codec == 0 and count * RECORD_BYTES_MIN > bytes_total - HEADER_BYTES:
        return f"its record count is {count}, which cannot fit into {bytes_total - HEADER_BYTES} bytes"
    return None


def _producer_fault(header: Batch) -> str | None:
    """What a producer may not send although a log may hold it."""
    _, _, _, _, attributes, delta, base, latest, producer_id, epoch, sequence, count, _ = header
    if count != delta + 1:
        return f"its record count is {count}, its last offset delta {delta}"
    if count > OBJECTS_MAX:
        return f"its record count is {count}, a batch holds at most {OBJECTS_MAX} records and headers"
    if attributes & (_CONTROL_BIT | _TRANSACTIONAL_BIT):
        return "control and transactional batches are not accepted from producers"
    if attributes & ~_PRODUCER_MASK:
        return f"its attributes are {attributes:#06x}, a producer may set the codec only"
    if base < -1 or latest < base:
        return f"its timestamps go from {base} to {latest}, allowed is -1 <= base <= max"
    if producer_id < NO_PRODUCER_ID:
        return f"its producer id is {producer_id}, allowed are -1 (none) and above"
    if producer_id != NO_PRODUCER_ID and (epoch < 0 or sequence < 0):
        return f"it has a producer id but epoch {epoch} and sequence {sequence}"
    return None
