"""A pool of lanes: calls of one purpose to one address, any number at a time, in no order.

A call takes a lane that is free, or a new one, or waits its turn. The first lane that is free takes
the call that has waited longest. What bounds a pool is ``lanes_max`` and how many bytes its
requests hold together (``bytes_max``; a single larger one goes alone). What was needed once costs
nothing for long: a lane that has nothing to do closes itself, and is forgotten.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from minilog.errors import Overloaded
from minilog.server.outbound.connection import Outcome
from minilog.server.outbound.peer_lane import QUEUE_MAX, Address, Call, PeerLane, timed_out


class Errand:
    """A call of a pool. ``on_outcome`` is called once, unless the errand is withdrawn before."""

    __slots__ = ("body", "call", "due_s", "lane", "on_outcome", "queued_s", "timeout_ms", "timer")

    def __init__(self, body: bytes, timeout_ms: int, on_outcome: Callable[[Outcome], None]) -> None:
        self.body = body
        self.timeout_ms = timeout_ms
        self.on_outcome = on_outcome
        self.queued_s = self.due_s = 0.0
        self.timer: asyncio.TimerHandle | None = None
        """Runs while the errand waits for a lane."""
        self.lane: PeerLane | None = None
        self.call: Call | None = None


class PeerPool:
    def __init__(
        self,
        address: Address,
        make_lane: Callable[[Callable[[PeerLane], None]], PeerLane],
        on_start: Callable[[float], None],
        on_empty: Callable[[], None],
        *,
        lanes_max: int,
        bytes_max: int,
    ) -> None:
        """``make_lane`` is given what the lane calls when it has closed itself. ``on_start`` is
        told how long an errand waited."""
        self._address = address
        self._make_lane = make_lane
        self._on_start = on_start
        self._on_empty = on_empty
        self._lanes_max = lanes_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Errand] = deque()
        self._free: list[PeerLane] = []
        self._busy: set[PeerLane] = set()

    def send(self, errand: Errand) -> None:
        """The outcome never comes from inside this method."""
        if len(self._waiting) >= QUEUE_MAX:
            error = Overloaded(f"{QUEUE_MAX} requests already wait for {self._address}")
            self._loop.call_soon(errand.on_outcome, error)
            return
        errand.queued_s = self._loop.time()
        errand.due_s = errand.queued_s + errand.timeout_ms / 1000
        errand.timer = self._loop.call_at(errand.due_s, self._expire, errand)
        self._waiting.append(errand)
        self._advance()

    def withdraw(self, errand: Errand) -> None:
        """The caller no longer wants the outcome. One already sent costs the connection."""
        if errand.lane is not None:
            assert errand.call is not None
            errand.lane.withdraw(errand.call)
            self._release(errand)
        elif errand in self._waiting:
            self._stop_waiting(errand)
            self._advance()

    def close(self) -> None:
        for errand in list(self._waiting):
            self._stop_waiting(errand)
        for lane in (*self._free, *self._busy):
            lane.close()

    def _advance(self) -> None:
        while self._waiting and self._has_room(self._waiting[0]):
            errand = self._waiting[0]
            self._stop_waiting(errand)
            self._go(errand, self._free.pop() if self._free else self._make_lane(self._on_idle))

    def _has_room(self, errand: Errand) -> bool:
        if not self._busy:
            return True
        return len(self._busy) < self._lanes_max and self._bytes + len(errand.body) <= self._bytes_max

    def _go(self, errand: Errand, lane: PeerLane) -> None:
        now_s = self._loop.time()
        self._on_start(now_s - errand.queued_s)
        left_ms = max(1, round((errand.due_s - now_s) * 1000))
        errand.lane = lane
        errand.call = Call(self._address, errand.body, left_ms, lambda outcome: self._settle(errand, outcome))
        self._busy.add(lane)
        self._bytes += len(errand.body)
        lane.send(errand.call)

    def _settle(self, errand: Errand, outcome: Outcome) -> None:
        self._release(errand)
        errand.on_outcome(outcome)

    def _release(self, errand: Errand) -> None:
        assert errand.lane is not None
        self._busy.remove(errand.lane)
        self._free.append(errand.lane)
        self._bytes -= len(errand.body)
        errand.lane = errand.call = None
        self._advance()

    def _expire(self, errand: Errand) -> None:
        self._stop_waiting(errand)
        self._advance()  # a smaller one behind it may have room
        why = "it was not sent: earlier requests are unanswered"
        errand.on_outcome(timed_out(self._address, errand.timeout_ms, why, definite=True))

    def _stop_waiting(self, errand: Errand) -> None:
        assert errand.timer is not None
        errand.timer.cancel()
        self._waiting.remove(errand)

    def _on_idle(self, lane: PeerLane) -> None:
        self._free.remove(lane)
        if not self._free and not self._busy:
            self._on_empty()
