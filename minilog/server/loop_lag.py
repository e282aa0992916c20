"""LoopLag: how late the ticks of a process are, so that a look now and then sees it.

The last tick says nothing about a pause that ended a second ago. So what is told is the latest one
of the last fifteen seconds at least, and the latest one ever.
"""

from __future__ import annotations

from typing import Final

WINDOW_S: Final = 15.0


class LoopLag:
    def __init__(self) -> None:
        self.worst_s = 0.0
        """Of all."""
        self._before_s = self._now_s = 0.0
        self._until_s = 0.0

    def observe(self, lag_s: float, at_s: float) -> None:
        self._turn_over(at_s)
        self._now_s = max(self._now_s, lag_s)
        self.worst_s = max(self.worst_s, lag_s)

    def recent_s(self, at_s: float) -> float:
        """Of the last one to two windows."""
        self._turn_over(at_s)
        return max(self._before_s, self._now_s)

    def _turn_over(self, at_s: float) -> None:
        if at_s < self._until_s:
            return
        self._before_s = self._now_s if at_s < self._until_s + WINDOW_S else 0.0
        self._now_s = 0.0
        self._until_s = at_s + WINDOW_S
