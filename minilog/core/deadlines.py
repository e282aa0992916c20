"""Deadlines: a broker's queue of what expires when. Nothing waits without one (R34)."""

from __future__ import annotations

from collections.abc import Iterator

from sortedcontainers import SortedDict


class Deadlines:
    """Parked requests by (deadline_ms, request id)."""

    def __init__(self) -> None:
        self._by_deadline: SortedDict[tuple[int, int], object] = SortedDict()

    def add(self, deadline_ms: int, request_id: int, parked: object) -> None:
        self._by_deadline[(deadline_ms, request_id)] = parked

    def remove(self, deadline_ms: int, request_id: int) -> None:
        self._by_deadline.pop((deadline_ms, request_id), None)

    def expire(self, now_ms: int) -> Iterator[object]:
        """Pop and yield everything whose deadline has come."""
        while self._by_deadline and self._by_deadline.keys()[0][0] <= now_ms:
            yield self._by_deadline.popitem(0)[1]

    def __len__(self) -> int:
        return len(self._by_deadline)
