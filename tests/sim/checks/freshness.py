"""Freshness: how stale a replica may be that says how stale it is, in the simulator's own time.

A follower that answers "at most X ms behind" at a time t shows everything that was committed before
t - X, less what the answers of its leader took to reach it: they spoke of the moment they were
sent, and nobody there knows how long ago that was. Clocks may run fast or slow within
CLOCK_DRIFT_MAX. Nothing else is forgiven, in particular no silence.

Not asked: followers of a leader that has been replaced and does not know. They are as stale as that
leader itself, which serves readers too until it hears of its successor (R30 is off by default); how
often is in the figures.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

CLOCK_DRIFT_MAX = 1.1
"""How much faster than the world a clock may run, and some more."""
ROUNDING_MS = 3
ANSWERS_KEPT = 512


class Commits:
    """When the committed log of one partition reached which end."""

    def __init__(self) -> None:
        self._times_ms: list[int] = []
        self._ends: list[int] = []

    def add(self, now_ms: int, end_offset: int) -> None:
        self._times_ms.append(now_ms)
        self._ends.append(end_offset)

    def end_at(self, time_ms: float) -> int:
        """What was committed by then, that moment included."""
        index = bisect_right(self._times_ms, time_ms)
        return self._ends[index - 1] if index else 0


class Transits:
    """How long the leader's answers took until a broker looked at them."""

    def __init__(self) -> None:
        self._answers: deque[tuple[int, int]] = deque(maxlen=ANSWERS_KEPT)

    def add(self, now_ms: int, transit_ms: int) -> None:
        self._answers.append((now_ms, transit_ms))

    def longest_since(self, time_ms: float) -> int:
        """Of the answers since then, and of the last one before."""
        longest_ms = 0
        for received_ms, transit_ms in reversed(self._answers):
            longest_ms = max(longest_ms, transit_ms)
            if received_ms < time_ms:
                break
        return longest_ms


def promised_since(now_ms: int, lag_ms: int, transits: Transits) -> float:
    """Everything that was committed by this time must be shown by who says it is ``lag_ms``
    behind."""
    since_ms = now_ms - lag_ms * CLOCK_DRIFT_MAX - ROUNDING_MS
    return since_ms - transits.longest_since(since_ms)
