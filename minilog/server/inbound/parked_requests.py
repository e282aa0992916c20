"""Requests that have no answer yet, by the number that the core knows them by.

Invariants: each is answered once, or its caller is cancelled, and then the core hears of that once
(R34). An answer that nobody waits for any more is counted and dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from minilog.wire.messages import Message


class ParkedRequests:
    def __init__(self) -> None:
        self.total = 0
        """How many there have been."""
        self.unclaimed = 0
        self.disconnects = 0
        self._loop = asyncio.get_running_loop()
        self._parked: dict[int, asyncio.Future[Message]] = {}

    def __len__(self) -> int:
        return len(self._parked)

    def park(self) -> tuple[int, asyncio.Future[Message]]:
        """A new number, counted from 1, and what its answer will be set on."""
        self.total += 1
        answered: asyncio.Future[Message] = self._loop.create_future()
        self._parked[self.total] = answered
        return self.total, answered

    async def wait(self, request_id: int, answered: asyncio.Future[Message], on_left: Callable[[int], None]) -> Message:
        """The answer. ``on_left`` is told in the very turn in which the caller is cancelled before
        there is one."""
        try:
            return await answered
        except asyncio.CancelledError:
            if self._parked.pop(request_id, None) is not None:
                self.disconnects += 1
                on_left(request_id)
            raise

    def resolve(self, request_id: int, response: Message) -> bool:
        answered = self._parked.pop(request_id, None)
        if answered is None or answered.done():
            self.unclaimed += 1
            return False
        answered.set_result(response)
        return True

    def resolve_all(self, response: Message) -> None:
        for request_id in list(self._parked):
            self.resolve(request_id, response)
