"""What a broker tells of itself while somebody looks: figures that no journal holds."""

from __future__ import annotations

import msgspec

from minilog.wire.bounded import BrokerId, Count, Few, Id, Int64, Milliseconds, Name
from minilog.wire.message_base import Message


class DescribeBroker(Message):
    """Asks a broker for figures about itself. Brokers and the controller ask it for those who watch
    the cluster."""


class ReplicaBehind(msgspec.Struct, frozen=True, omit_defaults=True):
    """A follower that lacks records of its leader, who tells this. ``records`` None: not heard of
    in this leader epoch."""

    topic: Name
    partition: Int64
    broker_id: BrokerId
    records: Count | None = None
    behind_ms: Milliseconds = 0


class LostTold(msgspec.Struct, frozen=True):
    """A tail of lost records that the broker keeps. ``records_by_acks``: of unknown origin, with
    acks=0, acks=1 and more. ``unwritten``: so many were not written again."""

    tail: Name
    broker_id: BrokerId
    topic: Name
    topic_id: Id
    partition: Int64
    cut_at_ms: Milliseconds
    base_offset: Count
    end_offset: Count
    last_epoch: Int64
    records: Count
    records_by_acks: tuple[Count, Count, Count, Count]
    unwritten: Count
    bytes: Count


class DescribeBrokerReply(Message):
    """Counters, of ``written_records`` to ``fetches``, grow from the start of the process on: who
    asks twice knows rates. ``uptime_ms`` goes by the clock that they count by. ``at_risk``:
    acknowledged records that are not committed yet. ``behind`` and
    ``lost``: the worst and the newest of them, ``*_left_out`` more."""

    broker_id: BrokerId
    version: Name
    ready: bool
    uptime_ms: Milliseconds
    replicas: Count
    leaders: Count
    log_bytes: Count
    written_records: Count
    written_bytes: Count
    produces: Count
    read_bytes: Count
    fetches: Count
    at_risk: Count
    connections: Count
    loop_lag_ms: Milliseconds
    behind: Few[ReplicaBehind] = []
    behind_left_out: Count = 0
    lost: Few[LostTold] = []
    lost_left_out: Count = 0


FigureMessage = DescribeBroker | DescribeBrokerReply
