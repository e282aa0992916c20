"""Budget: how much may be copied a second, over all that shares it. Time comes with each event."""

from __future__ import annotations


class Budget:
    """``bytes_per_second`` 0: as much as comes. A second's worth may be spent at once."""

    def __init__(self, bytes_per_second: int = 0) -> None:
        self.bytes_per_second = bytes_per_second
        self._left = float(bytes_per_second)
        self._as_of_ms = 0

    def spend(self, count: int, now_ms: int) -> int:
        """So much was copied. Until when nothing more should be: ``now_ms`` where there is some
        left."""
        rate = self.bytes_per_second
        if rate == 0:
            return now_ms
        earned = max(0, now_ms - self._as_of_ms) * rate / 1000
        self._left = min(float(rate), self._left + earned) - count
        self._as_of_ms = now_ms
        return now_ms + round(max(0.0, -self._left) * 1000 / rate)
