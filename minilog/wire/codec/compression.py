"""Compression codecs of the record batch: gzip, snappy, lz4 and zstd, each behind a hard cap on
what it may expand to.

Owns: the payload encodings that Kafka clients write and read, and nothing of what is inside.

* gzip: RFC 1952. zstd: RFC 8878. lz4: the frame format with independent blocks, the only kind
  Kafka's reader takes.
* snappy: xerial framing (a 16-byte header, then blocks of raw snappy, each after its i32 length),
  which Kafka's Java clients and librdkafka write and read; bare raw snappy is read too.

Invariant: ``decompress`` never allocates more than the cap, whatever the payload claims. Snappy
states its size up front. The others are decompressed into a buffer that grows up to the cap, from a
guess, or from what the payload claims if that is near. A payload which does not fit into the cap is
refused, and a small payload that lies about its size costs little more than what it really expands
to.

Source: KIP-57 (lz4 framing), KIP-110 (zstd), KIP-390 (levels).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Final

import cramjam

from minilog.errors import CorruptBatch, InvalidConfig

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS: Final = {"none": NONE, "gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}
"""Codec ids by the names that ``compression.type`` takes."""

GZIP_LEVEL: Final = 6
LZ4_LEVEL: Final = 1
ZSTD_LEVEL: Final = 3

_GZIP_WINDOW: Final = 31
_XERIAL_HEADER: Final = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
_XERIAL_MAGIC: Final = _XERIAL_HEADER[:8]
_XERIAL_BLOCK_BYTES: Final = 32 * 1024
_SNAPPY_RATIO_MAX: Final = 22
"""Raw snappy's best case is a 3-byte copy of 64 bytes. A larger claim is a lie."""
_XERIAL_SMALL_MAX: Final = 16
_XERIAL_SMALL_BYTES: Final = 64
"""More blocks than the first so many expand to the second at least, on average: writers make 32 KiB
of each."""
_RATIO_MAX: Final = {GZIP: 1032, LZ4: 255, ZSTD: 32 * 1024}
"""What a byte can expand to at best: deflate's 258 bytes for two bits, lz4's 255 for each byte of a
length, zstd's block of 128 KiB out of four bytes. So a small payload that is damaged is not tried
with a large buffer."""
_GUESS_RATIO: Final = 8
_GUESS_BYTES_MIN: Final = 16 * 1024
_CLAIM_RATIO_MAX: Final = 1024
"""A payload that claims to expand to more is not believed before it does."""
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"

_into: Final[dict[int, Callable[[memoryview, bytearray], int]]] = {
    GZIP: cramjam.gzip.decompress_into,
    LZ4: cramjam.lz4.decompress_into,
    ZSTD: cramjam.zstd.decompress_into,
}


def codec_for(name: str) -> int:
    """The id of a codec's name; raises InvalidConfig."""
    codec = CODECS.get(name)
    if codec is None:
        raise InvalidConfig(f"compression is {name!r}; allowed are {', '.join(CODECS)}")
    return codec


def compress(codec: int, payload: bytes) -> bytes:
    """``payload`` as Kafka clients expect it for ``codec``."""
    assert NONE <= codec <= ZSTD, f"unknown codec {codec}"
    if codec == NONE:
        return payload
    if codec == GZIP:
        return zlib.compress(payload, GZIP_LEVEL, _GZIP_WINDOW)
    if codec == SNAPPY:
        return _compress_xerial(payload)
    if codec == LZ4:
        compressor = cramjam.lz4.Compressor(level=LZ4_LEVEL, content_checksum=False, block_linked=False)
        compressor.compress(payload)
        return bytes(compressor.finish())
    return bytes(cramjam.zstd.compress(payload, level=ZSTD_LEVEL))


def decompress(codec: int, payload: bytes | memoryview, expanded_bytes_max: int) -> bytes:
    """The bytes before compression; raises CorruptBatch if they are damaged or more than
    ``expanded_bytes_max``."""
    view = memoryview(payload)
    if codec == NONE:
        return bytes(view)
    if codec == SNAPPY:
        return _decompress_snappy(view, expanded_bytes_max)
    into = _into.get(codec)
    if into is None:
        raise CorruptBatch(f"the compression codec is {codec}, known are {NONE} to {ZSTD}")
    most_bytes = min(expanded_bytes_max, max(_GUESS_BYTES_MIN, _RATIO_MAX[codec] * len(view)))
    claimed_bytes = min(_claimed_bytes(codec, view), _CLAIM_RATIO_MAX * len(view))
    out_bytes = min(most_bytes, max(_GUESS_BYTES_MIN, claimed_bytes or _GUESS_RATIO * len(view)))
    while True:
        out = bytearray(out_bytes)
        try:
            return bytes(memoryview(out)[: into(view, out)])
        except cramjam.DecompressionError as error:
            # A full buffer and damaged data look alike but for the text, so only the largest buffer
            # decides.
            if out_bytes == most_bytes:
                raise CorruptBatch(
                    f"a payload of {len(view)} bytes is damaged or expands beyond {expanded_bytes_max} bytes: {error}"
                ) from None
        out_bytes = min(most_bytes, out_bytes * _GUESS_RATIO)


def _claimed_bytes(codec: int, view: memoryview) -> int:
    """What a payload says it expands to; 0 when it does not say. Nothing rests on it but where to
    begin."""
    if codec == GZIP:
        return int.from_bytes(view[-4:], "little")
    if codec != ZSTD or bytes(view[:4]) != _ZSTD_MAGIC or len(view) < 18:
        return 0
    descriptor = view[4]
    is_single = descriptor >> 5 & 1
    size_bytes = (is_single, 2, 4, 8)[descriptor >> 6]
    start = 6 - is_single + (0, 1, 2, 4)[descriptor & 3]
    claimed = int.from_bytes(view[start : start + size_bytes], "little")
    return claimed + 256 if size_bytes == 2 else claimed


def _compress_xerial(payload: bytes) -> bytes:
    parts = [_XERIAL_HEADER]
    view = memoryview(payload)
    for start in range(0, max(1, len(view)), _XERIAL_BLOCK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(view[start : start + _XERIAL_BLOCK_BYTES]))
        parts += (len(block).to_bytes(4, "big"), block)
    return b"".join(parts)


def _decompress_snappy(view: memoryview, expanded_bytes_max: int) -> bytes:
    if view[: len(_XERIAL_MAGIC)] != _XERIAL_MAGIC:
        return _decompress_block(view, expanded_bytes_max)
    parts: list[bytes] = []
    room_bytes = expanded_bytes_max
    position = len(_XERIAL_HEADER)
    while position < len(view):
        block_bytes = int.from_bytes(view[position : position + 4], "big")
        position += 4
        if block_bytes > len(view) - position:
            raise CorruptBatch(f"a snappy block claims {block_bytes} bytes, {max(0, len(view) - position)} are there")
        parts.append(_decompress_block(view[position : position + block_bytes], room_bytes))
        room_bytes -= len(parts[-1])
        position += block_bytes
        expanded_bytes = expanded_bytes_max - room_bytes
        if (len(parts) - _XERIAL_SMALL_MAX) * _XERIAL_SMALL_BYTES > expanded_bytes:
            raise CorruptBatch(
                f"{len(parts)} snappy blocks expand to {expanded_bytes} bytes; behind the first {_XERIAL_SMALL_MAX} "
                f"{_XERIAL_SMALL_BYTES} bytes each are wanted"
            )
    return b"".join(parts)


def _decompress_block(block: memoryview, expanded_bytes_max: int) -> bytes:
    try:
        claimed_bytes = cramjam.snappy.decompress_raw_len(block)
        if claimed_bytes > expanded_bytes_max or claimed_bytes > _SNAPPY_RATIO_MAX * len(block):
            raise CorruptBatch(
                f"a snappy block of {len(block)} bytes claims to expand to {claimed_bytes} bytes, "
                f"{min(expanded_bytes_max, _SNAPPY_RATIO_MAX * len(block))} are allowed"
            )
        return bytes(cramjam.snappy.decompress_raw(block))
    except cramjam.DecompressionError as error:
        raise CorruptBatch(f"a snappy block of {len(block)} bytes is damaged: {error}") from None
