"""World: one thread, one virtual clock, one heap of what happens next, everything drawn from one
seed.

Invariants: an event runs at the virtual time it was put at and in the order it was put there.
Nothing in the simulation reads a clock, the environment or a hash order. So a seed replays bit for
bit, which ``digest`` proves: it folds in (time, label) of every event that ran.

Model: TigerBeetle's VOPR and Kafka's RaftEventSimulationTest.
"""

from __future__ import annotations

import heapq
import zlib
from collections import deque
from collections.abc import Callable
from random import Random
from typing import NamedTuple

START_MS = 1_000_000
TRACE_EVENTS = 50
TRACE_KEPT = 300
IDLE = (" tick", " beat", " poll", "expire", "faults")
"""How labels end of events that say nothing to a reader. What comes of them is a line of its
own."""
SAME_MS_EVENTS_MAX = 5000
"""More events than this in one millisecond are a loop without end."""
DETAIL_CHARS = 400

Action = Callable[[], None]


class Violation(AssertionError):
    """A named invariant does not hold."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name


class Event(NamedTuple):
    time_ms: int
    sequence: int
    label: str
    detail: object
    action: Action


class World:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_ms = START_MS
        self.events = 0
        self.digest = 0
        self.trace: deque[Event] = deque(maxlen=TRACE_KEPT)
        self._heap: list[Event] = []
        self._sequence = 0
        self._same_ms = 0

    def rng(self, purpose: str) -> Random:
        """A generator of its own for each purpose, so that one more draw here changes nothing
        there."""
        return Random(f"{self.seed}/{purpose}")

    def after(self, delay_ms: int, label: str, action: Action, detail: object = None) -> None:
        assert delay_ms >= 0
        self._sequence += 1
        heapq.heappush(self._heap, Event(self.now_ms + delay_ms, self._sequence, label, detail, action))

    def note(self, label: str, detail: object = None) -> None:
        """Something for the trace that is no event of its own."""
        self.trace.append(Event(self.now_ms, 0, label, detail, _nothing))

    def step(self) -> None:
        event = heapq.heappop(self._heap)
        assert event.time_ms >= self.now_ms, "time went back"
        self._same_ms = self._same_ms + 1 if event.time_ms == self.now_ms else 0
        if self._same_ms > SAME_MS_EVENTS_MAX:
            raise Violation("Livelock", f"{self._same_ms} events within one ms, now {event.label}")
        self.now_ms = event.time_ms
        self.events += 1
        self.digest = zlib.crc32(b"%d %s" % (event.time_ms, event.label.encode()), self.digest)
        self.trace.append(event)
        event.action()

    def run_for(self, duration_ms: int) -> None:
        end_ms = self.now_ms + duration_ms
        while self._heap and self._heap[0].time_ms <= end_ms:
            self.step()
        self.now_ms = end_ms

    def run_until(self, condition: Callable[[], bool], what: str, within_ms: int) -> int:
        """Run until ``condition`` holds and return how long it took; looked at every 5 ms of
        virtual time."""
        start_ms = self.now_ms
        while not condition():
            if self.now_ms - start_ms >= within_ms:
                raise Violation("Progress", f"{what}: not within {within_ms} ms")
            self.run_for(5)
        return self.now_ms - start_ms

    def trace_lines(self) -> list[str]:
        """The last events that mean something, one line each."""
        return [_line(event) for event in self.trace if not event.label.endswith(IDLE)][-TRACE_EVENTS:]


def _nothing() -> None: ...


def _line(event: Event) -> str:
    detail = "" if event.detail is None else f" {event.detail}"
    if len(detail) > DETAIL_CHARS:
        detail = detail[:DETAIL_CHARS] + "..."
    return f"{event.time_ms - START_MS:>8} ms  {event.label}{detail}"
