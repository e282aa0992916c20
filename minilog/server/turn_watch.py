"""The watchdog of turns (R42): names each event that held the loop for longer than a turn may take.

While a turn runs no heartbeat is answered and nobody is served. So a turn that takes long is a
fault, and who was to blame is said, once for each kind in a while. How late each tick is shows what
held the loop besides turns.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from minilog.server.durations import Durations

LONG_TURN_MS: Final = 50
FELT_TURN_MS: Final = 250
"""So long a turn makes heartbeats late."""
TOLD_EVERY_S: Final = 10.0

log = logging.getLogger("minilog")


class TurnWatch:
    def __init__(self, tell: Callable[[str], None] = lambda sentence: None) -> None:
        """``tell``: of turns that others have felt, beside the log."""
        self._tell = tell
        self.long_turns: Counter[str] = Counter()
        """By the name of the event."""
        self.longest_s = 0.0
        self.turns = Durations()
        self.ticks = Durations()
        """How late each one was."""
        self._told_s: dict[str, float] = {}

    def on_turn(self, handler: Any, event: tuple[Any, ...], began_s: float, ended_s: float) -> None:
        took_s = ended_s - began_s
        self.turns.observe(took_s)
        if took_s <= self.longest_s and took_s * 1000 <= LONG_TURN_MS:
            return
        self.longest_s = max(self.longest_s, took_s)
        if took_s * 1000 <= LONG_TURN_MS:
            return
        name = _name_of(handler, event)
        self.long_turns[name] += 1
        if ended_s >= self._told_s.get(name, 0.0):
            self._told_s[name] = ended_s + TOLD_EVERY_S
            sentence = f"a turn took {took_s * 1000:.0f} ms (at most {LONG_TURN_MS} are meant): {name}"
            log.warning("%s, %d times so far", sentence, self.long_turns[name])
            if took_s * 1000 >= FELT_TURN_MS:
                self._tell(sentence)


def _name_of(handler: Any, event: tuple[Any, ...]) -> str:
    """What was called, and the kind of message it was about."""
    kinds = [type(part).__name__ for part in event if hasattr(part, "__struct_fields__")]
    return " ".join([getattr(handler, "__name__", str(handler)), *kinds[:1]])
