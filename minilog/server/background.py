"""Background work of a process: how it is told to stop, and how what it does in threads is waited
for.

Invariants, the same for every loop of the shells:
* A loop is told by its ``Stop`` and ends by itself: at once while it pauses, else behind the step
  under way. Whoever has started the loop waits for it, and only then closes the threads, files and
  sockets that it used.
* Nothing new begins once ``Stop`` is set.
* What runs in a thread is never left behind: a cancelled caller sets the stop and waits for the
  thread, because a thread that goes on would meet files that are closed. The one exception is what
  may be interrupted anywhere, by a crash too, and must not keep a process from ending: the recovery
  at the start (``in_daemon_thread``). What such a thread uses is released by whoever ends last,
  since the process may be an application that goes on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """The process is stopping: whatever was being made is thrown away."""


class Stop:
    """Told once, from the loop; seen by coroutines and threads alike."""

    def __init__(self) -> None:
        self._in_loop = asyncio.Event()
        self._in_threads = threading.Event()

    @property
    def is_set(self) -> bool:
        return self._in_threads.is_set()

    def set(self) -> None:
        self._in_threads.set()
        self._in_loop.set()

    async def pause(self, seconds: float) -> bool:
        """Sleep, not beyond the stop; True when it is set."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._in_loop.wait(), seconds)
        return self.is_set

    def hold(self, seconds: float) -> None:
        """Sleep in a thread; raises Stopped as soon as the stop is set, also for no time at all."""
        if self._in_threads.wait(seconds):
            raise Stopped

    async def in_thread(self, work: Callable[[], T], threads: Executor | None = None) -> T:
        """What ``work`` returns or raises. Never returns while the thread still works."""
        running = asyncio.get_running_loop().run_in_executor(threads, work)
        cancelled: asyncio.CancelledError | None = None
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError as error:
                self.set()
                cancelled = error
        if cancelled is not None:
            running.exception()  # nobody is left to hear of it
            raise cancelled
        return running.result()


class Shared:
    """Something that threads and a coroutine use. ``release`` is called once, by the last of
    them."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._users = 1
        self._lock = threading.Lock()

    def take(self) -> None:
        with self._lock:
            assert self._users, "it was released"
            self._users += 1

    def done(self) -> None:
        with self._lock:
            self._users -= 1
            is_last = self._users == 0
        if is_last:
            self._release()


def in_daemon_thread(work: Callable[[], T], name: str, used: Shared) -> asyncio.Future[T]:
    """``work`` in a thread that the process does not wait for when it ends: for what a crash may
    interrupt anywhere. The thread is done with ``used`` when the work has ended.

    Who has gone without waiting does not hear how ``work`` ended, and neither does the log.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()
    used.take()

    def run() -> None:
        try:
            settle = partial(_succeed, result, work())
        except BaseException as error:
            settle = partial(_fail, result, error)
        used.done()
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle)

    threading.Thread(target=run, name=name, daemon=True).start()
    return result


def _succeed(result: asyncio.Future[T], value: T) -> None:
    if not result.done():
        result.set_result(value)


def _fail(result: asyncio.Future[Any], error: BaseException) -> None:
    if not result.done():
        result.set_exception(error)
        result.exception()  # asyncio reports an error of a future that nobody has looked at


async def first_of(work: asyncio.Future[T], stop: asyncio.Event) -> bool:
    """Wait for either; True when ``work`` is done. Cancels neither."""
    stopping = asyncio.ensure_future(stop.wait())
    either: list[asyncio.Future[Any]] = [work, stopping]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
    return work.done()
