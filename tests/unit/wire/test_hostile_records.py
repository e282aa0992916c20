"""Records from strangers: whatever the bytes, decoded alike by both variants or refused."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.errors import CorruptBatch, RecordTooLarge
from minilog.wire.batch import Batch, peek, split
from minilog.wire.codec.codec import OBJECTS_MAX
from minilog.wire.codec.compression import CODECS
from minilog.wire.records import (
    Inside,
    Record,
    decode_batch,
    encode_values,
    look_inside,
)
from tests.unit.wire import oracles
from tests.unit.wire.batches import decode_all, encode_batch
from tests.unit.wire.codecs import BUILD, COMPILED, MAX, PURE, both, decoded, stored, using, with_headers


@pytest.mark.parametrize("compression", list(CODECS)[1:])
def test_a_payload_that_expands_beyond_the_cap_is_corrupt(compression: str) -> None:
    batch = stored([bytes(100_000)], 0, compression=compression)
    assert len(decode_batch(batch, expanded_bytes_max=100_020)) == 1
    with pytest.raises(CorruptBatch):
        decode_batch(batch, expanded_bytes_max=100_000)


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


def columns(variant: Any, data: bytes, count: int, objects_max: int) -> Any:
    try:
        return [
            Record(*row)
            for row in zip(*variant.decode_columns(data, count, 5, 1000, count + 2, None, objects_max), strict=True)
        ]
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
    expected = outcome(PURE, data, count, objects_max)
    assert outcome(COMPILED, data, count, objects_max) == expected
    assert columns(COMPILED, data, count, objects_max) == columns(PURE, data, count, objects_max) == expected


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


def looked(variant: Any, data: bytes, count: int, objects_max: int, times: tuple[int, int]) -> Any:
    batch = peek(oracles.raw_batch(data, count, base_timestamp=times[0], max_timestamp=times[1]))
    with using(variant):
        try:
            return look_inside(batch, data, objects_max)
        except CorruptBatch:
            return None


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
