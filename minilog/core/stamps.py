"""Stamps: the times a broker writes onto records, from the wall clock, in an order that makes
sense.

A wall clock that was set back a little is waited for: the time stands still until it has caught up,
so that what is stamped later is not older. One that was wrong by more than HELD_MS_MAX is followed
at once: its stamps were wrong, and more of them would be worse than a step. Ages need no order, so
they go by the wall clock itself.
"""

from __future__ import annotations

from typing import Final

HELD_MS_MAX: Final = 3_600_000
"""An hour: what a mistaken time zone or daylight saving makes is held, a clock that was never set
is not."""


class Stamps:
    def __init__(self) -> None:
        self._last_ms = 0

    def take(self, wall_ms: int) -> int:
        """The stamp for what is written when the wall clock says ``wall_ms``."""
        if not wall_ms < self._last_ms <= wall_ms + HELD_MS_MAX:
            self._last_ms = wall_ms
        return self._last_ms
