"""Assignors: which member is to own which partition. Pure and deterministic: the same input gives
the same answer.

``sticky``: loads as equal as the subscriptions allow, and no partition moves that need not. Members
keep what they have as far as an equal share goes, what is free goes to whoever has least, and what
imbalance is left is worked off along chains of moves (evening.py), as far as a turn of the broker
allows. ``range``: each topic's partitions in runs over its subscribers in the order of their names,
as Kafka's: topics that are partitioned alike are owned alike.

Invariants: every partition of a topic that somebody subscribes to is given once, and only to a
subscriber. Members that subscribe alike are looked at together, so the time is near linear in
members, partitions and different subscriptions. Source: KIP-54 (sticky), KIP-848.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heapify, heapreplace
from typing import Final

from minilog.core.groups.evening import Evening

TopicPart = tuple[str, int]
"""(topic, partition)."""
Assignment = dict[str, set[TopicPart]]
"""By member. Every member is there."""
Classes = dict[frozenset[str], list[str]]
"""Members by the topics there are that they subscribe to."""


@dataclass(frozen=True, slots=True)
class Subscriber:
    """``rank``: what members are ordered by (an instance keeps its place when its member id
    changes). ``current``: what it was to own so far."""

    member_id: str
    rank: str
    topics: frozenset[str]
    current: frozenset[TopicPart] = frozenset()


def assign(assignor: str, subscribers: list[Subscriber], topics: Mapping[str, int]) -> Assignment:
    """``topics``: number of partitions of every topic that exists."""
    ordered = sorted(subscribers, key=lambda s: (s.rank, s.member_id))
    return ASSIGNORS[assignor](ordered, topics)


def _classes(subscribers: list[Subscriber], topics: Mapping[str, int]) -> Classes:
    """Members by what they may own, in the order of the first of each. A thousand that subscribe
    alike cost one look."""
    usable = {wanted: frozenset(t for t in wanted if t in topics) for wanted in {s.topics for s in subscribers}}
    classes: Classes = {}
    for subscriber in subscribers:
        classes.setdefault(usable[subscriber.topics], []).append(subscriber.member_id)
    return classes


def assign_range(subscribers: list[Subscriber], topics: Mapping[str, int]) -> Assignment:
    owned: Assignment = {s.member_id: set() for s in subscribers}
    place = {s.member_id: i for i, s in enumerate(subscribers)}
    classes = _classes(subscribers, topics)
    readers: dict[str, list[frozenset[str]]] = {}
    for usable in classes:
        for topic in usable:
            readers.setdefault(topic, []).append(usable)
    shared: dict[tuple[frozenset[str], ...], list[str]] = {}
    for topic in sorted(readers):
        who = tuple(readers[topic])
        if who not in shared:
            shared[who] = sorted((m for usable in who for m in classes[usable]), key=place.__getitem__)
        _give_runs(topic, topics[topic], shared[who], owned)
    return owned


def _give_runs(topic: str, partitions: int, members: list[str], owned: Assignment) -> None:
    first = 0
    for index, member_id in enumerate(members[:partitions]):
        end = first + (partitions + len(members) - 1 - index) // len(members)
        owned[member_id].update((topic, partition) for partition in range(first, end))
        first = end


def assign_sticky(subscribers: list[Subscriber], topics: Mapping[str, int]) -> Assignment:
    classes = _classes(subscribers, topics)
    wanted: frozenset[str] = frozenset().union(*classes)
    free = {(topic, p) for topic in wanted for p in range(topics[topic])}
    owned: Assignment = {}
    for subscriber in subscribers:
        kept = {part for part in subscriber.current if part in free and part[0] in subscriber.topics}
        owned[subscriber.member_id] = kept
        free -= kept
    if len(classes) == 1:
        _shed(owned, list(owned), free)
    _fill(owned, classes, free)
    if len(classes) > 1:
        Evening(owned, classes).run()
    return owned


def _shed(owned: Assignment, members: list[str], free: set[TopicPart]) -> None:
    """Take from equal members what is above an equal share. The larger shares go to those that have
    most."""
    total = len(free) + sum(len(owned[m]) for m in members)
    share, larger = divmod(total, len(members))
    by_load = sorted(members, key=lambda m: -len(owned[m]))  # stable: ties in the members' order
    for place, member_id in enumerate(by_load):
        excess = len(owned[member_id]) - (share + (place < larger))
        if excess > 0:
            taken = sorted(owned[member_id])[-excess:]
            owned[member_id].difference_update(taken)
            free.update(taken)


def _fill(owned: Assignment, classes: Classes, free: set[TopicPart]) -> None:
    """Each free partition to the subscriber that has least. Those that few may have come first."""
    readers: dict[str, list[int]] = {}
    for number, usable in enumerate(classes):
        for topic in usable:
            readers.setdefault(topic, []).append(number)
    sizes = [len(members) for members in classes.values()]
    choices = {topic: sum(sizes[number] for number in numbers) for topic, numbers in readers.items()}
    place = {member_id: i for i, member_id in enumerate(owned)}
    heaps = [[(len(owned[m]), place[m], m) for m in members] for members in classes.values()]
    for heap in heaps:
        heapify(heap)
    tops: list[tuple[int, int, int]] = []
    filled = ""
    for part in sorted(free, key=lambda p: (choices[p[0]], p)):
        if part[0] != filled:
            filled = part[0]
            tops = [(*heaps[number][0][:2], number) for number in readers[filled]]
            heapify(tops)
        load, index, number = tops[0]
        member_id = heaps[number][0][2]
        owned[member_id].add(part)
        heapreplace(heaps[number], (load + 1, index, member_id))
        heapreplace(tops, (*heaps[number][0][:2], number))


Assignor = Callable[[list[Subscriber], Mapping[str, int]], Assignment]
ASSIGNORS: Final[Mapping[str, Assignor]] = {"sticky": assign_sticky, "range": assign_range}
