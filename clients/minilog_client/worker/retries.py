"""How often, and after how long, a record is tried again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minilog.errors import InvalidRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """Records after this one wait meanwhile, so nothing is reordered. All tries of a record and the
    time between them must fit into ``max_poll_interval_ms`` of the consumer."""

    attempts_max: int = 3
    """How often a record is tried, the first time included."""
    retry_delay_ms: int = 200
    """Before the second try. Each further one waits for twice as long."""
    retry_delay_ms_max: int = 10_000
    """What no delay exceeds."""

    def __post_init__(self) -> None:
        for name, least in (("attempts_max", 1), ("retry_delay_ms", 0), ("retry_delay_ms_max", 0)):
            value: Any = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidRequest(f"{name} is {value!r}; allowed are whole numbers >= {least}")

    def delay_s(self, attempts: int) -> float | None:
        """How long to wait after so many tries. None: there is no further one."""
        if attempts >= self.attempts_max:
            return None
        delay_ms: int = self.retry_delay_ms << min(attempts - 1, 30)
        return min(delay_ms, self.retry_delay_ms_max) / 1000
