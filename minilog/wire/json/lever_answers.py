"""The answers of the routes by which operators change a living cluster."""

from __future__ import annotations

from msgspec import Struct

from minilog.wire.admin_messages import LeaderMove, MovedReplicas


class TopicAltered(Struct):
    """``partitions``: how many there are. ``config`` is what the topic has, ``before`` what it had.
    ``under_min_isr``: partitions whose ISR is too small for acks=all by the new settings. With
    ``dry_run`` nothing has changed."""

    topic: str
    partitions: int
    config: dict[str, str] = {}
    before: dict[str, str] = {}
    under_min_isr: list[int] = []
    dry_run: bool = False


class LeadersBalanced(Struct):
    """What was not led by its first replica. The leaders hand over after this answer, unless there
    is a ``problem`` or it was a dry run."""

    moves: list[LeaderMove]
    dry_run: bool


class ReplicaProgress(Struct):
    """How far a replica that is to come has caught up. ``records`` that it lacks, None: its leader
    has not heard it yet, or has not said so."""

    broker_id: int
    in_sync: bool
    records: int | None = None


class Moving(Struct):
    """A partition whose replicas are on the move, ``before`` the move and after it (``replicas``).
    ``adding`` and ``removing``: who is to come and to go. ``cancelled``: it goes back."""

    topic: str
    topic_id: str
    partition: int
    partition_epoch: int
    leader: int
    isr: list[int]
    before: list[int]
    replicas: list[int]
    adding: list[ReplicaProgress]
    removing: list[int]
    cancelled: bool


class MovesUnderWay(Struct):
    moves: list[Moving]


class MovesBegun(Struct):
    """With ``dry_run`` nothing has changed. A partition that stays where it was has nothing to do:
    its move is cancelled, or was not needed."""

    moves: list[MovedReplicas]
    dry_run: bool


class MovesPlanned(Struct):
    """Nothing has changed. ``problems``: what stays as it is although it should not, and why."""

    moves: list[MovedReplicas]
    problems: list[str]


class BrokerGone(Struct):
    broker_id: int
    removed: bool = True
