"""Records to stdout, as what it is: a pipe whose reader may leave or stop reading, in a process
that is sent signals.

* A reader that has left is noticed also while there is nothing to write, so that no member of a
  group stays behind ``head``. It ends the command like a failed write does.
* SIGINT and SIGTERM cancel what is running. It may still commit and leave. A write that is stuck,
  because nobody reads and the pipe is full, is broken off instead: what was not printed as a whole
  does not count as printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import select
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable
from types import FrameType
from typing import Any, BinaryIO, Generic, TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A signal came in the middle of a write."""


class RecordPrinter(Generic[T]):
    def __init__(self, show: Callable[[T], bytes], out: BinaryIO | None = None) -> None:
        """``out``: stdout unless given."""
        self._show = show
        self._out: BinaryIO = sys.stdout.buffer if out is None else out
        self.is_writing = False

    def print(self, records: Iterable[T]) -> None:
        """All of them are with the reader, or in the pipe to it, when this returns. Raises
        BrokenPipeError, Stopped."""
        lines = [self._show(record) for record in records]
        if not lines:
            self.check_reader()
            return
        self.is_writing = True
        try:
            self._out.writelines(lines)
            self._out.flush()
        finally:
            self.is_writing = False

    def abandon(self) -> None:
        """Forget what could not be written, so that nothing waits for it at exit."""
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())

    def check_reader(self) -> None:
        """Raises BrokenPipeError when stdout is a pipe or socket that nobody will read from any
        more."""
        with contextlib.suppress(io.UnsupportedOperation, ValueError):
            poll = select.poll()
            poll.register(self._out.fileno(), 0)
            if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
                raise BrokenPipeError("the reader of stdout is gone")


def run_until_signal(work: Coroutine[Any, Any, None], printer: RecordPrinter[Any]) -> None:
    """Carry out ``work`` to its end, or until SIGINT or SIGTERM cancel it. Neither is an error."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        asyncio.run(_with_signals(work, printer))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return
    except Stopped:
        printer.abandon()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _with_signals(work: Coroutine[Any, Any, None], printer: RecordPrinter[Any]) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if printer.is_writing:
            raise Stopped
        loop.call_soon_threadsafe(task.cancel)

    for number in SIGNALS:
        signal.signal(number, on_signal)
    await task
