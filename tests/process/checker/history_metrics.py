"""Figures of a history that are reported rather than judged: how far reading was behind, how often
records were delivered.

Decisions
* Offset i of a key is *expired* from the first completion that proves a higher one exists (a poll,
  a promised acknowledgement). The lag of a poll, for each key its process reads, is how long before
  its invoke the highest offset the process has seen, this poll included, had expired; -1 is the
  offset of one that saw nothing.
* Polls of the final phase read old records on purpose. They are left out of the worst lag.
* consume-counts looks at subscribed processes: how often each record was returned by ok operations,
  over all of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from tests.process.checker.anomalies_order import assigned_keys
from tests.process.checker.history_format import Key, Process, Value
from tests.process.checker.history_index import Index, Op

SERIES_POINTS: Final = 100
_MS: Final = 1_000_000


def unseen_series(index: Index) -> list[dict[str, Any]]:
    """Acknowledged but not yet polled by anybody, by key, at even steps of time: [{t_ms, unseen:
    {key: count}}]."""
    changes = sorted(_unseen_changes(index), key=lambda change: change[0])
    if not changes:
        return []
    begin, end = index.events[0].t_ns, index.events[-1].t_ns
    unseen: dict[Key, int] = defaultdict(int)
    series, done = [], 0
    for point in range(1, SERIES_POINTS + 1):
        until = begin + (end - begin) * point // SERIES_POINTS
        while done < len(changes) and changes[done][0] <= until:
            unseen[changes[done][1]] += changes[done][2]
            done += 1
        series.append({"t_ms": (until - begin) // _MS, "unseen": {k: n for k, n in unseen.items() if n}})
    return series


def _unseen_changes(index: Index) -> Iterable[tuple[int, Key, int]]:
    first_read: dict[tuple[Key, Value], int] = {}
    for op in index.by_completion:
        if op.type == "ok":
            for key, records in op.polls.items():
                for record in records:
                    first_read.setdefault((key, record[1]), op.done_ns)
    for key, log in index.keys.items():
        for value, op in log.acked.items():
            read_ns = first_read.get((key, value))
            if read_ns is None or read_ns > op.done_ns:
                yield op.done_ns, key, 1
                if read_ns is not None:
                    yield read_ns, key, -1


# --- lag ------------------------------------------------------------------------------------------


class _Expiry:
    """When each offset of one key was first known not to be the last."""

    def __init__(self) -> None:
        self._highest: list[int] = []
        self._since_ns: list[int] = []

    def prove(self, offset: int, t_ns: int) -> None:
        if not self._highest or offset > self._highest[-1]:
            self._highest.append(offset)
            self._since_ns.append(t_ns)

    def expired_ns(self, offset: int) -> int | None:
        at = bisect_right(self._highest, offset)
        return self._since_ns[at] if at < len(self._highest) else None


def realtime_lag(index: Index) -> dict[Process, float]:
    """The worst lag of each process in ms."""
    expiries: dict[Key, _Expiry] = defaultdict(_Expiry)
    ops = index.by_completion
    for op in ops:
        for key, offset in _proven(index, op):
            expiries[key].prove(offset, op.done_ns)
    seen: dict[Process, dict[Key, int]] = defaultdict(dict)
    worst: dict[Process, float] = {}
    for op in ops:
        if op.f in ("assign", "subscribe") and op.type in ("ok", "info"):
            before = seen[op.process]
            seen[op.process] = {key: before.get(key, -1) for key in assigned_keys(op)}
        elif op.f in ("poll", "txn") and op.type == "ok":
            highest = seen[op.process]
            for key, records in op.polls.items():
                highest[key] = max([highest.get(key, -1), *(record[0] for record in records)])
            if op.phase != index.options.final_phase:
                lag = max((_lag_ms(expiries, op, *entry) for entry in highest.items()), default=0.0)
                worst[op.process] = max(worst.get(op.process, 0.0), lag)
    return worst


def _lag_ms(expiries: dict[Key, _Expiry], op: Op, key: Key, offset: int) -> float:
    expired_ns = expiries[key].expired_ns(offset)
    return 0.0 if expired_ns is None else max(0, op.invoke_ns - expired_ns) / _MS


def _proven(index: Index, op: Op) -> Iterable[tuple[Key, int]]:
    for key, records in op.polls.items():
        if records:
            yield key, max(record[0] for record in records)
    for send in op.sends if op.type != "fail" else ():
        if send.offset is not None and send.value in index.keys[send.key].acked:
            yield send.key, send.offset


def consume_counts(index: Index) -> dict[str, Any]:
    """{"records": delivered to subscribers, "repeated": more than once, "most": the highest count,
    "examples": [...]}."""
    counts: dict[tuple[Key, Value], int] = defaultdict(int)
    for ops in index.by_process().values():
        subscribed = False
        for op in sorted(ops, key=lambda op: op.done_i):
            if op.f in ("assign", "subscribe"):
                subscribed = op.f == "subscribe"
            elif subscribed and op.type == "ok":
                for key, records in op.polls.items():
                    for record in records:
                        counts[key, record[1]] += 1
    repeated = sorted(((count, str(what)) for what, count in counts.items() if count > 1), reverse=True)
    return {
        "records": len(counts),
        "repeated": len(repeated),
        "most": max(counts.values(), default=0),
        "examples": [f"{what}: {count} times" for count, what in repeated[: index.options.examples_max]],
    }
