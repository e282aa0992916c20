"""Shares: how much of a bound each client may hold (R45).

A client may hold as much as is free. So one that is alone gets half of all, the next a half of what
is left, and there is always room for who comes next. Nobody is promised a number, so nothing lies
idle while only a few are there. What is shared are places or bytes.

Invariant: while anything is free, a client that holds nothing gets some.

Source: Choudhury and Hahne, Dynamic queue length thresholds for shared-memory switches, 1998.
"""

from __future__ import annotations

from collections import Counter


class Shares:
    def __init__(self, places_max: int) -> None:
        self.places_max = places_max
        self.total = 0
        self.held: Counter[str] = Counter()

    def may_take(self, client: str, count: int = 1) -> bool:
        return self.held.get(client, 0) + count <= self.places_max - self.total

    def take(self, client: str, count: int = 1) -> None:
        """Also what nobody may refuse."""
        self.held[client] += count
        self.total += count

    def give_back(self, client: str, count: int = 1) -> None:
        self.total -= count
        self.held[client] -= count
        assert self.held[client] >= 0, f"{client} gives back more than it has taken"
        if not self.held[client]:
            del self.held[client]
