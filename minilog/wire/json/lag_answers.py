"""Where partitions end, and how far a group is behind that, as the JSON API says it."""

from __future__ import annotations

from msgspec import Struct


class PartitionLag(Struct):
    """null where the leader does not answer. Where a member has the partition and nothing is
    committed, ``committed`` is null, and how far it is behind is not known either, unless the
    partition has never held a record. ``lag_seconds``: the age of the first record that is not
    committed, exact to a batch; 0 when nothing is left to read. ``lost``: what retention took
    before it was read, apart from ``lag``."""

    topic: str
    partition: int
    committed: int | None
    high_watermark: int | None
    lag: int | None
    lag_seconds: float | None
    lost: int | None = None


class LagOfGroup(Struct):
    """The sums over all partitions are null while one is not known, but for ``lost``."""

    group: str
    lag: int | None
    lag_seconds: float | None
    partitions: list[PartitionLag]
    lost: int = 0


class PartitionOffsets(Struct):
    """null where the leader does not answer, or there is none."""

    partition: int
    log_start_offset: int | None
    high_watermark: int | None


class TopicOffsets(Struct):
    topic: str
    topic_id: str
    partitions: list[PartitionOffsets]
