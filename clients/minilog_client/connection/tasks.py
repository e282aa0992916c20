"""The tasks one client object owns. None outlives it, none fails unheard.

A MinilogError is an outcome, and the business of whoever waits for the task. Any other exception is
a fault.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from minilog.errors import ClientClosed, MinilogError

_AGAIN_S: Final = 1.0
_log = logging.getLogger("minilog_client")


class TaskScope:
    """A task group for objects whose life is not one ``async with`` block. ``aclose`` cancels what
    still runs."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        if self._closed:
            coroutine.close()
            raise ClientClosed(f"{self._name} is closed")
        task = asyncio.get_running_loop().create_task(coroutine, name=self._name)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def keep_up(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        """Run the loop that ``make`` makes until it returns. A fault that ends it is logged, and it
        begins again a little later."""
        return self.start(self._kept_up(make))

    async def _kept_up(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        while True:
            try:
                await make()
                return
            except Exception:
                _log.exception("%s: a loop failed unexpectedly and begins again", self._name)
            await asyncio.sleep(_AGAIN_S)

    async def aclose(self) -> None:
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, MinilogError):
            _log.error("%s: a task failed unexpectedly", self._name, exc_info=error)
