"""Produce requests that wait: for which offset, and for how many copies.

``ProduceWaiters`` belongs to one LeaderState and therefore to one leader epoch. When the role ends
its waiters end with it, so no waiter is woken by the progress of another epoch (R10).

Invariants (R34): every parked produce is resolved exactly once per partition and answered exactly
once as a request. Whoever resolves it takes its waiter out, so nothing is kept of what was
answered. Within one level the lowest end comes first, so completion takes from the front: appends
come in this order, and only batches that were sent again are sorted in. Model: Kafka's
DeferredEventQueue instead of its purgatory.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple

from minilog.core.ports import WrittenBatch
from minilog.wire.batch import Batch
from minilog.wire.messages import ProducePartition, ProduceResult
from minilog.wire.topic_partition import TopicPartition


class PendingProduce:
    """One produce request whose partitions are decided one by one. ``results`` is in request
    order."""

    __slots__ = ("deadline_ms", "entries", "open_count", "parked", "request_id", "results", "unwritten")

    def __init__(self, request_id: int, entries: Sequence[ProducePartition], deadline_ms: int) -> None:
        self.request_id = request_id
        self.deadline_ms = deadline_ms
        self.entries = [TopicPartition(e.topic, e.partition) for e in entries]
        """Names only: the batches themselves must not be kept alive by a waiting request."""
        self.results: list[ProduceResult | None] = [None] * len(entries)
        self.open_count = len(entries)
        self.parked: dict[int, tuple[ProduceWaiters, _Parked]] = {}
        """By position: where the waiter is."""
        self.unwritten: set[int] = set()
        """Positions whose turn to be appended has not come yet."""

    def resolve(self, position: int, result: ProduceResult) -> bool:
        """Set one partition's result; True when it was the last open one. Setting one twice changes
        nothing."""
        if self.results[position] is not None:
            return False
        self.results[position] = result
        self.open_count -= 1
        if position in self.parked:
            waiters, parked = self.parked.pop(position)
            waiters.remove(parked)
        return self.open_count == 0


class Place(NamedTuple):
    """Where a batch was written; satisfies ``ports.WrittenBatch``."""

    base_offset: int
    end_offset: int
    leader_epoch: int
    crc: int
    timestamp: int

    @classmethod
    def of(cls, batch: Batch) -> Place:
        return cls(batch.base_offset, batch.end_offset, batch.leader_epoch, batch.crc, batch.max_timestamp)


class Waiter(NamedTuple):
    """One appended batch run waiting for its acks level. ``end_offset`` is what must be reached.

    ``leader_epoch`` is that of the entry at ``base_offset``: of a batch that was sent again,
    perhaps an older one (R31). ``base_offsets`` of each batch, when they do not lie one after the
    other.
    """

    pending: PendingProduce
    position: int
    base_offset: int
    end_offset: int
    timestamp: int
    crc: int
    acks: int
    leader_epoch: int = -1
    duplicate: bool = False
    base_offsets: tuple[int, ...] = ()

    @classmethod
    def again(cls, pending: PendingProduce, position: int, places: Sequence[WrittenBatch], acks: int) -> Waiter:
        """For batches of which at least the first had been written before."""
        first, last = places[0], places[-1]
        bases = tuple(place.base_offset for place in places)
        in_a_row = all(base == place.end_offset for base, place in zip(bases[1:], places[:-1], strict=True))
        return cls(
            pending,
            position,
            first.base_offset,
            max(place.end_offset for place in places),
            last.timestamp,
            first.crc,
            acks,
            first.leader_epoch,
            duplicate=True,
            base_offsets=() if in_a_row else bases,
        )


class _Parked(NamedTuple):
    """``number``: no two have the same."""

    end_offset: int
    number: int
    waiter: Waiter


class ProduceWaiters:
    """Waiters of one partition and one leader epoch, by acks level."""

    def __init__(self) -> None:
        self._levels: dict[int, list[_Parked]] = {}
        self._count = 0

    def park(self, waiter: Waiter) -> None:
        self._count += 1
        parked = _Parked(waiter.end_offset, self._count, waiter)
        level = self._levels.setdefault(waiter.acks, [])
        assert waiter.duplicate or not level or level[-1].end_offset < waiter.end_offset, "appends are in offset order"
        insort(level, parked)
        waiter.pending.parked[waiter.position] = (self, parked)

    def remove(self, parked: _Parked) -> None:
        """Nothing when it was taken out before."""
        level = self._levels[parked.waiter.acks]
        at = bisect_left(level, parked)
        if at < len(level) and level[at] is parked:
            del level[at]

    def levels(self) -> list[int]:
        return [acks for acks, level in self._levels.items() if level]

    def complete_up_to(self, acks: int, end_offset: int) -> list[Waiter]:
        """Take out the waiters of a level that ``end_offset`` has reached."""
        level = self._levels.get(acks, [])
        reached = bisect_left(level, (end_offset + 1,))
        done = [parked.waiter for parked in level[:reached]]
        del level[:reached]
        return done

    def fail_all(self, acks: int | None = None) -> list[Waiter]:
        """Take out every waiter, of one level or of all."""
        failed = []
        for level_acks, level in self._levels.items():
            if acks is None or level_acks == acks:
                failed += [parked.waiter for parked in level]
                level.clear()
        return failed

    def __len__(self) -> int:
        return sum(map(len, self._levels.values()))
