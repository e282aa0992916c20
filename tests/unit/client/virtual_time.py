"""An event loop whose time jumps: minutes of timeouts pass at once, and waiting for nothing is an
error."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Hang(AssertionError):
    """Everybody waits and no timer is set: the code under test would wait for ever."""


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.skipped_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout == 0:  # somebody is ready to run: the kernel is asked only when nobody is
            return []
        if events := super().select(0):
            return events
        if timeout is None:
            raise Hang("nothing will ever happen again")
        self.skipped_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return 1000.0 + self._jumping.skipped_s


def run(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` in virtual time; tasks left behind fail the test."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(main)
        left = [task for task in asyncio.all_tasks(runner.get_loop()) if not task.done()]
        assert not left, f"tasks left behind: {left}"
        return result
