"""Which segments a topic's retention settings let go: arithmetic over segments, nothing is touched
here.

Whole segments go, oldest first, never the active one and nothing above the high watermark. By time:
as long as the oldest segment is older than ``retention.ms``, by the latest time that its records
carry and by the time for which all of them have been here (R40). By size: as long as what is left
still holds ``retention.bytes``.

Who may act on the answer is the core's business: a leader publishes the new log start in its epoch
before it deletes, a follower takes over what its leader has published (core/broker/retention.py).
Source: Kafka's ``retention.*`` settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

from minilog.config import TopicSettings


class Stretch(Protocol):
    """What is asked of a segment."""

    @property
    def base_offset(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def max_timestamp(self) -> int: ...


class Clocks(NamedTuple):
    """The two witnesses of an age. ``wall_ms``: the time, None where nobody knows it for sure: then
    nothing is old. ``end_before``: what lies below was written longer ago than a limit."""

    wall_ms: int | None
    end_before: Callable[[int], int]

    def are_past(self, timestamp: int, end_offset: int, limit_ms: int, settings: TopicSettings) -> bool:
        """Records are older than ``limit_ms``, of which the latest has this time and ends there.

        A time that lies further in the future than the topic allows is none. Records without a
        time are as old as they have been here."""
        if self.wall_ms is None:
            return False
        is_no_time = not 0 <= timestamp <= self.wall_ms + settings.message_timestamp_after_max_ms
        if not is_no_time and timestamp >= self.wall_ms - limit_ms:
            return False
        by_timestamp = settings.retention_by == "timestamp" and not is_no_time
        return by_timestamp or end_offset <= self.end_before(limit_ms)


def expired_end(segments: Sequence[Stretch], settings: TopicSettings, high_watermark: int, clocks: Clocks) -> int:
    """The offset up to which everything may go: the base offset of a segment, the first one's when
    nothing may."""
    if not settings.is_deleted:
        return segments[0].base_offset
    goes = max(_too_old(segments, settings, clocks), _too_much(segments, settings.retention_bytes))
    while segments[goes].base_offset > high_watermark:
        goes -= 1
    return segments[goes].base_offset


def _too_old(segments: Sequence[Stretch], settings: TopicSettings, clocks: Clocks) -> int:
    """How many segments go because of their age."""
    if settings.retention_ms < 0 or clocks.wall_ms is None:
        return 0
    goes = 0
    for index, (segment, following) in enumerate(pairwise(segments), 1):
        if not clocks.are_past(segment.max_timestamp, following.base_offset, settings.retention_ms, settings):
            break
        goes = index
    return goes


def _too_much(segments: Sequence[Stretch], retention_bytes: int) -> int:
    """How many segments go because what follows them is enough."""
    if retention_bytes < 0:
        return 0
    excess = sum(segment.size_bytes for segment in segments) - retention_bytes
    return sum(1 for left in _left_after_each(segments[:-1], excess) if left >= 0)


def _left_after_each(segments: Sequence[Stretch], excess: int) -> Iterator[int]:
    """How many bytes too many are left once this segment and all before it are gone."""
    for segment in segments:
        excess -= segment.size_bytes
        yield excess
