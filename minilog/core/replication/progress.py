"""Progress: what a leader knows of its followers, and the ISR it has asked for. The values that
LeaderState decides on.

Invariant: a position is the word of one process of the follower, and only grows within that
process.
"""

from __future__ import annotations

from typing import NamedTuple

from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import IsrLeaver, IsrMember


class Progress:
    """What the leader knows of one follower in this epoch. ``position`` None: not heard from
    yet."""

    __slots__ = (
        "broker_epoch",
        "caught_up_ms",
        "forgiven_ms",
        "lacks_since_ms",
        "last_fetch_end",
        "last_fetch_ms",
        "position",
    )

    def __init__(self, caught_up_ms: int) -> None:
        self.position: int | None = None
        self.broker_epoch = -1
        self.caught_up_ms = caught_up_ms
        self.forgiven_ms = 0
        """What pauses of the leader have added to that since it was last seen caught up."""
        self.last_fetch_ms = caught_up_ms
        self.last_fetch_end = -1
        self.lacks_since_ms: int | None = None
        """Since when its log is known to begin later than this one's: it lacks records."""

    def on_fetch(self, position: int, broker_epoch: int, leader_end: int, now_ms: int) -> None:
        """Positions only grow within one process of the follower: a late copy of an older fetch
        changes nothing."""
        if broker_epoch == self.broker_epoch and self.position is not None:
            position = max(position, self.position)
        if position >= leader_end:
            self.note_caught_up(now_ms)
        elif self.last_fetch_end >= 0 and position >= self.last_fetch_end:
            self.note_caught_up(self.last_fetch_ms)
        self.position, self.broker_epoch = position, broker_epoch
        self.last_fetch_ms, self.last_fetch_end = now_ms, leader_end

    def note_caught_up(self, at_ms: int) -> None:
        if at_ms > self.caught_up_ms:
            self.caught_up_ms, self.forgiven_ms = at_ms, 0

    def forgive(self, stalled_ms: int, now_ms: int, forgiven_ms_max: int) -> None:
        """The leader itself stood still from ``stalled_ms`` to now, and could not see it catch up.
        Once it was forgiven ``forgiven_ms_max``, further pauses count: a leader that is slow all
        the time finds out who lags, too."""
        if self.forgiven_ms < forgiven_ms_max:
            stall_ms = max(0, now_ms - max(stalled_ms, self.caught_up_ms))
            self.forgiven_ms += stall_ms
            self.caught_up_ms += stall_ms


class Proposal(NamedTuple):
    """An ISR the controller has been or will be asked for. ``sequence`` -1: not sent yet.

    ``members`` name the processes that were seen fit when it was opened: a retry vouches for no
    other (R17, KIP-903). ``leaving``: how far behind those were who are left out, as it was opened.
    """

    members: tuple[IsrMember, ...]
    partition_epoch: int
    sequence: int
    leaving: tuple[IsrLeaver, ...] = ()
    leader: int = NO_LEADER
    """Who is to lead now (R111)."""

    @property
    def isr(self) -> tuple[int, ...]:
        return tuple(m.broker_id for m in self.members)
