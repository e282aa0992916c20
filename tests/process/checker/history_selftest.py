"""The checker's own test: clean histories must be valid, corrupted ones must be found out, class by
class.

Each corruption works on histories of several seeds. One it does not fit is skipped and another
taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

from tests.process.checker.history import check
from tests.process.checker.history_draft import Draft
from tests.process.checker.history_generator import Clean, Shape, generate
from tests.process.checker.history_grafts import GRAFTS
from tests.process.checker.history_mutations import CORRUPTIONS, Corruption
from tests.process.checker.verdict import Options, Verdict

OPTIONS: Final = Options(ok_share_min=0.0)
TOLERATED = {
    "G0", "G0-process", "G0-realtime", "G1c", "G1c-process", "G1c-realtime", "hw-regression-realtime",
    "epoch-regression-realtime",
}  # fmt: skip
"""Classes without violations: they must be counted more often than in the clean history."""


@dataclass
class Detection:
    """One row of the table."""

    name: str
    damage: str
    mutations: int = 0
    detected: int = 0
    missed_seeds: list[int] = field(default_factory=list)


class Workshop:
    """Clean histories by seed, judged once: ``false_positives`` collects those that were not found
    valid."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.clean: dict[int, tuple[Clean, Verdict]] = {}
        self.false_positives: list[int] = []

    def take(self, seed: int) -> tuple[Clean, Verdict]:
        if seed not in self.clean:
            clean = generate(seed, self.shape)
            verdict = check(clean.events, OPTIONS, replicas=clean.replicas, acks=clean.acks)
            if not verdict.valid:
                self.false_positives.append(seed)
            self.clean[seed] = clean, verdict
        return self.clean[seed]


class Workshops:
    """Cycles are put into histories of single sends, which have none of their own to run into."""

    def __init__(self, steps: int) -> None:
        self._any, self._single = Workshop(Shape(steps=steps)), Workshop(Shape(steps=steps, sends_max=1))

    def fitting(self, name: str) -> Workshop:
        return self._single if name in GRAFTS else self._any

    @property
    def false_positives(self) -> list[int]:
        return self._any.false_positives + self._single.false_positives

    @property
    def judged(self) -> int:
        return len(self._any.clean) + len(self._single.clean)


def is_detected(name: str, damage: str, draft: Draft, before: Verdict) -> bool:
    verdict = check(draft.events, OPTIONS, replicas=draft.replicas, acks=draft.acks)
    after = verdict.classes[name]
    if name in TOLERATED or damage == "a foreign record inside an operation":
        return after.tolerated > before.classes[name].tolerated
    return after.violations > 0 and not verdict.valid


def detect(row: tuple[str, str, Corruption], mutations: int, seed: int, workshop: Workshop) -> Detection:
    """Corrupt ``mutations`` histories. Those a corruption does not fit are skipped, up to nine of
    ten."""
    name, damage, corrupt = row
    found = Detection(name, damage)
    for n in range(seed, seed + 10 * mutations):
        clean, before = workshop.take(seed + (n - seed) % max(20, mutations))
        draft = Draft(clean)
        if corrupt(draft, Random(f"{n} {name} {damage}")) is None:
            continue
        found.mutations += 1
        if is_detected(name, damage, draft, before):
            found.detected += 1
        else:
            found.missed_seeds.append(n)
        if found.mutations == mutations:
            break
    return found


def self_test(mutations: int, seed: int) -> int:
    """Print the detection table; 0 when everything was detected and no clean history was called
    invalid."""
    workshops = Workshops(400)
    found = [detect(row, mutations, seed, workshops.fitting(row[0])) for row in CORRUPTIONS]
    print(f"{'class':<27}{'mutations':>10}{'detected':>10}  damage")
    for row in found:
        missed = f"  missed: {row.missed_seeds[:5]}" if row.missed_seeds else ""
        print(f"{row.name:<27}{row.mutations:>10}{row.detected:>10}  {row.damage}{missed}")
    total, detected = sum(row.mutations for row in found), sum(row.detected for row in found)
    print(f"{detected} of {total} mutations detected; ", end="")
    print(f"{len(workshops.false_positives)} of {workshops.judged} clean histories called invalid")
    complete = all(row.mutations == mutations for row in found)
    return 0 if detected == total and complete and not workshops.false_positives else 1
