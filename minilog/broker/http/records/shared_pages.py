"""Shared pages: what many live tails of a partition are sent is made once, not for each of them.

A page is known by what it was made of: the very bytes of its batches, and how they are shown. So
nobody gets records of an epoch that is over, whatever else has the same offsets by now. Only small
pages are kept, a few of them: tails that keep up ask for the same ones at the same moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, NamedTuple

from minilog.broker.http.records.record_page import Page
from minilog.config import KIB

PAGES_MAX: Final = 32
BYTES_MAX: Final = 256 * KIB
"""Of the batches of a page that is shared."""
Made = tuple[Page, bytes]


class _Shared(NamedTuple):
    batches: memoryview
    made: asyncio.Future[Made]


class SharedPages:
    def __init__(self) -> None:
        self._pages: dict[Hashable, _Shared] = {}

    async def get(self, shown: Hashable, batches: memoryview, make: Callable[[], Awaitable[Made]]) -> Made:
        """The page that ``make`` makes of ``batches``. ``shown``: all else that it depends on.
        Raises what ``make`` raises."""
        known = self._pages.get(shown)
        if known is not None and known.batches == batches:
            await asyncio.wait([known.made])
            if not known.made.cancelled():
                return known.made.result()
        if not 0 < len(batches) <= BYTES_MAX:
            return await make()
        shared = _Shared(batches, asyncio.get_running_loop().create_future())
        self._put(shown, shared)
        try:
            made = await make()
        except BaseException:  # whoever waits for it makes its own
            shared.made.cancel()
            if self._pages.get(shown) is shared:
                del self._pages[shown]
            raise
        shared.made.set_result(made)
        return made

    def _put(self, shown: Hashable, shared: _Shared) -> None:
        self._pages.pop(shown, None)
        while len(self._pages) >= PAGES_MAX:
            del self._pages[next(iter(self._pages))]
        self._pages[shown] = shared
