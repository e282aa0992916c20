"""Times that are given in another unit than ms are warned of, once for each topic."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Final

_SECONDS_END: Final = 10**11
"""As seconds the year 5138, and as ms the year 1973."""
_MICROSECONDS: Final = 10**14
_NANOSECONDS: Final = 10**17
_log: Final = logging.getLogger("minilog_client")


class TimeUnits:
    def __init__(self) -> None:
        self._told: set[str] = set()

    def look_at(self, topic: str, timestamp_ms: int) -> int:
        if not (_SECONDS_END <= timestamp_ms < _MICROSECONDS or timestamp_ms <= 0 or topic in self._told):
            self._told.add(topic)
            unit, meant = _meant(timestamp_ms)
            _log.warning(
                "a time given for topic %s is %d ms since the epoch, %s; if %s were meant, it is %d, %s",
                topic, timestamp_ms, _said(timestamp_ms), unit, meant, _said(meant),
            )  # fmt: skip
        return timestamp_ms


def _meant(timestamp: int) -> tuple[str, int]:
    if timestamp < _SECONDS_END:
        return "seconds", timestamp * 1000
    if timestamp < _NANOSECONDS:
        return "microseconds", timestamp // 1000
    return "nanoseconds", timestamp // 10**6


def _said(timestamp_ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(timestamp_ms / 1000, UTC):%Y-%m-%d}"
    except (OverflowError, OSError, ValueError):
        return "after the year 9999"
