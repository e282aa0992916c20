"""Which of several controllers this broker asks.

One of them decides. The others say NOT_CONTROLLER and, as far as they know, who does. The broker
asks the one that answered last. When that one gives no answer the next is asked after NEXT_MS, and
from the second round on after a pause that doubles.

What a standby says is a hint, followed only to an address of the settings, and not to one that gave
no answer in this search: a standby names the dead one for a while. Safety rests on the controller
epoch (R25) whomever is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from minilog.errors import BrokerUnavailable, MinilogError, NotController, TimedOut

NEXT_MS: Final = 20
PAUSE_MAX_MS: Final = 200
STANDBY: Final = "standby"
"""Of NOT_CONTROLLER: ``info`` says that it comes from a standby. One that has just started to
decide says it without."""


class Controllers:
    def __init__(self, urls: Sequence[str]) -> None:
        assert urls, "a broker has a controller"
        self._urls = list(urls)
        self._at = 0
        self._failures = 0
        self._silent: set[str] = set()

    @property
    def url(self) -> str:
        return self._urls[self._at]

    @property
    def are_several(self) -> bool:
        return len(self._urls) > 1

    def on_answered(self) -> None:
        self._failures = 0
        self._silent.clear()

    def on_failed(self, error: MinilogError | None) -> int | None:
        """How long to wait before the next is asked; None: the same one is asked, as ever.
        ``error`` None: a controller whose epoch is over has answered."""
        if not self.are_several or not _tells_of_another(error):
            return None
        self._failures += 1
        hint = error.info.get("url") if isinstance(error, NotController) else None
        if not isinstance(error, NotController):
            self._silent.add(self.url)
        if hint in self._urls and hint not in self._silent and hint != self.url:
            self._at = self._urls.index(hint)
        else:
            self._at = (self._at + 1) % len(self._urls)
        rounds, place = divmod(self._failures, len(self._urls))
        if place == 0:
            self._silent.clear()
        return min(PAUSE_MAX_MS, NEXT_MS << max(0, min(rounds - 1, 10)))


def _tells_of_another(error: MinilogError | None) -> bool:
    match error:
        case None | BrokerUnavailable() | TimedOut():
            return True
        case NotController():
            return bool(error.info.get(STANDBY))
    return False
