"""Events: what happened in the cluster, for people and for programs that watch it.

An event says one thing in one sentence that was made where the thing was known, so an event reads
the same in every log, in the journal and over HTTP. ``facts`` hold what the sentence says in a form
that programs can use.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from minilog.wire.bounded import FEW_MAX, BrokerId, Count, Int64, Milliseconds, Name, Text

INFO: Final = "info"
WARNING: Final = "warning"
"""Somebody should look at it some time."""
ERROR: Final = "error"
"""Records cannot be written or read, or were lost."""
LEVELS: Final = (INFO, WARNING, ERROR)
"""From the least to the worst."""


class EventKind:
    """What can happen. The controller sees the first half, the brokers the second."""

    CONTROLLER_STARTED: Final = "controller_started"
    CONTROLLER_MOVED: Final = "controller_moved"
    BROKER_REGISTERED: Final = "broker_registered"
    BROKER_UNFENCED: Final = "broker_unfenced"
    BROKER_FENCED: Final = "broker_fenced"
    BROKER_SHUTTING_DOWN: Final = "broker_shutting_down"
    BROKER_REMOVED: Final = "broker_removed"
    BROKER_RESTORED: Final = "broker_restored"
    LEADERS_LOST: Final = "leaders_lost"
    PARTITIONS_OFFLINE: Final = "partitions_offline"
    LEADERS_ELECTED: Final = "leaders_elected"
    UNCLEAN_ELECTION: Final = "unclean_election"
    COMMITTED_LOST: Final = "committed_lost"
    ISR_SHRUNK: Final = "isr_shrunk"
    ISR_EXPANDED: Final = "isr_expanded"
    UNDER_MIN_ISR: Final = "under_min_isr"
    TOPIC_CREATED: Final = "topic_created"
    TOPIC_DELETED: Final = "topic_deleted"
    TOPIC_CONFIGURED: Final = "topic_configured"
    PARTITIONS_ADDED: Final = "partitions_added"
    REPLICAS_MOVING: Final = "replicas_moving"
    REPLICAS_MOVED: Final = "replicas_moved"
    MOVE_CANCELLED: Final = "move_cancelled"
    LOST_CLAIMED: Final = "lost_claimed"
    LOST_TAKEN_OVER: Final = "lost_taken_over"
    LOST_WRITTEN: Final = "lost_written"
    JOURNAL_SLOW: Final = "journal_slow"

    RECORDS_CUT: Final = "records_cut"
    LOST_DROPPED: Final = "lost_dropped"
    REPLICA_DAMAGED: Final = "replica_damaged"
    CONDITION_BEGAN: Final = "condition_began"
    CONDITION_ENDED: Final = "condition_ended"
    CONTROLLER_LOST: Final = "controller_lost"
    CONTROLLER_FOUND: Final = "controller_found"
    CLOCK_SKEW: Final = "clock_skew"
    LONG_TURN: Final = "long_turn"
    MEMBER_EXPELLED: Final = "member_expelled"
    COORDINATOR_MOVED: Final = "coordinator_moved"
    GROUPS_UNREADABLE: Final = "groups_unreadable"
    LOGS_STRAYED: Final = "logs_strayed"
    EVENTS_DROPPED: Final = "events_dropped"


Facts = Annotated[dict[Name, Int64 | Text | list[Text]], Meta(max_length=FEW_MAX)]


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """``at_ms``: by the wall clock of whoever saw it. ``kind`` is an EventKind, or one of a later
    version. ``count``: of so many things at once. ``topic`` and ``partition`` where it is about a
    single one."""

    at_ms: Milliseconds
    kind: Name
    level: Name
    sentence: Text
    broker_id: BrokerId | None = None
    topic: Name | None = None
    partition: Int64 | None = None
    count: Count = 1
    facts: Facts = {}


class SeenEvent(msgspec.Struct, frozen=True, array_like=True):
    """An event of a broker's process, which counts its events from 1."""

    number: Count
    event: Event
