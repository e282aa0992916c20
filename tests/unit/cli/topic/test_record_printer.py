"""Records into pipes, and what signals and readers that leave do to that."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import Iterator

import pytest

from minilog.cli.topic.record_printer import RecordPrinter, run_until_signal


def show(record: int) -> bytes:
    return b"%d\n" % record


@pytest.fixture(autouse=True)
def _same_handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    yield
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_records_are_written_before_print_returns() -> None:
    out = io.BytesIO()
    printer = RecordPrinter(show, out)
    printer.print([1, 2])
    printer.print([])
    assert out.getvalue() == b"1\n2\n"


def test_a_reader_that_leaves_is_noticed_without_a_write() -> None:
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "wb") as out:
        printer = RecordPrinter(show, out)
        printer.print([])
        os.close(ours)
        with pytest.raises(BrokenPipeError):
            printer.print([])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_and_lets_the_work_finish_up(number: signal.Signals) -> None:
    said: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            said.append("committed")
            raise

    run_until_signal(work(), RecordPrinter(show, io.BytesIO()))
    assert said == ["committed"]


class Stuck(io.BytesIO):
    """A pipe that is full: a write would wait for ever, were it not for a signal."""

    def flush(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal did not break off the write")


def test_a_write_that_is_stuck_is_broken_off() -> None:
    said: list[str] = []

    async def work() -> None:
        try:
            printer.print([1])
            said.append("printed")
        finally:
            said.append("left")

    printer = RecordPrinter(show, Stuck())
    run_until_signal(work(), printer)
    assert said == ["left"]


def test_errors_come_through() -> None:
    async def work() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_until_signal(work(), RecordPrinter(show, io.BytesIO()))
