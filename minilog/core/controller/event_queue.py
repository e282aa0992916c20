"""What waits for the controller to decide on it, and in which order it is decided (R24, R45).

Two lines. The *cluster's* is for what the cluster itself depends on: time, what brokers say and
answer, who has gone. The *clients'* is for all else, and in it clients take turns. One of a client
is followed by what of the cluster was there when it was taken. So brokers wait for one client at a
time, however many ask, and no client waits for ever.

Invariant: each line is decided in the order of receipt, the clients' for each client and kind of
request.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from minilog.core.turns import Sender, Turns

E = TypeVar("E")


class EventQueue(Generic[E]):
    def __init__(self, wait_max_ms: int) -> None:
        self._cluster: OrderedDict[int, E] = OrderedDict()
        self._clients: dict[int, E] = {}
        self._turns: Turns[int] = Turns(wait_max_ms)
        self._ahead = 0
        """How many of the cluster's go before the next one of a client."""
        self._number = 0

    def __bool__(self) -> bool:
        return bool(self._cluster or self._clients)

    def __len__(self) -> int:
        return len(self._cluster) + len(self._clients)

    def put(self, event: E) -> int:
        """One of the cluster's. The number it is known by for as long as it waits."""
        self._number += 1
        self._cluster[self._number] = event
        return self._number

    def put_client(self, event: E, sender: Sender, now_ms: float) -> int | None:
        """One of a client's, as ``put``. None: it is refused, because older ones of ``sender`` have
        waited for too long."""
        if not self._turns.take(self._number + 1, sender, now_ms):
            return None
        self._number += 1
        if not self._clients:
            self._ahead = len(self._cluster)
        self._clients[self._number] = event
        return self._number

    def replace(self, number: int, event: E) -> bool:
        """Let ``event`` have the place of the one that waits as ``number``. False: none does."""
        for line in (self._cluster, self._clients):
            if number in line:
                line[number] = event
                return True
        return False

    def pop(self) -> E:
        """Which is decided next. Something waits."""
        if self._clients and (self._ahead <= 0 or not self._cluster):
            self._ahead = len(self._cluster)
            return self._clients.pop(self._turns.next())
        self._ahead -= 1
        return self._cluster.popitem(last=False)[1]

    def clear(self) -> None:
        self._cluster.clear()
        while self._turns:
            del self._clients[self._turns.next()]
