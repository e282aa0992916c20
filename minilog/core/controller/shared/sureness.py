"""How sure a controller is that it still decides (R124).

Whoever takes the term may do so at any moment (R120), and only etcd tells the one that is deposed.
What that one writes is refused. But brokers take each of its answers for proof that nobody else
decides: leaders take writes (R30), coordinators answer (R84, R91). So an answer needs a term that
was held a moment ago, by etcd's word on a question that was asked no longer than SURE_MS ago. And a
controller that begins to decide gives brokers SURE_MS more than a session to be heard: until then
they may have been answered by the one before.

Without etcd nobody can take the term. So who hears nothing of etcd goes on while others that stand
by say the same of themselves. Otherwise an outage of etcd would end the data path. Two controllers
that etcd does not reach, while it reaches a third one, take each other's word in vain: run them, as
etcd's members, in different places.
"""

from __future__ import annotations

from typing import Final

SURE_MS: Final = 1500
DEAF_MS: Final = 500
"""A standby that has not seen etcd for so long does not reach it: it looks ten times a second."""


class Sureness:
    def __init__(self) -> None:
        self._sure_ms = 0
        """Until when it is sure."""

    def on_held(self, asked_ms: int) -> None:
        """Etcd has said that the term was held. It was when that was asked, at the earliest."""
        self._sure_ms = max(self._sure_ms, asked_ms + SURE_MS)

    def on_standby(self, looked_ms_ago: int, now_ms: int) -> None:
        """One that stands by, and knows of no other term, asks. Its last look into etcd was so long
        ago."""
        if looked_ms_ago >= DEAF_MS:
            self.on_held(now_ms)

    def is_sure(self, now_ms: int) -> bool:
        return now_ms < self._sure_ms
