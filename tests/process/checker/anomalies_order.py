"""In which order records were sent and shown: inside one operation, from operation to operation,
and in real time.

Decisions
* Polls are judged by offset: the distance from offset a to b is the number of known offsets in (a,
  b], negative backwards. It equals the distance of indexes in a log without conflicts, and stays
  defined in one with conflicts. The same value at two offsets is a duplicate and no step back.
* Sends are judged by offset too: as acknowledged, else as read. A send whose offset nobody knows
  says nothing and leaves the last known one standing, so a regress across it is seen.
* A process pipelines its sends, so "the previous sending operation" goes by invoke; polls go by
  completion.
* Whether poll-skip and nonmonotonic-poll between operations are allowed depends on the last assign
  (never) or subscribe (tolerated) of the process. One that recorded neither counts as assigned.
* A key rebalanced during an operation is not judged inside it nor against what came before it. A
  truncation the consumer was told about, and a crash, make it forget too. An assignment that names
  an offset (a seek) is a position like one reached by polling: the next poll must go on exactly
  there.
* offset-gap: one reader crossed from a to b, and what lies between is known to nobody: not a skip,
  a hole in the log. Between operations it is judged for assigned readers only.
* After a forced lossy election offsets are given out again: sends below lost ones are tolerated as
  far as the loss is.
* realtime-send (one key's G0-realtime, never allowed): once an acknowledgement or a poll proved
  that an offset exists, a send invoked later must land above it. Proofs below weak acks do not
  exist (their offsets are dropped).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tests.process.checker.history_format import Key, PolledRecord
from tests.process.checker.history_index import Index, KeyLog, Op, Send
from tests.process.checker.verdict import Findings


def judge(index: Index, findings: Findings) -> None:
    gaps: set[tuple[Key, int, int]] = set()
    for ops in index.by_process().values():
        _Reader(index, findings, gaps).follow(sorted(ops, key=lambda op: op.done_i))
        _follow_sends(index, findings, ops)
    _realtime_sends(index, findings)


def assigned_keys(op: Op) -> Mapping[Key, int | None]:
    """The keys of an assign or subscribe, with the offset each was moved to, None where it
    stayed."""
    value = op.done.value if op.done.value is not None else op.invoke.value
    return value if isinstance(value, dict) else dict.fromkeys(value or ())


class _Reader:
    """Follows one process through its polls."""

    def __init__(self, index: Index, findings: Findings, gaps: set[tuple[Key, int, int]]) -> None:
        self.index, self.findings, self.gaps = index, findings, gaps
        self.subscribed = False
        self.last: dict[Key, int] = {}  # the offset just before what the next poll must show

    def follow(self, ops: Iterable[Op]) -> None:
        for op in ops:
            if op.f in ("assign", "subscribe") and op.type in ("ok", "info"):
                self._on_assignment(op)
            elif op.f == "crash":
                self.last.clear()
            elif op.f in ("poll", "txn"):
                self._on_poll(op)

    def _on_assignment(self, op: Op) -> None:
        self.subscribed = op.f == "subscribe"
        keys = assigned_keys(op)
        self.last = {key: last for key, last in self.last.items() if key in keys}
        for key, start in keys.items():
            if start is not None:
                self.last[key] = max(start, self.index.options.log_start.get(key, 0)) - 1

    def _on_poll(self, op: Op) -> None:
        rebalanced = op.done.rebalanced or ()
        for key in (*rebalanced, *(op.done.truncated or ())):
            self.last.pop(key, None)
        for key, records in op.polls.items():
            if not records:
                continue
            log = self.index.keys[key]
            if key not in rebalanced:
                self._inside(op, log, records)
            if key in self.last:
                self._between(op, log, records[0][0])
            if op.type == "ok":
                self.last[key] = records[-1][0]

    def _inside(self, op: Op, log: KeyLog, records: Sequence[PolledRecord]) -> None:
        a = records[0][0]
        for record in records[1:]:
            b = record[0]
            if b != a + 1:
                if b <= a:
                    self._tell("int-nonmonotonic-poll", op, log, a, b)
                else:
                    self._forward(op, log, a, b, "int-poll-skip", judge_gap=True)
            a = b

    def _between(self, op: Op, log: KeyLog, b: int) -> None:
        a = self.last[log.key]
        if b <= a:
            self._tell("nonmonotonic-poll", op, log, a, b, allowed=self.subscribed)
        elif b > a + 1:
            self._forward(op, log, a, b, "poll-skip", judge_gap=not self.subscribed)

    def _forward(self, op: Op, log: KeyLog, a: int, b: int, name: str, judge_gap: bool) -> None:
        known = log.rank[b] - log.rank_below(a + 1) - 1
        if known > 0:
            self._tell(name, op, log, a, b, allowed=name == "poll-skip" and self.subscribed)
        unknown = b - a - 1 - known
        if unknown > 0 and judge_gap and self.index.options.contiguous_offsets and (log.key, a, b) not in self.gaps:
            self.gaps.add((log.key, a, b))
            examples = self.findings.add("offset-gap")
            if examples is not None:
                examples.append(f"{log.key}: {op} went from offset {a} to {b}; {unknown} between them hold nothing")

    def _tell(self, name: str, op: Op, log: KeyLog, a: int, b: int, allowed: bool = False) -> None:
        examples = self.findings.add(name, allowed=allowed)
        if examples is not None:
            skipped = log.values_between(a, b)
            what = f"; skipped {skipped[:5]!r} and {max(0, len(skipped) - 5)} more" if skipped else ""
            examples.append(f"{log.key}: {op} went from offset {a} to {b} ({log.log[b]!r}){what}")


# --- sends ----------------------------------------------------------------------------------------


def _follow_sends(index: Index, findings: Findings, ops: Iterable[Op]) -> None:
    last: dict[Key, tuple[int, Send, Op]] = {}
    for op in ops:
        if op.f in ("assign", "subscribe") and op.type in ("ok", "info"):
            keys = assigned_keys(op)
            last = {key: known for key, known in last.items() if key in keys}
        elif op.f == "crash":
            last.clear()
        elif op.sends and op.type in ("ok", "info"):
            for send in op.sends:
                _judge_send(index, findings, op, send, last)


def _judge_send(index: Index, findings: Findings, op: Op, send: Send, last: dict[Key, tuple[int, Send, Op]]) -> None:
    log = index.keys[send.key]
    b = log.place(send)
    if b is None:
        return
    if send.key in last:
        a, before, before_op = last[send.key]
        name = "int-nonmonotonic-send" if before_op is op else "nonmonotonic-send"
        if b <= a:
            allowed = not index.options.ordered_sends or index.options.loss_allowed(send.key, a)
            examples = findings.add(name, allowed=allowed)
            if examples is not None:
                examples.append(
                    f"{send.key}: {before.value!r} of {before_op} is at offset {a}, {send.value!r} of {op} at {b}"
                )
        elif before_op is op and b != a + 1:
            _judge_send_skip(findings, op, log, before, send, a, b)
    last[send.key] = (b, send, op)


def _judge_send_skip(findings: Findings, op: Op, log: KeyLog, before: Send, send: Send, a: int, b: int) -> None:
    foreign = log.values_between(a, b)
    if not foreign and not op.invoke.batch:
        return
    examples = findings.add("int-send-skip", allowed=not op.invoke.batch)
    if examples is not None:
        batch = "one batch, but " if op.invoke.batch else ""
        examples.append(
            f"{log.key}: {op}: {batch}{before.value!r} at offset {a} and {send.value!r} at {b}; between {foreign[:5]!r}"
        )


def _realtime_sends(index: Index, findings: Findings) -> None:
    proven: dict[Key, tuple[int, Op]] = {}  # the highest offset proven so far, and by whom
    for op, begins in _boundaries(index):
        if begins:
            for send in op.sends if op.type != "fail" else ():
                if send.key in proven:
                    _judge_realtime_send(index, findings, op, send, *proven[send.key])
            continue
        for key, offset in _proofs(index, op):
            if key not in proven or offset > proven[key][0]:
                proven[key] = (offset, op)


def _boundaries(index: Index) -> list[tuple[Op, bool]]:
    """Every begin (True) and end (False) of data operations, in order."""
    begins = [(op.invoke_i, op, True) for op in index.data_ops]
    ends = [(op.done_i, op, False) for op in index.data_ops]
    return [(op, begin) for _, op, begin in sorted([*begins, *ends], key=lambda entry: (entry[0], entry[2]))]


def _proofs(index: Index, op: Op) -> Iterable[tuple[Key, int]]:
    for key, records in op.polls.items():
        if records:
            yield key, max(record[0] for record in records)
    if op.type != "fail":
        for send in op.sends:
            if send.offset is not None and send.value in index.keys[send.key].acked:
                yield send.key, send.offset


def _judge_realtime_send(index: Index, findings: Findings, op: Op, send: Send, floor: int, witness: Op) -> None:
    offset = index.keys[send.key].place(send)
    if offset is None or offset > floor:
        return
    allowed = index.options.loss_allowed(send.key, floor)
    examples = findings.add("realtime-send", allowed=allowed)
    if examples is not None:
        examples.append(
            f"{send.key}: {witness} had proven offset {floor} before {op} began, yet {send.value!r} is at {offset}"
        )
