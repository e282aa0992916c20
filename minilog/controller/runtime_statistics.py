"""What the runtime of a controller has counted, for metrics."""

from __future__ import annotations

import msgspec


class RuntimeStatistics(msgspec.Struct, frozen=True):
    parked: int
    queued: int
    refused: int
    """Because older ones of the same client had no turn yet."""
    decisions: int
    journal_index: int
    journal_tail_records: int
    disconnects: int
    loop_lag_seconds: float
    loop_lag_seconds_max: float
