"""Backlog: the groups that have not been looked at since the topics changed, in the order in which
they will be.

Invariant: a group that cannot be written comes last and later, so it keeps no other from being
looked at. What keeps everything from being written stops the round for a moment, for every attempt
costs as much as a success.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from minilog.core.groups.sessions import GROUPS_PER_TICK_MAX

NAMES_PER_TICK_MAX = 20_000
"""When so many names of topics were compared with patterns the other groups wait for the next
tick."""


class Backlog:
    def __init__(self) -> None:
        self._groups: OrderedDict[str, int] = OrderedDict()
        """When each is looked at, at the earliest. It never decreases."""
        self._retry_ms = 0

    def fill(self, names: Iterable[str]) -> None:
        self._groups = OrderedDict.fromkeys(names, 0)

    def postpone(self, name: str, retry_ms: int, *, is_alone: bool) -> None:
        self._groups[name] = retry_ms
        self._groups.move_to_end(name)
        if not is_alone:
            self._retry_ms = retry_ms

    def due(self, now_ms: int, work: Callable[[], int]) -> Iterator[str]:
        """As many as a tick allows. ``work``: how many names were compared so far."""
        looked_at_end = work() + NAMES_PER_TICK_MAX
        for _ in range(min(len(self._groups), GROUPS_PER_TICK_MAX)):
            name, due_ms = next(iter(self._groups.items()))
            if now_ms < max(due_ms, self._retry_ms) or work() >= looked_at_end:
                return
            del self._groups[name]
            yield name
