"""Failed tries: what a failed try means for the batches that were in it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from minilog.errors import MinilogError, OutOfOrderSequence, UnknownTopic
from minilog_client.producer.partition_queue import PartitionQueue, Span
from minilog_client.settings import ProducerSettings

TOPIC_GRACE_MS: Final = 2000
"""A leader that does not know the topic may be told of it this much later than the rest of the
cluster."""


class Failure(NamedTuple):
    """Records given up: ``error.definite`` says whether they are provably not in the log."""

    spans: Sequence[Span]
    error: MinilogError
    topic: str


def is_worth_retrying(queue: PartitionQueue, error: MinilogError, settings: ProducerSettings, now_ms: int) -> bool:
    if settings.retries == "none":
        return False
    if settings.retries == "definite" and any(batch.maybe_written for batch in queue.in_flight):
        return False
    if isinstance(error, UnknownTopic):
        return queue.attempts.failing_for_ms(now_ms) < TOPIC_GRACE_MS
    return error.retriable


def is_gap_to_step_over(queue: PartitionQueue, error: MinilogError, settings: ProducerSettings) -> bool:
    """A leader that lacks what was acknowledged with less than acks="all": that can be lost, and
    goes on in a new epoch. With acks="all" it never may, and the application is told."""
    return isinstance(error, OutOfOrderSequence) and settings.acks != "all" and not queue.in_flight[0].maybe_written
