"""Which segments a topic's retention settings let go: arithmetic over segments, nothing is touched
here.

Whole segments go, oldest first, never the active one and nothing above the high watermark. By time:
as long as the latest record of the oldest segment is older than ``retention.ms``. By size: as long
as what is left still holds ``retention.bytes``. A segment whose records carry no time is as old as
the next one that has any.

Who may act on the answer is the core's business: a leader publishes the new log start in its epoch
before it deletes, a follower takes over what its leader has published (core/broker/retention.py).
Source: Kafka's ``retention.*`` settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from minilog.config import TopicSettings


class Stretch(Protocol):
    """What is asked of a segment."""

    @property
    def base_offset(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def max_timestamp(self) -> int: ...


def expired_end(segments: Sequence[Stretch], settings: TopicSettings, high_watermark: int, now_ms: int) -> int:
    """The offset up to which everything may go: the base offset of a segment, the first one's when
    nothing may."""
    if not settings.is_deleted:
        return segments[0].base_offset
    goes = max(_too_old(segments, settings.retention_ms, now_ms), _too_much(segments, settings.retention_bytes))
    while segments[goes].base_offset > high_watermark:
        goes -= 1
    return segments[goes].base_offset


def _too_old(segments: Sequence[Stretch], retention_ms: int, now_ms: int) -> int:
    """How many segments go because of their age."""
    if retention_ms < 0:
        return 0
    goes = 0
    for index, segment in enumerate(segments[:-1]):
        timestamp = segment.max_timestamp
        if timestamp < 0:
            continue  # the next one that has a time decides
        if timestamp >= now_ms - retention_ms:
            break
        goes = index + 1
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
