"""The history checker: given everything clients did and saw, is there any way this was a correct
log?

    verdict = check(recorder.events(), Options())         assert verdict.valid, verdict
    python -m tests.process.checker.history FILE                  judge a file
    python -m tests.process.checker.history --self-test           does it find what it claims to find?

A history is valid iff no class of anomaly has a violation and every phase did something: at least
``ok_share_min`` of its operations were ok, every kind of operation succeeded at least once, and the
final read took place.

Where things are, each with the decisions it took where Jepsen leaves a choice:
    history_format    events, recorder, file
    history_index     operations, logs, who wrote what
    anomalies_log     what is in the logs               anomalies_epochs   what may only grow; silent truncation
    anomalies_order   the order of sends and polls      anomalies_cycles   dependency cycles
    anomalies_brokers replicas and the brokers' trace   history_metrics    lag, delivery counts, unseen over time
    verdict           options, classes, the verdict     recorded           minilog's clients with a recorder
    history_generator, history_grafts, history_draft, history_mutations, history_selftest   the checker's own test

Decisions of this module
* An operation without completion is ``info``. Only send, poll and txn count for the share of ok
  operations.
* A phase in which no data operation began is a problem (an idle cluster proves nothing), except
  what is before the first phase mark.
* The final phase must have read every key any acknowledgement or poll knows of, from ``log_start``
  up to the highest known offset. The absence of single records there is the class final-missing.
Source: Jepsen's Kafka workload for most classes. Those that are stricter are minilog's own.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.process.checker import (
    anomalies_brokers,
    anomalies_cycles,
    anomalies_epochs,
    anomalies_log,
    anomalies_order,
    history_metrics,
)
from tests.process.checker.anomalies_brokers import AckTrace, Replica, Replicas
from tests.process.checker.history_format import Event, MalformedHistory, Recorder, collector_off, digest, load, save
from tests.process.checker.history_index import DATA, FIRST_PHASE, Index
from tests.process.checker.verdict import CLASSES, Findings, Options, Verdict

__all__ = [
    "CLASSES", "AckTrace", "Event", "MalformedHistory", "Options", "Recorder", "Replica", "Verdict", "check", "digest",
    "load", "save",
]  # fmt: skip


def check(
    history: Sequence[Event],
    options: Options | None = None,
    *,
    replicas: Replicas | None = None,
    acks: Sequence[AckTrace] = (),
) -> Verdict:
    """Judge a history, and the brokers' own records if given. Raises MalformedHistory."""
    options = options or Options()
    with collector_off():
        index = Index(history, options)
        findings = Findings(options.examples_max)
        anomalies_log.judge(index, findings)
        anomalies_order.judge(index, findings)
        anomalies_epochs.judge(index, findings)
        if options.cycles:
            anomalies_cycles.judge(index, findings)
        anomalies_brokers.judge_replicas(replicas or {}, findings)
        anomalies_brokers.judge_acks(acks, findings)
        metrics = _metrics(index)
        problems = [*_phase_problems(index), *_final_problems(index), *_lag_problems(options, metrics)]
        return Verdict(findings.classes, problems, _counts(index), metrics)


def _counts(index: Index) -> dict[str, int]:
    return {
        "events": len(index.events),
        "operations": len(index.ops),
        "sent": sum(len(log.writer) for log in index.keys.values()),
        "acknowledged": sum(len(log.acked) for log in index.keys.values()),
        "weakly acknowledged": sum(len(log.weak_acked) for log in index.keys.values()),
        "read": sum(len(log.ok_read) for log in index.keys.values()),
        "reads": sum(len(records) for op in index.data_ops for records in op.polls.values()),
        "keys": len(index.keys),
    }


def _metrics(index: Index) -> dict[str, Any]:
    lag = history_metrics.realtime_lag(index)
    return {
        "realtime lag, worst, ms": round(max(lag.values(), default=0.0), 1),
        "realtime lag by process": {str(process): round(ms, 1) for process, ms in lag.items()},
        "consume counts": history_metrics.consume_counts(index),
        "unseen over time": history_metrics.unseen_series(index),
        "ok by phase": _ok_by_phase(index),
    }


# --- problems -------------------------------------------------------------------------------------


def _ok_by_phase(index: Index) -> dict[str, dict[str, list[int]]]:
    """{phase: {f: [ok, all]}}"""
    found: dict[str, dict[str, list[int]]] = {phase: {} for phase in index.phases}
    for op in index.data_ops:
        row = found[op.phase].setdefault(op.f, [0, 0])
        row[0] += op.type == "ok"
        row[1] += 1
    return found


def _phase_problems(index: Index) -> Iterator[str]:
    for phase, rows in _ok_by_phase(index).items():
        ok, total = (sum(row[n] for row in rows.values()) for n in (0, 1))
        if not total and (phase != FIRST_PHASE or len(index.phases) == 1):
            yield f"nothing was done in phase {phase!r}"
        share = index.options.share_min(phase)
        if total and ok / total < share:
            yield f"{ok} of {total} operations of phase {phase!r} were ok, at least {share:.0%} must be"
    kinds = Counter(op.f for op in index.data_ops)
    ok_kinds = Counter(op.f for op in index.data_ops if op.type == "ok")
    for f in DATA:
        if kinds[f] and not ok_kinds[f]:
            yield f"none of {kinds[f]} {f} operations was ok"


def _final_problems(index: Index) -> Iterator[str]:
    name = index.options.final_phase
    if name is None:
        return
    if not index.has_final_phase:
        yield f"there is no phase {name!r}: without a final read nobody knows what is still there"
        return
    reached: dict[str, list[int]] = {}
    for op in index.data_ops:
        if op.phase == name and op.type == "ok":
            for key, records in op.polls.items():
                reached.setdefault(key, []).extend(record[0] for record in records)
    for key, log in index.keys.items():
        start = index.options.log_start.get(key, 0)
        if not log.order or log.order[-1] < start:
            continue
        offsets = reached.get(key, [])
        if not offsets or (max(offsets) < log.order[-1] and not index.options.unclean):
            got = f"up to {max(offsets)}" if offsets else "nothing"
            yield f"the final read got {got} of {key}, whose highest known offset is {log.order[-1]}"
        elif min(offsets) > start:
            yield f"the final read of {key} began at {min(offsets)}, the log at {start}"


def _lag_problems(options: Options, metrics: dict[str, Any]) -> Iterator[str]:
    worst = metrics["realtime lag, worst, ms"]
    if options.lag_ms_max is not None and worst > options.lag_ms_max:
        yield f"a consumer was {worst} ms behind, at most {options.lag_ms_max} are allowed"


# --- command --------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.process.checker.history", description="Judge a history.")
    parser.add_argument("file", type=Path, nargs="?", help="JSONL, one event a line")
    parser.add_argument("--acks", default="all", help="acks level of sends that name none")
    parser.add_argument("--no-idempotence", action="store_true", help="duplicates are only counted")
    parser.add_argument("--unclean", action="store_true", help="a lossy election was forced: loss is only counted")
    parser.add_argument("--no-final-phase", action="store_true", help="there is no final read")
    parser.add_argument("--ok-share-min", type=float, default=0.5, help="least share of ok operations of a phase")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.add_argument("--self-test", action="store_true", help="corrupt clean histories, print what was detected")
    parser.add_argument("--mutations", type=int, default=50, help="corruptions per class of the self-test")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    if args.self_test:
        from tests.process.checker import history_selftest

        return history_selftest.self_test(args.mutations, args.seed)
    if args.file is None:
        parser.error("name a file, or --self-test")
    options = Options(
        acks=args.acks,
        idempotent=not args.no_idempotence,
        unclean=args.unclean,
        final_phase=None if args.no_final_phase else "final",
        ok_share_min=args.ok_share_min,
    )
    began = time.monotonic()
    verdict = check(load(args.file), options)
    print(json.dumps(verdict.as_dict(), indent=2) if args.json else verdict)
    print(f"  judged in {time.monotonic() - began:.1f} s", file=sys.stderr)
    return 0 if verdict.valid else 1


if __name__ == "__main__":
    sys.exit(main())
