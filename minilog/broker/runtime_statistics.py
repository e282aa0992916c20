"""Numbers about a broker's process, for metrics."""

from __future__ import annotations

import msgspec

from minilog.broker.flusher import FlushStatistics
from minilog.server.turn_watch import TurnWatch
from minilog.storage.compaction.rewrite import CleaningFigures


class RuntimeStatistics(msgspec.Struct, frozen=True):
    """Counters grow for ever. ``waiting``: requests without an answer, by kind.
    ``loop_lag_seconds``: how late ticks were lately, ``_max`` the worst so far."""

    waiting: dict[str, int]
    turns: int
    requests: int
    replies_unclaimed: int
    disconnects: int
    loop_lag_seconds: float
    loop_lag_seconds_max: float
    turn_watch: TurnWatch
    turns_awaited: int
    turns_refused: int
    flush: FlushStatistics
    flush_oldest_ms: int
    cleaning: CleaningFigures
