"""Log starts: what may be taken from the beginning of a log, by whose word, checked against the
naive reading of it.

A log begins later because a leader has published it in its epoch. Everything that goes was let go
by the topic's own settings when a leader published it (LogStartByRetention), and had been there for
long enough when it went because of its age (LogStartWatched, R40). It lies in the committed log (LogStartCommitted), was published before anybody acted on it (LogStartPublished), never comes
back into a log (LogStartMonotonic), and a leader deletes only what it published while no member of
its ISR followed anybody newer (ZombiesDeleteNothing).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from minilog.core.replication.leader import LeaderState
from minilog.wire.batch import Batch, split
from tests.sim.nodes.world import Violation

if TYPE_CHECKING:
    from tests.sim.checks.history import Mirror

UNBOUNDED = 2**31 - 1
DRIFT_MAX = 0.1
"""The clocks of the nodes are not equally fast."""


class Publication(NamedTuple):
    """``newer``: brokers that already acted in a later epoch when this was said."""

    leader_epoch: int
    start_offset: int
    newer: frozenset[int]


class LogStarts:
    """Of one partition."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.publications: list[Publication] = []
        self.moved = 0
        self.records_removed = 0
        self._latest: dict[int, int] = {}
        """By leader epoch: what was published last."""
        self._epochs: dict[int, int] = {}
        """By broker: the latest leader epoch it has acted in."""
        self._ends: list[tuple[int, int]] = []
        """How far any log reached, and since when: nothing was written before that."""

    def fail(self, name: str, detail: str) -> None:
        raise Violation(name, f"{self.name}: {detail}")

    def on_end(self, end_offset: int, world_ms: int) -> None:
        """Some log ends there, by the one true clock."""
        if not self._ends or end_offset > self._ends[-1][0]:
            self._ends.append((end_offset, world_ms))

    def on_role(self, broker_id: int, leader_epoch: int) -> None:
        self._epochs[broker_id] = leader_epoch

    def on_published(
        self, who: str, role: LeaderState, log: Any, wall_ms: int, world_ms: int, *, is_new_role: bool
    ) -> None:
        """A leader says where the log is to begin. What a new leader begins with is its own log's
        start."""
        start_offset, epoch = role.log_start.published, role.leader_epoch
        last = self._latest.get(epoch, -1)
        if last > start_offset:
            self.fail("LogStartMonotonic", f"{who} publishes {start_offset} in epoch {epoch}, after {last}")
        if last == start_offset:
            return
        self._latest[epoch] = start_offset
        newer = frozenset(broker_id for broker_id, latest in self._epochs.items() if latest > epoch)
        self.publications.append(Publication(epoch, start_offset, newer))
        if not is_new_role:
            self._check_retention(who, log, start_offset, wall_ms, world_ms)

    def _check_retention(self, who: str, log: Any, start_offset: int, wall_ms: int, world_ms: int) -> None:
        """Either enough is left, or all that goes is old enough; and whole segments below the
        active one go."""
        settings = log.settings
        if not settings.is_deleted:
            self.fail("LogStartByRetention", f"{who} publishes {start_offset} of a topic that is only compacted")
        left = sum(batch.bytes_total for batch in batches_of(log.inner, start_offset))
        enough = 0 <= settings.retention_bytes <= left
        goes = batches_of(log.inner, log.inner.start_offset, start_offset)
        latest = max((batch.max_timestamp for batch in goes), default=-1)
        is_no_time = not 0 <= latest <= wall_ms + settings.message_timestamp_after_max_ms
        old = settings.retention_ms >= 0 and (is_no_time or settings.retention_ms < wall_ms - latest)
        if not enough and (is_no_time or settings.retention_by == "written"):
            self._check_watched(who, start_offset, settings.retention_ms, world_ms)
        if not (enough or old):
            self.fail("LogStartByRetention", f"{who}: {start_offset} leaves {left} bytes, the last at {latest}")
        if start_offset > log.inner.segments[-1].base_offset:
            self.fail("LogStartByRetention", f"{who}: {start_offset} is in the active segment")

    def _check_watched(self, who: str, start_offset: int, retention_ms: int, world_ms: int) -> None:
        written_ms = next(since_ms for end_offset, since_ms in self._ends if end_offset >= start_offset)
        if world_ms - written_ms < retention_ms * (1 - DRIFT_MAX):
            self.fail("LogStartWatched", f"{who}: {start_offset} was written {world_ms - written_ms} ms ago")

    def on_moved(
        self, who: str, role: Any, mirror: Mirror, committed: Mirror, start_offset: int, counted: frozenset[int]
    ) -> None:
        """A log begins here now. ``mirror`` is of before, unless the log was begun anew.
        ``counted``: whom a leader waits for."""
        if start_offset > committed.end_offset or (start_offset > 0 and committed.ending_at(start_offset) is None):
            self.fail(
                "LogStartCommitted", f"{who} starts at {start_offset}, committed is up to {committed.entries[-2:]}"
            )
        self._check_epoch(who, role, start_offset, counted)
        if start_offset > mirror.start_offset:
            self.moved += 1
            self.records_removed += start_offset - mirror.start_offset

    def _check_epoch(self, who: str, role: Any, start_offset: int, counted: frozenset[int]) -> None:
        """By the word of the leader of this very epoch, and if it is the leader, of one that its
        ISR still followed."""
        said = [p for p in self.publications if p.leader_epoch == role.leader_epoch and p.start_offset >= start_offset]
        if not said:
            self.fail("LogStartPublished", f"{who} starts at {start_offset}, published are {self.publications[-3:]}")
        if isinstance(role, LeaderState):
            deposed_by = said[0].newer & (counted - {role.broker_id})
            if deposed_by:
                self.fail(
                    "ZombiesDeleteNothing", f"{who} deletes below {start_offset}, {set(deposed_by)} had left its epoch"
                )


def batches_of(log: Any, start_offset: int, end_offset: int = UNBOUNDED) -> Iterable[Batch]:
    """Everything a log holds between two borders, as it reads it back."""
    end_offset = min(end_offset, log.end_offset)
    while start_offset < end_offset:
        for batch in split(log.read(start_offset, UNBOUNDED, end_offset), UNBOUNDED, stored=True):
            yield batch
            start_offset = batch.end_offset
