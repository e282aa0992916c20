"""What the judges need of a history, computed once: operations, and per key who wrote what and what
is at which offset.

Invariants
* Every operation has exactly one completion. One without becomes ``info``, completed after
  everything else.
* A value is attempted by one operation. So "who wrote it" is a look-up (checked, MalformedHistory).
* ``KeyLog.log`` holds what is *known* to have been at an offset: everything any poll showed,
  whatever became of the poll, and the sends that must have committed and whose offset is known. An
  offset two values were seen at is in ``conflicts``. A value seen at two offsets is in
  ``duplicates``.

Decisions
* minilog has no transactions, so sends of one operation stand or fall alone: an ``info`` completion
  may know the offset of some (those were acknowledged), and a read value proves only itself.
  Exceptions: ``txn`` (one read value proves all) and ``batch`` (proves all sends of that key, and
  their offsets, which are in a row).
* An acknowledgement at a weak acks level (R9) is kept as ``info`` without offset, and remembered as
  weak.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from tests.process.checker.history_format import (
    NEMESIS,
    PHASE,
    Event,
    Key,
    MalformedHistory,
    PolledRecord,
    Process,
    Value,
)
from tests.process.checker.verdict import Options

CLIENT: Final = ("send", "poll", "txn", "assign", "subscribe", "crash")
DATA: Final = ("send", "poll", "txn")
FIRST_PHASE: Final = "start"
_Pending = dict[Process, list["Op"]]


class Send(NamedTuple):
    key: Key
    value: Value
    offset: int | None
    digest: str | None


class Op:
    """One operation of one process. ``polls`` has one list per key, concatenated over its poll
    micro-ops."""

    __slots__ = (
        "done", "done_i", "done_ns", "f", "invoke", "invoke_i", "invoke_ns", "number", "phase", "polls", "process",
        "sends", "type", "weak",
    )  # fmt: skip

    def __init__(self, number: int, invoke: Event, phase: str) -> None:
        self.number, self.invoke, self.phase = number, invoke, phase
        self.process, self.f = invoke.process, invoke.f
        self.invoke_i, self.invoke_ns = invoke.i, invoke.t_ns
        self.done: Event = invoke
        self.done_i, self.done_ns = invoke.i, invoke.t_ns
        self.type = "invoke"
        self.weak = False
        self.sends: Sequence[Send] = ()
        self.polls: dict[Key, Sequence[PolledRecord]] = {}

    def __str__(self) -> str:
        return f"{self.f} {self.invoke_i} of {self.process} ({self.type})"


class KeyLog:
    """What is known of one key."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.log: dict[int, Value] = {}  # the first value seen at the offset
        self.conflicts: dict[int, set[Value]] = {}  # all of them, where there are several
        self.positions: dict[Value, int] = {}  # the first offset the value was seen at
        self.duplicates: dict[Value, set[int]] = {}  # all of them, where there are several
        self.writer: dict[Value, Op] = {}
        self.sent: dict[Value, Send] = {}
        self.ok_read: set[Value] = set()
        self.acked: dict[Value, Op] = {}  # sends with a promise: ok, acks strong enough
        self.weak_acked: dict[Value, Op] = {}
        self.failed: set[Value] = set()
        self.order: list[int] = []  # known offsets, ascending. Their place in it is what Jepsen calls index
        self.rank: dict[int, int] = {}

    def add(self, offset: int, value: Value) -> None:
        seen = self.log.setdefault(offset, value)
        if seen != value:
            self.conflicts.setdefault(offset, {seen}).add(value)
        position = self.positions.setdefault(value, offset)
        if position != offset:
            self.duplicates.setdefault(value, {position}).add(offset)

    def close(self) -> None:
        self.order = sorted(self.log)
        self.rank = {offset: rank for rank, offset in enumerate(self.order)}

    def first(self, value: Value) -> int | None:
        """The lowest index of ``value``, None when no offset of it is known."""
        if value in self.duplicates:
            return self.rank[min(self.duplicates[value])]
        position = self.positions.get(value)
        return None if position is None else self.rank[position]

    def last(self, value: Value) -> int | None:
        if value in self.duplicates:
            return self.rank[max(self.duplicates[value])]
        return self.first(value)

    def place(self, send: Send) -> int | None:
        """The offset of a send: as acknowledged, else the lowest it was seen at, else None."""
        if send.offset is not None:
            return send.offset
        if send.value in self.duplicates:
            return min(self.duplicates[send.value])
        return self.positions.get(send.value)

    def rank_below(self, offset: int) -> int:
        """The index of the last known record below ``offset``; -1 when there is none."""
        return bisect_left(self.order, offset) - 1

    def values_between(self, low: int, high: int) -> list[Value]:
        """Known values at offsets strictly between."""
        return [self.log[offset] for offset in self.order[self.rank_below(low + 1) + 1 : bisect_left(self.order, high)]]


class Index:
    """The derived structures of one history. Raises MalformedHistory."""

    def __init__(self, history: Sequence[Event], options: Options) -> None:
        self.options = options
        self.events = sorted(history, key=lambda event: event.i)
        self.ops: list[Op] = []
        self.phases: list[str] = [FIRST_PHASE]
        self.observations: list[Event] = []
        self.keys: dict[Key, KeyLog] = {}
        self._pair()
        for op in self.ops:
            if op.f in DATA:
                self._parse(op)
        self.data_ops = [op for op in self.ops if op.f in DATA]
        self.by_completion = sorted(self.ops, key=lambda op: op.done_i)
        self._fill_logs()
        for log in self.keys.values():
            log.close()

    @property
    def has_final_phase(self) -> bool:
        return self.options.final_phase is not None and self.options.final_phase in self.phases

    def by_process(self) -> dict[Process, list[Op]]:
        """Operations of each process in the order of their invokes."""
        found: dict[Process, list[Op]] = defaultdict(list)
        for op in self.ops:
            found[op.process].append(op)
        return found

    def witnesses(self, key: Key, offset: int, value: Value, most: int = 3) -> str:
        """Who says that ``value`` of ``key`` is at ``offset``. For messages only, it searches."""
        found = []
        for op in self.ops:
            polled = any(r[0] == offset and r[1] == value for r in op.polls.get(key, ()))
            if polled or any(s.key == key and s.value == value and s.offset == offset for s in op.sends):
                found.append(str(op))
            if len(found) == most:
                break
        return ", ".join(found) or "derived from its batch"

    # --- operations -------------------------------------------------------------------------------

    def _pair(self) -> None:
        pending: _Pending = defaultdict(list)
        phase, seen_i = FIRST_PHASE, None
        for event in self.events:
            if event.i == seen_i:
                raise MalformedHistory(f"two events have i={event.i}")
            seen_i = event.i
            if event.f == NEMESIS:
                phase = self._on_nemesis(event, phase)
            elif event.type == "invoke":
                op = Op(len(self.ops), event, phase)
                self.ops.append(op)
                pending[event.process].append(op)
            else:
                self._complete(_take(pending, event), event)
        self._abandon(pending)

    def _on_nemesis(self, event: Event, phase: str) -> str:
        if event.node is not None and event.epoch is not None:
            self.observations.append(event)
        if isinstance(event.value, list) and len(event.value) == 2 and event.value[0] == PHASE:
            name = str(event.value[1])
            if not any(op.phase == phase for op in self.ops) and phase == FIRST_PHASE:
                self.phases.remove(FIRST_PHASE)
            if name in self.phases:
                raise MalformedHistory(f"phase {name!r} begins twice; every phase has a name of its own")
            self.phases.append(name)
            return name
        return phase

    def _complete(self, op: Op, event: Event) -> None:
        if event.f != op.f:
            raise MalformedHistory(f"event {event.i} completes {op} as {event.f!r}")
        op.done, op.done_i, op.done_ns, op.type = event, event.i, event.t_ns, event.type

    def _abandon(self, pending: _Pending) -> None:
        if not self.events:
            return
        end, end_ns = self.events[-1].i + 1, self.events[-1].t_ns
        for left in pending.values():
            for op in left:
                op.done_i, op.done_ns, op.type = end, end_ns, "info"

    # --- micro-ops --------------------------------------------------------------------------------

    def _parse(self, op: Op) -> None:
        invoked, done = op.invoke.value, op.done.value
        if op.done is op.invoke or done is None:
            done = [None] * len(invoked)
        try:
            sends = []
            for asked, answered in zip(invoked, done, strict=True):
                if asked[0] == "send":
                    sends.append(_send(asked, answered))
                elif asked[0] != "poll":
                    raise ValueError(f"a micro-op is a send or a poll, not {asked!r}")
                elif answered is not None:
                    _parse_poll(op, answered)
            op.sends = sends
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise MalformedHistory(f"{op}: {error}; asked {str(invoked)[:200]}, answered {str(done)[:200]}") from error
        acks = self.options.acks if op.invoke.acks is None else op.invoke.acks
        if sends and acks not in self.options.strong_acks:
            op.weak = True
            op.sends = [send._replace(offset=None) for send in sends]

    # --- logs -------------------------------------------------------------------------------------

    def _log(self, key: Key) -> KeyLog:
        log = self.keys.get(key)
        if log is None:
            log = self.keys[key] = KeyLog(key)
        return log

    def _fill_logs(self) -> None:
        for op in self.ops:
            for key, records in op.polls.items():
                self._on_polled(self._log(key), op, records)
        for op in self.ops:
            if op.sends:
                self._on_sent(op)

    def _on_polled(self, log: KeyLog, op: Op, records: Sequence[PolledRecord]) -> None:
        for record in records:
            log.add(record[0], record[1])
        if op.type == "ok":
            log.ok_read.update(record[1] for record in records)

    def _on_sent(self, op: Op) -> None:
        committed = self._committed_keys(op)
        if op.type == "fail" or (op.f == "txn" and any(send.key not in committed for send in op.sends)):
            op.sends = [send._replace(offset=None) for send in op.sends]  # the offset of what may not be there
        for send in op.sends:
            log = self._log(send.key)
            if send.value in log.writer:
                raise MalformedHistory(f"{op} sends {send.value!r} to {send.key}, and so does {log.writer[send.value]}")
            log.writer[send.value] = op
            log.sent[send.value] = send
            if op.type == "fail":
                log.failed.add(send.value)
            elif op.weak:
                if op.type == "ok":
                    log.weak_acked[send.value] = op
            elif op.type == "ok" or send.offset is not None:
                log.acked[send.value] = op
            if send.offset is not None and send.value in log.acked:
                log.add(send.offset, send.value)
        if op.invoke.batch and op.type != "fail":
            self._derive_batch_offsets(op)

    def _committed_keys(self, op: Op) -> set[Key]:
        """The keys of whose sends all must have committed."""
        if op.type == "ok" and not op.weak:
            return {send.key for send in op.sends}
        if op.type == "fail":
            return set()
        read = {send.key for send in op.sends if send.value in self._log(send.key).ok_read}
        if op.f == "txn" and read:
            return {send.key for send in op.sends}
        return read if op.invoke.batch else set()

    def _derive_batch_offsets(self, op: Op) -> None:
        by_key: dict[Key, list[Send]] = defaultdict(list)
        for send in op.sends:
            by_key[send.key].append(send)
        for key, sends in by_key.items():
            log = self._log(key)
            anchors = [(n, log.place(send)) for n, send in enumerate(sends)]
            anchor = next(((n, offset) for n, offset in anchors if offset is not None), None)
            if anchor is None:
                continue
            for n, send in enumerate(sends):
                if log.place(send) is None:
                    log.add(anchor[1] + n - anchor[0], send.value)

    def must_have_committed(self, log: KeyLog, value: Value) -> bool:
        """Whether the send of ``value`` provably happened, even if nobody read it."""
        if value in log.acked or value in log.ok_read:
            return True
        op = log.writer.get(value)
        return op is not None and log.key in self._committed_keys(op)


def _take(pending: _Pending, event: Event) -> Op:
    """The operation ``event`` completes; assignments may be recorded by their completion alone."""
    waiting = pending[event.process]
    if event.op is None and len(waiting) == 1:
        return waiting.pop()
    for n, op in enumerate(waiting):
        if op.invoke_i == event.op:
            return waiting.pop(n)
    raise MalformedHistory(
        f"event {event.i} completes op={event.op} of {event.process}, which has {len(waiting)} operations in flight"
    )


def _send(invoked: list[Any], done: list[Any] | None) -> Send:
    digest = invoked[3] if len(invoked) > 3 else None
    if done is None:
        return Send(invoked[1], invoked[2], None, digest)
    offset, value = done[2]
    if done[0] != "send" or done[1] != invoked[1] or value != invoked[2]:
        raise ValueError(f"invoked {invoked}, completed {done}")
    if offset is not None and (not isinstance(offset, int) or offset < 0):
        raise ValueError(f"an offset is a number from 0 up or null, not {offset!r}")
    return Send(invoked[1], invoked[2], offset, digest)


def _parse_poll(op: Op, answered: list[Any]) -> None:
    if answered[0] != "poll":
        raise ValueError(f"a poll was answered by {answered!r}")
    for key, records in answered[1].items() if len(answered) > 1 else ():
        for record in records:
            if not isinstance(record[0], int) or record[0] < 0 or record[1] is None:
                raise ValueError(f"a polled record is [offset, value, ...], not {record!r}")
        op.polls[key] = [*op.polls[key], *records] if key in op.polls else records
