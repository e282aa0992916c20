"""The codecs: what Kafka clients read is written, what they write is read, and no payload grows
past the cap."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
from unittest.mock import patch

import cramjam
import pytest
from aiokafka import codec as aiokafka_codec  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.errors import CorruptBatch, InvalidConfig
from minilog.wire.codec.compression import (
    CODECS,
    GZIP,
    LZ4,
    NONE,
    SNAPPY,
    ZSTD,
    _claimed_bytes,
    _into,
    codec_for,
    compress,
    decompress,
)

MAX = 1 << 20
COMPRESSING = [GZIP, SNAPPY, LZ4, ZSTD]
ENCODE = {
    GZIP: aiokafka_codec.gzip_encode,
    SNAPPY: aiokafka_codec.snappy_encode,
    LZ4: aiokafka_codec.lz4_encode,
    ZSTD: aiokafka_codec.zstd_encode,
}
DECODE = {
    GZIP: aiokafka_codec.gzip_decode,
    SNAPPY: aiokafka_codec.snappy_decode,
    LZ4: aiokafka_codec.lz4_decode,
    ZSTD: aiokafka_codec.zstd_decode,
}
TEXT = b"".join(b"order %d of customer %d; " % (i, i % 7) for i in range(4000))
payloads = st.binary(max_size=300) | st.integers(0, 200_000).map(lambda size: TEXT[:size] + bytes(size))


def test_names() -> None:
    assert [codec_for(name) for name in CODECS] == [NONE, GZIP, SNAPPY, LZ4, ZSTD]
    with pytest.raises(InvalidConfig, match="compression is 'brotli'; allowed are none, gzip, snappy, lz4, zstd"):
        codec_for("brotli")


@pytest.mark.parametrize("codec", [NONE, *COMPRESSING])
@given(payload=payloads)
@settings(max_examples=8, deadline=None)
def test_what_was_compressed_comes_back(codec: int, payload: bytes) -> None:
    assert decompress(codec, compress(codec, payload), MAX) == payload


@pytest.mark.parametrize("codec", COMPRESSING)
@given(payload=payloads)
@settings(max_examples=8, deadline=None)
def test_both_ways_with_another_implementation(codec: int, payload: bytes) -> None:
    assert DECODE[codec](compress(codec, payload)) == payload
    assert decompress(codec, memoryview(ENCODE[codec](payload)), MAX) == payload


@pytest.mark.parametrize("size", [100, 255, 256, 300, 65_000, 66_000, 300_000])
@pytest.mark.parametrize("codec", [GZIP, ZSTD])
def test_a_claimed_size_is_where_decompression_begins(codec: int, size: int) -> None:
    payload = TEXT[: size // 2] + random.Random(size).randbytes(size - len(TEXT[: size // 2]))
    packed = compress(codec, payload)
    assert _claimed_bytes(codec, memoryview(packed)) == size
    tries: list[int] = []

    def watched(view: memoryview, out: bytearray) -> int:
        tries.append(len(out))
        return into(view, out)

    into = _into[codec]
    with patch.dict(_into, {codec: watched}):
        assert decompress(codec, packed, MAX) == payload
        assert len(tries) == 1


def xerial(*blocks: bytes) -> bytes:
    head = compress(SNAPPY, b"")[:16]
    packed = [bytes(cramjam.snappy.compress_raw(block)) for block in blocks]
    return head + b"".join(len(block).to_bytes(4, "big") + block for block in packed)


@pytest.mark.parametrize("size", [0, 1, 63])
def test_snappy_is_not_cut_into_more_blocks_than_bytes_are_worth(size: int) -> None:
    """A block costs a microsecond whatever is in it, and five bytes: 16 MB of empty ones took three
    seconds."""
    few = [bytes(size)] * 16
    assert decompress(SNAPPY, xerial(*few), MAX) == b"".join(few)
    with pytest.raises(CorruptBatch, match=r"snappy blocks expand to .* 64 bytes each are wanted"):
        decompress(SNAPPY, xerial(*few * 65), MAX)
    usual = [bytes(64)] * 1000
    assert decompress(SNAPPY, xerial(*usual), MAX) == b"".join(usual)


@pytest.mark.parametrize("codec", COMPRESSING)
def test_the_cap_is_exact(codec: int) -> None:
    data = compress(codec, TEXT)
    assert decompress(codec, data, len(TEXT)) == TEXT
    with pytest.raises(CorruptBatch, match="expand"):
        decompress(codec, data, len(TEXT) - 1)
    with pytest.raises(CorruptBatch):
        decompress(codec, data, 0)


@pytest.mark.parametrize("codec", COMPRESSING)
def test_a_bomb_is_refused_within_the_cap(codec: int) -> None:
    bomb = compress(codec, bytes(32 * MAX))
    tracemalloc.start()
    with pytest.raises(CorruptBatch):
        decompress(codec, bomb, MAX)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 3 * MAX


def test_a_well_compressed_payload_is_no_bomb() -> None:
    zeros = bytes(MAX)
    for codec in COMPRESSING:
        assert decompress(codec, compress(codec, zeros), MAX) == zeros


@pytest.mark.parametrize("codec", COMPRESSING)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_damaged_data_raises_corrupt_batch_or_nothing(codec: int, data: st.DataObject) -> None:
    payload = bytearray(compress(codec, TEXT[: data.draw(st.integers(0, 2000))]))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    try:
        expanded = decompress(codec, bytes(payload[:cut]), MAX)
    except CorruptBatch:
        return
    assert len(expanded) <= MAX


@pytest.mark.parametrize("codec", COMPRESSING)
@given(data=st.binary(max_size=60))
@settings(max_examples=25, deadline=None)
def test_garbage_raises_corrupt_batch_or_nothing(codec: int, data: bytes) -> None:
    with contextlib.suppress(CorruptBatch):
        assert len(decompress(codec, data, MAX)) <= MAX


def test_an_unknown_codec_is_corrupt() -> None:
    with pytest.raises(CorruptBatch, match="codec is 5, known are 0 to 4"):
        decompress(5, b"", MAX)


def test_snappy_is_written_in_xerial_framing() -> None:
    data = compress(SNAPPY, TEXT[:40_000])
    assert data[:16] == b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"
    first_bytes = int.from_bytes(data[16:20], "big")
    assert cramjam.snappy.decompress_raw_len(data[20 : 20 + first_bytes]) == 32 * 1024


def test_raw_snappy_is_read_too() -> None:
    assert decompress(SNAPPY, bytes(cramjam.snappy.compress_raw(TEXT)), MAX) == TEXT


XERIAL = compress(SNAPPY, b"")[:16]
LYING = b"\xff\xff\xff\x07" + b"\x00a"  # raw snappy that claims 16 MB and holds one byte


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (LYING, "a snappy block of 6 bytes claims to expand to 16777215 bytes, 132 are allowed"),
        (XERIAL + (6).to_bytes(4, "big") + LYING, "claims to expand to 16777215 bytes"),
        (XERIAL + (7).to_bytes(4, "big") + LYING, "a snappy block claims 7 bytes, 6 are there"),
        (XERIAL + b"\xff\xff\xff\xff", "claims 4294967295 bytes, 0 are there"),
        (XERIAL + b"\x00", "are there"),
        (XERIAL + bytes(4), "damaged"),
        (b"", "damaged"),
    ],
)
def test_snappy_that_lies(data: bytes, words: str) -> None:
    with pytest.raises(CorruptBatch, match=words):
        decompress(SNAPPY, data, 64 * MAX)


def test_many_small_snappy_blocks_share_one_cap() -> None:
    block = bytes(cramjam.snappy.compress_raw(bytes(1000)))
    framed = len(block).to_bytes(4, "big") + block
    assert len(decompress(SNAPPY, XERIAL + framed * 10, 10_000)) == 10_000
    with pytest.raises(CorruptBatch):
        decompress(SNAPPY, XERIAL + framed * 11, 10_000)


def test_lz4_is_written_as_kafka_reads_it() -> None:
    data = compress(LZ4, TEXT)
    assert data[:4] == b"\x04\x22\x4d\x18"
    assert data[4] >> 6 == 1, "frame version"
    assert data[4] & 0x20, "blocks are independent"
    assert not data[4] & 0x03, "no dictionary, reserved bit clear"


@pytest.mark.parametrize("codec", [GZIP, LZ4, ZSTD])
def test_a_small_damaged_payload_is_not_tried_with_a_large_buffer(codec: int) -> None:
    damaged = bytearray(compress(codec, TEXT[:200]))
    del damaged[-9:]
    tracemalloc.start()
    try:
        with pytest.raises(CorruptBatch):
            decompress(codec, bytes(damaged), 64 << 20)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 16 << 20


@pytest.mark.parametrize("codec", [GZIP, LZ4, ZSTD])
@pytest.mark.parametrize("size", [0, 1, 17_000, 128 << 10, 10 << 20, 64 << 20])
def test_what_compresses_best_is_read(codec: int, size: int) -> None:
    """No codec makes more of a byte than is allowed for."""
    assert decompress(codec, compress(codec, bytes(size)), 64 << 20) == bytes(size)
