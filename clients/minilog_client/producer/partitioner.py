"""Which partition a record goes to: Kafka's murmur2 for keyed records, the shorter queue for the
others.

Pure. Keys land where Kafka's own producers would put them, so the two can write one topic together.
That fixes the algorithm for ever. Unkeyed records stay with one partition until its batch is full
(few big batches), and the next partition is the less loaded of two drawn at random: a partition
whose leader is down backs up and is then avoided, without anybody having to know why.

Source: Kafka's default partitioner (murmur2 with seed 0x9747b28c, sign bit cleared); KIP-480,
KIP-794 (sticky, load-aware). The power of two choices (Mitzenmacher).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Final

from minilog.wire.codec.murmur2 import murmur2

REMEMBERED_KEY_BYTES_MAX: Final = 128
_remembered: Final = lru_cache(maxsize=16_384)(murmur2)
"""The hash, with recent keys remembered: a lookup costs a tenth of the computation. Only short keys
are, so that all of them together are 2 MiB at most."""


def partition_for_key(key: bytes, partition_count: int) -> int:
    """The partition a Kafka producer would choose for ``key``."""
    assert partition_count > 0, "a topic has partitions"
    hashed = _remembered(key) if len(key) <= REMEMBERED_KEY_BYTES_MAX else murmur2(key)
    return (hashed & 0x7FFFFFFF) % partition_count


def next_sticky(partition_count: int, queued_bytes: Callable[[int], int], random: Random) -> int:
    """The partition the next batch of unkeyed records goes to: the less loaded of two random
    ones."""
    assert partition_count > 0, "a topic has partitions"
    first = random.randrange(partition_count)
    if partition_count == 1:
        return first
    second = (first + 1 + random.randrange(partition_count - 1)) % partition_count
    return second if queued_bytes(second) < queued_bytes(first) else first
