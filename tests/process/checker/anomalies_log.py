"""What is in the logs: conflicts, duplicates, losses, and reads of what nobody (successfully)
wrote.

Decisions
* lost-write compares the earliest index of what was read with the latest index of the victim, so
  the verdict does not depend on how conflicting offsets are resolved. Records below ``log_start``
  are not missed.
* phantom-read: also a value whose poll completed before its send was invoked: nothing can be read
  before it is sent.
* aborted-read looks at ``ok`` polls only, as defined; phantom-read and bit-exactness at every poll.
* bit-exactness: a value sent without a digest is compared with the first digest it was read with.
* unseen is judged over the whole history (acknowledged, polled by nobody). final-missing is
  stricter: what was acknowledged *or read by anybody* must be there once more in the final read, so
  a record that vanished after it was consumed is found too. Losing what was acknowledged at a weak
  level is tolerated, unless a consumer had read it: readers see only what is below the high
  watermark (R12), and that is never lost.
* Without a final phase unseen is only counted.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.process.checker.history_format import Value
from tests.process.checker.history_index import Index, KeyLog, Op
from tests.process.checker.verdict import Findings


def judge(index: Index, findings: Findings) -> None:
    for log in index.keys.values():
        _inconsistent_offsets(index, log, findings)
        _duplicates(index, log, findings)
        _lost_writes(index, log, findings)
        _unseen(index, log, findings)
    _reads(index, findings)
    _digests(index, findings)
    if index.has_final_phase:
        _final_missing(index, findings)


def _inconsistent_offsets(index: Index, log: KeyLog, findings: Findings) -> None:
    for offset, values in log.conflicts.items():
        examples = findings.add("inconsistent-offsets", allowed=index.options.loss_allowed(log.key, offset))
        if examples is not None:
            seen = "; ".join(f"{v!r} by {index.witnesses(log.key, offset, v)}" for v in sorted(values, key=str))
            examples.append(f"{log.key} offset {offset}: {seen}")


def _duplicates(index: Index, log: KeyLog, findings: Findings) -> None:
    for value, offsets in log.duplicates.items():
        examples = findings.add("duplicate", allowed=not index.options.idempotent)
        if examples is not None:
            seen = "; ".join(f"{o} by {index.witnesses(log.key, o, value)}" for o in sorted(offsets))
            examples.append(f"{log.key}: {value!r} at offsets {seen}")


def _lost_writes(index: Index, log: KeyLog, findings: Findings) -> None:
    firsts = (log.first(value) for value in log.ok_read)
    bound = max((first for first in firsts if first is not None), default=-1)
    for value in log.positions.keys() - log.ok_read:
        last = log.last(value)
        if last is None or last > bound or log.order[last] < index.options.log_start.get(log.key, 0):
            continue
        if not index.must_have_committed(log, value):
            continue
        offset = log.positions[value]
        examples = findings.add("lost-write", allowed=index.options.loss_allowed(log.key, offset))
        if examples is not None:
            examples.append(
                f"{log.key}: {value!r} of {log.writer[value]} at offset {offset} was never read, "
                f"although reading reached offset {log.order[bound]}"
            )


def _is_kept(index: Index, log: KeyLog, value: Value) -> bool:
    """Whether retention has left ``value`` alone. An unknown offset counts as kept."""
    offset = log.place(log.sent[value]) if value in log.sent else log.positions.get(value)
    return offset is None or offset >= index.options.log_start.get(log.key, 0)


def _unseen(index: Index, log: KeyLog, findings: Findings) -> None:
    acked: Iterable[tuple[Value, Op]] = [*log.acked.items(), *log.weak_acked.items()]
    for value, op in acked:
        if value in log.ok_read or not _is_kept(index, log, value):
            continue
        offset = log.sent[value].offset
        tolerated = op.weak or not index.has_final_phase or index.options.loss_allowed(log.key, offset)
        examples = findings.add("unseen", allowed=tolerated)
        if examples is not None:
            weak = " at a weak acks level" if op.weak else ""
            examples.append(f"{log.key}: {value!r} of {op}, acknowledged at offset {offset}{weak}, was read by nobody")


def _final_missing(index: Index, findings: Findings) -> None:
    final: dict[str, set[Value]] = {key: set() for key in index.keys}
    for op in index.data_ops:
        if op.phase == index.options.final_phase and op.type == "ok":
            for key, records in op.polls.items():
                final[key].update(record[1] for record in records)
    for key, log in index.keys.items():
        for value in (log.ok_read | log.acked.keys()) - final[key]:
            if not _is_kept(index, log, value):
                continue
            offset = log.sent[value].offset if value in log.sent else None
            if offset is None:
                offset = log.positions.get(value)
            examples = findings.add("final-missing", allowed=index.options.loss_allowed(key, offset))
            if examples is not None:
                how = "read before" if value in log.ok_read else "acknowledged"
                examples.append(f"{key}: {value!r} at offset {offset} was {how}, and is not in the final read")


def _reads(index: Index, findings: Findings) -> None:
    told: set[tuple[str, str, Value]] = set()
    for op in index.data_ops:
        for key, records in op.polls.items():
            log = index.keys[key]
            for record in records:
                value: Value = record[1]
                writer = log.writer.get(value)
                if writer is None or op.done_i < writer.invoke_i:
                    name = "phantom-read"
                elif writer is op:
                    name = "precommitted-read"
                elif writer.type == "fail" and op.type == "ok":
                    name = "aborted-read"
                else:
                    continue
                if (name, key, value) not in told:
                    told.add((name, key, value))
                    _explain_read(findings, name, op, f"{key} offset {record[0]}: {value!r}", writer)


def _explain_read(findings: Findings, name: str, op: Op, what: str, writer: Op | None) -> None:
    examples = findings.add(name)
    if examples is not None:
        origin = "nobody sent it" if writer is None else f"sent by {writer}, {writer.done.err or 'no error'}"
        examples.append(f"{what}, read by {op}; {origin}")


def _digests(index: Index, findings: Findings) -> None:
    known = {
        key: {value: send.digest for value, send in log.sent.items() if send.digest is not None}
        for key, log in index.keys.items()
    }
    for op in index.data_ops:
        for key, records in op.polls.items():
            digests = known[key]
            for record in records:
                if len(record) < 3 or record[2] is None or digests.setdefault(record[1], record[2]) == record[2]:
                    continue
                examples = findings.add("bit-exactness")
                if examples is not None:
                    what = f"{key} offset {record[0]}: {record[1]!r}"
                    examples.append(f"{what} was {digests[record[1]]}, {op} read {record[2]}")
