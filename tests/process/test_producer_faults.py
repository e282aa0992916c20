"""An idempotent producer on real processes: leaders die every second or are cut off, and every
record is there once, in order, where the receipt says. ``python -m tests.process.load.idempotence``
runs the same for longer."""

from __future__ import annotations

from pathlib import Path

from tests.process.load.idempotence import Outcome, Stream, run

SECONDS = 15.0


def test_nothing_is_doubled_reordered_or_lost(tmp_path: Path) -> None:
    outcome = run(tmp_path / "cluster", SECONDS, seed=1)
    print(outcome)
    assert outcome.valid, outcome
    assert outcome.unclear == 0, outcome
    assert outcome.kills >= 2
    assert outcome.acknowledged > 1000


def test_the_verdict_sees_each_kind_of_harm() -> None:
    def judged(values: list[int]) -> Outcome:
        outcome = Outcome()
        outcome.judge(Stream(0, 4, {0: 0, 1: 1, 2: 2}, {3}), values)
        return outcome

    assert judged([0, 1, 2]).valid
    assert (judged([0, 1, 2, 1]).duplicates, judged([0, 1, 2, 1]).reorderings) == (1, 0)
    assert (judged([0, 2, 1]).reorderings, judged([0, 2, 1]).misplaced) == (1, 2)
    assert judged([0, 1]).lost == 1
    assert judged([0, 1, 2, 3]).refused_but_written == 1
    assert not any(judged(values).valid for values in ([0, 1, 2, 1], [0, 2, 1], [0, 1], [0, 1, 2, 3]))
