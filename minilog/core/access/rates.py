"""Rates: how much a principal may still ask for. Pure: time is an argument.

A bucket holds what may be asked for at once, a second's worth, and fills by the second. What a
request costs is known when it is over, so a bucket may be in debt. Who is in debt waits until it is
paid.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from minilog.core.access.principal import Principal, Quota

BUCKETS_MAX: Final = 10_000


class Standing(NamedTuple):
    """For the RateLimit headers. ``wait_ms`` 0: go on."""

    limit: int
    left: int
    wait_ms: int
    unit: str


class _Bucket:
    __slots__ = ("_at_ms", "_left", "per_second")

    def __init__(self, per_second: int, now_ms: int) -> None:
        self.per_second = per_second
        self._left = float(per_second)
        self._at_ms = now_ms

    def take(self, amount: int) -> None:
        self._left -= amount

    def standing(self, unit: str, now_ms: int) -> Standing:
        grown = max(0, now_ms - self._at_ms) * self.per_second / 1000
        self._left, self._at_ms = min(float(self.per_second), self._left + grown), max(now_ms, self._at_ms)
        least = 1.0 if unit == "requests" else 0.0
        lacking = least - self._left
        wait_ms = int(lacking * 1000 / self.per_second) + 1 if lacking > 0 else 0
        return Standing(self.per_second, max(0, int(self._left)), wait_ms, unit)


class Rates:
    """Of all principals that have a quota."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str, int], _Bucket] = {}

    def arrive(self, principal: Principal, now_ms: int) -> Standing | None:
        """A request arrives, and is counted unless it has to wait. The standing that is closest to
        its limit; None where there is none."""
        worst = self.look(principal, now_ms)
        if worst is not None and not worst.wait_ms and principal.quota.requests_per_second:
            self._bucket(principal.name, "requests", principal.quota.requests_per_second, now_ms).take(1)
        return worst

    def look(self, principal: Principal, now_ms: int) -> Standing | None:
        """As ``arrive``, and nothing is counted."""
        standings = [
            self._bucket(principal.name, unit, limit, now_ms).standing(unit, now_ms)
            for unit, limit in _limits(principal.quota)
        ]
        return max(standings, key=lambda one: (one.wait_ms, -one.left / one.limit), default=None)

    def spend(self, principal: Principal, amount_bytes: int, now_ms: int) -> None:
        """So many bytes have come, or gone."""
        if principal.quota.bytes_per_second and amount_bytes:
            self._bucket(principal.name, "bytes", principal.quota.bytes_per_second, now_ms).take(amount_bytes)

    def _bucket(self, name: str, unit: str, per_second: int, now_ms: int) -> _Bucket:
        """A quota that has changed begins anew."""
        key = (name, unit, per_second)
        found = self._buckets.get(key)
        if found is None:
            if len(self._buckets) >= BUCKETS_MAX:
                self._buckets.clear()
            found = self._buckets[key] = _Bucket(per_second, now_ms)
        return found


def _limits(quota: Quota) -> list[tuple[str, int]]:
    named = [("requests", quota.requests_per_second), ("bytes", quota.bytes_per_second)]
    return [(unit, limit) for unit, limit in named if limit]
