"""An idempotent producer on real processes: leaders die every second or are cut off, and every
record is there once, in order, where the receipt says. ``python -m tests.process.load.idempotence``
runs the same for longer."""

from __future__ import annotations

from pathlib import Path

from tests.process.load import races
from tests.process.load.idempotence import Outcome, Stream, run
from tests.process.rig.cluster import process_cluster

SECONDS = 15.0


def test_nothing_is_doubled_reordered_or_lost(tmp_path: Path) -> None:
    outcome = run(tmp_path / "cluster", SECONDS, seed=1)
    print(outcome)
    assert outcome.valid, outcome
    assert outcome.unclear == 0, outcome
    assert outcome.kills >= 2
    assert outcome.acknowledged > 1000


def test_of_racers_one_wins_each_offset_while_leaders_die(tmp_path: Path) -> None:
    """``python -m tests.process.load.races`` runs the same for longer."""
    with process_cluster(tmp_path / "cluster") as cluster:
        account, wrong = races.judged(cluster, attempts=1000, racers=8, partitions=1, kill_every_s=1.0)
    assert wrong == []
    assert len(account.won) > 50, account
    assert account.refused > len(account.won), account


def test_the_judge_of_races_sees_each_kind_of_harm() -> None:
    def judged(log: dict[races.Place, bytes]) -> int:
        account = races.Account(won={(0, 0): [b"a"], (0, 1): [b"b"]}, unknown={b"u"})
        return len(account.judge(log))

    assert judged({(0, 0): b"a", (0, 1): b"b"}) == 0
    assert judged({(0, 0): b"a", (0, 1): b"b", (0, 2): b"u"}) == 0
    assert judged({(0, 0): b"a"}) == 1
    assert judged({(0, 0): b"b", (0, 1): b"a"}) == 2
    assert judged({(0, 0): b"a", (0, 1): b"b", (0, 2): b"c"}) == 1
    assert judged({(0, 0): b"a", (0, 1): b"b", (0, 2): b"u", (0, 3): b"u"}) == 1
    assert len(races.Account(won={(0, 0): [b"a", b"b"]}).judge({(0, 0): b"a"})) == 1


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
