"""What many tails read is made once, of these very bytes, and nobody waits for a maker that left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from minilog.broker.http.records.record_page import Page
from minilog.broker.http.records.shared_pages import BYTES_MAX, PAGES_MAX, Made, SharedPages

FIRST, OTHER = memoryview(b"batches"), memoryview(b"another epoch's")


class Maker:
    def __init__(self) -> None:
        self.count = 0
        self.may_end = asyncio.Event()

    def make(self, body: bytes = b"text") -> Callable[[], Awaitable[Made]]:
        async def work() -> Made:
            self.count += 1
            await self.may_end.wait()
            return Page(1, 1), body

        return work


def run(check: Callable[[SharedPages, Maker], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(5):
            await check(SharedPages(), Maker())

    asyncio.run(main())


def test_what_many_ask_for_is_made_once() -> None:
    async def check(pages: SharedPages, maker: Maker) -> None:
        asked = [asyncio.create_task(pages.get("shown", memoryview(bytes(FIRST)), maker.make())) for _ in range(50)]
        await asyncio.sleep(0)
        maker.may_end.set()
        assert {body for _, body in await asyncio.gather(*asked)} == {b"text"}
        assert maker.count == 1

    run(check)


@pytest.mark.parametrize(("shown", "batches"), [("otherwise", FIRST), ("shown", OTHER)])
def test_other_bytes_and_another_form_are_another_page(shown: str, batches: memoryview) -> None:
    async def check(pages: SharedPages, maker: Maker) -> None:
        maker.may_end.set()
        await pages.get("shown", FIRST, maker.make())
        assert (await pages.get(shown, batches, maker.make(b"other")))[1] == b"other"

    run(check)


def test_whoever_waits_for_a_maker_that_left_makes_its_own() -> None:
    async def check(pages: SharedPages, maker: Maker) -> None:
        leaving, waiting = (asyncio.create_task(pages.get("shown", FIRST, maker.make())) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        maker.may_end.set()
        assert (await waiting)[1] == b"text"
        assert maker.count == 2

    run(check)


def test_few_and_small_pages_are_kept() -> None:
    async def check(pages: SharedPages, maker: Maker) -> None:
        maker.may_end.set()
        for number in range(PAGES_MAX + 1):
            await pages.get(number, FIRST, maker.make())
        await pages.get(0, FIRST, maker.make())
        large = memoryview(bytes(BYTES_MAX + 1))
        await pages.get("large", large, maker.make())
        await pages.get("large", large, maker.make())
        assert maker.count == PAGES_MAX + 4

    run(check)
