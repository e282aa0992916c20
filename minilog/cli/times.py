"""A time, as people write it on a command line: ms since the epoch, or an ISO date."""

from __future__ import annotations

from datetime import UTC, datetime

MS_DIGITS_MAX = 14
WAYS = "ms since 1970, or a date like 2026-01-31 or 2026-01-31T12:00:00Z (UTC unless it says otherwise)"


def time_ms(text: str) -> int | None:
    """Digits are ms since the epoch, all else is an ISO date, in UTC unless it says otherwise. None
    for what is neither."""
    if text.isascii() and text.isdecimal():
        return int(text) if len(text) <= MS_DIGITS_MAX else None
    try:
        moment = datetime.fromisoformat(text)
        return max(0, int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000))
    except (ValueError, OverflowError):
        return None
