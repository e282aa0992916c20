"""Gate: which requests of clients go on in this round of the loop, which wait, and which are
refused (R45).

One round handles all that has arrived. Without a bound, a thousand reads that come together hold up
every heartbeat, for each of them is a turn. So a *slice* of a round is for requests of clients. Who
comes when that is over waits for a later round, and senders take turns (``turns.py``).

Invariants: who waits goes on before whoever comes later. A slice lets one go on at least, so the
gate never closes.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Generic, TypeVar

from minilog.core.turns import Sender, Turns

SLICE_MS: Final = 20.0
"""Of one round. A request that has begun is not interrupted."""
RELEASED_MAX: Final = 256

W = TypeVar("W")


class Passage(Enum):
    GO = "go"
    WAIT = "wait"
    REFUSED = "refused"


class Gate(Generic[W]):
    def __init__(self, wait_max_ms: int) -> None:
        self._began_ms = 0.0
        self._release = 1
        """How many that wait a slice is thought to have time for."""
        self._turns: Turns[W] = Turns(wait_max_ms)

    def __bool__(self) -> bool:
        """Somebody waits."""
        return bool(self._turns)

    def __len__(self) -> int:
        return len(self._turns)

    def begin(self, now_ms: float) -> list[W]:
        """A round begins. Who of those that wait goes on in it."""
        took_ms, self._began_ms = now_ms - self._began_ms, now_ms
        if took_ms > SLICE_MS:
            self._release = max(1, self._release // 2)
        else:
            self._release = min(RELEASED_MAX, self._release + max(1, self._release // 4))
        return [self._turns.next() for _ in range(self._release) if self._turns]

    def arrive(self, waiter: W, sender: Sender, now_ms: float) -> Passage:
        if not self._turns and now_ms - self._began_ms < SLICE_MS:
            return Passage.GO
        return Passage.WAIT if self._turns.take(waiter, sender, now_ms) else Passage.REFUSED
