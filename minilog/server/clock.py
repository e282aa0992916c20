"""The two clocks of a process: one that time limits are measured by, and one that stamps and ages
are taken from.

``now_ms`` is the time of turns. It begins as the wall clock stands when the process starts, and
then goes with the monotonic clock alone: no step of the system's time moves a deadline, and a
machine that slept has lost no session.

``wall_ms`` is the wall clock as the system has it, for the age of what was written down earlier or
elsewhere. It follows each step at once: NTP at last, a machine that wakes up. ``stamp_ms`` is the
same for what is written onto records (``core/stamps.py``).
"""

from __future__ import annotations

import logging
import time
from typing import Final

from minilog.core.stamps import Stamps

log = logging.getLogger("minilog.clock")

STEP_MS_MIN: Final = 1000
"""What the wall clock must have gained or lost on the monotonic one, between two looks, to be told
as a step."""


class Clock:
    def __init__(self) -> None:
        self._begun_ms = self._system_ms() - self._monotonic_ms()
        self._stamps = Stamps()
        self._offset_ms = 0
        self.steps = 0
        """How often the wall clock was seen to jump, forward or back."""

    @staticmethod
    def _system_ms() -> int:
        return max(0, time.time_ns() // 1_000_000)  # a clock before 1970 is not set at all

    @staticmethod
    def _monotonic_ms() -> int:
        return time.monotonic_ns() // 1_000_000

    def now_ms(self) -> int:
        """Never goes back."""
        return self._monotonic_ms() + self._begun_ms

    def wall_ms(self) -> int:
        system_ms = self._system_ms()
        self._notice_step(system_ms)
        return system_ms

    def stamp_ms(self) -> int:
        """Goes back only when the clock was wrong by more than ``stamps.HELD_MS_MAX``."""
        return self._stamps.take(self.wall_ms())

    @property
    def offset_ms(self) -> int:
        """How far the wall clock is ahead of the time of turns: the sum of its steps and drift
        since the process began."""
        return self.wall_ms() - self.now_ms()

    def _notice_step(self, system_ms: int) -> None:
        offset_ms = system_ms - self._monotonic_ms() - self._begun_ms
        step_ms, self._offset_ms = offset_ms - self._offset_ms, offset_ms
        if abs(step_ms) >= STEP_MS_MIN:
            self.steps += 1
            log.warning(
                "the wall clock went %s by %.1f s; time limits are not affected, stamps and ages follow it",
                "forward" if step_ms > 0 else "back",
                abs(step_ms) / 1000,
            )
