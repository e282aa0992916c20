"""Failed logins: how often an address may show what is nobody's. Pure: time is an argument.

A token has 256 random bits, so nobody guesses one. The bound keeps those that try from filling logs
and taking turns. Who shows a token that is somebody's is let in whatever its neighbours do, so
nobody can lock others out.

An address has a minute from its first failure. The minutes are kept in the order in which they
began, which is that in which they end. With too many addresses the oldest minute is forgotten.
"""

from __future__ import annotations

import ipaddress
from typing import Final

ADDRESSES_MAX: Final = 10_000
MINUTE_MS: Final = 60_000
IPV6_PREFIX: Final = 64
"""A machine has as many addresses below it as it likes."""


class FailedLogins:
    def __init__(self, per_minute_max: int) -> None:
        """0: as many as they like."""
        self._max = per_minute_max
        self._failures: dict[str, tuple[int, int]] = {}
        """Since when, and how many, by address."""

    def fail(self, address: str, now_ms: int) -> int:
        """One more. How long the address has to wait before it is told why again, 0: it is."""
        if not self._max:
            return 0
        self._forget(now_ms)
        key = _network_of(address)
        began_ms, count = self._failures.get(key, (now_ms, 0))
        if count >= self._max:
            return max(1, began_ms + MINUTE_MS - now_ms)
        self._failures[key] = began_ms, count + 1
        if len(self._failures) > ADDRESSES_MAX:
            del self._failures[next(iter(self._failures))]
        return 0

    def __len__(self) -> int:
        return len(self._failures)

    def _forget(self, now_ms: int) -> None:
        while self._failures:
            first = next(iter(self._failures))
            if now_ms - self._failures[first][0] < MINUTE_MS:
                return
            del self._failures[first]


def _network_of(address: str) -> str:
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is None:
        return str(ipaddress.ip_network((known, IPV6_PREFIX), strict=False))
    return str(known.ipv4_mapped if isinstance(known, ipaddress.IPv6Address) else known)
