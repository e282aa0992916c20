"""Evening out: the loads of members of different subscriptions made as equal as these allow, by
moves along chains.

A *class* is all members of the same subscription: they may own the same partitions. A *kind* is all
topics of the same classes: whoever may own a partition of one may own those of the others. A chain
moves one partition from its first member to one of another class, one of that class's to the next,
and so on to a last member that had at least two less: the sum of the squared loads shrinks each
time. When no chain is left no other assignment is more even.

Invariants
* Chains begin at a member with the most among the classes that are not *settled*. When none is
  found, every class that was reached has loads of that height or one less, and no way out: it is
  settled, no later chain can use it.
* So a chain is looked for among classes and kinds, never among members and topics, and each failure
  settles a class for good.
* Work is counted. Beyond WORK_MAX the loads stay as they are: every partition is given, less
  evenly.

Source: optimal semi-matchings (Harvey, Ladner, Lovasz, Tamir 2006).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

Part = tuple[str, int]
"""(topic, partition)."""
WORK_MAX: Final = 250_000
"""Some 100 ms worth."""
WORK_PER_CHAIN: Final = 10


class _Step(NamedTuple):
    """How a class is reached: by a partition of ``kind``, which a member of the class ``giver``
    has; None: the first member."""

    kind: int
    giver: int | None


class Evening:
    """``owned`` is changed in place. ``classes``: members by what they may own, in an order that
    depends on the input alone."""

    def __init__(self, owned: dict[str, set[Part]], classes: Mapping[frozenset[str], list[str]]) -> None:
        self.owned = owned
        self.work = 0
        self._place = {member_id: place for place, member_id in enumerate(owned)}
        self._class = {m: number for number, members in enumerate(classes.values()) for m in members}
        takers: dict[str, list[int]] = {}
        for number, topics in enumerate(classes):
            for topic in topics:
                takers.setdefault(topic, []).append(number)
        kinds: dict[tuple[int, ...], int] = {}
        self._kind = {topic: kinds.setdefault(tuple(takers[topic]), len(kinds)) for topic in sorted(takers)}
        self._takers = list(kinds)
        """By kind: the classes that may own its partitions."""
        self._parts: dict[str, dict[int, list[Part]]] = {m: {} for m in owned}
        self._holders: list[dict[int, dict[str, None]]] = [{} for _ in classes]
        """By class and kind: the members that have partitions of it."""
        for member_id, parts in owned.items():
            for part in sorted(parts):
                self._note(member_id, part)
        self._settled = [False] * len(classes)
        self._least = [[(len(owned[m]), self._place[m], m) for m in members] for members in classes.values()]
        self._most = [(-len(owned[m]), self._place[m], m) for m in owned]
        for heap in (*self._least, self._most):
            heapify(heap)

    def run(self) -> None:
        while self._most and self.work < WORK_MAX:
            load, _, member_id = self._most[0]
            if -load != len(self.owned[member_id]) or self._settled[self._class[member_id]]:
                heappop(self._most)
            elif -load < 2:
                return
            else:
                self._relieve(member_id)

    # --- chains -----------------------------------------------------------------------------------

    def _relieve(self, start: str) -> None:
        """Follow the shortest chain from ``start``. When there is none settle what was reached."""
        goal = len(self.owned[start]) - 2
        reached: dict[int, _Step] = {}
        seen: set[int] = set()
        queue: deque[tuple[int | None, Iterable[int]]] = deque([(None, self._parts[start])])
        self.work += WORK_PER_CHAIN
        while queue:
            giver, kinds = queue.popleft()
            for kind in kinds:
                self.work += 1
                if kind in seen:
                    continue
                seen.add(kind)
                for taker in self._takers[kind]:
                    self.work += 1
                    if taker in reached or self._settled[taker]:
                        continue
                    reached[taker] = _Step(kind, giver)
                    load, member_id = self._lowest(taker)
                    if load <= goal:
                        self._follow(start, taker, member_id, reached)
                        return
                    queue.append((taker, self._holders[taker]))
        for number in reached:
            self._settled[number] = True

    def _follow(self, start: str, number: int, member_id: str, reached: Mapping[int, _Step]) -> None:
        """From the end of the chain to its begin: who gives takes from the one before."""
        while True:
            kind, giver = reached[number]
            owner = start if giver is None else next(iter(self._holders[giver][kind]))
            self._move(kind, owner, member_id)
            if giver is None:
                return
            number, member_id = giver, owner

    def _move(self, kind: int, giver: str, taker: str) -> None:
        parts = self._parts[giver][kind]
        part = parts.pop()
        if not parts:
            del self._parts[giver][kind]
            holders = self._holders[self._class[giver]]
            del holders[kind][giver]
            if not holders[kind]:
                del holders[kind]
        self.owned[giver].remove(part)
        self.owned[taker].add(part)
        self._note(taker, part)
        for member_id in (giver, taker):
            load, place = len(self.owned[member_id]), self._place[member_id]
            heappush(self._least[self._class[member_id]], (load, place, member_id))
            heappush(self._most, (-load, place, member_id))

    def _note(self, member_id: str, part: Part) -> None:
        kind = self._kind[part[0]]
        self._parts[member_id].setdefault(kind, []).append(part)
        self._holders[self._class[member_id]].setdefault(kind, {})[member_id] = None

    def _lowest(self, number: int) -> tuple[int, str]:
        """(load, member) of the one of the class that has least."""
        heap = self._least[number]
        while heap[0][0] != len(self.owned[heap[0][2]]):
            heappop(heap)
        return heap[0][0], heap[0][2]
