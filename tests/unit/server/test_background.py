"""The one way to stop: loops end by themselves, threads are waited for, only a recovery is left
behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import pytest

from minilog.server.background import Shared, Stop, Stopped, first_of, in_daemon_thread
from tests.unit.server.peer_server import until


def test_a_pause_ends_with_the_stop() -> None:
    async def main() -> None:
        stop = Stop()
        assert not await stop.pause(0.001)
        pausing = asyncio.create_task(stop.pause(60))
        await asyncio.sleep(0)
        stop.set()
        assert await pausing
        assert await stop.pause(60)

    asyncio.run(main())


def test_a_thread_that_holds_ends_with_the_stop() -> None:
    async def main() -> None:
        stop, begun = Stop(), threading.Event()

        def work() -> None:
            begun.set()
            stop.hold(60)

        working = asyncio.create_task(stop.in_thread(work))
        await until(begun.is_set)
        stop.set()
        with pytest.raises(Stopped):
            await working
        with pytest.raises(Stopped):
            stop.hold(0)

    asyncio.run(main())


def test_who_is_cancelled_tells_the_thread_and_waits_for_it() -> None:
    async def main() -> None:
        stop, begun, ended = Stop(), threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            try:
                stop.hold(60)
            finally:
                time.sleep(0.02)
                ended.set()

        working = asyncio.create_task(stop.in_thread(work))
        await until(begun.is_set)
        working.cancel()
        await asyncio.sleep(0)
        working.cancel()  # by whoever loses patience
        with pytest.raises(asyncio.CancelledError):
            await working
        assert stop.is_set
        assert ended.is_set()

    asyncio.run(main())


def test_a_daemon_thread_is_waited_for_or_not() -> None:
    async def main() -> None:
        stop, gate, used = asyncio.Event(), threading.Event(), Shared(lambda: None)
        assert await in_daemon_thread(lambda: 7, "quick", used) == 7
        with pytest.raises(ValueError, match="slow"):
            await in_daemon_thread(lambda: int("slow"), "raising", used)
        slow = in_daemon_thread(gate.wait, "slow", used)
        stop.set()
        assert not await first_of(slow, stop)
        gate.set()
        assert await first_of(slow, asyncio.Event())
        abandoned = in_daemon_thread(gate.wait, "abandoned", used)
        abandoned.cancel()  # as the end of the loop does

    asyncio.run(main())


def test_how_a_thread_that_was_left_behind_ends_is_nobodys_error() -> None:
    reported: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        left = in_daemon_thread(lambda: int("slow"), "left behind", Shared(lambda: None))
        await until(left.done)
        del left
        gc.collect()

    asyncio.run(main())
    assert not reported


@pytest.mark.parametrize("is_left", [True, False])
def test_what_a_daemon_thread_uses_is_released_once_by_whoever_ends_last(is_left: bool) -> None:
    gate, released = threading.Event(), threading.Event()
    by: list[str] = []

    def release() -> None:
        by.append(threading.current_thread().name)
        released.set()

    async def main() -> None:
        used = Shared(release)
        working = in_daemon_thread(gate.wait, "worker", used)
        if not is_left:
            gate.set()
            await working
        assert not by
        used.done()

    asyncio.run(main())
    gate.set()
    assert released.wait(10)
    assert by == ["worker" if is_left else "MainThread"]
