"""What an answer has brought of one partition, looked at. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from minilog.errors import InternalError
from minilog.wire.batch import Batch, split
from minilog.wire.messages import FetchResult, OffsetsResult
from minilog_client.consumer.partition_fetch import PartitionFetch

BATCH_BYTES_MAX: Final = 64 * 1024 * 1024


class Arrived(NamedTuple):
    """What one fetch has brought of one partition. ``lag`` is what there is beyond it."""

    topic: str
    partition: int
    record_count: int
    bytes_total: int
    batch_count: int
    lag: int | None


def arrived(state: PartitionFetch, batches: Sequence[Batch]) -> Arrived:
    records, size = sum(batch.record_count for batch in batches), sum(batch.bytes_total for batch in batches)
    lag = None if state.high_watermark is None else max(0, state.high_watermark - state.fetch_offset)
    return Arrived(state.topic, state.partition, records, size, len(batches), lag)


def owned_batches(result: FetchResult, is_alone: bool) -> list[Batch]:
    """The validated batches of ``result``; copied out of the reply unless they are all of it, so
    that one slow partition does not keep the bytes of the others alive. Raises CorruptBatch."""
    if not len(result.batches):
        return []
    return split(result.batches if is_alone else bytes(result.batches), BATCH_BYTES_MAX, stored=True)


def resolved(result: OffsetsResult | None, state: PartitionFetch) -> OffsetsResult:
    if result is None:
        raise InternalError(f"the broker said nothing about {state.topic}-{state.partition}")
    if result.problem is not None:
        raise result.problem.error()
    if result.offset is None:
        raise InternalError(f"the broker named no offset for {state.topic}-{state.partition}")
    return result
