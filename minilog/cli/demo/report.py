"""The demo's closing words: the failover in milliseconds, and the proof."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from minilog.cli.proof import Proof
from minilog.wire.messages import FailoverInfo

MARK = {True: "ok ", False: "BAD"}
KINDS = {
    "refused": "its port refuses: the process is dead",
    "replaced": "another process answers at its address",
    "timeout": "its session timed out",
    "shutdown": "it said goodbye",
}


@dataclass
class Failover:
    """The death of the leader as the demo saw it; wall-clock ms since the epoch, comparable with
    the controller's."""

    broker: int = 0
    killed_ms: float = 0.0
    partitions: list[int] = field(default_factory=list)
    first_served_ms: dict[int, float] = field(default_factory=dict)
    pauses_ms: dict[int, float] = field(default_factory=dict)
    restarted_ms: float = 0.0
    rejoined_ms: float = 0.0
    told: FailoverInfo | None = None
    """The controller's own account."""


def failover_lines(failover: Failover) -> Iterator[str]:
    told = failover.told
    steps: list[tuple[float, str]] = [(failover.killed_ms, f"kill -9 broker {failover.broker}")]
    if told is not None:
        steps.append((told.detected_ms, f"the controller knows: {KINDS.get(told.kind, told.kind)}"))
        steps.append((told.fenced_ms, f"fenced, out of every ISR; {told.partitions} partitions need a leader"))
        if told.elected_ms is not None:
            steps.append((told.elected_ms, "new leaders elected, those with the longest logs"))
        if told.published_ms is not None:
            steps.append((told.published_ms, "published to the brokers"))
    if failover.first_served_ms:
        first, last = min(failover.first_served_ms.values()), max(failover.first_served_ms.values())
        steps.append((first, "first record acknowledged by a new leader"))
        steps.append((last, f"all {len(failover.first_served_ms)} partitions it led take records again"))
    steps.append((failover.restarted_ms, f"broker {failover.broker} started again"))
    steps.append((failover.rejoined_ms, f"broker {failover.broker} back in every ISR"))
    yield "failover, in ms after the kill"
    for at_ms, sentence in steps:
        yield f"  {at_ms - failover.killed_ms:9,.0f}  {sentence}"
    if failover.pauses_ms:
        worst = max(failover.pauses_ms.values())
        yield f"  longest time without an acknowledgement on a partition it led: {worst:,.0f} ms"


def proof_lines(proof: Proof) -> Iterator[str]:
    yield "proof"
    yield f"       sent              {proof.sent:>10,}"
    yield f"       acknowledged      {proof.acknowledged:>10,}   by all in-sync replicas, on disk"
    if proof.unacknowledged:
        yield f"       unanswered        {proof.unacknowledged:>10,}   no promise was made for these"
    yield f"       read back         {proof.read:>10,}"
    yield f"  {MARK[proof.lost == 0]}  lost              {proof.lost:>10,}   acknowledged, but not there"
    wrong = proof.misplaced + proof.changed + proof.unknown + proof.gaps
    yield f"  {MARK[wrong == 0]}  changed, misplaced{wrong:>10,}   other bytes or another offset than acknowledged"
    yield f"  {MARK[proof.out_of_order == 0]}  out of order      {proof.out_of_order:>10,}   against the order of sending, per partition"
    yield f"  {MARK[proof.duplicates == 0]}  duplicates        {proof.duplicates:>10,}   sent again after a lost answer, and written twice"
    same = not proof.differing and proof.replicas_compared > 0
    yield f"  {MARK[same]}  replicas identical{proof.replicas_compared:>10,}   {proof.replica_bytes / 1e6:,.1f} MB compared byte for byte"
    for difference in proof.differing:
        yield f"       {difference}"
