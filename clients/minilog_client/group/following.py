"""Following the coordinator: what a view of the membership says is carried out to its end, also
when whoever waits for that gives up.

A read under a time limit is cancelled wherever it stands. So callbacks, and the commits that belong
to them, run in a task of their own, and the next read waits for that task. A callback may close its
consumer: so the task is none of those that the consumer ends by then.

Invariants:
* One view is followed at a time.
* While it is followed, and after that has failed, nothing is handed out.
* What following ended with is raised once. The next read begins it again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from minilog.errors import ClientClosed, MinilogError
from minilog_client.group.callbacks import Untold

_STOP_S = 1.0
_log = logging.getLogger("minilog_client")
inside: ContextVar[object] = ContextVar("minilog_client_inside", default=None)
"""Whose callbacks the current code is called by."""


class Following:
    """``follow`` carries out what the coordinator said last."""

    def __init__(self, follow: Callable[[], Awaitable[None]]) -> None:
        self.is_due = False
        """There is something to follow. May be set from any thread."""
        self.token = object()
        """Stands for this in contexts, which outlive it with the tasks that were begun in them."""
        self._follow = follow
        self._running: asyncio.Task[Exception | None] | None = None

    @property
    def is_settled(self) -> bool:
        """From any thread."""
        return not self.is_due and self._running is None

    @property
    def is_inside(self) -> bool:
        """The current code is called by a callback that is a part of it."""
        return inside.get() is self.token

    async def settle(self) -> None:
        """Follow until there is nothing left. Raises what a callback raised, or why the group does
        not let this member in."""
        while not self.is_settled:
            if self._running is None:
                self.is_due = False
                self._running = asyncio.get_running_loop().create_task(self._once(), name="minilog_client following")
            await self._end_of(self._running)

    async def _once(self) -> Exception | None:
        inside.set(self.token)
        try:
            await self._follow()
        except Untold:
            self.is_due = True
        except Exception as error:
            return error
        return None

    async def _end_of(self, running: asyncio.Task[Exception | None]) -> None:
        await asyncio.wait([running])
        if self._running is not running:
            return
        self._running = None
        if running.cancelled():
            raise ClientClosed("the consumer was closed while a callback ran")
        error = running.result()
        if error is not None:
            self.is_due = True
            raise error

    async def end(self) -> None:
        """Wait for what runs, unless it is what calls this. Raises what a callback raised that no
        read has waited for."""
        if self._running is None or self.is_inside:
            return
        try:
            await self._end_of(self._running)
        except MinilogError as error:
            _log.warning("closing: %s", error.detail)

    async def stop(self) -> None:
        """Cancel what runs. It is not waited for for long."""
        if self._running is not None and not self.is_inside:
            self._running.cancel()
            await asyncio.wait([self._running], timeout=_STOP_S)
