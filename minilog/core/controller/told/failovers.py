"""Failovers: the timeline of each broker loss, for people (wire/journal/failovers.py).

What is known of a failover is in the journal, in the same step as what it tells of, so neither a
restart of the controller nor an outage of all forgets it. Observed, and never consulted by a
decision.

Owns, as soft state, what the failovers that are not over wait for. A new controller goes on with
what can be read from the image, and leaves the rest unknown: it has not seen when that happened.

All times of one failover are stamped by the wall clock as it stood when the failover began: a step
of the clock meanwhile changes none of its durations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec.structs import replace

from minilog.core.image import FAILOVERS_MAX, ClusterImage
from minilog.core.moves.moving import missing
from minilog.wire.journal.events import Event, EventKind
from minilog.wire.journal.failovers import FailoverInfo
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    BrokerFenced,
    BrokerShuttingDown,
    EventNoted,
    FailoverNoted,
    MetadataRecord,
    PartitionChanged,
    TopicDeleted,
)
from minilog.wire.messages import FirstWrite
from minilog.wire.topic_partition import TopicPartition

NAMES_MAX = 100
PHASES = ("detect", "elect", "serve", "publish", "first_write", "restore")
_FIELDS = {
    "elect": "elected_ms",
    "serve": "served_ms",
    "publish": "published_ms",
    "first_write": "first_write_ms",
    "restore": "restored_ms",
}
COUNT_MAX = 2**63 - 1
CUT_KEYS = ("acks_unknown", "acks_0", "acks_1", "acks_many")


class FailoverKind(StrEnum):
    """How the controller knew that a broker was gone."""

    REFUSED = "refused"
    """Its address refuses connections: the process is dead."""
    REPLACED = "replaced"
    """Another process answers at its address."""
    TIMEOUT = "timeout"
    """Nothing was heard for a session timeout."""
    SHUTDOWN = "shutdown"
    """It said that it leaves."""


@dataclass(slots=True)
class _Open:
    """``led``: what it led, and in which leader epoch another one may. ``leaderless``: of these,
    what waits for a leader. ``leaders``: who leads instead. ``elected_at``: journal index of the
    step in which the last one was named. ``unwritten``: of ``led``, what nobody has written since.
    When that is empty, and all know who leads, nothing is waited for."""

    wall_ahead_ms: int
    led: dict[TopicPartition, int]
    leaderless: set[TopicPartition]
    leaders: set[int] = field(default_factory=set)
    elected_at: int | None = None
    unwritten: set[TopicPartition] = field(default_factory=set)


class Failovers:
    def __init__(self, image: ClusterImage) -> None:
        self._image = image
        self.wall_ahead_ms = 0
        self._open: dict[int, _Open] = {}
        """By number."""
        self._begun: list[tuple[FailoverInfo, _Open]] = []
        """In the step that is being decided."""

    def begin(self, info: FailoverInfo, led: dict[TopicPartition, int], leaderless: set[TopicPartition]) -> None:
        """In the step that takes the broker out. ``info`` has the times of turns. ``led``: with the
        leader epoch of whoever is next. ``leaderless``: what that step names no leader for."""
        ahead_ms = self.wall_ahead_ms
        waits = _Open(ahead_ms, led, leaderless, unwritten=set(led))
        info = replace(
            info,
            last_heard_ms=info.last_heard_ms + ahead_ms,
            detected_ms=info.detected_ms + ahead_ms,
            fenced_ms=info.fenced_ms + ahead_ms,
            controller_epoch=self._image.controller_epoch,
            names=[f"{p.topic}-{p.partition}" for p in sorted(waits.led)[:NAMES_MAX]],
        )
        self._begun.append((info, waits))

    def in_step(self, records: Sequence[MetadataRecord], now_ms: int) -> list[MetadataRecord]:
        """What a step of the journal with these records means for failovers. It is to come behind
        them in the same step."""
        known = {info.number: info for info in self._image.failovers}
        known |= {record.info.number: record.info for record in records if isinstance(record, FailoverNoted)}
        now = known | self._numbered(records)
        back = self._back(now.values(), records)
        changed = [self._in_step(info, records, back, now_ms) for info in now.values() if info.restored_ms is None]
        changed = _with_cuts(changed, now, records)
        return [FailoverNoted(info) for info in changed if info != known.get(info.number)]

    def _numbered(self, records: Sequence[MetadataRecord]) -> dict[int, FailoverInfo]:
        """Those that begin in this step, and not in one that came to nothing."""
        gone = {r.broker_epoch for r in records if isinstance(r, BrokerFenced | BrokerShuttingDown)}
        begun, self._begun = [pair for pair in self._begun if pair[0].broker_epoch in gone], []
        first = self._image.metadata_offset + len(records) + 1
        for number, (_, waits) in enumerate(begun, first):
            self._open[number] = waits
        return {number: replace(info, number=number) for number, (info, _) in enumerate(begun, first)}

    def _in_step(
        self, info: FailoverInfo, records: Sequence[MetadataRecord], back: Set[int], now_ms: int
    ) -> FailoverInfo:
        waits = self._open.get(info.number)
        at_ms = now_ms + (self.wall_ahead_ms if waits is None else waits.wall_ahead_ms)
        if waits is not None and info.elected_ms is None:
            self._see_leaders(waits, records)
            if not waits.leaderless:
                waits.elected_at = self._image.metadata_offset + len(records)
                info = replace(info, elected_ms=at_ms)
        if info.broker_id in back:
            info = replace(info, restored_ms=at_ms)
        return info

    def _see_leaders(self, waits: _Open, records: Iterable[MetadataRecord]) -> None:
        for record in records:
            if isinstance(record, TopicDeleted):
                waits.leaderless -= {p for p in waits.leaderless if p.topic == record.topic}
            elif isinstance(record, PartitionChanged) and record.leader != NO_LEADER:
                partition = TopicPartition(record.topic, record.partition)
                if partition in waits.led:
                    waits.leaders.add(record.leader)
                    waits.leaderless.discard(partition)

    def _back(self, infos: Iterable[FailoverInfo], records: Sequence[MetadataRecord]) -> set[int]:
        """Who was lost, and is in sync wherever it has a replica by a step that lets it in
        somewhere. Each is looked for once, however often it was lost."""
        lost = {info.broker_id for info in infos if info.restored_ms is None}
        touched = {broker_id for r in records if isinstance(r, PartitionChanged) for broker_id in r.isr}
        return {broker_id for broker_id in lost & touched if self._is_back(broker_id, records)}

    def _is_back(self, broker_id: int, records: Sequence[MetadataRecord]) -> bool:
        after = {(r.topic, r.partition): r for r in records if isinstance(r, PartitionChanged)}
        for topic in self._image.topics.values():
            for state in topic.partitions.values():
                stands = after.get((state.topic, state.partition), state)
                if broker_id in missing(stands):
                    return False
        return True

    def on_heard(
        self, applied: dict[int, int], first_writes: Sequence[FirstWrite], now_ms: int
    ) -> list[MetadataRecord]:
        """``applied``: up to which record each live broker has learnt the metadata.
        ``first_writes``: what new leaders have acknowledged for the first time."""
        noted: list[MetadataRecord] = []
        for info in list(self._image.failovers):
            waits = self._open.get(info.number)
            if waits is None:
                continue
            after = _with_writes(info, waits, first_writes, now_ms) if first_writes else info
            if waits.elected_at is not None and info.published_ms is None:
                after = _with_applied(after, waits, applied, waits.elected_at, now_ms)
            if after.published_ms is not None and not waits.unwritten:
                del self._open[info.number]
            if after != info:
                noted.append(FailoverNoted(after))
        self._forget()
        return noted

    def _forget(self) -> None:
        """Partitions that nobody writes are waited for only as long as the failover is kept."""
        if len(self._open) > FAILOVERS_MAX:
            kept = {info.number for info in self._image.failovers}
            self._open = {number: waits for number, waits in self._open.items() if number in kept}


def _with_applied(info: FailoverInfo, waits: _Open, applied: dict[int, int], at: int, now_ms: int) -> FailoverInfo:
    """``at``: the record that names the last new leader."""
    at_ms = now_ms + waits.wall_ahead_ms
    if info.served_ms is None and all(applied.get(leader, 0) >= at for leader in waits.leaders):
        info = replace(info, served_ms=at_ms)
    return replace(info, published_ms=at_ms) if all(offset >= at for offset in applied.values()) else info


def _with_writes(info: FailoverInfo, waits: _Open, first_writes: Sequence[FirstWrite], now_ms: int) -> FailoverInfo:
    """A write of an epoch before the failover is none that counts. Nobody acknowledges before the
    broker was lost, or later than now, whatever a clock says."""
    told = list(info.first_writes)
    first_ms = info.first_write_ms
    for write in first_writes:
        partition = TopicPartition(write.topic, write.partition)
        if partition not in waits.unwritten or write.leader_epoch < waits.led[partition]:
            continue
        waits.unwritten.discard(partition)
        at_ms = now_ms + waits.wall_ahead_ms - max(0, write.ago_ms)
        after_ms = max(0, at_ms - info.last_heard_ms)
        first_ms = min(info.last_heard_ms + after_ms, 2**53 if first_ms is None else first_ms)
        name = f"{partition.topic}-{partition.partition}"
        if name in info.names:
            told.append((name, after_ms))
    return replace(info, first_write_ms=first_ms, first_writes=told)


def _with_cuts(
    changed: list[FailoverInfo], before: dict[int, FailoverInfo], records: Iterable[MetadataRecord]
) -> list[FailoverInfo]:
    """What a broker has cut belongs to the last time it was lost."""
    now = {info.number: info for info in changed}
    for record in records:
        if not isinstance(record, EventNoted) or record.event.kind != EventKind.RECORDS_CUT:
            continue
        of_broker = [info.number for info in before.values() if info.broker_id == record.event.broker_id]
        if of_broker:
            last = max(of_broker)
            info = now.get(last, before[last])
            now[last] = replace(info, records_cut=_added(info.records_cut, record.event))
    return list(now.values())


def _added(counts: tuple[int, int, int, int], event: Event) -> tuple[int, int, int, int]:
    unknown, acks_0, acks_1, many = (
        min(COUNT_MAX, count + _count(event.facts.get(key, 0))) for count, key in zip(counts, CUT_KEYS, strict=True)
    )
    return unknown, acks_0, acks_1, many


def _count(told: object) -> int:
    """A fact is what a broker says. What is no count would make the journal unreadable."""
    return max(0, told) if isinstance(told, int) else 0


def phases(before: FailoverInfo | None, after: FailoverInfo) -> Iterator[tuple[str, float]]:
    """(phase, seconds since the last sign of life) of what ``after`` knows and ``before`` did not.
    None of a broker whose last sign of life is not known."""
    if not after.is_heard:
        return
    if before is None:
        yield "detect", (after.detected_ms - after.last_heard_ms) / 1000
    for phase in PHASES[1:]:
        name = _FIELDS[phase]
        at_ms = getattr(after, name)
        if at_ms is not None and (before is None or getattr(before, name) is None):
            yield phase, (at_ms - after.last_heard_ms) / 1000
