"""A thread that owns an event loop, and the only way into it.

Invariants:
* What came in before the end begins has begun when tasks are cancelled. What comes later is refused
  with ClientClosed. So no caller waits for a loop that runs no more.
* Whatever was submitted is settled when the thread has ended."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any, Final, TypeVar

from minilog.errors import ClientClosed

T = TypeVar("T")
CLIENT_CLOSED: Final = "the client is closed; make a new one"


class LoopThread:
    """The thread, and the only way into it."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._entry = threading.Lock()
        """Held to enter, and to end: no one enters a loop that is ending."""
        self._is_open = True
        self._has_ended = False
        self._submitted: set[Future[Any]] = set()
        self._at_end: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        return self._is_open

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry out ``work`` and wait for it."""
        return self.result(self.submit(work))

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin ``work``. It runs in the context this is called in."""
        assert threading.current_thread() is not self._thread, "a callback must not wait for its own thread"
        with self._entry:
            if not self._is_open:
                work.close()
                raise ClientClosed(CLIENT_CLOSED)
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
            self._submitted.add(future)
        future.add_done_callback(self._submitted.discard)
        return future

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have ``function`` called there, and wait for nothing."""
        with self._entry:
            if not self._is_open:
                raise ClientClosed(CLIENT_CLOSED)
            self.loop.call_soon_threadsafe(function, *arguments)

    def result(self, future: Future[T]) -> T:
        """Wait for what was submitted; interrupting the wait cancels the work."""
        try:
            return future.result()
        except CancelledError:
            raise ClientClosed("the client was closed while this call waited") from None
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """The same for something that does not wait."""

        async def work() -> T:
            return function()

        return self.run(work())

    def at_end(self, function: Callable[[], None]) -> None:
        """Have ``function`` called when the loop runs no more: at once if that is so already."""
        with self._entry:
            if not self._has_ended:
                self._at_end.append(function)
                return
        function()

    def stop(self) -> None:
        """Cancel what runs, and wait for the end of the thread."""
        with self._entry:
            if self._is_open:
                self._is_open = False
                self.loop.call_soon_threadsafe(self._begin_end)
        self._thread.join()

    # --- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        self.loop.run_forever()
        for future in list(self._submitted):
            with contextlib.suppress(InvalidStateError):  # whoever waited has given up just now
                future.set_exception(ClientClosed("the client was closed while this call waited"))
        with self._entry:
            self._has_ended = True
        for function in self._at_end:
            function()
        self.loop.close()

    def _begin_end(self) -> None:
        self._ending = self.loop.create_task(self._cancel_others())

    async def _cancel_others(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self.loop.stop()
