"""The future of one record, for threads.

A ``concurrent.futures.Future`` that lasts: whoever is interrupted while he asks it leaves no lock
behind at which the loop's thread would stand still, and whoever asks in a process that was forked
off, where nobody is left to settle it, is told so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from minilog_client.connection.loop_thread import LoopThread
from minilog_client.producer.receipts import Receipt


class _Condition(threading.Condition):
    """Is entered and left in one step: the methods of the lock itself, and none in Python within
    which a signal's handler could raise."""

    _lock: Any

    @property
    def __enter__(self) -> Callable[[], bool]:
        entering: Callable[[], bool] = self._lock.__enter__
        return entering

    @property
    def __exit__(self) -> Callable[..., None]:
        leaving: Callable[..., None] = self._lock.__exit__
        return leaving


class ReceiptFuture(Future[Receipt]):
    _done_callbacks: list[Callable[..., object]]

    def __init__(self, thread: LoopThread) -> None:
        super().__init__()
        self._condition = _Condition()
        self.is_looked_at = False
        """Somebody waits for it, or has something called when it is settled."""
        self._thread = thread

    def result(self, timeout: float | None = None) -> Receipt:
        self._wait(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._wait(timeout)
        return super().exception(0)

    def add_done_callback(self, fn: Callable[[Future[Receipt]], object]) -> None:
        self.is_looked_at = True
        super().add_done_callback(fn)

    def _wait(self, timeout_s: float | None) -> None:
        self.is_looked_at = True
        if self.done():
            return
        self._thread.check_own()
        told: SimpleQueue[object] = SimpleQueue()
        self.add_done_callback(told.put)
        try:
            told.get(timeout=None if timeout_s is None else max(0, timeout_s))
        except Empty:
            with suppress(ValueError):  # it is settled just now
                self._done_callbacks.remove(told.put)
            raise TimeoutError from None
