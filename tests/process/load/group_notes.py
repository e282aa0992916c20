"""What the consumers of a group wrote down, judged: nothing skipped, nobody reads what is
another's, repetitions only after an unclean end. Pure.

A *tenure* is the time one consumer had one partition: from ``assigned`` to ``revoked``, ``lost``,
its end or its death.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Event = tuple[float, str, int, Any]
"""Seconds, event, group epoch, what."""
Pauses = Sequence[tuple[float, float]]
AFTER_PAUSE_S = 0.5


@dataclass
class Tenure:
    consumer: str
    partition: int
    epoch: int
    begin_s: float
    reads: list[tuple[float, list[int]]] = field(default_factory=list)
    end: str = "died"
    """revoked and end are clean; lost and died are not."""
    end_epoch: int | None = None

    @property
    def offsets(self) -> list[int]:
        return [offset for _, offsets in self.reads for offset in offsets]

    @property
    def is_clean(self) -> bool:
        return self.end in ("revoked", "end")


@dataclass
class Findings:
    anomalies: list[str]
    records: int
    repeated: int
    tenures: int


def tenures_of(consumer: str, events: Iterable[Event], anomalies: list[str]) -> list[Tenure]:
    tenures: list[Tenure] = []
    current: dict[int, Tenure] = {}
    for at_s, event, epoch, what in events:
        if event == "assigned":
            for partition in what:
                if partition in current:
                    anomalies.append(f"{consumer} was given {partition} twice")
                current[partition] = Tenure(consumer, partition, epoch, at_s)
                tenures.append(current[partition])
        elif event in ("revoked", "lost"):
            for partition in what:
                tenure = current.pop(partition, None)
                if tenure is None:
                    anomalies.append(f"{consumer} had {event} {partition} without having it")
                else:
                    tenure.end, tenure.end_epoch = event, epoch
        elif event == "read":
            partition, offsets = what
            if partition in current:
                current[partition].reads.append((at_s, offsets))
            else:
                anomalies.append(f"{consumer} read {partition} at {offsets[0]} without having it")
    return tenures


def judge(notes: Mapping[str, Sequence[Event]], ends: Mapping[int, int], pauses: Mapping[str, Pauses]) -> Findings:
    """``ends``: where each partition ends. ``pauses``: when processes were stopped."""
    anomalies: list[str] = []
    tenures = [t for name, events in notes.items() for t in tenures_of(name, events, anomalies)]
    by_partition: dict[int, list[Tenure]] = defaultdict(list)
    for tenure in sorted(tenures, key=lambda t: t.begin_s):
        by_partition[tenure.partition].append(tenure)
    repeated = 0
    for partition, end in ends.items():
        mine = by_partition[partition]
        anomalies += _gaps(partition, mine, end)
        anomalies += _owned_twice(partition, mine)
        anomalies += _read_by_two(partition, mine, pauses)
        repeated += sum(len(t.offsets) for t in mine) - len({o for t in mine for o in t.offsets})
    return Findings(anomalies, sum(ends.values()), repeated, len(tenures))


def _gaps(partition: int, tenures: Sequence[Tenure], end: int) -> Iterable[str]:
    """Each tenure goes on where the group was, or before it. After a clean end exactly there."""
    expected = 0
    was_clean = True
    for tenure in tenures:
        offsets = tenure.offsets
        if offsets:
            if offsets != list(range(offsets[0], offsets[0] + len(offsets))):
                yield f"{tenure.consumer} read {partition} out of order or with gaps: {offsets[:5]}..."
            if offsets[0] > expected:
                yield f"{tenure.consumer} began {partition} at {offsets[0]}, but only {expected} records had been read"
            if was_clean and offsets[0] < expected:
                yield f"{tenure.consumer} began {partition} at {offsets[0]}, although {expected} were read and committed"
            expected = max(expected, offsets[-1] + 1)
            was_clean = tenure.is_clean
        else:
            was_clean = was_clean and tenure.is_clean
    if expected != end:
        yield f"{partition} was read up to {expected}, it ends at {end}"


def _owned_twice(partition: int, tenures: Sequence[Tenure]) -> Iterable[str]:
    """In one group epoch a partition is one member's: the next one gets it in the epoch in which
    the last one was told to give it back, or later."""
    for one, next_one in pairwise(tenures):
        if one.end_epoch and one.is_clean and next_one.epoch < one.end_epoch:
            yield f"{partition} was {next_one.consumer}'s at {next_one.epoch}, and {one.consumer}'s until {one.end_epoch}"
        if one.consumer != next_one.consumer and one.epoch == next_one.epoch:
            yield f"{partition} was given to {one.consumer} and to {next_one.consumer} in epoch {one.epoch}"


def _read_by_two(partition: int, tenures: Sequence[Tenure], pauses: Mapping[str, Pauses]) -> Iterable[str]:
    """Nobody reads on after the next one has begun. What a process had in its hands when it was
    stopped is not reading."""
    for one, next_one in pairwise(tenures):
        if one.consumer == next_one.consumer:
            continue
        for at_s, offsets in one.reads:
            just_woken = any(end_s <= at_s <= end_s + AFTER_PAUSE_S for _, end_s in pauses.get(one.consumer, ()))
            if at_s > next_one.begin_s and not just_woken:
                yield (
                    f"{one.consumer} read {partition} at {offsets[0]} {at_s - next_one.begin_s:.3f} s after "
                    f"{next_one.consumer} had begun"
                )
