"""Events of the controller's own process: a turn that held everybody up, a slow journal. Its shell
sees them, and the next tick writes them down.

Invariant: what waits is bounded, and the oldest stay. The shell tells of one kind once in a while.
"""

from __future__ import annotations

from typing import Final

from minilog.wire.journal.events import Event
from minilog.wire.journal.metadata_records import EventNoted, MetadataRecord

WAITING_MAX: Final = 20


class OwnEvents:
    def __init__(self) -> None:
        self._waiting: list[Event] = []

    def add(self, event: Event) -> None:
        if len(self._waiting) < WAITING_MAX:
            self._waiting.append(event)

    def take(self) -> list[MetadataRecord]:
        waiting, self._waiting = self._waiting, []
        return [EventNoted(0, event) for event in waiting]
