"""The thread of a loop: no caller waits for what runs no more."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from minilog.errors import ClientClosed
from minilog_client.connection.loop_thread import LoopThread


async def for_ever() -> None:
    await asyncio.Event().wait()


def test_a_call_that_comes_while_tasks_are_cancelled_is_refused() -> None:
    thread = LoopThread("ending")
    refused: list[bool] = []

    def call() -> None:
        with pytest.raises(ClientClosed):
            thread.run(for_ever())
        refused.append(True)

    late = threading.Thread(target=call, daemon=True)

    async def cancelled_last() -> None:
        try:
            await for_ever()
        finally:
            late.start()
            late.join(1)

    running = thread.submit(cancelled_last())
    thread.call(lambda: None)  # so it has begun
    thread.stop()
    late.join(1)
    assert refused == [True]
    with pytest.raises(ClientClosed):
        thread.result(running)


def test_work_that_tasks_leave_behind_ends_with_the_thread() -> None:
    thread = LoopThread("ending")

    async def is_stubborn() -> None:
        try:
            await for_ever()
        except asyncio.CancelledError:
            asyncio.get_running_loop().stop()
            await for_ever()

    running = thread.submit(is_stubborn())
    thread.call(lambda: None)
    thread.stop()
    with pytest.raises(ClientClosed):
        running.result(0)


def test_a_task_that_does_not_let_itself_be_cancelled_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("minilog_client.connection.loop_thread._END_S", 0.05)
    has_begun = threading.Event()

    async def swallows() -> None:
        has_begun.set()
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await for_ever()

    thread = LoopThread("test")
    future = thread.submit(swallows())
    assert has_begun.wait(5)
    thread.stop()
    assert isinstance(future.exception(1), ClientClosed)
    assert "left behind" in caplog.text


def test_the_end_comes_whatever_belongs_to_it_raises(caplog: pytest.LogCaptureFixture) -> None:
    thread, ends = LoopThread("ending"), list[str]()

    def fails() -> None:
        raise ValueError("a fault")

    thread.before_end(fails)
    thread.before_end(lambda: ends.append("before"))
    thread.at_end(fails)
    thread.at_end(lambda: ends.append("after"))
    stopping = threading.Thread(target=thread.stop, daemon=True)
    stopping.start()
    stopping.join(5)
    assert (stopping.is_alive(), ends, thread.loop.is_closed()) == (False, ["before", "after"], True)
    assert caplog.text.count("ValueError: a fault") == 2


def test_stopping_twice_is_well_and_what_is_for_the_end_happens_once() -> None:
    thread = LoopThread("ending")
    ends: list[str] = []
    thread.at_end(lambda: ends.append("first"))
    stoppers = [threading.Thread(target=thread.stop) for _ in range(4)]
    for stopper in stoppers:
        stopper.start()
    for stopper in stoppers:
        stopper.join(5)
    thread.at_end(lambda: ends.append("late"))
    assert ends == ["first", "late"]
    with pytest.raises(ClientClosed):
        thread.post(ends.clear)
