"""What happens in a client, as an observer is told.

Durations are in ms. ``topic`` and ``partition`` say of what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from minilog.errors import MinilogError
from minilog_client.values import PartitionKey


class Connected(msgspec.Struct, frozen=True):
    """The first broker has answered."""

    cluster_id: str
    brokers: Sequence[str]
    """Their URLs."""


class LeaderMoved(msgspec.Struct, frozen=True):
    """``broker_id`` None: an election runs, or the partition has no leader."""

    topic: str
    partition: int
    broker_id: int | None
    leader_epoch: int


class Retried(msgspec.Struct, frozen=True):
    """A try has failed, and another one follows."""

    what: Literal["produce", "fetch"]
    topic: str
    partition: int
    error: MinilogError


class Delivered(msgspec.Struct, frozen=True):
    """A batch is acknowledged."""

    topic: str
    partition: int
    record_count: int
    bytes_total: int
    base_offset: int | None
    """None with acks=0."""
    queued_ms: int
    """From its first record to the request that was answered."""
    took_ms: int
    """From its first record to the answer."""
    queue_bytes: int
    """What waits to be acknowledged in the whole producer."""


class GivenUp(msgspec.Struct, frozen=True):
    """Records have failed for good."""

    topic: str
    record_count: int
    error: MinilogError


class Received(msgspec.Struct, frozen=True):
    """A fetch has brought records. They are read ahead, and handed out when they are asked for."""

    topic: str
    partition: int
    record_count: int
    bytes_total: int
    batch_count: int
    lag_records: int | None
    """What the partition has beyond them; None where that is not known."""
    took_ms: int
    """With the time in which the broker waited for records."""


class Joined(msgspec.Struct, frozen=True):
    """A member has a new epoch: it has joined, or the group was rebalanced."""

    group: str
    member_id: str
    member_epoch: int


class Assigned(msgspec.Struct, frozen=True):
    group: str
    partitions: Sequence[PartitionKey]


class Revoked(msgspec.Struct, frozen=True):
    group: str
    partitions: Sequence[PartitionKey]
    is_lost: bool
    """They may be another member's already."""


class Committed(msgspec.Struct, frozen=True):
    group: str
    offsets: Mapping[PartitionKey, int]


class CommitFailed(msgspec.Struct, frozen=True):
    group: str
    error: MinilogError


class Closed(msgspec.Struct, frozen=True):
    what: str


ClientEvent = (
    Connected
    | LeaderMoved
    | Retried
    | Delivered
    | GivenUp
    | Received
    | Joined
    | Assigned
    | Revoked
    | Committed
    | CommitFailed
    | Closed
)


class ClientObserver(Protocol):
    """Given to a client with ``observer=``. It is called in the thread of the client's event loop,
    so it must be quick and must not wait. What it raises is logged, and changes nothing."""

    def on_event(self, event: ClientEvent) -> None: ...
