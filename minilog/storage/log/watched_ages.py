"""Watched ages: how long ago something was done to all of a log up to an offset: written, cleaned.
Measured in time that was watched (R40).

The records' own times are whatever their producers say, and a file's time is what the machine's
clock said, or whoever copied the file. So a second witness is kept that rests on no wall clock: at
each look at the log, its end is noted, and from then on the steady time counts that processes with
this log open have watched through. Time in which no process ran does not count, a step of the wall
clock neither: what is told is never more than the true age. A log that is copied takes its ages
along, and one whose ages were lost is as old as the first look at it.

Owns: the marks of one log. They are kept with the recovery points, and cost no sync of their own.

Invariants: to whatever lies below a mark's offset it had been done by then. Marks rise in both. Of
what lies above the last mark nothing is known: it is as if it were done now.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

PART: Final = 16
"""What is told of an age lags behind the truth by a sixteenth of it, and by the time between two
looks. So marks lie the further apart the older they are, and there are few of them."""
SAVED_STEP_MS: Final = 600_000
SAVED_PART: Final = 128
"""Saved ages are rounded down to a step, the larger the older they are: a log at rest changes what
is saved now and then only. The last word of a process is exact."""

Ages = tuple[tuple[int, int], ...]


class Mark(NamedTuple):
    offset: int
    at_ms: int
    """By the watched time of this process, which begins at 0."""


class Span(NamedTuple):
    """The shortest and the longest age that anybody asks for."""

    least_ms: int
    most_ms: int

    @classmethod
    def of(cls, limits_ms: Iterable[int]) -> Span:
        limits = [max(limit_ms, 1) for limit_ms in limits_ms] or [1]
        return cls(min(limits), max(limits))


class WatchedAges:
    def __init__(self, span: Span) -> None:
        self.span = span
        self._watched_ms = 0
        self._looked_ms: int | None = None
        self._marks: list[Mark] = []

    def load(self, ages: Ages) -> None:
        """(offset, age) as they were saved."""
        self._marks = [Mark(offset, self._watched_ms - age_ms) for offset, age_ms in ages]

    def _apart_ms(self, age_ms: int) -> int:
        """How far apart marks of that age need not lie."""
        return max(age_ms, self.span.least_ms) // PART

    def look(self, now_ms: int, end_offset: int) -> None:
        """It is done up to ``end_offset`` at ``now_ms``, by a clock that never goes back."""
        if self._looked_ms is not None:
            self._watched_ms += max(0, now_ms - self._looked_ms)
        self._looked_ms = now_ms
        self._add(Mark(end_offset, self._watched_ms))

    def note_age(self, end_offset: int, age_ms: int) -> None:
        """What lies below was copied from a log in which it was that old. A young one needs no
        note: the next look is one."""
        if age_ms > self._apart_ms(0):
            latest_ms = self._marks[-1].at_ms if self._marks else self._watched_ms - age_ms
            self._add(Mark(end_offset, max(latest_ms, self._watched_ms - age_ms)))

    def _add(self, mark: Mark) -> None:
        marks = self._marks
        if mark.offset <= (marks[-1].offset if marks else 0):
            return
        marks.append(mark)
        kept = [marks.pop()]
        while len(marks) > 1:
            between = marks.pop()
            age_ms = self._watched_ms - kept[-1].at_ms
            if kept[-1].at_ms - marks[-1].at_ms > self._apart_ms(age_ms):
                kept.append(between)  # else what it spoke for is taken for as young as the next one
        self._marks = [*marks, *reversed(kept)]
        while len(self._marks) > 1 and self._watched_ms - self._marks[1].at_ms > self.span.most_ms:
            del self._marks[0]

    def of(self, offset: int) -> tuple[int, int] | None:
        """(end offset, age): from the record at ``offset`` up to there, it was done to all at least
        so long ago. None when nothing is known of it yet."""
        if not self._marks or self._marks[-1].offset <= offset:
            return None  # as a rule: what is fetched was written a moment ago
        mark = next(mark for mark in self._marks if mark.offset > offset)
        return mark.offset, self._watched_ms - mark.at_ms

    def end_before(self, limit_ms: int) -> int:
        """To all that lies below it was done longer ago than ``limit_ms``."""
        return max((mark.offset for mark in self._marks if self._watched_ms - mark.at_ms > limit_ms), default=0)

    def cut(self, end_offset: int) -> None:
        self._marks = [Mark(*mark) for mark in cut_ages(self._marks, end_offset)]

    def begin(self, start_offset: int) -> None:
        """What lies below has gone."""
        self._marks = [mark for mark in self._marks if mark.offset > start_offset]

    def saved(self, *, is_exact: bool = False) -> Ages:
        """No more than is of interest, and rounded down unless ``is_exact``."""
        ages = ((mark.offset, self._watched_ms - mark.at_ms) for mark in self._marks)
        return tuple((offset, age_ms if is_exact else self._rounded(age_ms)) for offset, age_ms in ages)

    def _rounded(self, age_ms: int) -> int:
        step_ms = max(1, min(SAVED_STEP_MS, self._apart_ms(0)))
        age_ms = min(age_ms, 2 * self.span.most_ms + step_ms)
        while step_ms * SAVED_PART < age_ms:
            step_ms *= 2
        return age_ms // step_ms * step_ms


def cut_ages(marks: Iterable[tuple[int, int]], end_offset: int) -> Ages:
    """What (offset, time) still say of a log that ends there: the first one beyond speaks for what
    is left below."""
    left: list[tuple[int, int]] = []
    for offset, time_ms in marks:
        left.append((min(offset, end_offset), time_ms))
        if offset >= end_offset:
            break
    return tuple(left)
