"""Packing: which queues travel together in one request. Pure.

Queues that failed before, and those about to expire, travel apart from healthy ones. What holds
them up, or shortens the wait for them, must not touch the rest."""

from __future__ import annotations

from typing import Final, NamedTuple

from minilog.wire.messages import ProducePartition
from minilog_client.connection.routing import Leader
from minilog_client.producer.partition_queue import PartitionQueue
from minilog_client.settings import MIB

PARTITION_REQUEST_BYTES: Final = MIB
REQUEST_BYTES: Final = 8 * MIB
"""By weight: so its compressed batches expand to 64 MiB at most, unless a single one does to
more."""


class Dispatch(NamedTuple):
    """One request to one leader."""

    leader: Leader
    queues: list[PartitionQueue]
    is_retry: bool
    sent_ms: int


class Packing:
    """The requests of one look at the queues. ``urgent_ms``: who expires sooner than that is about
    to expire."""

    def __init__(self, now_ms: int, urgent_ms: int) -> None:
        self.dispatches: list[Dispatch] = []
        self._now_ms, self._urgent_until_ms = now_ms, now_ms + urgent_ms
        self._open: dict[tuple[str, bool, bool], tuple[Dispatch, int]] = {}
        """Requests that may still take more queues, with their sizes so far, by (leader, is a
        retry, is urgent)."""

    def add(self, queue: PartitionQueue, leader: Leader) -> None:
        """Take what fits from ``queue`` and put it into a request."""
        is_retry = queue.attempts.tries > 0
        batches = queue.take(PARTITION_REQUEST_BYTES, leader.leader_epoch)
        size = sum(batch.sealed.weight_bytes for batch in batches)
        kind = (leader.url, is_retry, batches[0].deadline_ms < self._urgent_until_ms)
        dispatch, filled = self._open.get(kind, (None, 0))
        if dispatch is None or filled + size > REQUEST_BYTES:
            dispatch, filled = Dispatch(leader, [], is_retry, self._now_ms), 0
            self.dispatches.append(dispatch)
        dispatch.queues.append(queue)
        self._open[kind] = (dispatch, filled + size)


def in_flight(queue: PartitionQueue) -> ProducePartition:
    """What ``queue`` has in flight, as it is sent."""
    first = queue.in_flight[0]
    batches = memoryview(b"".join([piece for batch in queue.in_flight for piece in (batch.head, batch.sealed.payload)]))
    return ProducePartition(queue.topic, queue.partition, batches, first.topic_id, first.expected_offset)
