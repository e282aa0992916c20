"""Two independent implementations of the record batch, behind one shape, and the values both are
tested with."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import crc32c
from aiokafka.record import default_records as aiokafka_records  # type: ignore[import-untyped]
from aiokafka.record import memory_records as aiokafka_memory
from hypothesis import strategies as st
from kafka.record import default_records as kafka_records  # type: ignore[import-untyped]
from kafka.record import memory_records as kafka_memory

from minilog.wire.batch import HEADER
from minilog.wire.records import Record

AIOKAFKA, AIOKAFKA_PURE, KAFKA_PYTHON = "aiokafka", "aiokafka-pure", "kafka-python"
BUILDERS: dict[str, Any] = {
    AIOKAFKA: aiokafka_records.DefaultRecordBatchBuilder,
    AIOKAFKA_PURE: aiokafka_records._DefaultRecordBatchBuilderPy,
    KAFKA_PYTHON: kafka_records.DefaultRecordBatchBuilder,
}
READERS: dict[str, Any] = {AIOKAFKA: aiokafka_memory.MemoryRecords, KAFKA_PYTHON: kafka_memory.MemoryRecords}
CODECS_OF = {AIOKAFKA: (0, 1, 2, 3, 4), AIOKAFKA_PURE: (0, 1, 2, 3, 4), KAFKA_PYTHON: (0, 1)}
"""kafka-python asks for one library per codec; aiokafka takes cramjam."""

names = st.text(max_size=12)
maybe_bytes = st.none() | st.binary(max_size=80)
contents = st.lists(
    st.tuples(
        st.integers(0, 2**45),
        maybe_bytes,
        maybe_bytes,
        st.lists(st.tuples(names, maybe_bytes), max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=12,
)


def records_of(items: Sequence[tuple[int, bytes | None, bytes | None, Any]], base_offset: int = 0) -> list[Record]:
    return [Record(base_offset + index, *item) for index, item in enumerate(items)]


def encode(
    oracle: str, records: Sequence[Record], codec: int = 0, *, producer: tuple[int, int, int] = (-1, -1, -1)
) -> bytes:
    builder = BUILDERS[oracle](2, codec, 0, *producer, 1 << 24)
    for record in records:
        builder.append(record.offset, record.timestamp, record.key, record.value, list(record.headers))
    return bytes(builder.build())


def decode(oracle: str, data: bytes) -> list[Record]:
    """All records of all batches. Every batch's CRC is checked by the oracle."""
    memory = READERS[oracle](data)
    found: list[Record] = []
    while (batch := memory.next_batch()) is not None:
        assert batch.validate_crc()
        found += [Record(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in batch]
    return found


def raw_batch(payload: bytes, count: int, **fields: int) -> bytes:
    """A batch with any header at all and a CRC that matches it."""
    values = {
        "base_offset": 0, "length": 49 + len(payload), "leader_epoch": 0, "magic": 2, "crc": 0, "attributes": 0,
        "last_offset_delta": count - 1, "base_timestamp": 1000, "max_timestamp": 1000, "producer_id": -1,
        "producer_epoch": -1, "base_sequence": -1, "record_count": count,
    }  # fmt: skip
    assert fields.keys() <= values.keys()
    return sealed(HEADER.pack(*(values | fields).values()) + payload)


def sealed(data: bytes) -> bytes:
    """``data`` with the CRC of its first batch put right."""
    return data[:17] + struct.pack(">I", crc32c.crc32c(data[21:])) + data[21:]
