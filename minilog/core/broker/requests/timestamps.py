"""Timestamps: how far the times that producers give may lie from the broker's own (R40).

Looked at are the times in the headers of the batches, the first record's and the latest one, for a
look at each record would take too long. The latest one is what retention and time lookup go by.
"""

from __future__ import annotations

from collections.abc import Iterable

from minilog.config import TopicSettings
from minilog.core.broker.state import LocalState
from minilog.errors import InvalidTimestamp
from minilog.wire.batch import Batch
from minilog.wire.topic_partition import TopicPartition


def check_timestamps(
    batches: Iterable[Batch], partition: TopicPartition, settings: TopicSettings, state: LocalState, now_ms: int
) -> None:
    """Raises InvalidTimestamp. A broker whose clock is wrong refuses nobody whose clock is right:
    what the controller's clock allows is allowed."""
    if settings.message_timestamp_type == "LogAppendTime":
        return
    wall_ms = state.wall_ms(now_ms)
    controllers_ms = wall_ms - (state.clock_skew_ms(now_ms) or 0)
    latest_ms = max(wall_ms, controllers_ms) + settings.message_timestamp_after_max_ms
    earliest_ms = min(wall_ms, controllers_ms) - settings.message_timestamp_before_max_ms
    for batch in batches:
        if batch.max_timestamp > latest_ms:
            limit_ms, name = settings.message_timestamp_after_max_ms, "message.timestamp.after.max.ms"
            raise _refusal(partition, batch.max_timestamp, wall_ms, "ahead of", limit_ms, name)
        first_ms = batch.first_timestamp if earliest_ms > 0 else None
        if first_ms is not None and 0 <= first_ms < earliest_ms:
            limit_ms, name = settings.message_timestamp_before_max_ms, "message.timestamp.before.max.ms"
            raise _refusal(partition, first_ms, wall_ms, "behind", limit_ms, name)


def _refusal(
    partition: TopicPartition, timestamp_ms: int, wall_ms: int, way: str, limit_ms: int, name: str
) -> InvalidTimestamp:
    return InvalidTimestamp(
        f"a record for {partition} has timestamp {timestamp_ms}, which is {abs(timestamp_ms - wall_ms)} ms {way} the "
        f"broker's time {wall_ms}; allowed are {limit_ms} ms ({name}). Timestamps are milliseconds since 1970: "
        "look at the producer's clock and unit",
        timestamp=timestamp_ms,
        broker_ms=wall_ms,
    )
