"""What may only grow, as clients and observers saw it: high watermarks and epochs; and cuts nobody
was told about.

Decisions
* hw-regression: a process was shown high watermark h, or read offset h - 1, and the reply to a
  request it started later says less than h. Null ("unknown", before a new leader's start, R7) is
  always allowed. Between *different* processes the same is counted as hw-regression-realtime: a
  deposed leader that has not heard of it may answer with what it knew (staleness, not loss). With
  ``self_fencing`` (R30) it may not.
* read-beyond-hw (R12): a reply holds a record at or above the high watermark the same reply names.
* epoch-regression, per subject (leader epoch of a key, "controller", "broker 2", ...): an
  observation started after another one ended shows less, and both are of one client, or of one
  node, or both are acknowledgements of sends at a strong level (those prove a commit in their
  epoch, whoever asked). Otherwise epoch-regression-realtime is counted. Records carry the epoch of
  their batch (fourth element): read forwards by one operation, it never goes down.
* silent-truncation (R23), judged when there is a final read to compare with: a process read a
  record the final read shows otherwise or not at all, and later read a record at a higher offset
  that the final read confirms: between the two it crossed a cut, and it recorded no ``truncated``
  for the key. This is never allowed, unclean or not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable, Iterable
from itertools import pairwise
from typing import Final

from tests.process.checker.history_format import Key, Process, Value
from tests.process.checker.history_index import Index, KeyLog, Op
from tests.process.checker.verdict import Findings

EVERYBODY: Final = ("everybody",)


class _Proofs:
    """Who had proven which number by when: the highest one before a given event."""

    def __init__(self) -> None:
        self._when: dict[Hashable, list[int]] = defaultdict(list)
        self._best: dict[Hashable, list[tuple[int, str]]] = defaultdict(list)

    def add(self, scope: Hashable, done_i: int, number: int, source: str) -> None:
        """Must be called in the order of ``done_i``."""
        best = self._best[scope]
        if not best or number > best[-1][0]:
            best.append((number, source))
            self._when[scope].append(done_i)

    def before(self, scope: Hashable, invoke_i: int) -> tuple[int, str] | None:
        at = bisect_left(self._when.get(scope, ()), invoke_i)
        return self._best[scope][at - 1] if at else None


def judge(index: Index, findings: Findings) -> None:
    _high_watermarks(index, findings)
    _epochs(index, findings)
    _record_epochs(index, findings)
    if index.has_final_phase:
        _silent_truncations(index, findings)


# --- high watermarks ------------------------------------------------------------------------------


def _high_watermarks(index: Index, findings: Findings) -> None:
    falling = _falling(item for op in index.by_completion for item in (*_replied(op).items(), *_shown(op).items()))
    proofs = _Proofs()
    for op in index.by_completion if falling else ():
        for key, hw in _shown(op).items():
            for scope in ((key, op.process), (key, EVERYBODY)):
                proofs.add(scope, op.done_i, hw, str(op))
    for op in index.data_ops:
        for key, hw in _replied(op).items():
            _judge_read_beyond(findings, op, key, hw)
            if key in falling:
                _judge_high_watermark(index, findings, proofs, op, key, hw)


def _falling(shown: Iterable[tuple[str, int]]) -> set[str]:
    """The names whose number ever went down. Nothing of the others can be wrong, which saves nearly
    all the work."""
    highest: dict[str, int] = {}
    falling = set()
    for name, number in shown:
        if number >= highest.get(name, number):
            highest[name] = number
        else:
            falling.add(name)
    return falling


def _replied(op: Op) -> dict[Key, int]:
    return {key: hw for key, hw in op.done.hw.items() if hw is not None} if op.done.hw else {}


def _shown(op: Op) -> dict[Key, int]:
    """The high watermark each key is proven to have reached."""
    if not op.polls and not op.done.hw:
        return {}
    shown = _replied(op)
    for key, records in op.polls.items():
        if records:
            shown[key] = max(shown.get(key, 0), 1 + max(record[0] for record in records))
    return shown


def _judge_read_beyond(findings: Findings, op: Op, key: Key, hw: int) -> None:
    highest = max((record[0] for record in op.polls.get(key, ())), default=-1)
    if highest >= hw:
        examples = findings.add("read-beyond-hw")
        if examples is not None:
            examples.append(f"{key}: {op} was shown offset {highest} and high watermark {hw} in one reply")


def _judge_high_watermark(index: Index, findings: Findings, proofs: _Proofs, op: Op, key: Key, hw: int) -> None:
    own = proofs.before((key, op.process), op.invoke_i)
    known = proofs.before((key, EVERYBODY), op.invoke_i)
    if own is not None and own[0] > hw:
        name, allowed, (before, source) = "hw-regression", False, own
    elif known is not None and known[0] > hw:
        name, allowed, (before, source) = "hw-regression-realtime", not index.options.self_fencing, known
    else:
        return
    allowed = allowed or index.options.loss_allowed(key, before - 1)
    examples = findings.add(name, allowed=allowed)
    if examples is not None:
        examples.append(f"{key}: {op} was shown {hw}, and before it began {source} had proven {before}")


# --- epochs ---------------------------------------------------------------------------------------


class _Observation:
    """One epoch somebody saw."""

    __slots__ = ("done_i", "epoch", "invoke_i", "scopes", "source", "subject")

    def __init__(self, subject: str, epoch: int, invoke_i: int, done_i: int, source: str) -> None:
        self.subject, self.epoch, self.source = subject, epoch, source
        self.invoke_i, self.done_i = invoke_i, done_i
        self.scopes: list[Hashable] = []


def _epochs(index: Index, findings: Findings) -> None:
    seen_by_end = [(e.i, e.epoch) for e in index.observations if isinstance(e.epoch, dict)]
    seen_by_end += [(op.done_i, _epochs_of(op)) for op in index.data_ops if op.done.epoch is not None]
    seen_by_end.sort(key=lambda entry: entry[0])
    falling = _falling(item for _, epochs in seen_by_end for item in epochs.items())
    if not falling:
        return
    observations = sorted(_observations(index, falling), key=lambda o: o.done_i)
    proofs = _Proofs()
    for seen in observations:
        for scope in (*seen.scopes, EVERYBODY):
            proofs.add((seen.subject, scope), seen.done_i, seen.epoch, seen.source)
    for seen in observations:
        strict = [proofs.before((seen.subject, scope), seen.invoke_i) for scope in seen.scopes]
        bound = max((proof for proof in strict if proof is not None), default=None)
        anyone = proofs.before((seen.subject, EVERYBODY), seen.invoke_i)
        if bound is not None and bound[0] > seen.epoch:
            _tell_epoch(findings, "epoch-regression", seen, bound)
        elif anyone is not None and anyone[0] > seen.epoch:
            _tell_epoch(findings, "epoch-regression-realtime", seen, anyone)


def _tell_epoch(findings: Findings, name: str, seen: _Observation, before: tuple[int, str]) -> None:
    examples = findings.add(name, allowed=name.endswith("-realtime"))
    if examples is not None:
        examples.append(f"{seen.subject}: {seen.source} saw epoch {seen.epoch}, {before[1]} had seen {before[0]}")


def _observations(index: Index, subjects: set[str]) -> Iterable[_Observation]:
    for event in index.observations:
        for subject, epoch in event.epoch.items() if isinstance(event.epoch, dict) else ():
            if subject not in subjects:
                continue
            seen = _Observation(subject, epoch, event.i, event.i, f"event {event.i} of node {event.node}")
            seen.scopes = [("node", event.node)]
            yield seen
    for op in index.data_ops:
        for subject, epoch in _epochs_of(op).items():
            if subject not in subjects:
                continue
            seen = _Observation(subject, epoch, op.invoke_i, op.done_i, str(op))
            seen.scopes = [("process", op.process)]
            if op.done.node is not None:
                seen.scopes.append(("node", op.done.node))
            if op.type == "ok" and op.sends and not op.weak:
                seen.scopes.append(("acknowledged",))
            yield seen


def _epochs_of(op: Op) -> dict[str, int]:
    epoch = op.done.epoch
    if epoch is None:
        return {}
    if isinstance(epoch, dict):
        return epoch
    if len(op.sends) == 1 and not op.polls:
        return {op.sends[0].key: epoch}
    keys = {*op.polls, *(send.key for send in op.sends)}
    return dict.fromkeys(keys, epoch) if len(keys) == 1 else {}


def _record_epochs(index: Index, findings: Findings) -> None:
    for op in index.data_ops:
        for key, records in op.polls.items():
            if key in (op.done.rebalanced or ()):
                continue
            known = [record for record in records if len(record) > 3 and record[3] is not None]
            for a, b in pairwise(known):
                if b[0] > a[0] and b[3] < a[3]:
                    examples = findings.add("epoch-regression")
                    if examples is not None:
                        examples.append(
                            f"{key}: {op} read offset {a[0]} of epoch {a[3]}, then offset {b[0]} of epoch {b[3]}"
                        )


# --- truncations ----------------------------------------------------------------------------------


def _silent_truncations(index: Index, findings: Findings) -> None:
    final: dict[Key, dict[int, Value]] = defaultdict(dict)
    for op in index.data_ops:
        if op.phase == index.options.final_phase and op.type == "ok":
            for key, records in op.polls.items():
                final[key].update((record[0], record[1]) for record in records)
    changed = {log.key for log in index.keys.values() if _was_cut(log, final[log.key])}
    cut: dict[tuple[Process, Key], tuple[int, Value, Op]] = {}  # the highest record read that is there no more
    for op in index.by_completion if changed else ():
        for key in op.done.truncated or ():
            cut.pop((op.process, key), None)
        for key, records in op.polls.items():
            for record in records if key in changed else ():
                _follow_cut(index.keys[key], findings, op, final[key], cut, record[0], record[1])


def _was_cut(log: KeyLog, final: dict[int, Value]) -> bool:
    """Whether anything known of the key is not as the final read shows it."""
    start = min(final, default=0)
    return bool(log.conflicts) or any(final.get(o) != value for o, value in log.log.items() if o >= start)


def _follow_cut(
    log: KeyLog, findings: Findings, op: Op, final: dict[int, Value],
    cut: dict[tuple[Process, Key], tuple[int, Value, Op]], offset: int, value: Value,
) -> None:  # fmt: skip
    reader = (op.process, log.key)
    if final.get(offset) != value:
        if final and offset >= min(final):
            cut[reader] = (offset, value, op)
    elif reader in cut and offset > cut[reader][0]:
        at, lost, by = cut.pop(reader)
        examples = findings.add("silent-truncation")
        if examples is not None:
            examples.append(f"{log.key}: {by} read {lost!r} at offset {at}, which is gone; {op} went on at {offset}")
