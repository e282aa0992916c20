"""The end of something that is closed: begun once, and carried out also when whoever asked for it
gives up waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Ending:
    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    @property
    def is_begun(self) -> bool:
        """From any thread."""
        return self._task is not None

    async def wait(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin what ``make`` makes, if nobody has, and wait for it. Raises what it raises, as long
        as it has not ended before."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(make(), name="minilog_client ending")
            self._task.add_done_callback(_look_at)
        elif self._task.done():
            return
        await asyncio.shield(self._task)


def _look_at(task: asyncio.Task[None]) -> None:
    """Whoever asked for it may have given up waiting."""
    if not task.cancelled():
        task.exception()
