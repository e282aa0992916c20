"""Events of moves: replicas begin to go elsewhere, are there, or go back. One event for all that
happens so in one step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from minilog.core.controller.told.names import LISTED_MAX, asked_from, named
from minilog.core.image import PartitionState
from minilog.core.moves.moving import is_cancelled, settled_replicas
from minilog.wire.journal.events import INFO, Event, EventKind, Facts

Change = tuple[PartitionState, PartitionState]
"""Before a step and after it."""


def move_events(changes: Iterable[Change], asked_by: str, at_ms: int) -> Iterator[Event]:
    found: dict[str, list[Change]] = {}
    for before, after in changes:
        kind = _kind(before, after)
        if kind is not None:
            found.setdefault(kind, []).append((before, after))
    for kind, alike in found.items():
        yield _event(kind, alike, asked_by, at_ms)


def _kind(before: PartitionState, after: PartitionState) -> str | None:
    if not after.target:
        return EventKind.REPLICAS_MOVED if before.target or before.replicas != after.replicas else None
    if before.target == after.target:
        return None
    return EventKind.MOVE_CANCELLED if is_cancelled(after) else EventKind.REPLICAS_MOVING


def _event(kind: str, changes: list[Change], asked_by: str, at_ms: int) -> Event:
    names = [f"{after.topic}-{after.partition}" for _, after in changes]
    before, after = changes[0]
    single = len(changes) == 1
    goes = f" from brokers {_ids(_from(before))} to {_ids(settled_replicas(after))}" if single else ""
    match kind:
        case EventKind.REPLICAS_MOVING:
            sentence = f"replicas of {named(names)} begin to move{goes}{asked_from(asked_by)}"
        case EventKind.MOVE_CANCELLED:
            back = f" to brokers {_ids(after.target)}" if single else ""
            sentence = f"replicas of {named(names)} go back{back}{asked_from(asked_by)}"
        case _:
            there = f" to brokers {_ids(after.replicas)}" if single else " to where they were to be"
            sentence = f"replicas of {named(names)} have moved{there}"
    facts: Facts = {"partitions": names[:LISTED_MAX], "asked_by": asked_by}
    if single:
        facts |= {"from": _ids(_from(before)), "to": _ids(settled_replicas(after))}
    topic, partition = (after.topic, after.partition) if single else (None, None)
    return Event(at_ms, kind, INFO, sentence, None, topic, partition, len(changes), facts)


def _from(before: PartitionState) -> list[int]:
    return before.former or before.replicas


def _ids(brokers: Iterable[int]) -> str:
    return ", ".join(map(str, brokers))
