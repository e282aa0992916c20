"""Who tells of a client: to its log, to its figures and to the observer of the application."""

from __future__ import annotations

import logging
from typing import Final

from minilog_client.observing.event_log import EventLog
from minilog_client.observing.events import ClientEvent, ClientObserver
from minilog_client.observing.figures import Counts

_log: Final = logging.getLogger("minilog_client")


class Teller:
    """Tells nobody before ``begin``."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._observers: list[ClientObserver] = []
        self._is_fault_told = False

    def begin(self, observer: ClientObserver | None) -> None:
        self._observers = [self.counts, EventLog(_log), *([] if observer is None else [observer])]

    def tell(self, event: ClientEvent) -> None:
        for observer in self._observers:
            try:
                observer.on_event(event)
            except Exception:  # the application's own
                if not self._is_fault_told:
                    self._is_fault_told = True
                    _log.exception("the observer of a client has raised, which is told once; the event was %r", event)
