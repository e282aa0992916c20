"""What the brokers' own records say, handed in beside the history: replicas after the end, and a
trace of acknowledgements.

Replicas are compared pair by pair below the lower high watermark (and above the higher log start),
after everything healed and came to rest. A record one of the two lacks there is a divergence too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from tests.process.checker.history_format import Key
from tests.process.checker.verdict import Findings


@dataclass(frozen=True)
class Replica:
    """One replica's log: ``records`` maps offset to (leader epoch, CRC, bytes or a digest of
    them)."""

    high_watermark: int
    records: Mapping[int, tuple[Any, ...]]
    log_start: int = 0


Replicas = Mapping[Key, Mapping[int | str, Replica]]


class AckTrace(NamedTuple):
    """One acks=all acknowledgement as the broker decided it. ``offset`` is the last one of the
    batch."""

    key: Key
    offset: int
    high_watermark: int
    epoch_at_append: int
    epoch_at_ack: int
    node: int | str = "?"


def judge_replicas(replicas: Replicas, findings: Findings) -> None:
    for key, by_node in replicas.items():
        for (a, first), (b, second) in combinations(by_node.items(), 2):
            start = max(first.log_start, second.log_start)
            end = min(first.high_watermark, second.high_watermark)
            for offset in range(start, end):
                one, two = first.records.get(offset), second.records.get(offset)
                if one != two or one is None:
                    examples = findings.add("replica-divergence")
                    if examples is not None:
                        examples.append(f"{key} offset {offset}: node {a} has {one}, node {b} has {two}")


def judge_acks(acks: Sequence[AckTrace], findings: Findings) -> None:
    for ack in acks:
        where = f"{ack.key}: node {ack.node} acknowledged offset {ack.offset}"
        if ack.offset >= ack.high_watermark:
            examples = findings.add("ack-beyond-hw")
            if examples is not None:
                examples.append(f"{where} at high watermark {ack.high_watermark}")
        if ack.epoch_at_append != ack.epoch_at_ack:
            examples = findings.add("ack-from-stale-epoch")
            if examples is not None:
                examples.append(f"{where}, appended in epoch {ack.epoch_at_append}, in epoch {ack.epoch_at_ack}")
