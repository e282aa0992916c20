"""A follower's fetcher whose leader answers by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from minilog.config import MIB
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.replica_fetcher import (
    ReplicaFetcher,
)
from minilog.wire.messages import NOTHING, ReplicaFetch, ReplicaFetchReply, ReplicaFetchResult
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.builders import TOPIC, TOPIC_ID, batch_at, follower_of, log_of, memory_log, partition_state

FIRST, SECOND = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


Spoil = Callable[[ReplicaFetchResult], None]


def follower(partition: int = 0, *, leader_epoch: int = 5, records: int = 3) -> FollowerState:
    return follower_of(partition_state(partition=partition, leader_epoch=leader_epoch), log_of((4, records)))


def fetcher(*followers: FollowerState) -> ReplicaFetcher:
    made = ReplicaFetcher(2, 1, 500, MIB, 2000)
    for each in followers:
        assert made.add(each) is None
    return made


def ask(made: ReplicaFetcher, now_ms: int = 0, broker_epoch: int = 7) -> ReplicaFetch:
    request = made.next_request(broker_epoch, now_ms)
    assert request is not None
    return request


def named(request: ReplicaFetch) -> dict[int, int]:
    return {entry.partition: entry.fetch_offset for entry in request.partitions}


def result(
    partition: int = 0, *, fetch_offset: int = 3, values: int = 0, high_watermark: int = 0, leader_epoch: int = 5
) -> ReplicaFetchResult:
    batches = b"".join(batch_at(fetch_offset + i, 5, b"v").tobytes() for i in range(values))
    view = memoryview(batches) if batches else NOTHING
    return ReplicaFetchResult(TOPIC, TOPIC_ID, partition, leader_epoch, fetch_offset, high_watermark, 0, batches=view)


def answer(request: ReplicaFetch, *results: ReplicaFetchResult, **more: Any) -> ReplicaFetchReply:
    return replace(ReplicaFetchReply(request.session_id, request.sequence, list(results)), **more)


def settle(made: ReplicaFetcher, partition: TopicPartition = FIRST) -> None:
    """The flush of ``partition`` ends with everything durable."""
    memory_log(made.followers[partition]).sync()
    assert made.on_flushed(partition) is None
