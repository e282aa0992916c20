"""Evening out: the loads of members of different subscriptions made as equal as these allow, by moves along chains.

A *class* is all members of the same subscription: they may own the same partitions. A chain moves one partition from
its first member to one of another class, one of that class's to the next, and so on to a last member that had at least two
less: the sum of the squared loads shrinks each time. When no chain is left no other assignment is more even.

Invariants
* Chains begin at a member with the most among the classes that are not *settled*. When none is found, every class that
  was reached has loads of that height or one less, and no way out: it is settled, no later chain can use it.
* So a chain is looked for among classes and topics, never among members, and each failure settles a class for good.
* Work is counted. Beyond WORK_MAX the loads stay as they are: every partition is given, less evenly.

Source: optimal semi-matchings (Harvey, Ladner, Lovasz, Tamir 2006).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

Part = tuple[str, int]
"""(topic, partition)."""
WORK_MAX: Final = 150_000
"""Some 100 ms worth."""
WORK_PER_CHAIN: Final = 10


class _Step(NamedTuple):
    """How a class is reached: by a partition of ``topic``, which a member of the class ``giver`` has; None: the first member."""

    topic: str
    giver: int | None


class Evening:
    """``owned`` is changed in place. ``classes``: members by what they may own, in an order that depends on the input alone."""

    def __init__(self, owned: dict[str, set[Part]], classes: Mapping[frozenset[str], list[str]]) -> None:
        self.owned = owned
        self.work = 0
        self._place = {member_id: place for place, member_id in enumerate(owned)}
        self._class = {m: number for number, members in enumerate(classes.values()) for m in members}
        self._takers: dict[str, list[int]] = {}
        """The classes that may own partitions of a topic."""
        for number, topics in enumerate(classes):
            for topic in topics:
                self._takers.setdefault(topic, []).append(number)
        self._parts: dict[str, dict[str, list[int]]] = {m: {} for m in owned}
        self._holders: list[dict[str, dict[str, None]]] = [{} for _ in classes]
        """By class and topic: the members that have partitions of it."""
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

    # --- chains ------------------------------------------------------------------------------------------------

    def _relieve(self, start: str) -> None:
        """Follow the shortest chain from ``start``; when there is none settle what was reached."""
        goal = len(self.owned[start]) - 2
        reached: dict[int, _Step] = {}
        seen = set(self._parts[start])
        queue: deque[tuple[str, int | None]] = deque((topic, None) for topic in self._parts[start])
        self.work += WORK_PER_CHAIN
        while queue:
            topic, giver = queue.popleft()
            for taker in self._takers[topic]:
                self.work += 1
                if taker in reached or self._settled[taker]:
                    continue
                reached[taker] = _Step(topic, giver)
                load, member_id = self._lowest(taker)
                if load <= goal:
                    self._follow(start, taker, member_id, reached)
                    return
                further = [t for t, holders in self._holders[taker].items() if holders and t not in seen]
                self.work += len(self._holders[taker])
                seen.update(further)
                queue.extend((t, taker) for t in further)
        for number in reached:
            self._settled[number] = True

    def _follow(self, start: str, number: int, member_id: str, reached: Mapping[int, _Step]) -> None:
        """From the end of the chain to its begin: who gives takes from the one before."""
        while True:
            topic, giver = reached[number]
            owner = start if giver is None else next(iter(self._holders[giver][topic]))
            self._move(topic, owner, member_id)
            if giver is None:
                return
            number, member_id = giver, owner

    def _move(self, topic: str, giver: str, taker: str) -> None:
        numbers = self._parts[giver][topic]
        part = (topic, numbers.pop())
        if not numbers:
            del self._parts[giver][topic]
            del self._holders[self._class[giver]][topic][giver]
        self.owned[giver].remove(part)
        self.owned[taker].add(part)
        self._note(taker, part)
        for member_id in (giver, taker):
            load, place = len(self.owned[member_id]), self._place[member_id]
            heappush(self._least[self._class[member_id]], (load, place, member_id))
            heappush(self._most, (-load, place, member_id))

    def _note(self, member_id: str, part: Part) -> None:
        self._parts[member_id].setdefault(part[0], []).append(part[1])
        self._holders[self._class[member_id]].setdefault(part[0], {})[member_id] = None

    def _lowest(self, number: int) -> tuple[int, str]:
        """(load, member) of the one of the class that has least."""
        heap = self._least[number]
        while heap[0][0] != len(self.owned[heap[0][2]]):
            heappop(heap)
        return heap[0][0], heap[0][2]
