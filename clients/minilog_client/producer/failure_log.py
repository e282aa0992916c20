"""Counts the records that failed, and tells the log of those whose futures nobody looks at.

Whoever waits for a future looks at it when it has failed. So a failure is held for ``LOOK_S``
before it counts as unseen. What is told here is not told once more by asyncio, future by
future."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from logging import Logger
from typing import Any, Final, Protocol

from minilog_client.values import counted

LOOK_S: Final = 1.0
TOLD_S: Final = 10.0
"""How often it tells of one topic, at most, but for what is told at the end."""


class Look(Protocol):
    """The future of a record in a thread of the application, which notes it when it is looked
    at."""

    is_looked_at: bool

    def set_exception(self, exception: BaseException | None) -> None: ...


class FailureLog:
    """The first failures of a topic are told soon, those that follow now and then, the last ones
    by ``tell``."""

    def __init__(self, log: Logger, loop: asyncio.AbstractEventLoop) -> None:
        self._log = log
        self._loop = loop
        self._fresh: list[tuple[str, int, Exception, asyncio.Future[Any] | Look | None]] = []
        self._untold: dict[str, tuple[int, Exception]] = {}
        """By topic: how many, and why the first of them."""
        self._again_s: dict[str, float] = {}
        self._uncounted = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, topic: str, count: int, error: Exception, future: asyncio.Future[Any] | Look | None) -> None:
        """``future`` None: whoever waited has given up."""
        self._uncounted += count
        self._fresh.append((topic, count, error, future))
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._tell_now_and_then)

    def tell(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._look()
        self._tell(list(self._untold))

    def take_count(self) -> int:
        """How many have failed since this was asked last."""
        count, self._uncounted = self._uncounted, 0
        return count

    def _tell_now_and_then(self) -> None:
        self._timer = None
        self._look()
        now_s = self._loop.time()
        due = [topic for topic in self._untold if now_s >= self._again_s.get(topic, now_s)]
        self._again_s.update(dict.fromkeys(due, now_s + TOLD_S))
        self._tell(due)
        if self._untold:
            self._timer = self._loop.call_later(LOOK_S, self._tell_now_and_then)

    def _look(self) -> None:
        for topic, count, error, future in self._fresh:
            if future is None or not _is_looked_at(future):
                before, first = self._untold.get(topic, (0, error))
                self._untold[topic] = before + count, first
        self._fresh.clear()

    def _tell(self, topics: Iterable[str]) -> None:
        for topic in topics:
            count, first = self._untold.pop(topic)
            said = counted(count, "record", f"of topic {topic} was", f"of topic {topic} were")
            self._log.warning("%s not acknowledged, the first because: %s", said, getattr(first, "detail", first))


def _is_looked_at(future: asyncio.Future[Any] | Look) -> bool:
    """It counts as looked at from now on: nobody else is to tell of it."""
    if not isinstance(future, asyncio.Future):
        return future.is_looked_at
    is_open: bool = future._log_traceback
    future.exception()
    return not is_open
