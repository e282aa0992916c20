"""Turns: in which order those that wait go on, by sender, and who is refused (R45).

Each *sender*, a client and a kind of request, has a queue of its own, and the senders take turns:
whoever sends much waits behind itself. Who waits too long makes its sender's newer ones be refused:
they would wait as long, and be answered to nobody. Nothing of a refused one was done.

Invariant: who waits goes on before whoever comes later from the same sender.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

W = TypeVar("W")
Sender = tuple[str, str]


class Turns(Generic[W]):
    def __init__(self, wait_max_ms: int) -> None:
        self._wait_max_ms = wait_max_ms
        self._queues: OrderedDict[Sender, deque[tuple[float, W]]] = OrderedDict()
        """Whose turn is next comes first. None is empty."""

    def __bool__(self) -> bool:
        """Somebody waits."""
        return bool(self._queues)

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def take(self, waiter: W, sender: Sender, now_ms: float) -> bool:
        """Wait behind the others of ``sender``. False: it is refused."""
        queue = self._queues.get(sender)
        if queue is not None and now_ms - queue[0][0] > self._wait_max_ms:
            return False
        self._queues.setdefault(sender, deque()).append((now_ms, waiter))
        return True

    def next(self) -> W:
        """Who goes on now. Somebody waits."""
        sender, queue = self._queues.popitem(last=False)
        _, waiter = queue.popleft()
        if queue:
            self._queues[sender] = queue
        return waiter
