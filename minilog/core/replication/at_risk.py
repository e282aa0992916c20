"""AtRisk: what was acknowledged without being committed, by its acks level. If the leader died now,
these records would be lost.

Owns ranges of offsets above the high watermark. Those that follow each other with the same level
are one range, so there are as many ranges as the level has changed, and a write costs the same
whatever its size. With acks=all nothing is at risk: it is acknowledged when it is committed.

Of what an earlier leadership has left above the high watermark nobody here knows what was
acknowledged. All of it counts, as ``EARLIER``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from minilog.wire.messages import ACKS_ALL

EARLIER: Final = -2
RANGES_MAX: Final = 10_000
"""With more of them the last one grows, whatever the level of what is written next."""


class _Range:
    __slots__ = ("acks", "end", "start")

    def __init__(self, start: int, end: int, acks: int) -> None:
        self.start, self.end, self.acks = start, end, acks


class AtRisk:
    __slots__ = ("_ranges",)

    def __init__(self, high_watermark: int, end_offset: int) -> None:
        self._ranges: deque[_Range] = deque()
        if end_offset > high_watermark:
            self._ranges.append(_Range(high_watermark, end_offset, EARLIER))

    def note(self, start: int, end: int, acks: int) -> None:
        """Written at the end of the log, for an answer of this level."""
        if acks == ACKS_ALL:
            return
        last = self._ranges[-1] if self._ranges else None
        if last is not None and ((last.acks == acks and last.end == start) or len(self._ranges) >= RANGES_MAX):
            last.end = end
        else:
            self._ranges.append(_Range(start, end, acks))

    def advance(self, high_watermark: int) -> None:
        while self._ranges and self._ranges[0].end <= high_watermark:
            self._ranges.popleft()

    def count(self, high_watermark: int, reached: Callable[[int], int]) -> dict[int, int]:
        """Records by level. ``reached``: up to where a level is fulfilled, hence answered."""
        found: dict[int, int] = {}
        for part in self._ranges:
            end = part.end if part.acks in (0, EARLIER) else min(part.end, reached(part.acks))
            records = end - max(part.start, high_watermark)
            if records > 0:
                found[part.acks] = found.get(part.acks, 0) + records
        return found

    def __len__(self) -> int:
        return len(self._ranges)
