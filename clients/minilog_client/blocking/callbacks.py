"""A consumer's callbacks, carried out by the thread that waits for a call of it, and not by the
loop's."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any, Final, NamedTuple, TypeVar

from minilog.errors import ClientClosed
from minilog_client.connection.loop_thread import LoopThread
from minilog_client.connection.work import Work
from minilog_client.group.callbacks import Untold
from minilog_client.group.following import inside
from minilog_client.values import PartitionKey

T = TypeVar("T")
SyncCallback = Callable[[list[PartitionKey]], None]
waiting_calls: Final[ContextVar[WaitingCalls]] = ContextVar("minilog_client_calls")
"""Where the thread that waits for the current task takes callbacks from."""
is_calling_back: Final[ContextVar[bool]] = ContextVar("minilog_client_is_calling_back", default=False)
"""The current code is called by a callback."""


def in_waiting_thread(function: SyncCallback | None) -> Callable[[list[PartitionKey]], Awaitable[None]] | None:
    """A callback as the asynchronous consumer takes it: carried out by the thread that waits for
    the current task."""
    if function is None or not callable(function):
        return function
    if inspect.iscoroutinefunction(function):
        raise TypeError("a callback of the synchronous client is a plain function, got a coroutine function")

    async def call(partitions: list[PartitionKey]) -> None:
        calls = waiting_calls.get(None)
        if calls is not None:
            await calls.ask(function, partitions)

    return call


class _Call(NamedTuple):
    function: SyncCallback
    partitions: list[PartitionKey]
    done: asyncio.Future[None]
    inside: object


class WaitingCalls:
    """The callbacks that one thread carries out while it waits for its work. But for ``carry_out``
    it is used in the loop's thread."""

    def __init__(self, thread: LoopThread) -> None:
        self.reader = threading.get_ident()
        self._thread = thread
        self._open: dict[asyncio.Future[None], None] = {}
        self._ask: Callable[[object], None] | None = None
        self._is_abandoned = False

    def carry_out(self, call: _Call) -> None:
        """In the waiting thread."""
        copy_context().run(_carry_out, self._thread, call)

    def ask_by(self, ask: Callable[[object], None]) -> None:
        self._ask = ask

    async def ask(self, function: SyncCallback, partitions: list[PartitionKey]) -> None:
        """Have ``function`` called there, and wait for its end."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._is_abandoned or self._ask is None:
            raise Untold("the thread that was to call back waits no more")
        self._open[done] = None
        try:
            self._ask(_Call(function, partitions, done, inside.get()))
            await done
        finally:
            self._open.pop(done, None)

    def abandon(self) -> None:
        """The thread was interrupted: what it has not ended is called again by the next one that
        waits."""
        self._is_abandoned = True
        for done in self._open:
            _settle(done, Untold("the thread that was calling back was interrupted"))


def run_with_callbacks(thread: LoopThread, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Carry out what ``make`` makes in the loop's thread, and the callbacks it asks for in this
    one."""
    calls = WaitingCalls(thread)
    work = Work(make, calls.carry_out)
    calls.ask_by(work.ask)
    try:
        return copy_context().run(_perform, thread, calls, work)
    except BaseException:
        with contextlib.suppress(ClientClosed):
            thread.post(calls.abandon)
        raise


def _perform(thread: LoopThread, calls: WaitingCalls, work: Work[T]) -> T:
    waiting_calls.set(calls)
    return thread.perform(work)


def _carry_out(thread: LoopThread, call: _Call) -> None:
    inside.set(call.inside)
    is_calling_back.set(True)
    error: Exception | None = None
    try:
        call.function(call.partitions)
    except Exception as failure:
        error = failure
    thread.post(_settle, call.done, error)


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
