"""Records: the same as two other implementations, both ways; pure and compiled alike; hostile bytes
refused."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.errors import CorruptBatch, InvalidRecord, RecordTooLarge
from minilog.wire import cleaned_batch
from minilog.wire import records as wire
from minilog.wire.batch import ACKS_MANY, HEADER_BYTES, LOG_APPEND_TIME, Batch, split, stamp
from minilog.wire.cleaned_batch import retain
from minilog.wire.codec import codec as imported_codec
from minilog.wire.codec.compression import CODECS
from minilog.wire.records import (
    BatchBuilder,
    Record,
    decode_batch,
    encode_values,
    first_timestamp,
)
from tests.unit.wire import oracles
from tests.unit.wire.batches import decode_all, encode_batch
from tests.unit.wire.codecs import BUILD, COMPILED, MAX, PURE, SOURCE, both, stored, using, with_headers


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
