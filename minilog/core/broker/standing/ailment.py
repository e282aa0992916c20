"""What ails this broker: it cannot write, or only slowly (R43).

A broker whose disk is full refuses writes, and one whose syncs take seconds holds everybody up.
Both live, so nobody fences them. So a broker says in its heartbeats that it ails, and hands over
what it leads to replicas that hold everything. For people it says what is wrong.

Invariants
* It says so for a while after the last evidence, so that leadership does not come and go.
* So that others can hold everything a slow broker takes no writes for a moment, and then goes on:
  it may be that nobody can lead instead.
"""

from __future__ import annotations

from minilog.config import BrokerSettings
from minilog.core.ports import LogStore
from minilog.wire.messages import Condition

ROOM_MS = 2000
"""So long after the last refusal there may be no room yet."""
REMEMBERED_MS = 10_000
HELD_MS = 1000
SLUGGISH_MS = 200
"""A sync that is seen to have taken so long makes its disk a slow one, when that is seen again and
again: at least every STREAK_GAP_MS, for STREAK_MS."""
STREAK_GAP_MS = 3000
STREAK_MS = 10_000


class Ailment:
    def __init__(self, settings: BrokerSettings, store: LogStore) -> None:
        self._settings, self._store = settings, store
        self.flush_age_ms = 0
        """How long the oldest sync under way has taken. The shell says so before each tick."""
        self._credentials: list[Condition] = []
        self._lacks = store.lacks
        self._full_ms: int | None = None
        self._slow_ms: int | None = None
        self._held_ms: int | None = None
        self._sluggish_ms: tuple[int, int] | None = None
        """When such syncs were first and last seen, of those that follow one another."""
        self.holds_writes = False

    def see_credentials(self, conditions: list[Condition]) -> None:
        """All that is wrong with this broker's certificate and token now."""
        self._credentials = conditions

    def look(self, now_ms: int) -> None:
        if self._store.lacks != self._lacks:
            self._lacks, self._full_ms = self._store.lacks, now_ms
        if self.flush_age_ms >= self._settings.flush_slow_ms:
            self._slow_ms = now_ms
        if self.flush_age_ms >= SLUGGISH_MS:
            first_ms, last_ms = self._sluggish_ms or (now_ms, now_ms)
            gap_ms = REMEMBERED_MS if self.is_sluggish(now_ms) else STREAK_GAP_MS
            self._sluggish_ms = (first_ms if now_ms - last_ms < gap_ms else now_ms, now_ms)
        if not self.is_slow(now_ms):
            self._held_ms, self.holds_writes = None, False
            return
        if self._held_ms is None or now_ms - self._held_ms >= REMEMBERED_MS:
            self._held_ms = now_ms
        self.holds_writes = now_ms - self._held_ms < HELD_MS

    def is_full(self, now_ms: int) -> bool:
        return self._full_ms is not None and now_ms - self._full_ms < ROOM_MS

    def is_slow(self, now_ms: int) -> bool:
        return self._slow_ms is not None and now_ms - self._slow_ms < REMEMBERED_MS

    def is_sluggish(self, now_ms: int) -> bool:
        """Not slow enough to hand over what it leads: the others may have the same disk."""
        if self._sluggish_ms is None:
            return False
        first_ms, last_ms = self._sluggish_ms
        return last_ms - first_ms >= STREAK_MS and now_ms - last_ms < REMEMBERED_MS

    def ails(self, now_ms: int) -> bool:
        return self.is_full(now_ms) or self.is_slow(now_ms)

    def conditions(self, now_ms: int) -> list[Condition]:
        found = list(self._credentials)
        if self.is_full(now_ms):
            found.append(
                Condition(
                    "disk_full",
                    "its disk has no room, or takes no more files: what it leads refuses writes",
                    "make room, by retention, by deleting topics, or with a larger disk; no restart is needed",
                )
            )
        if self.is_slow(now_ms):
            found.append(
                Condition(
                    "disk_slow",
                    f"a sync of its disk took longer than flush_slow_ms, {self._settings.flush_slow_ms} ms",
                    "look at the disk and at what else uses it; writes with acks=all wait for the slowest replica",
                )
            )
        elif self.is_sluggish(now_ms):
            found.append(
                Condition(
                    "sync_slow",
                    f"syncs of its disk take {SLUGGISH_MS} ms and more, again and again",
                    "find out what else writes to that disk; writes with acks=all wait for the slowest replica in sync",
                    is_warning=True,
                )
            )
        if self._store.strays:
            found.append(
                Condition(
                    "strays",
                    f"it keeps {self._store.strays} logs of topics that the cluster does not know",
                    "look at them: `minilog log strays DATA_DIR`",
                    is_warning=True,
                )
            )
        if self._store.lost_kept:
            found.append(
                Condition(
                    "lost_records",
                    f"it keeps {self._store.lost_kept} records that were cut from its logs and not written again",
                    "look at them: `minilog lost list`; write them again or discard them",
                    is_warning=True,
                )
            )
        return found
