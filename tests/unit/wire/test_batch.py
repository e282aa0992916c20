"""The batch header: what is accepted, what is refused and in which words, and what stamping may
touch."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.errors import CorruptBatch, InvalidAcks, RecordTooLarge
from minilog.wire import batch as wire
from minilog.wire.batch import HEADER, HEADER_BYTES, Batch, acks_level_for, peek, split, stamp
from minilog.wire.codec.codec import OBJECTS_MAX
from minilog.wire.records import Record, encode_values
from tests.unit.wire import oracles

MAX = 1 << 20
SMALLEST_RECORD = bytes.fromhex("0c000000010100")
THREE = encode_values([b"a", b"b", b"c"], 1000)


def only(data: bytes, *, stored: bool = False) -> Batch:
    (batch,) = split(data, MAX, stored=stored)
    return batch


def test_the_header_lies_in_the_bytes_where_the_format_says() -> None:
    data = bytes.fromhex(
        "0000000000000005" "00000038" "00000007" "02" "00000000" "0304" "00000000" "00000000000003e8"
        "00000000000007d0" "0000000000000063" "0002" "00000009" "00000001"
    ) + SMALLEST_RECORD  # fmt: skip
    batch = only(oracles.sealed(data), stored=True)
    assert batch.base_offset == 5
    assert batch.bytes_total == 68
    assert batch.leader_epoch == 7
    assert batch.attributes == 0x0304
    assert (batch.codec, batch.acks_level) == (4, wire.ACKS_MANY)
    assert (batch.last_offset_delta, batch.last_offset, batch.end_offset) == (0, 5, 6)
    assert (batch.base_timestamp, batch.max_timestamp) == (1000, 2000)
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence, batch.last_sequence) == (99, 2, 9, 9)
    assert batch.record_count == 1
    assert bytes(batch.payload) == SMALLEST_RECORD


@pytest.mark.parametrize("oracle", oracles.BUILDERS)
@given(items=oracles.contents)
@settings(max_examples=10)
def test_split_reads_what_others_wrote(oracle: str, items: list[tuple[int, bytes, bytes, tuple[()]]]) -> None:
    records = oracles.records_of(items)
    first = oracles.encode(oracle, records, producer=(7, 3, 100))
    second = oracles.encode(oracle, records[:1])
    batches = split(first + second, MAX)
    assert [b.bytes_total for b in batches] == [len(first), len(second)]
    assert [b.record_count for b in batches] == [len(records), 1]
    assert batches[0].producer_id == 7
    assert batches[0].last_sequence == 100 + len(records) - 1
    assert batches[0].base_timestamp == records[0].timestamp
    assert batches[0].max_timestamp == max(r.timestamp for r in records)
    assert b"".join(b.tobytes() for b in batches) == first + second


def test_split_takes_nothing_for_no_batches_and_copies_nothing() -> None:
    assert split(b"", MAX) == []
    data = THREE * 2
    view = split(data, MAX)[1].buffers[0]
    assert isinstance(view, memoryview)
    assert view.obj is data


@pytest.mark.parametrize("oracle", oracles.READERS)
@pytest.mark.parametrize("append_timestamp", [None, 5000])
def test_a_stamped_batch_is_readable_by_others(oracle: str, append_timestamp: int | None) -> None:
    stamped = stamp(only(THREE), 100, 7, wire.ACKS_MANY, append_timestamp)
    assert oracles.decode(oracle, stamped.tobytes()) == [
        Record(100 + index, append_timestamp or 1000, None, value) for index, value in enumerate([b"a", b"b", b"c"])
    ]


@given(
    base_offset=st.integers(0, 2**62),
    leader_epoch=st.integers(0, 2**31 - 1),
    acks_level=st.integers(0, 3),
    append_timestamp=st.none() | st.integers(0, 2**50),
)
@settings(max_examples=50)
def test_stamp_sets_its_fields_and_no_others(
    base_offset: int, leader_epoch: int, acks_level: int, append_timestamp: int | None
) -> None:
    produced = only(encode_values([b"x" * 50] * 3, 1000, producer_id=5, producer_epoch=1, base_sequence=2**31 - 2))
    stamped = stamp(produced, base_offset, leader_epoch, acks_level, append_timestamp)
    read = only(stamped.tobytes(), stored=True)
    assert read[:12] == stamped[:12]
    assert read.tobytes() == stamped.tobytes()
    assert stamped.buffers[1] is produced.payload or stamped.payload.obj is produced.payload.obj
    assert (read.base_offset, read.leader_epoch, read.acks_level) == (base_offset, leader_epoch, acks_level)
    if append_timestamp is not None:
        assert (read.timestamp_type, read.max_timestamp) == (wire.LOG_APPEND_TIME, append_timestamp)
    restored = read._replace(
        base_offset=0, leader_epoch=-1, crc=produced.crc, attributes=0, max_timestamp=1000, buffers=produced.buffers
    )
    assert restored == produced


def test_stamp_again_replaces_the_first_stamp() -> None:
    once = stamp(only(THREE), 100, 7, wire.ACKS_MANY)
    twice = stamp(once, 200, 8, wire.ACKS_ONE)
    assert twice.tobytes() == stamp(only(THREE), 200, 8, wire.ACKS_ONE).tobytes()
    assert only(twice.tobytes(), stored=True).acks_level == wire.ACKS_ONE


def test_stamp_keeps_the_crc_when_nothing_under_it_changes() -> None:
    produced = only(encode_values([b"a"], 1000, acks_level=wire.ACKS_MANY))
    stamped = stamp(produced, 9, 9, wire.ACKS_MANY)
    assert stamped.crc == produced.crc
    assert only(stamped.tobytes()).base_offset == 9


@pytest.mark.parametrize(
    ("acks", "level"),
    [(0, wire.ACKS_ZERO), (1, wire.ACKS_ONE), (2, wire.ACKS_MANY), (9, wire.ACKS_MANY), (-1, wire.ACKS_MANY)],
)
def test_acks_levels(acks: int, level: int) -> None:
    assert acks_level_for(acks) == level


def test_acks_below_all_are_refused() -> None:
    with pytest.raises(InvalidAcks, match="acks is -2"):
        acks_level_for(-2)


def test_sequences_wrap() -> None:
    batch = only(encode_values([b""] * 3, 0, producer_id=1, producer_epoch=0, base_sequence=2**31 - 2))
    assert batch.last_sequence == 0
    assert only(THREE).last_sequence == -1


def test_peek_reads_a_header_alone() -> None:
    batch = only(THREE + THREE[:0])
    assert peek(THREE[:HEADER_BYTES])[:12] == batch[:12]
    assert peek(memoryview(b"xx" + THREE), 2)[:12] == batch[:12]
    assert peek(THREE).buffers == ()
    with pytest.raises(CorruptBatch, match="60 bytes are left, a header takes 61"):
        peek(THREE[:60])


PAYLOAD = SMALLEST_RECORD * 3
ANY_ORIGIN = [
    ({"magic": 1}, "magic is 1, only 2"),
    ({"length": 48}, "length field is 48, at least 49"),
    ({"length": -1}, "length field is -1"),
    ({"length": -(2**31)}, "length field is -2147483648"),
    ({"length": 49 + len(PAYLOAD) + 1}, "claims 83 bytes, 82 are there"),
    ({"attributes": 5}, "codec is 5, known are 0 to 4"),
    ({"attributes": 7}, "codec is 7"),
    ({"base_offset": -1}, "base offset is -1"),
    ({"base_offset": 2**63 - 3}, "base offset is 9223372036854775805"),
    ({"last_offset_delta": -1}, "last offset delta is -1"),
    ({"last_offset_delta": 1}, "record count is 3, its last offset delta 1"),
    ({"record_count": -1}, "record count is -1"),
    ({"record_count": 4, "last_offset_delta": 3}, "record count is 4, which cannot fit into 21 bytes"),
    ({"record_count": 2**31 - 1, "last_offset_delta": 2**31 - 2}, "record count is 2147483647"),
]
PRODUCERS_ONLY = [
    ({"record_count": 0}, "record count is 0, its last offset delta 2"),
    ({"record_count": 2}, "record count is 2, its last offset delta 2"),
    ({"last_offset_delta": 3}, "record count is 3, its last offset delta 3"),
    ({"attributes": 0x10}, "control and transactional"),
    ({"attributes": 0x20}, "control and transactional"),
    ({"attributes": 0x08}, "attributes are 0x0008"),
    ({"attributes": 0x40}, "attributes are 0x0040"),
    ({"attributes": 0x80}, "attributes are 0x0080"),
    ({"attributes": 0x8000 - 0x10000}, "attributes are 0x8000"),
    ({"base_timestamp": -2}, "timestamps go from -2 to 1000"),
    ({"max_timestamp": 999}, "timestamps go from 1000 to 999"),
    ({"producer_id": -2}, "producer id is -2"),
    ({"producer_id": 1, "base_sequence": 0}, "producer id but epoch -1 and sequence 0"),
    ({"producer_id": 1, "producer_epoch": 0}, "producer id but epoch 0 and sequence -1"),
]


def hostile(fields: dict[str, int]) -> bytes:
    if "attributes" in fields:
        fields = fields | {"attributes": fields["attributes"] & 0xFFFF}
    return oracles.raw_batch(PAYLOAD, 3, **fields)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(("fields", "words"), ANY_ORIGIN)
def test_what_no_batch_may_be(fields: dict[str, int], words: str, stored: bool) -> None:
    with pytest.raises(CorruptBatch, match=words) as caught:
        split(THREE + hostile(fields), MAX, stored=stored)
    assert caught.value.info == {"position": len(THREE)}


@pytest.mark.parametrize(("fields", "words"), PRODUCERS_ONLY)
def test_what_producers_may_not_send_but_logs_may_hold(fields: dict[str, int], words: str) -> None:
    with pytest.raises(CorruptBatch, match=words):
        only(hostile(fields))
    assert only(hostile(fields), stored=True).bytes_total == HEADER_BYTES + len(PAYLOAD)


def test_a_batch_without_records_may_lie_in_a_log_only() -> None:
    data = oracles.raw_batch(b"", 0, last_offset_delta=4)
    assert only(data, stored=True).end_offset == 5
    with pytest.raises(CorruptBatch, match="record count is 0"):
        only(data)


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_batch_claims_no_more_records_than_its_readers_make(codec: int) -> None:
    most = OBJECTS_MAX
    assert only(claiming(most, codec)).record_count == most
    for count in (most + 1, 2**31 - 1):
        with pytest.raises(CorruptBatch, match=f"record count is {count}"):
            split(claiming(count, codec), MAX)
        assert only(claiming(count, codec), stored=True).record_count == count, "a log may hold it from before"


def test_the_batches_of_one_request_together_claim_no_more_than_an_index_can_count() -> None:
    most = OBJECTS_MAX
    fitting = (2**31 - 1) // most
    assert len(split(claiming(most) * fitting, MAX)) == fitting
    with pytest.raises(CorruptBatch, match="those behind it claim"):
        split(claiming(most) * (fitting + 1), MAX)


def claiming(count: int, codec: int = 1) -> bytes:
    """A compressed batch that says it holds ``count`` records."""
    return oracles.sealed(HEADER.pack(0, 53, -1, 2, 0, codec, count - 1, 1000, 1000, -1, -1, -1, count) + b"data")


def test_too_large_is_said_before_the_bytes_are_missed() -> None:
    with pytest.raises(RecordTooLarge, match=f"a batch of {len(THREE)} bytes .* exceeds the {len(THREE) - 1} bytes"):
        split(THREE, len(THREE) - 1)
    assert len(split(THREE, len(THREE))) == 1
    with pytest.raises(RecordTooLarge, match="a batch of 2147483659 bytes"):
        split(hostile({"length": 2**31 - 1}), MAX)


@pytest.mark.parametrize("garbage", [b"\x00", b"\xff" * 60, bytes(61), THREE[:-1]])
def test_trailing_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(CorruptBatch) as caught:
        split(THREE + garbage, MAX)
    assert caught.value.info == {"position": len(THREE)}


def test_refusing_allocates_next_to_nothing() -> None:
    everything = [hostile(fields) for fields, _ in ANY_ORIGIN + PRODUCERS_ONLY] + [hostile({"length": 2**31 - 1})]
    tracemalloc.start()
    for data in everything:
        with pytest.raises((CorruptBatch, RecordTooLarge)):
            split(data, MAX)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 200_000


@given(position=st.integers(0, len(THREE) - 1), bit=st.integers(0, 7))
@settings(max_examples=100)
def test_a_flipped_bit_is_found_unless_it_is_outside_the_crc(position: int, bit: int) -> None:
    data = bytearray(THREE)
    data[position] ^= 1 << bit
    outside_crc = position < 8 or 12 <= position < 16  # base offset and leader epoch
    try:
        batch = only(bytes(data), stored=True)
    except (CorruptBatch, RecordTooLarge):
        assert not outside_crc or data[0] & 0x80
    else:
        assert outside_crc
        assert batch[3:12] == only(THREE)[3:12]


edges = st.integers(-2, 5) | st.sampled_from([2**31 - 1, -(2**31)])
edges_long = edges | st.sampled_from([2**63 - 1, 2**63 - 5, -(2**63)])


@given(
    base_offset=edges_long,
    attributes=st.sampled_from([0, 1, 4, 5, 0x08, 0x20, 0x0300]),
    last_offset_delta=edges,
    times=st.tuples(edges_long, edges_long),
    producer=st.tuples(edges_long, st.integers(-2, 2), edges),
    record_count=edges,
    stored=st.booleans(),
)
@settings(max_examples=100)
def test_any_header_is_accepted_or_refused_in_order(
    base_offset: int,
    attributes: int,
    last_offset_delta: int,
    times: tuple[int, int],
    producer: tuple[int, int, int],
    record_count: int,
    stored: bool,
) -> None:
    head = HEADER.pack(
        base_offset, 49 + 21, 0, 2, 0, attributes, last_offset_delta, *times, *producer, record_count
    )  # fmt: skip
    data = oracles.sealed(head + PAYLOAD)
    try:
        batch = only(data, stored=stored)
    except CorruptBatch:
        return
    assert 0 <= batch.base_offset < batch.end_offset < 2**63
    assert 0 <= batch.record_count <= batch.last_offset_delta + 1
    assert stored or batch.record_count == batch.last_offset_delta + 1
    assert batch.tobytes() == data
