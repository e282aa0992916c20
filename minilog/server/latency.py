"""How long the disk takes, in seconds: the buckets that the histograms of every process share."""

from __future__ import annotations

DISK_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
