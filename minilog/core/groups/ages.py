"""Ages: for how long groups have been of no use to anybody, and when that is long enough to forget
them.

Invariant: the age of a group is the time in which coordinators have watched it without members and
without a commit, counted by their own clocks in bounded steps and noted in its record. No clock
that is wrong or jumps can make it old; time without a coordinator does not count, nor does what the
last one had not noted yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from minilog.core.groups.offsets import Records, farewell
from minilog.core.groups.state import GroupState
from minilog.wire.journal.group_records import GroupKey, GroupRecord

SWEEP_MS = 30_000
STEP_MS_MAX = 2 * SWEEP_MS
"""What one look adds to an age at most, whatever a clock says."""
NOTED_MS = 3_600_000
"""How much of an age is lost at most when the coordinator changes."""


class Ages:
    def __init__(self, retention_ms: int) -> None:
        self._retention_ms = retention_ms
        self._noted_ms = min(NOTED_MS, retention_ms // 8)
        self._looked_ms = 0
        self._due: list[str] = []

    def begin(self, groups: Mapping[str, GroupState], now_ms: int) -> None:
        self._looked_ms = now_ms
        for state in groups.values():
            state.watched_ms = 0

    def due(self, groups: Mapping[str, GroupState], now_ms: int, most: int) -> Iterator[str]:
        """Groups whose age is to be noted, or whose time is over. ``most`` at a time."""
        if now_ms >= self._looked_ms + SWEEP_MS:
            self._look(groups, now_ms)
        for _ in range(min(len(self._due), most)):
            yield self._due.pop()

    def _look(self, groups: Mapping[str, GroupState], now_ms: int) -> None:
        step_ms = min(now_ms - self._looked_ms, STEP_MS_MAX)
        self._looked_ms = now_ms
        self._due = []
        for name, state in groups.items():
            if not state.group.members:
                state.watched_ms = 0 if state.watched_ms is None else state.watched_ms + step_ms
                is_over = state.group.unused_ms + state.watched_ms >= self._retention_ms
                if is_over or state.watched_ms >= self._noted_ms:
                    self._due.append(name)

    def decide(self, name: str, state: GroupState | None) -> Records:
        """Forget it, or note how old it is for the next coordinator."""
        if state is None or state.group.members or state.watched_ms is None:
            return []
        unused_ms = state.group.unused_ms + state.watched_ms
        if unused_ms >= self._retention_ms:
            return farewell(name, state)
        return [GroupRecord(GroupKey(name), replace(state.group, unused_ms=unused_ms))] if state.watched_ms else []
