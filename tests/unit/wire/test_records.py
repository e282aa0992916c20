"""Records: the same as two other implementations, both ways; pure and compiled alike; hostile bytes
refused."""

from __future__ import annotations

import importlib.util
import os
import random
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.errors import CorruptBatch, InvalidRecord, RecordTooLarge
from minilog.wire import cleaned_batch
from minilog.wire import records as wire
from minilog.wire.batch import ACKS_MANY, HEADER_BYTES, LOG_APPEND_TIME, Batch, peek, split, stamp
from minilog.wire.cleaned_batch import retain
from minilog.wire.codec import codec as imported_codec
from minilog.wire.codec.codec import OBJECTS_MAX
from minilog.wire.codec.compression import CODECS
from minilog.wire.records import (
    BatchBuilder,
    Inside,
    Record,
    decode_batch,
    encode_values,
    first_timestamp,
    look_inside,
)
from tests.unit.wire import oracles
from tests.unit.wire.batches import decode_all, encode_batch

MAX = 1 << 20
SOURCE = Path(wire.__file__).with_name("codec") / "codec.py"
BUILD = "build it with: python setup.py build_ext --inplace"


def pure_codec() -> ModuleType:
    """The source itself, even where the compiled module hides it."""
    spec = importlib.util.spec_from_file_location("pure_codec", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PURE = pure_codec()
COMPILED = imported_codec if imported_codec.COMPILED else None
VARIANTS = [
    pytest.param(PURE, id="pure"),
    pytest.param(COMPILED, id="compiled", marks=pytest.mark.skipif(COMPILED is None, reason=f"not compiled; {BUILD}")),
]
both = pytest.mark.parametrize("variant", VARIANTS)


@contextmanager
def using(variant: ModuleType | None) -> Iterator[None]:
    """``records`` on one variant of its codec."""
    assert variant is not None
    names = vars(wire)
    before = names["codec"]
    names["codec"] = variant
    try:
        yield
    finally:
        names["codec"] = before


def test_the_pure_variant_is_pure() -> None:
    assert not PURE.COMPILED


def test_the_compiled_variant_exists_where_it_must_and_is_not_stale() -> None:
    """In continuous integration what is skipped without it would be missed by nobody."""
    if os.environ.get("CI") and os.environ.get("MINILOG_PURE") != "1":
        assert COMPILED is not None, f"the codec is not compiled, which needs a C compiler; {BUILD}"
    if COMPILED is not None:
        (library,) = SOURCE.parent.glob("codec__mypyc.*")
        assert library.stat().st_mtime >= SOURCE.stat().st_mtime, (
            f"the compiled codec is older than its source; {BUILD}"
        )


# --- against the oracles --------------------------------------------------------------------------


def codecs_of(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(oracle, name) for oracle in names for name, codec in CODECS.items() if codec in oracles.CODECS_OF[oracle]]


@pytest.mark.parametrize(("oracle", "compression"), codecs_of(list(oracles.READERS)))
@given(items=oracles.contents)
@settings(max_examples=8, deadline=None)
def test_others_read_what_is_written(oracle: str, compression: str, items: list[tuple[int, Any, Any, Any]]) -> None:
    records = oracles.records_of([*items, (2**45, None, bytes(500), ())])  # worth to be compressed
    data = encode_batch(records, compression=compression)
    assert oracles.decode(oracle, data) == records
    assert split(data, MAX)[0].codec == CODECS[compression]


@pytest.mark.parametrize("compression", CODECS)
def test_what_compression_would_make_larger_is_left_as_it_is(compression: str) -> None:
    """A record that just fits into a topic's batches fits with any compression."""
    value = random.Random(1).randbytes(100_000)
    builder = BatchBuilder(HEADER_BYTES + 100_020)
    assert builder.append(None, value, (), 1000)
    assert len(builder.build(compression=compression)) <= HEADER_BYTES + 100_020


@pytest.mark.parametrize(("oracle", "compression"), codecs_of(list(oracles.BUILDERS)))
@given(items=oracles.contents)
@settings(max_examples=8, deadline=None)
def test_what_others_write_is_read(oracle: str, compression: str, items: list[tuple[int, Any, Any, Any]]) -> None:
    records = oracles.records_of(items)
    data = oracles.encode(oracle, records, CODECS[compression])
    assert decode_all(data + data) == records * 2


@both
@given(items=oracles.contents)
@settings(max_examples=30, deadline=None)
def test_both_variants_write_what_others_write_and_read_it(
    variant: ModuleType, items: list[tuple[int, Any, Any, Any]]
) -> None:
    records = oracles.records_of(items)
    theirs = oracles.encode(oracles.AIOKAFKA, records)
    with using(variant):
        (ours,) = split(encode_batch(records), MAX)
        assert stamp(ours, 0, split(theirs, MAX)[0].leader_epoch, 0).tobytes() == theirs
        assert decode_all(theirs) == records


@both
def test_many_records_and_every_width_of_length(variant: ModuleType) -> None:
    sizes = [0, 1, 62, 63, 64, 65, 127, 128, 8190, 8191, 8192, 8193, 70_000]
    records = [Record(i, i, None, bytes(size)) for i, size in enumerate(sizes)]
    values = [b"v%d" % i for i in range(9000)]
    with using(variant):
        assert decode_all(encode_batch(records)) == records
        assert oracles.decode(oracles.AIOKAFKA, encode_batch(records)) == records
        decoded = decode_all(encode_values(values, 77))
        assert [(r.offset, r.timestamp, r.value) for r in decoded] == [(i, 77, v) for i, v in enumerate(values)]


@both
@given(value=st.integers(-(2**63), 2**63 - 1))
@settings(max_examples=50)
def test_varints_survive_as_timestamps(variant: Any, value: int) -> None:
    parts: list[bytes] = []
    base = 0 if value >= 0 else -1
    variant.append_record(parts, 0, value - base, None, None, ())
    (record,) = variant.decode_records(Record, b"".join(parts), 1, 0, base, 0, None)
    assert record.timestamp == value
    assert oracles.decode(oracles.KAFKA_PYTHON, oracles.raw_batch(b"".join(parts), 1, base_timestamp=base)) == [record]


# --- building -------------------------------------------------------------------------------------


@both
@given(
    sizes=st.lists(st.integers(0, 200), min_size=1, max_size=40),
    batch_bytes_max=st.integers(HEADER_BYTES + 8, 1200),
    before=st.integers(0, 3),
)
@settings(max_examples=40)
def test_extend_is_append_for_each_and_fills_the_batch(
    variant: ModuleType, sizes: list[int], batch_bytes_max: int, before: int
) -> None:
    values = [bytes(size) for size in sizes]
    bulk, single = BatchBuilder(batch_bytes_max), BatchBuilder(batch_bytes_max)
    with using(variant):
        for builder in (bulk, single):
            for _ in range(before):
                builder.append(None, b"", (), 500)
        try:
            end = bulk.extend(values, 600)
        except RecordTooLarge:
            with pytest.raises(RecordTooLarge):
                single.append(None, values[0], (), 600)
            return
        for value in values[:end]:
            assert single.append(None, value, (), 600) > 0
        if end < len(values):
            assert single.append(None, values[end], (), 600) == 0
        if single.record_count:
            built = bulk.build()
            assert built == single.build()
            assert len(built) == bulk.bytes_total <= batch_bytes_max


@both
def test_extend_goes_on_from_where_the_last_batch_was_full(variant: ModuleType) -> None:
    values = [b"%04d" % i for i in range(1000)]
    start, data = 0, b""
    with using(variant):
        while start < len(values):
            builder = BatchBuilder(1024)
            start = builder.extend(values, 5, start)
            data += builder.build()
        assert [r.value for r in decode_all(data)] == values


@both
def test_a_record_no_batch_can_hold_is_too_large(variant: ModuleType) -> None:
    with using(variant):
        builder = BatchBuilder(200)
        with pytest.raises(RecordTooLarge, match="a record of 209 bytes exceeds what a batch may hold: 200 bytes"):
            builder.append(None, bytes(200), (), 0)
        with pytest.raises(RecordTooLarge):
            builder.extend([bytes(200)], 0)
        assert builder.append(None, b"fits", (), 9) == 11
        assert decode_all(builder.build()) == [Record(0, 9, None, b"fits")]


@both
def test_a_failed_extend_adds_nothing(variant: ModuleType) -> None:
    values: list[Any] = [b"a", None, b"c"]
    with using(variant):
        builder = BatchBuilder()
        builder.append(None, b"first", (), 1)
        with pytest.raises(TypeError):
            builder.extend(values, 2)
        assert [r.value for r in decode_all(builder.build())] == [b"first"]


def test_the_header_of_a_built_batch() -> None:
    builder = BatchBuilder()
    for timestamp_ms in (1000, 900, 1100):
        builder.append(b"k", b"v", (), timestamp_ms)
    data = builder.build(producer_id=7, producer_epoch=2, base_sequence=40, acks_level=ACKS_MANY)
    (batch,) = split(data, MAX)
    assert (batch.base_timestamp, batch.max_timestamp) == (1000, 1100)
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (7, 2, 40)
    assert (batch.base_offset, batch.leader_epoch, batch.acks_level, batch.record_count) == (0, -1, ACKS_MANY, 3)
    assert [r.timestamp for r in decode_batch(batch)] == [1000, 900, 1100]


def test_values_with_keys() -> None:
    data = encode_values([b"1", b"2"], 3, keys=[b"a", None])
    assert decode_all(data) == [Record(0, 3, b"a", b"1"), Record(1, 3, None, b"2")]
    with pytest.raises(ValueError):
        encode_values([b"1", b"2"], 3, keys=[b"a"])


# --- reading --------------------------------------------------------------------------------------


def stored(values: Sequence[bytes], base_offset: int, **options: Any) -> Batch:
    (batch,) = split(encode_values(values, 1000, **options), MAX)
    return stamp(batch, base_offset, 3, ACKS_MANY)


@pytest.mark.parametrize(("from_offset", "first"), [(0, 0), (100, 0), (101, 1), (102, 2), (103, 3), (999, 3)])
def test_reading_from_an_offset(from_offset: int, first: int) -> None:
    batch = stored([b"a", b"b", b"c"], 100)
    records = [Record(100 + i, 1000, None, value) for i, value in enumerate([b"a", b"b", b"c"])]
    assert decode_batch(batch, from_offset=from_offset) == records[first:]


def test_append_time_is_the_time_of_every_record() -> None:
    batch = stamp(stored([b"a", b"b"], 0), 0, 0, 0, 5555)
    assert batch.timestamp_type == LOG_APPEND_TIME
    assert [r.timestamp for r in decode_batch(batch)] == [5555, 5555]


@pytest.mark.parametrize("compression", CODECS)
@pytest.mark.parametrize("append_timestamp", [None, 5555])
def test_retain_keeps_offsets_and_identity(compression: str, append_timestamp: int | None) -> None:
    options = {"producer_id": 7, "producer_epoch": 2, "base_sequence": 40}
    values = [b"a", b"b", b"c", b"d"]
    before = stamp(stored(values, 100, compression=compression, **options), 100, 3, ACKS_MANY, append_timestamp)
    kept = [record for record in decode_batch(before) if record.value in (b"b", b"d")]
    after = retain(before, kept)
    assert decode_batch(after) == kept
    assert decode_batch(after, from_offset=102) == kept[1:]
    assert (after.base_offset, after.end_offset, after.record_count) == (100, 104, 2)
    unchanged = {"bytes_total", "crc", "record_count", "buffers"}
    for name in set(Batch._fields) - unchanged:
        assert getattr(after, name) == getattr(before, name), name
    assert oracles.decode(oracles.AIOKAFKA, after.tobytes()) == kept


@pytest.mark.parametrize("compression", CODECS)
def test_retain_may_leave_no_record(compression: str) -> None:
    after = retain(stored([b"a", b"b"], 100, compression=compression), [])
    assert decode_batch(after) == []
    assert (after.end_offset, after.record_count, after.bytes_total) == (102, 0, HEADER_BYTES)


LOWEST, HIGHEST = -(2**63), 2**63 - 1
TIMES = st.one_of(
    st.integers(LOWEST, HIGHEST),
    st.sampled_from([LOWEST, LOWEST + 1, LOWEST + 63, LOWEST + 64, -1, 0, 1, HIGHEST - 64, HIGHEST - 63, HIGHEST]),
    st.integers(HIGHEST - 130, HIGHEST),
    st.integers(LOWEST, LOWEST + 130),
)


@both
@given(
    first=TIMES.filter(lambda t: t >= -1), others=st.lists(TIMES, max_size=4), horizon=TIMES, kept=st.integers(0, 31)
)
@settings(max_examples=200)
def test_what_is_encoded_or_cleaned_can_be_decoded_at_all_extremes_of_time(
    variant: Any, first: int, others: list[int], horizon: int, kept: int
) -> None:
    records = [Record(n, time, b"k", None) for n, time in enumerate([first, *others])]
    with using(variant):
        try:
            data = encode_batch(records)
        except InvalidRecord:
            assert any(not LOWEST <= time - first <= HIGHEST for time in others)
            return
        batch = stored_batch(data)
        assert decode_batch(batch) == records
        chosen = [record for record in records if kept >> record.offset & 1]
        cleaned = retain(batch, chosen, horizon)
        assert decode_batch(cleaned) in (chosen, records)
        assert (cleaned.base_offset, cleaned.end_offset) == (batch.base_offset, batch.end_offset)
        assert first_timestamp(cleaned) == (decode_batch(cleaned) or [Record(0, batch.max_timestamp)])[0].timestamp
        again = retain(cleaned, decode_batch(cleaned), HIGHEST)
        assert decode_batch(again) == decode_batch(cleaned)


def stored_batch(data: bytes) -> Batch:
    (batch,) = split(data, MAX, stored=True)
    return batch


@both
def test_a_time_beyond_64_bits_is_never_handed_out(variant: Any) -> None:
    """Also where the delta has one byte only. Otherwise cleaning would write it back as what cannot
    be read."""
    with using(variant):
        batch = stored_batch(encode_batch([Record(0, HIGHEST)]))
        assert decode_batch(batch)[0].timestamp == HIGHEST
        payload = bytes(batch.payload).replace(b"\x0c\x00\x00", b"\x0c\x00\x02")
        with pytest.raises(CorruptBatch, match="longer than 64 bits"):
            decode_batch(batch._replace(buffers=(batch.tobytes()[:HEADER_BYTES] + payload,)))


def test_a_tombstone_too_far_from_its_horizon_stays_and_its_batch_is_left_alone() -> None:
    batch = stored_batch(encode_batch([Record(0, -1, b"k"), Record(1, LOWEST, b"l")]))
    assert retain(batch, decode_batch(batch), 1_700_000_000_000) is batch
    less = retain(batch, decode_batch(batch)[1:], 1_700_000_000_000)
    assert (less.delete_horizon_ms, less.record_count) == (None, 1)


@pytest.mark.parametrize("compression", CODECS)
def test_what_cleaning_leaves_is_no_larger_than_readers_and_followers_take(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times as distances to a horizon of another day are longer, by four bytes a record."""
    value = bytes(random.Random(1).randbytes(1000))
    tombstones = [Record(n, 1_700_000_000_000, b"%d" % n) for n in range(1, 1000)]
    records = [Record(0, 1_700_000_000_000, b"k", value), *tombstones]
    batch = stored_batch(encode_batch(records, compression=compression))
    expanded = len(wire.expand(batch)) + (HEADER_BYTES if compression == "none" else 0)
    horizon_ms = 1_700_086_400_000
    assert retain(batch, records, horizon_ms).delete_horizon_ms == horizon_ms
    monkeypatch.setattr(cleaned_batch, "EXPANDED_BYTES_MAX", expanded)
    assert retain(batch, records, horizon_ms) is batch
    less = retain(batch, records[1:], horizon_ms)
    assert (less.delete_horizon_ms, decode_batch(less, expanded_bytes_max=expanded)) == (None, records[1:])
    assert retain(batch, records[:100], horizon_ms).delete_horizon_ms == horizon_ms, "now there is room"


def test_the_first_time_of_a_batch_is_that_of_a_record_whatever_cleaning_has_done() -> None:
    batch = stored_batch(encode_batch([Record(n, 1000 + n, b"k", None if n == 1 else b"v") for n in range(3)]))
    assert (batch.first_timestamp, first_timestamp(batch)) == (1000, 1000)
    cleaned = retain(batch, decode_batch(batch)[1:], 999_999)
    assert (cleaned.first_timestamp, first_timestamp(cleaned), cleaned.delete_horizon_ms) == (None, 1001, 999_999)
    assert first_timestamp(retain(batch, decode_batch(batch)[2:])) == 1002
    assert first_timestamp(retain(batch, [], 999_999)) == 1002, "nothing but the latest time is left"
    assert first_timestamp(stamp(batch, 0, 0, ACKS_MANY, 5555)) == 5555
    unreadable = cleaned._replace(buffers=(cleaned.tobytes()[:-1],))
    assert first_timestamp(unreadable) == cleaned.max_timestamp


# --- bounds on what is made of a batch ------------------------------------------------------------


def with_headers(record: int, count: int, claimed: int | None = None) -> bytes:
    """A record with ``count`` empty headers."""
    inside = b"\x00\x00" + imported_codec.varint(record) + b"\x01\x01"
    inside += imported_codec.varint(count if claimed is None else claimed) + b"\x00\x01" * count
    return imported_codec.varint(len(inside)) + inside


@both
def test_headers_are_counted_before_they_are_made(variant: ModuleType) -> None:
    """33 million empty headers are 6 KB of a compressed batch, and gigabytes as objects."""
    most = imported_codec.HEADERS_MAX
    assert len(variant.decode_records(Record, with_headers(0, most), 1, 0, 0, 0, None)[0].headers) == most
    bomb = with_headers(0, 3_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptBatch, match=f"claims 3000000 headers .* allowed are {most}"):
            variant.decode_records(Record, bomb, 1, 0, 0, 0, None)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@both
def test_records_and_headers_are_counted_together(variant: ModuleType) -> None:
    payload = with_headers(0, 3) + with_headers(1, 4)
    assert len(variant.decode_records(Record, payload, 2, 0, 0, 1, None, 9)) == 2
    with pytest.raises(CorruptBatch, match="4 headers before byte 20 are 1 more than its batch may have"):
        variant.decode_records(Record, payload, 2, 0, 0, 1, None, 8)
    with pytest.raises(CorruptBatch, match="claims 2 records; allowed are 1 "):
        variant.decode_records(Record, payload, 2, 0, 0, 1, None, 1)
    most = imported_codec.OBJECTS_MAX
    with pytest.raises(CorruptBatch, match=f"claims {most + 1} records; allowed are {most} "):
        variant.decode_records(Record, bytes(8 * (most + 1)), most + 1, 0, 0, most, None)


@both
def test_no_batch_is_built_that_its_readers_refuse(variant: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEADERS_MAX", 3)
    monkeypatch.setattr(wire, "OBJECTS_MAX", 6)
    headers = [("", None)] * 3
    with using(variant):
        builder = BatchBuilder()
        with pytest.raises(RecordTooLarge, match="a record has 4 headers; allowed are 3"):
            builder.append(None, b"", [*headers, ("", None)], 0)
        assert builder.append(None, b"", headers, 0) > 0
        assert builder.append(None, b"", headers, 0) == 0
        assert builder.extend([b"a", b"b", b"c"], 0) == 2
        assert builder.append(None, b"", (), 0) == 0
        assert builder.extend([b"c"], 0) == 0
        (batch,) = split(builder.build(), MAX)
        assert [len(record.headers) for record in decode_batch(batch)] == [3, 0, 0]
        for keys in (None, [None] * 7):
            with pytest.raises(RecordTooLarge, match="at most 6 records and headers"):
                encode_values([b""] * 7, 0, keys=keys)


@pytest.mark.parametrize("compression", list(CODECS)[1:])
def test_a_payload_that_expands_beyond_the_cap_is_corrupt(compression: str) -> None:
    batch = stored([bytes(100_000)], 0, compression=compression)
    assert len(decode_batch(batch, expanded_bytes_max=100_020)) == 1
    with pytest.raises(CorruptBatch):
        decode_batch(batch, expanded_bytes_max=100_000)


# --- hostile bytes --------------------------------------------------------------------------------


def body(content: str) -> bytes:
    """A record of these bytes, given in hex, with the length they have."""
    data = bytes.fromhex(content)
    return bytes(PURE.varint(len(data))) + data


FINE = body("00 00 00 01 01 00")
WITH_HEADER = body("00 00 00 01 01 02 02 61 01")
SECOND = body("00 00 02 01 01 00")
HOSTILE = [
    (1, "", "1 records cannot fit into 0 bytes"),
    (2, FINE + bytes.fromhex("0c00"), "2 records cannot fit into 9 bytes"),
    (2, FINE + bytes.fromhex("0c 00 00 02 01 01 00")[:-1] + b"", "cannot fit"),
    (1, FINE + SECOND, "7 bytes follow the last of 1 records"),
    (2, FINE + FINE, "offset delta 0 after 0"),
    (2, SECOND + FINE, "offset delta 0 after 1"),
    (1, body("00 00 04 01 01 00"), "offset delta 2 after -1"),
    (1, body("00 00 01 01 01 00"), "offset delta 0 after -1"),
    (1, body("00 00 feffffff0f 01 01 00"), "offset delta 2147483647"),
    (1, bytes.fromhex("0b 00 00 00 01 01 00"), "length that is negative or beyond"),
    (1, bytes.fromhex("0e 00 00 00 01 01 00"), "length that is negative or beyond"),
    (1, bytes.fromhex("feffffff0f 00 00 00 01 01 00"), "length that is negative or beyond"),
    (1, bytes.fromhex("8080808010 00 00 00 01 01 00"), "longer than 32 bits"),
    (1, bytes.fromhex("808080808000 00 00 00 01 01 00"), "longer than 32 bits"),
    (1, bytes.fromhex("ffffffffffffffffffffffff"), "longer than 32 bits"),
    (1, bytes.fromhex("0a 00 00 00 01 01 00"), "should end at byte 6 ends at byte 7"),
    (1, body("00 00 00 03 01 00"), "negative and not -1"),
    (1, body("00 00 00 01 ffffffff0f 00"), "negative and not -1"),
    (1, body("00 00 00 04 61 01 00"), "ends inside a record"),
    (1, body("00 00 00 01 04 61 00"), "ends inside a record"),
    (1, body("00 00 00 01 feffffff0f 00"), "ends inside a record"),
    (1, body("00 00 00 01 01 00 00"), "should end at byte 8 ends at byte 7"),
    (1, body("00 00 00 01 01 01"), "header count before byte 7 is negative or beyond"),
    (1, body("00 00 00 01 01 02"), "header count before byte 7 is negative or beyond"),
    (1, body("00 00 00 01 01 feffffff0f"), "header count before byte 11 is negative or beyond"),
    (1, body("00 00 00 01 01 02 01 00"), "header name before byte 8 is null"),
    (1, body("00 00 00 01 01 02 02 ff 00"), "name is not UTF-8"),
    (1, body("00 00 00 01 01 02 06 eda080 00"), "name is not UTF-8"),
    (1, body("00 00 00 01 01 02 03 00"), "negative and not -1"),
    (1, body("00 00 00 01 01 02 08 61 00"), "ends inside a record"),
    (1, body("00 ffffffffffffffffffff01 00 01 01 00"), "longer than 64 bits"),
    (1, body("00 ffffffffffffffffff03 00 01 01 00"), "longer than 64 bits"),
    (1, body("00 feffffffffffffffff01 00 01 01 00"), "longer than 64 bits"),
]


@both
@pytest.mark.parametrize(("count", "payload", "words"), HOSTILE)
def test_hostile_payloads(variant: ModuleType, count: int, payload: bytes | str, words: str) -> None:
    data = payload if isinstance(payload, bytes) else payload.encode()
    # A tail of whole records behind must not lend its bytes to a record that claims too much.
    batch = Batch(0, 61 + len(data), 0, 0, 0, 1, 1000, 1000, -1, -1, -1, count, (b"", data))
    with using(variant), pytest.raises(CorruptBatch, match=words):
        decode_batch(batch)


def test_padded_varints_are_read_as_kafka_reads_them() -> None:
    data = bytes.fromhex("9c80808000 00 808000 8000 81808000 8100 8000")
    batch = oracles.raw_batch(data, 1)
    assert decode_all(batch) == oracles.decode(oracles.KAFKA_PYTHON, batch) == [Record(0, 1000)]


def outcome(variant: Any, data: bytes, count: int, objects_max: int) -> Any:
    try:
        return variant.decode_records(Record, data, count, 5, 1000, count + 2, None, objects_max)
    except CorruptBatch as error:
        return str(error)


PIECES = st.sampled_from(
    [FINE, WITH_HEADER, SECOND, body("00 80 02 04 6161 01 02 02 61 01"), b"\x0c", b"\x00", b"\x01", b"\xff", b"\x80"]
)


@pytest.mark.skipif(COMPILED is None, reason=f"not compiled; {BUILD}")
@given(
    pieces=st.lists(PIECES | st.binary(max_size=4), max_size=8), count=st.integers(1, 4), objects_max=st.integers(1, 6)
)
@settings(max_examples=120)
def test_pure_and_compiled_agree_on_anything(pieces: list[bytes], count: int, objects_max: int) -> None:
    data = b"".join(pieces)
    assert outcome(COMPILED, data, count, objects_max) == outcome(PURE, data, count, objects_max)


@pytest.mark.parametrize("compression", CODECS)
@given(data=st.data())
@settings(max_examples=16, deadline=None)
def test_mutated_batches_decode_or_are_corrupt(compression: str, data: st.DataObject) -> None:
    records = oracles.records_of(data.draw(oracles.contents))
    batch = bytearray(encode_batch(records, compression=compression))
    for _ in range(data.draw(st.integers(1, 5))):
        batch[data.draw(st.integers(0, len(batch) - 1))] = data.draw(st.integers(0, 255))
    mutated = bytes(batch) if data.draw(st.booleans()) else oracles.sealed(bytes(batch))
    try:
        found = decode_all(mutated, batch_bytes_max=MAX, expanded_bytes_max=MAX)
    except (CorruptBatch, RecordTooLarge):
        return
    offsets = [record.offset for record in found]
    assert offsets == sorted(set(offsets))


# --- a look inside ---------------------------------------------------------------------------------


def looked(variant: Any, data: bytes, count: int, objects_max: int, times: tuple[int, int]) -> Any:
    batch = peek(oracles.raw_batch(data, count, base_timestamp=times[0], max_timestamp=times[1]))
    with using(variant):
        try:
            return look_inside(batch, data, objects_max)
        except CorruptBatch:
            return None


def decoded(variant: Any, data: bytes, count: int, objects_max: int, times: tuple[int, int]) -> Any:
    """What a look inside has to find, worked out from the records."""
    try:
        found = variant.decode_records(Record, data, count, 0, times[0], count - 1, None, objects_max)
    except CorruptBatch:
        return None
    if any(record.timestamp > times[1] for record in found):
        return None
    objects = sum(1 + len(record.headers) for record in found)
    return Inside(objects, next((record.offset for record in found if record.key is None), None))


@both
@given(
    pieces=st.lists(PIECES | st.binary(max_size=4), max_size=8),
    count=st.integers(1, 4),
    objects_max=st.integers(1, 6),
    times=st.sampled_from([(1000, 1000), (-1, -1), (999, 1500), (2**63 - 1, 2**63 - 1), (2**63 - 40, 2**63 - 1)]),
)
@settings(max_examples=150)
def test_a_look_inside_takes_what_can_be_decoded_and_nothing_else(
    variant: Any, pieces: list[bytes], count: int, objects_max: int, times: tuple[int, int]
) -> None:
    data = b"".join(pieces)
    assert looked(variant, data, count, objects_max, times) == decoded(variant, data, count, objects_max, times)


@both
def test_a_look_inside_counts_the_records_behind_the_headers(variant: Any) -> None:
    """Records that come after many headers count as those before them do. Else readers refuse what
    was acknowledged."""
    payload = with_headers(0, 3) + SECOND
    for objects_max, objects in [(5, 5), (4, None), (3, None)]:
        found = None if objects is None else Inside(objects, 0)
        assert looked(variant, payload, 2, objects_max, (1000, 1000)) == found
        assert decoded(variant, payload, 2, objects_max, (1000, 1000)) == found


@both
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_so_it_is_with_what_producers_send_and_with_what_was_mutated(variant: Any, data: st.DataObject) -> None:
    records = oracles.records_of(data.draw(oracles.contents))
    (batch,) = split(encode_batch(records), MAX)
    payload = bytearray(batch.payload)
    times = batch.base_timestamp, batch.max_timestamp
    count = batch.record_count
    fine = decoded(variant, bytes(payload), count, OBJECTS_MAX, times)
    assert fine is not None
    assert looked(variant, bytes(payload), count, OBJECTS_MAX, times) == fine
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    mutated = bytes(payload)
    assert looked(variant, mutated, count, OBJECTS_MAX, times) == decoded(variant, mutated, count, OBJECTS_MAX, times)


@both
def test_a_look_inside_lets_other_threads_go_on(variant: Any) -> None:
    (batch,) = split(encode_values([b""] * 20_000, 1000), MAX)
    payload, place, calls = bytes(batch.payload), (0, 0, -1, OBJECTS_MAX), 0
    while place[1] < batch.record_count:
        place = variant.check_records(payload, *place[:2], batch.record_count, 1000, 1000, *place[2:])
        calls += 1
    assert calls == 5
    assert place == (len(payload), 20_000, 0, OBJECTS_MAX - 20_000)
