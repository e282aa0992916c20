"""Short histories written by hand: one event a line of the test, keys "k" and "j", values in
letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.process.checker.history import Event, Options, Verdict, check
from tests.process.checker.history_format import PHASE, F, Process, Type

MS = 1_000_000
K, J = "k", "j"
Records = Sequence[Sequence[Any]]


class Story:
    """Events one millisecond apart."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._waited_ms = 0
        self.phase("load")

    def _add(self, process: Process, type: Type, f: F, value: Any = None, **fields: Any) -> int:
        i = len(self.events)
        self.events.append(Event(i, (i + self._waited_ms) * MS, process, type, f, value, **fields))
        return i

    def wait(self, ms: int) -> None:
        """What comes now comes ``ms`` later."""
        self._waited_ms += ms

    def nemesis(self, value: Any, **fields: Any) -> None:
        self._add("nemesis", "info", "nemesis", value, **fields)

    def phase(self, name: str) -> None:
        self.nemesis([PHASE, name])

    def begin(self, process: Process, f: F, value: Any = None, **fields: Any) -> int:
        return self._add(process, "invoke", f, value, **fields)

    def end(self, op: int, type: Type, value: Any = None, **fields: Any) -> None:
        self._add(self.events[op].process, type, self.events[op].f, value, op=op, **fields)

    # --- sends: (key, value) pairs ----------------------------------------------------------------

    def sending(self, process: Process, *sends: tuple[str, str], **fields: Any) -> int:
        return self.begin(process, "send", [["send", *send] for send in sends], **fields)

    def sent_ok(self, op: int, *offsets: int | None, type: Type = "ok", **fields: Any) -> None:
        asked = self.events[op].value
        value = [["send", m[1], [offset, m[2]]] for m, offset in zip(asked, offsets, strict=True)]
        self.end(op, type, value, **fields)

    def sent(self, process: Process, value: str, offset: int | None, key: str = K, **fields: Any) -> None:
        """One acknowledged record. ``fields`` of the invoke."""
        self.sent_ok(self.sending(process, (key, value), **fields), offset)

    def log(self, process: Process, values: str, key: str = K) -> None:
        """One acknowledged operation per letter, at offsets from 0."""
        for offset, value in enumerate(values):
            self.sent(process, value, offset, key)

    # --- polls ------------------------------------------------------------------------------------

    def polled(self, process: Process, records: Records, key: str = K, type: Type = "ok", **fields: Any) -> None:
        op = self.begin(process, "poll", [["poll"]])
        self.end(op, type, [["poll", {key: list(records)}]], **fields)

    def assigned(self, process: Process, keys: Any, f: F = "assign") -> None:
        op = self.begin(process, f, keys)
        self.end(op, "ok", keys)

    def final(self, **logs: str) -> Story:
        """The final read: a letter per offset from 0; "." is an offset nothing came from."""
        self.phase("final")
        self.assigned("reader", dict.fromkeys(logs, 0))
        for key, values in logs.items():
            self.polled("reader", [[o, v] for o, v in enumerate(values) if v != "."], key)
        return self

    def judge(self, options: Options | None = None) -> Verdict:
        return check(self.events, options or Options(ok_share_min=0.0))

    def violated(self, options: Options | None = None) -> set[str]:
        return set(self.judge(options).violated)

    def tolerated(self, options: Options | None = None) -> set[str]:
        return set(self.judge(options).tolerated)


def at(start: int, values: str) -> list[list[Any]]:
    """Records of a poll: a letter per offset from ``start``."""
    return [[start + n, value] for n, value in enumerate(values)]
