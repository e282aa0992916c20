"""The future of one record, for threads.

A ``concurrent.futures.Future`` that lasts: whoever is interrupted while he asks it leaves no lock
behind at which the loop's thread would stand still, and whoever asks in a process that was forked
off, where nobody is left to settle it, is told so. A signal's handler may interrupt him and wait
for the loop's thread: so he holds no lock that it takes, but for steps that nothing interrupts.

It is light, because there is one for every record on its way. There are no lock, no lists and no
receipt until somebody asks for them, and nothing but the future itself that the garbage collector
has to walk. Half of the cost of sending was its walking.

Invariants:
* ``_condition`` is made under ``_making``, and so is every step from one state to the next as long
  as there is none. So whoever has made it sees each later step under it, and misses none. It is
  for ``concurrent.futures.wait`` and its like alone.
* A step out of ``_PENDING`` is made under ``_making``. Nothing is called while that is held.
* A callback is called once, by whoever takes it out of ``_done_callbacks``.
* A receipt is the ``_index``th of ``_batch``, which all records of a batch share."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final

from minilog_client.connection.loop_thread import LoopThread
from minilog_client.producer.receipts import BatchReceipt, Receipt

_PENDING: Final = "PENDING"
_RUNNING: Final = "RUNNING"
_FINISHED: Final = "FINISHED"
_CANCELLED: Final = "CANCELLED"
_ALL_CANCELLED: Final = (_CANCELLED, "CANCELLED_AND_NOTIFIED")
_making = threading.Lock()
_log: Final = logging.getLogger("minilog_client")


def _on_forked() -> None:
    """A thread that was not copied may have held it."""
    global _making
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_on_forked)


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
    __slots__ = (
        "_batch",
        "_done_callbacks",
        "_exception",
        "_index",
        "_made",
        "_state",
        "_thread",
        "_waiters",
        "is_looked_at",
    )
    _done_callbacks: list[Callable[..., object]]
    _waiters: list[Any]
    _state: str
    _exception: BaseException | None

    def __init__(self, thread: LoopThread) -> None:
        """Not that of ``Future``, which makes a lock and two lists."""
        self._thread = thread
        self._state = _PENDING
        self._exception = None
        self._made: _Condition | None = None
        self._batch: BatchReceipt | None = None
        self.is_looked_at = False
        """Somebody waits for it, or has something called when it is settled."""

    @property
    def _condition(self) -> _Condition:  # type: ignore[override]  # asked by Future and by concurrent.futures.wait
        if self._made is None:
            made = _Condition()
            with _making:
                if self._made is None:
                    self._waiters, self._done_callbacks = [], []
                    self._made = made
        return self._made

    @property
    def _result(self) -> Receipt | None:  # type: ignore[override]  # asked by Future
        return None if self._batch is None else self._batch.receipt(self._index)

    # --- in the application's threads -------------------------------------------------------------

    def done(self) -> bool:
        return self._state == _FINISHED or self._state in _ALL_CANCELLED

    def running(self) -> bool:
        return self._state == _RUNNING

    def cancelled(self) -> bool:
        return self._state in _ALL_CANCELLED

    def result(self, timeout: float | None = None) -> Receipt:
        """An error is that of all records of its batch: without the lines where others raised
        it."""
        self._wait(timeout)
        if self._batch is not None:
            return self._batch.receipt(self._index)
        error = self.exception()
        assert error is not None, "what is done has a receipt or an error"
        raise error.with_traceback(None)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._wait(timeout)
        if self.cancelled():
            raise CancelledError
        return self._exception

    def cancel(self) -> bool:
        is_mine = False
        with _making:
            if self._state == _PENDING:
                self._state, is_mine = _CANCELLED, True
        if is_mine and self._made is not None:
            self._invoke_callbacks()
        return self.cancelled()

    def add_done_callback(self, fn: Callable[[Future[Receipt]], object]) -> None:
        self.is_looked_at = True
        _ = self._condition  # so there is a list of them
        self._done_callbacks.append(fn)
        if self.done():  # whoever has settled it meanwhile may not have seen this one
            self._invoke_callbacks()

    def _wait(self, timeout_s: float | None) -> None:
        self.is_looked_at = True
        if self.done():
            return
        self._thread.check_own()
        self._thread.check_not_inside()
        told: SimpleQueue[object] = SimpleQueue()
        self.add_done_callback(told.put)
        try:
            told.get(timeout=None if timeout_s is None else max(0, timeout_s))
        except Empty:
            with suppress(ValueError):  # it is settled just now
                self._done_callbacks.remove(told.put)
            raise TimeoutError from None

    # --- in the loop's thread ---------------------------------------------------------------------

    def take(self) -> bool:
        """From now on it cannot be cancelled. False: it was."""
        with _making:
            if self._state == _PENDING:
                self._state = _RUNNING
        if self._state == _RUNNING:
            return True
        self.set_running_or_notify_cancel()
        if self._made is not None:  # whoever has cancelled it may have been interrupted before he told
            self._invoke_callbacks(BaseException)
        return False

    def acknowledge(self, batch: BatchReceipt, index: int) -> None:
        """Its record is the ``index``th of ``batch``."""
        self._batch, self._index = batch, index
        self._finish()

    def set_exception(self, exception: BaseException | None) -> None:
        self._exception = exception
        self._finish()

    def _finish(self) -> None:
        """What it ended with was noted before, so whoever sees the state sees that too."""
        with _making:
            if self._made is None:
                self._state = _FINISHED
                return
        with self._made:
            self._state = _FINISHED
            for waiter in self._waiters:
                (waiter.add_result if self._exception is None else waiter.add_exception)(self)
        self._invoke_callbacks(BaseException)

    def _invoke_callbacks(self, caught: type[BaseException] = Exception) -> None:
        """In any thread. Nothing that an application's callback raises goes further: others are to
        be told yet. The loop's thread does not end for any of it."""
        while self._done_callbacks:
            with suppress(IndexError):  # another thread, or who gives up waiting, has taken the last
                callback = self._done_callbacks.pop(0)
                try:
                    callback(self)
                except caught:
                    _log.exception("a callback of a record's future has raised")
