"""The one clock of a process: wall-clock milliseconds that never step back."""

from __future__ import annotations

import time


class Clock:
    """Milliseconds since the epoch as the wall clock stood at construction, advanced by the monotonic clock.

    An adjusted system time therefore moves no deadline; it shows up as a constant offset until a restart.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ms(self) -> int:
        return (time.monotonic_ns() + self._offset_ns) // 1_000_000
