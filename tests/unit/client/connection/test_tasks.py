"""Tasks that one object owns; time is virtual."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from minilog_client.connection.tasks import TaskScope
from tests.unit.client.virtual_time import run


def test_a_loop_that_is_kept_up_begins_again_after_a_fault_and_ends_when_it_returns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun: list[float] = []

    async def loop() -> None:
        begun.append(asyncio.get_running_loop().time())
        if len(begun) < 3:
            raise RuntimeError("a fault")

    async def main() -> None:
        tasks = TaskScope("test")
        await tasks.keep_up(loop)
        await tasks.aclose()

    run(main())
    assert [round(later - earlier) for earlier, later in pairwise(begun)] == [1, 1]
    assert caplog.text.count("begins again") == 2


def test_closing_ends_a_loop_that_is_kept_up() -> None:
    async def fails() -> None:
        raise RuntimeError("a fault")

    async def main() -> None:
        tasks = TaskScope("test")
        task = tasks.keep_up(fails)
        await asyncio.sleep(10)
        await tasks.aclose()
        assert task.cancelled()

    run(main())
