"""What the checker may be told beforehand, what it found, and whether that is allowed.

Every anomaly is filed under its class, either as a *violation* (makes the history invalid) or as
*tolerated* (counted, shown, allowed under the options or by the model). The first few of each are
kept as sentences a person can follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Key = str

CLASSES: Final[dict[str, str]] = {
    "inconsistent-offsets": "two values at one offset",
    "duplicate": "one value at two offsets",
    "lost-write": "committed, jumped over by readers for ever",
    "aborted-read": "read although its send failed (G1a)",
    "precommitted-read": "an operation read its own send",
    "phantom-read": "read without having been sent",
    "bit-exactness": "payload read differs from payload sent",
    "unseen": "acknowledged, never read by anybody",
    "final-missing": "acknowledged or read before, absent from the final read",
    "offset-gap": "readers crossed an offset at which there is nothing",
    "int-poll-skip": "skipped known records inside one operation",
    "int-nonmonotonic-poll": "went back inside one operation",
    "poll-skip": "skipped known records between operations",
    "nonmonotonic-poll": "went back between operations",
    "int-send-skip": "foreign records between sends of one operation",
    "int-nonmonotonic-send": "sends of one operation out of order",
    "nonmonotonic-send": "sends of one process out of order",
    "realtime-send": "sent after a higher offset was proven to exist, stored below it",
    "G0": "cycle of writes",
    "G0-process": "cycle of writes and process order",
    "G0-realtime": "cycle of writes and real time",
    "G1c": "cycle of writes and reads",
    "G1c-process": "cycle of writes, reads and process order",
    "G1c-realtime": "cycle of writes, reads and real time",
    "G1c-wr": "cycle of reads alone",
    "G1c-wr-process": "cycle of reads and process order",
    "G1c-wr-realtime": "cycle of reads and real time",
    "silent-truncation": "read on past a cut without being told",
    "hw-regression": "a process was shown a lower high watermark than before",
    "hw-regression-realtime": "the same between processes (a deposed leader's old answer)",
    "read-beyond-hw": "read a record that was not committed",
    "epoch-regression": "an epoch went down",
    "epoch-regression-realtime": "the same between observers",
    "replica-divergence": "replicas differ below their high watermarks",
    "ack-beyond-hw": "acknowledged before it was committed",
    "ack-from-stale-epoch": "appended in one leader epoch, acknowledged in another",
}
"""Every class there is, in the order of the report."""


@dataclass(frozen=True)
class Options:
    """What the workload and the cluster promise.

    ``acks``: level of sends that name none. ``strong_acks``: levels whose acknowledgement is a
    promise. ``idempotent``: else duplicates are only counted. ``ordered_sends``: else (several
    requests in flight without idempotence) nonmonotonic-send is only counted. ``unclean``: a lossy
    election was forced: loss is counted, silence about it is not allowed. With ``reported_loss``
    ({key: [(start, end), ...]}) loss outside of what was reported is a violation again.
    ``self_fencing`` (R30): then a high watermark may not go down between processes either.
    ``final_phase``: the phase that reads everything from ``log_start`` (0) to the end; None: there
    is none. ``contiguous_offsets``: every offset holds a record (no compaction). ``ok_share_min``:
    the least share of ok operations, by phase or for all. ``lag_ms_max`` bounds realtime lag.
    """

    acks: str | int = "all"
    strong_acks: frozenset[str | int] = frozenset({"all"})
    idempotent: bool = True
    ordered_sends: bool = True
    unclean: bool = False
    reported_loss: Mapping[Key, Sequence[tuple[int, int]]] | None = None
    self_fencing: bool = False
    final_phase: str | None = "final"
    log_start: Mapping[Key, int] = field(default_factory=dict)
    contiguous_offsets: bool = True
    ok_share_min: float | Mapping[str, float] = 0.5
    lag_ms_max: float | None = None
    cycles: bool = True
    examples_max: int = 5

    def loss_allowed(self, key: Key, offset: int | None) -> bool:
        """Whether losing the record at ``offset`` is what the operator was told."""
        if not self.unclean or self.reported_loss is None:
            return self.unclean
        ranges = self.reported_loss.get(key, ())
        return offset is not None and any(start <= offset < end for start, end in ranges)

    def share_min(self, phase: str) -> float:
        if isinstance(self.ok_share_min, Mapping):
            return self.ok_share_min.get(phase, 0.5)
        return self.ok_share_min


@dataclass
class ClassResult:
    violations: int = 0
    tolerated: int = 0
    examples: list[str] = field(default_factory=list)
    tolerated_examples: list[str] = field(default_factory=list)


class Findings:
    """Where the judges file what they find."""

    def __init__(self, examples_max: int) -> None:
        self.examples_max = examples_max
        self.classes = {name: ClassResult() for name in CLASSES}
        self.problems: list[str] = []

    def add(self, name: str, *, allowed: bool = False) -> list[str] | None:
        """Count one. Returns the list its sentence goes to, None when there are enough of them."""
        result = self.classes[name]
        if allowed:
            result.tolerated += 1
            examples = result.tolerated_examples
        else:
            result.violations += 1
            examples = result.examples
        return examples if len(examples) < self.examples_max else None


@dataclass
class Verdict:
    """``valid`` iff no violation and no problem (an idle phase, a missing final read, too much
    lag)."""

    classes: dict[str, ClassResult]
    problems: list[str]
    counts: dict[str, int]
    metrics: dict[str, Any]

    @property
    def valid(self) -> bool:
        return not self.problems and not self.violated

    @property
    def violated(self) -> list[str]:
        return [name for name, result in self.classes.items() if result.violations]

    @property
    def tolerated(self) -> list[str]:
        return [name for name, result in self.classes.items() if result.tolerated]

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        lines = [f"{'VALID' if self.valid else 'INVALID'}: {counts}"]
        rows = [(name, r) for name, r in self.classes.items() if r.violations or r.tolerated]
        if rows:
            lines.append(f"  {'class':<24}{'violations':>12}{'tolerated':>12}  meaning")
        for name, result in rows:
            lines.append(f"  {name:<24}{result.violations:>12,}{result.tolerated:>12,}  {CLASSES[name]}")
        lines.append(f"  {len(self.classes) - len(rows)} of {len(self.classes)} classes are empty")
        lines += [f"  problem: {problem}" for problem in self.problems]
        lines += [f"  {name}: {example}" for name, result in rows for example in result.examples]
        lines += [f"  {name}: {value}" for name, value in self.metrics.items() if isinstance(value, int | float | str)]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """JSON values: for reports and plots."""
        return {
            "valid": self.valid,
            "counts": self.counts,
            "classes": {
                name: {"violations": r.violations, "tolerated": r.tolerated, "examples": r.examples}
                for name, r in self.classes.items()
            },
            "problems": self.problems,
            "metrics": self.metrics,
        }
