"""Durations: how long something took, counted by bucket, as Prometheus wants it.

A histogram of prometheus_client takes a lock for each observation. These are observed on the loop
alone, in every turn.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)


class Durations:
    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        """How many took so long at most, and no less than the bucket before. The last: longer."""
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds
