"""What one thread waits for while another thread's loop carries it out.

The waiting thread may be interrupted at any line, by a signal handler that raises. So no lock
of Python is taken here: a ``Condition``, and so every ``concurrent.futures.Future``, can be left
locked by such a handler, and the loop's thread would stand still at it for ever. What crosses is a
queue whose steps cannot be cut in two."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

from minilog.errors import ClientClosed, InvalidRequest, MinilogError

T = TypeVar("T")
CLOSED_MEANWHILE: Final = "the client was closed while this call waited"
_OVERTAKEN: Final = "the same thread has begun another call meanwhile, as a signal's handler does"
_END: Final = object()


class Work(Generic[T]):
    """``make`` makes the coroutine, in the loop's thread. Beside the outcome, the loop's thread may
    ask the waiting one to ``carry_out`` something."""

    def __init__(
        self, make: Callable[[], Coroutine[Any, Any, T]], carry_out: Callable[[Any], None] | None = None
    ) -> None:
        self._make = make
        self._carry_out = carry_out
        self._queue: SimpleQueue[object] = SimpleQueue()
        self._task: asyncio.Task[T] | None = None
        self._is_given_up = False
        self.is_closing = False
        """Whoever cancels it ends the loop."""
        self._error: BaseException | None = None
        self._result: T | None = None

    # --- in the waiting thread --------------------------------------------------------------------

    def wait(self) -> T:
        """The outcome, once it is there."""
        while (asked := self._queue.get()) is not _END:
            assert self._carry_out is not None, "who asks for something knows that somebody carries it out"
            self._carry_out(asked)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._result  # type: ignore[return-value]  # there is one when there is no error

    # --- in the loop's thread ---------------------------------------------------------------------

    def ask(self, item: object) -> None:
        self._queue.put(item)

    def begin(self, on_end: Callable[[Work[Any]], object]) -> None:
        if self._is_given_up:
            on_end(self)
            return
        self._task = asyncio.get_running_loop().create_task(self._make())
        self._make = _made  # timers keep the context they were made in, and with it this object
        self._task.add_done_callback(lambda task: self._end(task, on_end))

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        self._is_given_up = True
        if self._task is not None:
            self._task.cancel()

    def fail(self, error: MinilogError) -> None:
        """It is not carried out to its end."""
        self._error = error
        self._queue.put(_END)

    def _end(self, task: asyncio.Task[T], on_end: Callable[[Work[Any]], object]) -> None:
        on_end(self)
        if task.cancelled():
            self._error = ClientClosed(CLOSED_MEANWHILE) if self.is_closing else InvalidRequest(_OVERTAKEN)
        elif (error := task.exception()) is not None:
            self._error = error
        else:
            self._result = task.result()
        self._queue.put(_END)


async def _made() -> Any:
    raise AssertionError("work is begun once")
