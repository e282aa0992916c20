"""Assignors: which member is to own which partition. Pure and deterministic: the same input gives the same answer.

``sticky``: loads as equal as the subscriptions allow, and no partition moves that need not. Members keep what they
have as far as an equal share goes, what is free goes to whoever has least, and what imbalance is left is worked off
along chains of moves (a to b, b to c) until none makes it better; for bipartite matchings of this kind no better
chain means no better assignment at all.
``range``: each topic's partitions in runs over its subscribers in the order of their names, as Kafka's: topics that
are partitioned alike are owned alike.

Invariants: every partition of a topic that somebody subscribes to is given once, and only to a subscriber.
Source: KIP-54 (sticky), KIP-848; optimal semi-matchings (Harvey, Ladner, Lovasz, Tamir 2006) for the chains.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heapify, heapreplace
from typing import Final

TopicPart = tuple[str, int]
"""(topic, partition)."""
Assignment = dict[str, set[TopicPart]]
"""By member; every member is there."""


@dataclass(frozen=True, slots=True)
class Subscriber:
    """``rank``: what members are ordered by (an instance keeps its place when its member id changes).
    ``current``: what it was to own so far."""

    member_id: str
    rank: str
    topics: frozenset[str]
    current: frozenset[TopicPart] = frozenset()


def assign(assignor: str, subscribers: list[Subscriber], topics: Mapping[str, int]) -> Assignment:
    """``topics``: number of partitions of every topic that exists."""
    ordered = sorted(subscribers, key=lambda s: (s.rank, s.member_id))
    return ASSIGNORS[assignor](ordered, topics)


def assign_range(subscribers: list[Subscriber], topics: Mapping[str, int]) -> Assignment:
    owned: Assignment = {s.member_id: set() for s in subscribers}
    for topic in sorted(topics):
        members = [s.member_id for s in subscribers if topic in s.topics]
        first = 0
        for index, member_id in enumerate(members):
            end = first + (topics[topic] + len(members) - 1 - index) // len(members)
            owned[member_id].update((topic, partition) for partition in range(first, end))
            first = end
    return owned


def assign_sticky(subscribers: list[Subscriber], topics: Mapping[str, int]) -> Assignment:
    wanted = frozenset().union(*(s.topics for s in subscribers)) if subscribers else frozenset()
    free = {(topic, p) for topic in wanted if topic in topics for p in range(topics[topic])}
    owned: Assignment = {}
    for subscriber in subscribers:
        kept = {part for part in subscriber.current if part in free and part[0] in subscriber.topics}
        owned[subscriber.member_id] = kept
        free -= kept
    groups: dict[frozenset[str], list[str]] = {}
    for subscriber in subscribers:
        usable = frozenset(topic for topic in subscriber.topics if topic in topics)
        groups.setdefault(usable, []).append(subscriber.member_id)
    for subscription in sorted(groups, key=sorted):
        if len(groups) == 1:
            _shed(owned, groups[subscription], free)
    _fill(owned, groups, free)
    if len(groups) > 1:
        _balance(owned, {member: usable for usable, members in groups.items() for member in members})
    return owned


def _shed(owned: Assignment, members: list[str], free: set[TopicPart]) -> None:
    """Take from equal members what is above an equal share; the larger shares go to those that have most."""
    total = len(free) + sum(len(owned[m]) for m in members)
    share, larger = divmod(total, len(members))
    by_load = sorted(members, key=lambda m: -len(owned[m]))  # stable: ties in the members' order
    for place, member_id in enumerate(by_load):
        excess = len(owned[member_id]) - (share + (place < larger))
        if excess > 0:
            taken = sorted(owned[member_id])[-excess:]
            owned[member_id].difference_update(taken)
            free.update(taken)


def _fill(owned: Assignment, groups: Mapping[frozenset[str], list[str]], free: set[TopicPart]) -> None:
    """Each free partition to the subscriber that has least; those that few may have come first."""
    place = {member_id: i for i, member_id in enumerate(owned)}
    subscribers: dict[str, list[str]] = {}
    for usable, members in groups.items():
        for topic in usable:
            subscribers.setdefault(topic, []).extend(members)
    only = len(groups) == 1
    heap = [(len(owned[m]), place[m], m) for m in owned] if only else []
    heapify(heap)
    for part in sorted(free, key=lambda p: (len(subscribers[p[0]]), p)):
        if only:
            load, index, member_id = heap[0]
            heapreplace(heap, (load + 1, index, member_id))
        else:
            member_id = min(subscribers[part[0]], key=lambda m: (len(owned[m]), place[m]))
        owned[member_id].add(part)


def _balance(owned: Assignment, usable: Mapping[str, frozenset[str]]) -> None:
    """Work off imbalance between members of different subscriptions: follow chains of moves while there are any.

    A chain takes one from its first member and gives one to its last, which had at least two less: the sum of the
    squared loads shrinks each time, so this ends."""
    settled = False
    while not settled:
        settled = True
        for member_id in sorted(owned, key=lambda m: -len(owned[m])):
            if _relieve(member_id, owned, usable):
                settled = False
                break


def _relieve(start: str, owned: Assignment, usable: Mapping[str, frozenset[str]]) -> bool:
    """Shortest chain from ``start`` to a member with at least two partitions less; True when it was followed."""
    goal = len(owned[start]) - 2
    came: dict[str, tuple[str, TopicPart] | None] = {start: None}
    queue = deque([start])
    while queue:
        member_id = queue.popleft()
        if len(owned[member_id]) <= goal:
            while (step := came[member_id]) is not None:
                giver, part = step
                owned[giver].remove(part)
                owned[member_id].add(part)
                member_id = giver
            return True
        by_topic = {part[0]: part for part in sorted(owned[member_id])}
        for other in owned:
            if other not in came:
                shared = next((by_topic[t] for t in sorted(by_topic) if t in usable[other]), None)
                if shared is not None:
                    came[other] = (member_id, shared)
                    queue.append(other)
    return False


Assignor = Callable[[list[Subscriber], Mapping[str, int]], Assignment]
ASSIGNORS: Final[Mapping[str, Assignor]] = {"sticky": assign_sticky, "range": assign_range}
