"""Kafka's partitioner for keyed records: murmur2 of the key, so that keys land where a Kafka
producer puts them."""

from __future__ import annotations

from typing import Final

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """The 32-bit hash as an unsigned integer (Kafka's Java version reads the same bits as
    signed)."""
    length = len(key)
    h = (_SEED ^ length) & _MASK
    body_end = length & ~3
    for position in range(0, body_end, 4):
        k = int.from_bytes(key[position : position + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if length != body_end:
        h = (h ^ int.from_bytes(key[body_end:], "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a keyed record. ``partitions`` is the number the topic has."""
    assert partitions > 0
    return (murmur2(key) & 0x7FFFFFFF) % partitions
