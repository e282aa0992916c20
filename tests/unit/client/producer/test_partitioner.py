from __future__ import annotations

from random import Random

import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog_client.producer import partitioner
from minilog_client.producer.partitioner import next_sticky, partition_for_key


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 1000))
def test_keys_land_where_a_kafka_producer_puts_them(key: bytes, count: int) -> None:
    assert partition_for_key(key, count) == (aiokafka_murmur2(key) & 0x7FFFFFFF) % count


def test_long_keys_are_not_kept() -> None:
    before = partitioner._remembered.cache_info().currsize
    for number in range(10):
        partition_for_key(b"%d" % number * (partitioner.REMEMBERED_KEY_BYTES_MAX + 1), 3)
    assert partitioner._remembered.cache_info().currsize == before
    partition_for_key(b"k" * partitioner.REMEMBERED_KEY_BYTES_MAX, 3)
    assert partitioner._remembered.cache_info().currsize == before + 1


def test_a_single_partition_takes_everything() -> None:
    assert partition_for_key(b"any", 1) == 0
    assert next_sticky(1, lambda partition: 5, Random(1)) == 0


def test_sticky_choice_avoids_a_partition_that_backs_up() -> None:
    random, queued = Random(1), {0: 0, 1: 1_000_000, 2: 0}
    chosen = {next_sticky(3, queued.__getitem__, random) for _ in range(200)}
    assert chosen == {0, 2}


def test_sticky_choice_spreads_over_equal_partitions() -> None:
    random = Random(1)
    counts = [0] * 4
    for _ in range(4000):
        counts[next_sticky(4, lambda partition: 0, random)] += 1
    assert min(counts) > 800


def test_a_topic_without_partitions_is_a_programmer_error() -> None:
    with pytest.raises(AssertionError):
        partition_for_key(b"k", 0)
