"""The one way to stop: loops end by themselves, threads are waited for, only a recovery is left
behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import pytest

from minilog.server.background import Stop, Stopped, first_of, in_daemon_thread
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
        stop, gate = asyncio.Event(), threading.Event()
        assert await in_daemon_thread(lambda: 7, "quick") == 7
        with pytest.raises(ValueError, match="slow"):
            await in_daemon_thread(lambda: int("slow"), "raising")
        slow = in_daemon_thread(gate.wait, "slow")
        stop.set()
        assert not await first_of(slow, stop)
        gate.set()
        assert await first_of(slow, asyncio.Event())
        abandoned = in_daemon_thread(gate.wait, "abandoned")
        abandoned.cancel()  # as the end of the loop does

    asyncio.run(main())


def test_how_a_thread_that_was_left_behind_ends_is_nobodys_error() -> None:
    reported: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        left = in_daemon_thread(lambda: int("slow"), "left behind")
        await until(left.done)
        del left
        gc.collect()

    asyncio.run(main())
    assert not reported
