"""A thread that owns an event loop, and the only way into it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from minilog.errors import ClientClosed

T = TypeVar("T")


class LoopThread:
    """The thread, and the only way into it."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry out ``work`` and wait for it."""
        return self.result(self.submit(work))

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin ``work``. It runs in the context this is called in."""
        if not self.is_alive:
            work.close()
            raise ClientClosed("the client is closed; make a new one")
        assert threading.current_thread() is not self._thread, "a callback must not wait for its own thread"
        return asyncio.run_coroutine_threadsafe(work, self.loop)

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

    def stop(self) -> None:
        if not self.is_alive:
            return
        self.run(_cancel_others())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
