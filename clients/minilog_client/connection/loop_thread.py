"""A thread that owns an event loop, and the only way into it.

A waiting thread may be interrupted at any line by a signal's handler, and the handler may wait for
this thread as well. So whoever waits for this thread holds no lock that this thread takes. What
comes in is noted first, and then it is looked whether the loop is ending.

Invariants:
* What came in before the end begins has begun when tasks are cancelled. What comes later is refused
  with ClientClosed. So no caller waits for a loop that runs no more.
* Whatever was submitted is settled when the thread has ended.
* The end comes: a task that does not let itself be cancelled is left behind after a while."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any, Final, TypeVar
from weakref import WeakSet

from minilog.errors import ClientClosed, InvalidRequest, MinilogError
from minilog_client.connection.work import CLOSED_MEANWHILE, Work

T = TypeVar("T")
CLIENT_CLOSED: Final = "the client is closed; make a new one"
_END_S: Final = 5.0
_log = logging.getLogger("minilog_client")
_threads: WeakSet[LoopThread] = WeakSet()


def _on_forked() -> None:
    for thread in list(_threads):
        thread.is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_on_forked)


class LoopThread:
    """The thread, and the only way into it."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._submitting = threading.Lock()
        """Held to submit, and to end: nothing is submitted to a loop that has ended."""
        self._is_open = True
        self._has_ended = False
        self._ending: asyncio.Task[None] | None = None
        self.is_forked = False
        """This is a copy in a process that was forked off. Threads are not copied."""
        _threads.add(self)
        self._submitted: set[Future[Any]] = set()
        self._works: set[Work[Any]] = set()
        self._before_end: list[Callable[[], None]] = []
        self._at_end: deque[Callable[[], None]] = deque()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # there are as many threads as there may be
            self.loop.close()
            raise

    @property
    def is_open(self) -> bool:
        return self._is_open and not self.is_forked

    def check_own(self) -> None:
        """Raises ClientClosed in a process that was forked off."""
        if self.is_forked:
            raise ClientClosed("the client was made before fork(), in another process; make a new one in this process")

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Carry out ``coroutine`` and wait for it."""
        try:
            self.check_not_inside()
            self.check_open()
        except MinilogError:
            coroutine.close()
            raise
        return self.perform(Work(lambda: coroutine))

    def perform(self, work: Work[T]) -> T:
        """Carry out ``work``, in the context this is called in, and wait for it."""
        try:
            self.begin(work)
        except BaseException:
            self._give_up(work)
            raise
        return self.outcome(work)

    def outcome(self, work: Work[T]) -> T:
        """Wait for what was begun. To interrupt the wait is to give it up."""
        try:
            return work.wait()
        except BaseException:
            self._give_up(work)
            raise

    def _give_up(self, work: Work[Any]) -> None:
        with contextlib.suppress(ClientClosed):
            self.post(work.give_up)

    def begin(self, work: Work[Any]) -> None:
        self.check_not_inside()
        self.check_own()
        self._works.add(work)  # from now on the end settles it
        try:
            self.post(self._begin, work)
        except ClientClosed:
            self._works.discard(work)
            raise

    def _begin(self, work: Work[Any]) -> None:
        """In the thread."""
        if self._ending is None:
            work.begin(self._on_end)
        else:
            self._works.discard(work)
            work.fail(ClientClosed(CLIENT_CLOSED))

    def _on_end(self, work: Work[Any]) -> None:
        """In the thread. What is cancelled by the end is told so."""
        self._works.discard(work)
        if not self._is_open:
            work.is_closing = True

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin ``work``, for a loop that waits for the future. It runs in the context this is
        called in."""
        try:
            self.check_not_inside()
            self.check_open()
        except MinilogError:
            work.close()
            raise
        with self._submitting:
            if not self._is_open:
                work.close()
                raise ClientClosed(CLIENT_CLOSED)
            future = asyncio.run_coroutine_threadsafe(self._before_the_end(work), self.loop)
            self._submitted.add(future)
        future.add_done_callback(self._submitted.discard)
        return future

    async def _before_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        if self._ending is not None:
            work.close()
            raise ClientClosed(CLIENT_CLOSED)
        return await work

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have ``function`` called there, unless the loop ends first, and wait for nothing."""
        self.check_open()
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # it was closed just now
            raise ClientClosed(CLIENT_CLOSED) from None

    def result(self, future: Future[T]) -> T:
        """Wait for what was submitted; interrupting the wait cancels the work."""
        try:
            return future.result()
        except CancelledError:
            raise ClientClosed(CLOSED_MEANWHILE) from None
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """The same as ``run`` for something that does not wait."""

        async def work() -> T:
            return function()

        return self.perform(Work(work))

    def before_end(self, function: Callable[[], None]) -> None:
        """Have ``function`` called in the loop when it is to end, before its tasks are
        cancelled."""
        self._before_end.append(function)

    def at_end(self, function: Callable[[], None]) -> None:
        """Have ``function`` called when the loop runs no more: at once if that is so already."""
        self._at_end.append(function)
        if self._has_ended:
            self._call_at_end()

    def forget(self, *functions: Callable[[], None]) -> None:
        """Call these no more at the end. In any thread, within any line."""
        for function in functions:
            for known in (self._before_end, self._at_end):
                with contextlib.suppress(ValueError):
                    known.remove(function)

    def check_open(self) -> None:
        """Before any lock: in a process that was forked off it may be held for ever."""
        self.check_own()
        if not self._is_open:
            raise ClientClosed(CLIENT_CLOSED)

    def check_not_inside(self) -> None:
        """Raises InvalidRequest in the thread itself."""
        if threading.current_thread() is self._thread:
            raise InvalidRequest(
                "this is a callback, in the client's own thread: a call that waits would wait for itself; "
                "hand the work to another thread"
            )

    def stop(self) -> None:
        """Cancel what runs, and wait for the end of the thread."""
        if not self.is_forked:
            self.end()
            self._thread.join()

    def end(self) -> None:
        """The same without waiting. Also for the thread itself."""
        self._is_open = False
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._begin_end)

    # --- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        """Whatever ends the loop, nobody waits for it after that."""
        try:
            self.loop.run_forever()
        finally:
            with self._submitting:
                self._is_open = False
            if self._ending is None:  # nobody has asked for the end
                self.loop.call_soon(self._begin_end)
                self.loop.run_forever()
            self._settle_all()
            self._has_ended = True
            self._call_at_end()
            self.loop.close()

    def _call_at_end(self) -> None:
        """Also in another thread, after the end. Each is called once, by whoever takes it out."""
        with contextlib.suppress(IndexError):
            while True:
                _carry_out(self._at_end.popleft())

    def _settle_all(self) -> None:
        for future in list(self._submitted):
            with contextlib.suppress(InvalidStateError):  # whoever waited has given up just now
                future.set_exception(ClientClosed(CLOSED_MEANWHILE))
        for work in list(self._works):
            work.fail(ClientClosed(CLOSED_MEANWHILE))

    def _begin_end(self) -> None:
        if self._ending is not None:
            return
        self._ending = self.loop.create_task(self._cancel_others())
        for function in list(self._before_end):
            _carry_out(function)

    async def _cancel_others(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            _, left = await asyncio.wait(others, timeout=_END_S)
            for task in left:
                _log.error("a task does not end when it is cancelled, and is left behind: %r", task)
        self.loop.stop()


def _carry_out(function: Callable[[], None]) -> None:
    """The end comes, whatever ``function`` raises."""
    try:
        function()
    except Exception:
        _log.exception("something that belongs to the end of a thread has failed")
