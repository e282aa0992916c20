"""Placement: which brokers hold the replicas of a new topic. A pure function.

Leaders go round the brokers. Each further replica goes to the next broker whose rack is not used
yet, or the next one when all racks are. The distance between leader and followers grows with every
full round, so that a broker's load moves to all the others when it dies, not to one neighbour
(Kafka's AdminUtils does the same).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def place(partitions: int, replication_factor: int, racks: Mapping[int, str], start: int) -> list[list[int]]:
    """Replicas of each partition, the preferred leader first. ``racks``: rack by live broker id.
    ``start`` rotates."""
    assert 1 <= replication_factor <= len(racks)
    brokers = _alternate_racks(racks)
    return [_replicas(p + start, p // len(brokers), replication_factor, brokers, racks) for p in range(partitions)]


def with_absent(
    assignment: list[list[int]], absent: Sequence[int], count: int, racks: Mapping[int, str]
) -> list[list[int]]:
    """``count`` further replicas for each partition, on known brokers that are away. They go round
    as well, those of racks that are not used yet first. ``racks``: of all brokers."""
    assert 0 <= count <= len(absent)
    filled = []
    for partition, present in enumerate(assignment):
        members = list(present)
        rest = [absent[(partition + i) % len(absent)] for i in range(len(absent))]
        for _ in range(count):
            members.append(_next(rest, members, racks))
            rest.remove(members[-1])
        filled.append(members)
    return filled


def _next(rest: Sequence[int], members: Sequence[int], racks: Mapping[int, str]) -> int:
    used = {racks[b] for b in members}
    return next((b for b in rest if racks[b] not in used), rest[0])


def _alternate_racks(racks: Mapping[int, str]) -> list[int]:
    """Brokers in an order in which neighbours have different racks as far as possible."""
    by_rack: dict[str, list[int]] = {}
    for broker_id in sorted(racks):
        by_rack.setdefault(racks[broker_id], []).append(broker_id)
    order: list[int] = []
    while any(by_rack.values()):
        order += [members.pop(0) for _, members in sorted(by_rack.items()) if members]
    return order


def _replicas(first: int, shift: int, count: int, brokers: Sequence[int], racks: Mapping[int, str]) -> list[int]:
    n = len(brokers)
    chosen = [brokers[first % n]]
    rest = [brokers[(first + 1 + (shift + i) % (n - 1)) % n] for i in range(n - 1)] if n > 1 else []
    while len(chosen) < count:
        chosen.append(_next(rest, chosen, racks))
        rest.remove(chosen[-1])
    return chosen
