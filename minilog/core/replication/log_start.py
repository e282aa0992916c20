"""The log start: which of a log's oldest records go, by whose word, and when.

A leader decides (retention.py), says so in its answers to its followers (``LogStart.published``),
and only when every member of the ISR has come back after such an answer, in this leader epoch, does
it delete anything itself. So a leader that has been deposed and does not know it deletes nothing,
because its followers have moved on and do not come back. A follower takes over what the leader of
its epoch has published, as far as it knows it committed and holds it durably.

Invariants: the published start is never above the high watermark and never goes back. A log's own
start is never above one that was published; deleting is never urgent, so what fails (a full disk)
is tried again at the next look. Source: KIP-107 for the follower's side.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from minilog.core.ports import ReplicaLog
from minilog.errors import DiskFull


class LogStart:
    """One leader epoch's word on where its log starts."""

    def __init__(self, log: ReplicaLog) -> None:
        self.published = log.start_offset
        self._log = log
        self._told: dict[int, int] = {}
        """By broker: what the last answer to it said."""
        self._known: dict[int, int] = {}
        """By broker: what it had been told before it asked again."""

    def plan(self, wall_ms: int | None, high_watermark: int) -> bool:
        """Look what may go by the topic's settings; True when there is something new to publish.
        ``wall_ms`` as in ``ReplicaLog.expired_end``."""
        end_offset = min(self._log.expired_end(wall_ms), high_watermark)
        if end_offset <= self.published:
            return False
        self.published = end_offset
        return True

    def on_session(self, broker_id: int) -> None:
        """A session's first request proves no answer: it may have been on its way before the last
        one was given."""
        self._told.pop(broker_id, None)

    def on_answer(self, broker_id: int) -> None:
        self._told[broker_id] = self.published

    def on_fetch(self, broker_id: int) -> None:
        self._known[broker_id] = max(self._known.get(broker_id, 0), self._told.get(broker_id, 0))

    def advance(self, followers: Collection[int]) -> None:
        """Move the log's start up to what all these brokers know."""
        known = min((self._known.get(broker_id, 0) for broker_id in followers), default=self.published)
        follow_start(self._log, min(known, self.published))


def follow_start(log: ReplicaLog, start_offset: int) -> None:
    """Take over a published log start, as far as this log may. With a full disk the next word of it
    has to do."""
    start_offset = min(start_offset, log.high_watermark, log.durable_end)
    if start_offset > log.start_offset:
        with suppress(DiskFull):
            log.advance_start(start_offset)


def end_epoch(log: ReplicaLog) -> int:
    """Leader epoch of the record before the log's end, also where retention has taken that one; -1
    when it is not known."""
    return log.last_epoch if log.last_epoch >= 0 else log.start_epoch
