"""What the application forgets without closing it is given back, and named in a ResourceWarning.

What goes on in the background holds nothing that holds the object itself: callbacks into it are
weak. So it is collected once the application has let go of it, and what remains of it is closed."""

from __future__ import annotations

import asyncio
import logging
import sys
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any, Final
from weakref import WeakMethod, finalize

_PACKAGE: Final = __name__.partition(".")[0]
_made_at: Final[ContextVar[str]] = ContextVar("minilog_client_made_at", default="")
_closing: Final[set[asyncio.Task[None]]] = set()
_log: Final = logging.getLogger("minilog_client")


def weakly(method: Callable[..., None]) -> Callable[..., None]:
    """``method``, which keeps its object not alive and does nothing without it."""
    found = WeakMethod(method)

    def call(*arguments: Any) -> None:
        alive = found()
        if alive is not None:
            alive(*arguments)

    return call


def caller() -> str:
    """The line of the application's that this package was called from."""
    if told := _made_at.get():
        return told
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


@contextmanager
def made_at(place: str) -> Iterator[None]:
    """What is made in another thread meanwhile was asked for at ``place``."""
    token = _made_at.set(place)
    try:
        yield
    finally:
        _made_at.reset(token)


GivenBack = tuple[str, Callable[[], Coroutine[Any, Any, None]], Callable[[], None]]
"""A name, and ``close`` and ``without_loop`` of ``Remains``. They refer to nothing that refers to
the object."""


class Remains:
    """What is left of ``owner`` when it is forgotten. ``close`` gives that back, in the loop that
    ``loop_of`` tells (None: there is nothing to give back). ``without_loop`` is for when that loop
    is gone."""

    def __init__(
        self,
        owner: object,
        loop_of: Callable[[], asyncio.AbstractEventLoop | None],
        name: str,
        close: Callable[[], Coroutine[Any, Any, None]],
        without_loop: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._loop_of = loop_of
        self._close = close
        self._without_loop = without_loop
        self._made_at = caller()
        self._is_over = False
        self._is_given_up = False
        self.belong_to(owner)

    def belong_to(self, owner: object) -> None:
        """Whichever owner is forgotten first."""
        finalize(owner, self._give_up).atexit = False

    def settle(self) -> None:
        """The owner is closed, by itself."""
        self._is_over = True

    def _give_up(self) -> None:
        """This may run in any thread, within any line, so it takes no lock."""
        loop = self._loop_of()
        if self._is_over or self._is_given_up or loop is None:
            return
        self._is_given_up = True
        try:
            loop.call_soon_threadsafe(self._begin, context=Context())
        except RuntimeError:  # the loop was closed
            self._without_loop()
        warnings.warn(
            f"{self._name} was not closed; close it, or use it in a with block. It was made at {self._made_at}",
            ResourceWarning,
            stacklevel=2,
        )

    def _begin(self) -> None:
        task = asyncio.get_running_loop().create_task(self.close(), name="minilog_client forgotten")
        _closing.add(task)
        task.add_done_callback(_on_closed)

    async def close(self) -> None:
        if not self._is_over:
            self._is_over = True
            await self._close()


def _on_closed(task: asyncio.Task[None]) -> None:
    _closing.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.warning("giving back what was not closed failed: %s", error)
