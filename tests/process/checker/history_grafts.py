"""Small groups of operations on keys of their own that form exactly one kind of dependency cycle.

Each build gives events whose ``op`` counts from 0. Nobody reads the keys in the end, so inserted
into a clean history they make final-missing fire as well. The hand-written cases of the cycle
classes are the same, read to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from tests.process.checker.history_format import Event, F, Type

Build = Callable[[Random], list[Event]]


class Graft:
    """Writes events; names are unique per graft."""

    def __init__(self, random: Random) -> None:
        self.events: list[Event] = []
        self.tag = f"graft-{random.randrange(10**9)}"

    def key(self, name: str) -> str:
        return f"{self.tag}-{name}"

    def begin(self, process: str, f: F, value: Any) -> int:
        return self._add(Event(len(self.events), 0, f"{self.tag}-{process}", "invoke", f, value))

    def end(self, op: int, type: Type, value: Any) -> None:
        begun = self.events[op]
        self._add(Event(len(self.events), 0, begun.process, type, begun.f, value, op=op))

    def _add(self, event: Event) -> int:
        self.events.append(event)
        return event.i

    def op(self, process: str, sends: Sequence[tuple[str, str]] = (), polls: dict[str, list[Any]] | None = None) -> int:
        """Begin an operation that will send (key, value) pairs and poll {key: [[offset, value],
        ...]}."""
        value: list[Any] = [["send", self.key(key), value] for key, value in sends]
        if polls is not None:
            value.append(["poll"])
        return self.begin(process, "txn" if sends and polls is not None else "send" if sends else "poll", value)

    def ok(self, op: int, offsets: Sequence[int] = (), polls: dict[str, list[Any]] | None = None) -> None:
        asked = self.events[op].value
        value = [["send", m[1], [o, m[2]]] for m, o in zip((m for m in asked if m[0] == "send"), offsets, strict=True)]
        if polls is not None:
            value.append(["poll", {self.key(key): records for key, records in polls.items()}])
        self.end(op, "ok", value)


def g0(random: Random) -> list[Event]:
    """Two concurrent writes, in opposite order on two keys."""
    graft = Graft(random)
    a, b = graft.op("a", [("x", "a1"), ("y", "a2")]), graft.op("b", [("x", "b1"), ("y", "b2")])
    graft.ok(a, [0, 1])
    graft.ok(b, [1, 0])
    return graft.events


def g0_process(random: Random) -> list[Event]:
    """p writes x after the long operation, then y before it."""
    graft = Graft(random)
    long = graft.op("long", [("x", "l1"), ("y", "l2")])
    first = graft.op("p", [("x", "p1")])
    graft.ok(first, [1])
    second = graft.op("p", [("y", "p2")])
    graft.ok(second, [0])
    graft.ok(long, [0, 1])
    return graft.events


def g0_realtime(random: Random) -> list[Event]:
    """The same with two processes: only the clock says that q began after p had ended."""
    graft = Graft(random)
    long = graft.op("long", [("x", "l1"), ("y", "l2")])
    first = graft.op("p", [("x", "p1")])
    graft.ok(first, [1])
    second = graft.op("q", [("y", "q1")])
    graft.ok(second, [0])
    graft.ok(long, [0, 1])
    return graft.events


def g1c(random: Random) -> list[Event]:
    """a writes before b on x, and reads what b wrote to y."""
    graft = Graft(random)
    a = graft.op("a", [("x", "a1")], {})
    b = graft.op("b", [("x", "b1"), ("y", "b2")])
    graft.ok(b, [1, 0])
    graft.ok(a, [0], {"y": [[0, "b2"]]})
    return graft.events


def g1c_process(random: Random) -> list[Event]:
    """p reads a's x, then writes y before a does."""
    graft = Graft(random)
    a = graft.op("a", [("x", "a1"), ("y", "a2")])
    read = graft.op("p", polls={})
    graft.ok(read, polls={"x": [[0, "a1"]]})
    write = graft.op("p", [("y", "p1")])
    graft.ok(write, [0])
    graft.ok(a, [0, 1])
    return graft.events


def g1c_realtime(random: Random) -> list[Event]:
    graft = Graft(random)
    a = graft.op("a", [("x", "a1"), ("y", "a2")])
    read = graft.op("p", polls={})
    graft.ok(read, polls={"x": [[0, "a1"]]})
    write = graft.op("q", [("y", "q1")])
    graft.ok(write, [0])
    graft.ok(a, [0, 1])
    return graft.events


def g1c_wr(random: Random) -> list[Event]:
    """Each of two operations reads what the other wrote."""
    graft = Graft(random)
    a, b = graft.op("a", [("x", "a1")], {}), graft.op("b", [("y", "b1")], {})
    graft.ok(a, [0], {"y": [[0, "b1"]]})
    graft.ok(b, [0], {"x": [[0, "a1"]]})
    return graft.events


def g1c_wr_process(random: Random) -> list[Event]:
    """a reads what b wrote, and b reads what a's process writes after a."""
    graft = Graft(random)
    b = graft.op("b", [("y", "b1")], {})
    a = graft.op("p", polls={})
    graft.ok(a, polls={"y": [[0, "b1"]]})
    later = graft.op("p", [("x", "p1")])
    graft.ok(later, [0])
    graft.ok(b, [0], {"x": [[0, "p1"]]})
    return graft.events


def g1c_wr_realtime(random: Random) -> list[Event]:
    graft = Graft(random)
    b = graft.op("b", [("y", "b1")], {})
    a = graft.op("p", polls={})
    graft.ok(a, polls={"y": [[0, "b1"]]})
    later = graft.op("q", [("x", "q1")])
    graft.ok(later, [0])
    graft.ok(b, [0], {"x": [[0, "q1"]]})
    return graft.events


GRAFTS: dict[str, Build] = {
    "G0": g0,
    "G0-process": g0_process,
    "G0-realtime": g0_realtime,
    "G1c": g1c,
    "G1c-process": g1c_process,
    "G1c-realtime": g1c_realtime,
    "G1c-wr": g1c_wr,
    "G1c-wr-process": g1c_wr_process,
    "G1c-wr-realtime": g1c_wr_realtime,
}
