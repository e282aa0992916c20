"""The catalogue: the names of the topics there are, and which of them fit which pattern.

Owns what has been looked at. Whether a name fits a pattern never changes, so each is looked at once
for a pattern: a look goes on where the last one ended, with the names that are new since.

Invariants
* ``fitting`` answers for exactly the names there are now, in their order.
* A look costs a bounded number of steps (pattern.py) and a look-up per character of the new names.
  A pattern that takes more fits nothing from then on, and ``check`` says so to whoever subscribes
  with it: what is decided without a request to refuse, when time or topics demand it, must not
  fail.
* At most LOOKS_MAX patterns are remembered. The one that was asked for the longest ago goes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from minilog.core.groups.pattern import Pattern
from minilog.errors import InvalidRequest

LOOKS_MAX: Final = 1000
NEWS_MIN: Final = 1000


class _Look:
    """What is known of one pattern. ``seen``: how much of the news it has looked at. ``refusal``:
    why it fits nothing."""

    __slots__ = ("names", "pattern", "refusal", "seen", "version")

    def __init__(self, text: str) -> None:
        self.names: list[str] = []
        self.seen, self.version = 0, -1
        self.refusal: InvalidRequest | None = None
        self.pattern: Pattern | None = None
        try:
            self.pattern = Pattern(text)
        except InvalidRequest as error:
            self.refusal = error


class Catalogue:
    def __init__(self) -> None:
        self.names: set[str] = set()
        self.work = 0
        """Names looked at, ever: what this costs is a matter of these."""
        self._news: list[str] = []
        """Names in the order in which they came. One may have gone since, or have come again."""
        self._version = 0
        self._looks: dict[str, _Look] = {}

    def on_topics(self, names: Collection[str]) -> None:
        now = set(names)
        if now == self.names:
            return
        self._news += sorted(now - self.names)
        self.names = now
        self._version += 1
        if len(self._news) > 2 * len(now) + NEWS_MIN:
            self._news = sorted(now)
            self._looks.clear()

    def fitting(self, text: str) -> list[str]:
        """The names that the pattern fits. None for a pattern that cannot be used."""
        return self._look(text).names

    def check(self, text: str) -> None:
        """Raises InvalidRequest when the pattern cannot be used, or takes too long to tell what it
        fits."""
        refusal = self._look(text).refusal
        if refusal is not None:
            raise InvalidRequest(refusal.detail)

    def _look(self, text: str) -> _Look:
        look = self._looks.pop(text, None) or _Look(text)
        self._looks[text] = look  # the youngest is the last
        if len(self._looks) > LOOKS_MAX:
            del self._looks[next(iter(self._looks))]
        if look.pattern is not None and look.version != self._version:
            self._go_on(look, look.pattern)
        return look

    def _go_on(self, look: _Look, pattern: Pattern) -> None:
        self.work += len(self._news) - look.seen
        names = self.names
        try:
            came = {name for name in self._news[look.seen :] if name in names and pattern.fits(name)}
        except InvalidRequest as error:
            look.names, look.pattern, look.refusal = [], None, error
            return
        pattern.forget()
        look.names = sorted(came.union(name for name in look.names if name in names))
        look.seen, look.version = len(self._news), self._version
