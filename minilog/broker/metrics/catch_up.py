"""CatchUp: how fast followers that are not in sync catch up, and when they will have.

Owns one look back. Rates are taken over at least five seconds, so that two scrapers do not disturb
each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

OVER_MS: Final = 5000
FORGOTTEN_MS: Final = 120_000


class Pace(NamedTuple):
    """``per_second``: by how much it gets nearer, less than 0 when it falls behind. ``eta_s`` is
    None while it does not get nearer."""

    behind: int
    per_second: float | None
    eta_s: float | None


class CatchUp:
    def __init__(self) -> None:
        self._looks: list[tuple[int, dict[int, int]]] = []
        """(when, records behind by replica): the one to compare with, and later ones."""

    def paces(self, behind: Mapping[int, int], now_ms: int) -> dict[int, Pace]:
        """By replica, of what it is behind now."""
        while len(self._looks) > 1 and now_ms - self._looks[1][0] >= OVER_MS:
            del self._looks[0]
        if self._looks and now_ms - self._looks[0][0] > FORGOTTEN_MS:
            self._looks.clear()
        paces = {replica: self._pace(replica, records, now_ms) for replica, records in behind.items()}
        if not self._looks or now_ms - self._looks[-1][0] >= OVER_MS // 2:
            self._looks.append((now_ms, dict(behind)))
        return paces

    def _pace(self, replica: int, behind: int, now_ms: int) -> Pace:
        if not self._looks or replica not in self._looks[0][1] or now_ms - self._looks[0][0] < OVER_MS:
            return Pace(behind, None, None)
        at_ms, before = self._looks[0]
        per_second = (before[replica] - behind) * 1000 / (now_ms - at_ms)
        return Pace(behind, per_second, behind / per_second if per_second > 0 else None)
