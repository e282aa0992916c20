"""The answers of the routes by which operators change a living cluster."""

from __future__ import annotations

from msgspec import Struct

from minilog.wire.admin_messages import LeaderMove


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
