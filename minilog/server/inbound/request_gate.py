"""RequestGate: the gate of clients' requests (``core/gate.py``), on the event loop.

A round of the loop begins where a callback that was asked for in the round before runs. While
nobody comes there is none, so an idle loop is not woken.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from typing import Final

from minilog.core.gate import Gate, Passage
from minilog.errors import Overloaded

CLIENT: Final[ContextVar[str]] = ContextVar("client", default="")
"""Whose request is handled, by its address. Each connection has a task of its own, which knows."""


def no_turn(kind: str, wait_max_ms: int) -> Overloaded:
    return Overloaded(
        f"{kind} requests of this client have waited here for more than {wait_max_ms} ms for their turn "
        "(limits.turn_wait_ms_max), so this newer one was not begun; retry later, or send less at a time"
    )


class RequestGate:
    def __init__(self, wait_max_ms: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._wait_max_ms = wait_max_ms
        self._gate: Gate[asyncio.Future[None]] = Gate(wait_max_ms)
        self._is_watching = False
        self._has_come = False
        """Somebody has, in this round."""
        self.refused = 0

    @property
    def waiting(self) -> int:
        return len(self._gate)

    def knock(self, kind: str) -> asyncio.Future[None] | None:
        """What the request has to wait for. None: it goes on now. Raises Overloaded."""
        now_ms = time.monotonic() * 1000
        self._has_come = True
        if not self._is_watching:
            self._is_watching = True
            self._gate.begin(now_ms)
            self._loop.call_soon(self._begin)
        turn: asyncio.Future[None] = self._loop.create_future()
        passage = self._gate.arrive(turn, (CLIENT.get(), kind), now_ms)
        if passage is Passage.REFUSED:
            self.refused += 1
            raise no_turn(kind, self._wait_max_ms)
        return turn if passage is Passage.WAIT else None

    def _begin(self) -> None:
        """A round of the loop begins."""
        self._is_watching = bool(self._gate) or self._has_come
        self._has_come = False
        if not self._is_watching:
            return
        self._loop.call_soon(self._begin)
        for turn in self._gate.begin(time.monotonic() * 1000):
            if not turn.done():
                turn.set_result(None)
