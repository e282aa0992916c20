"""A copy of a clean history that corruptions work on: its sends and polls by name, and the damage
many of them share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.process.checker.anomalies_brokers import AckTrace, Replica
from tests.process.checker.history_format import Event, Key, Value, decode, encode
from tests.process.checker.history_generator import Clean

Record = list[Any]


@dataclass
class Send:
    """One send of an operation: its micro-op in the invoke, and in the completion if that tells
    it."""

    key: Key
    value: Value
    invoke: Event
    done: Event | None
    answer: list[Any] | None  # [offset, value]

    @property
    def acked(self) -> bool:
        return self.done is not None and self.done.type == "ok" and self.invoke.acks is None


@dataclass
class Draft:
    """A copy of a clean history to be damaged."""

    clean: Clean
    events: list[Event] = field(init=False)
    replicas: dict[Key, dict[int | str, Replica]] = field(init=False)
    acks: list[AckTrace] = field(init=False)

    def __post_init__(self) -> None:
        self.events = decode(encode(self.clean.events))
        self.replicas = {key: dict(by_node) for key, by_node in self.clean.replicas.items()}
        self.acks = list(self.clean.acks)

    def sends(self) -> list[Send]:
        done = {event.op: event for event in self.events if event.op is not None}
        found = []
        for invoke in self.events:
            if invoke.type != "invoke" or invoke.f != "send":
                continue
            event = done.get(invoke.i)
            for n, (_, key, value, *_) in enumerate(invoke.value):
                answer = event.value[n][2] if event is not None and event.value is not None else None
                found.append(Send(key, value, invoke, event, answer))
        return found

    def polls(self, *types: str) -> Iterator[tuple[Event, Key, list[Record]]]:
        for event in self.events:
            if event.f == "poll" and event.type in (types or ("ok", "fail", "info")) and event.value is not None:
                for key, records in event.value[0][1].items():
                    yield event, key, records

    def final_polls(self) -> Iterator[tuple[Event, Key, list[Record]]]:
        start = next(e.i for e in self.events if e.value == ["phase", "final"])
        return ((event, key, records) for event, key, records in self.polls("ok") if event.i > start)

    def end(self, key: Key) -> int:
        return len(self.clean.logs[key])

    def offset(self, key: Key, value: Value) -> int | None:
        return next((o for o, stored in enumerate(self.clean.logs[key]) if stored.value == value), None)

    def placed_sends(self) -> list[tuple[Send, int]]:
        """Promised sends with their offsets."""
        found = [(send, self.offset(send.key, send.value)) for send in self.sends() if send.acked]
        return [(send, offset) for send, offset in found if offset is not None]

    def drop(self, key: Key, values: set[Value], final_only: bool = False) -> None:
        for _, at, records in self.final_polls() if final_only else self.polls():
            if at == key:
                records[:] = [record for record in records if record[1] not in values]

    def swap(self, key: Key, one: int, two: int) -> None:
        """The records at two offsets change places, in everything anybody ever saw."""
        other = {one: two, two: one}
        log = self.clean.logs[key]
        for _, at, records in self.polls():
            for n, record in enumerate(records):
                if at == key and record[0] in other:
                    records[n] = [record[0], *log[other[record[0]]]]
        for send in self.sends():
            if send.key == key and send.answer is not None and send.answer[0] in other and send.invoke.acks is None:
                send.answer[0] = other[send.answer[0]]

    def insert(self, at: int, extra: list[Event]) -> None:
        """Put ``extra`` (its ``op`` counting from its own beginning) before the first event with
        ``i`` >= ``at``."""
        here = next((n for n, event in enumerate(self.events) if event.i >= at), len(self.events))
        t_ns = self.events[min(here, len(self.events) - 1)].t_ns
        moved = {event.i: n + (len(extra) if n >= here else 0) for n, event in enumerate(self.events)}
        for event in self.events:
            event.i, event.op = moved[event.i], None if event.op is None else moved[event.op]
        for n, event in enumerate(extra):
            event.i, event.t_ns = here + n, t_ns
            event.op = None if event.op is None else here + event.op
        self.events[here:here] = extra
