"""A consumer group of real processes under attack: every record is read, nobody reads what is
another's."""

from __future__ import annotations

from pathlib import Path

from tests.process.conftest import Stage
from tests.process.load.group_notes import Event, judge
from tests.process.load.groups import attack


def test_a_group_survives_its_members_and_its_coordinator(stage: Stage, tmp_path: Path) -> None:
    kinds = ["crash", "coordinator", "grow", "freeze", "leave"]
    outcome = attack(stage.cluster(), tmp_path, kinds, seed=stage.round())
    assert outcome.findings.anomalies == [], outcome.log
    assert outcome.findings.records > 100
    assert outcome.findings.tenures > 6 + 4, "partitions have moved"


def notes(*events: Event) -> dict[str, list[Event]]:
    """Of consumers a and b. The event's name begins with the consumer's."""
    return {name: [(at, event[2:], *rest) for at, event, *rest in events if event[0] == name] for name in "ab"}


GOOD: list[Event] = [
    (1, "a assigned", 1, [0]), (2, "a read", 1, [0, [0, 1, 2]]), (3, "a revoked", 2, [0]),
    (4, "b assigned", 2, [0]), (5, "b read", 2, [0, [3, 4]]), (6, "b revoked", 2, [0]),
]  # fmt: skip


def test_the_judge_knows_what_is_wrong() -> None:
    assert judge(notes(*GOOD), {0: 5}, {}).anomalies == []
    lost = [event if event[1] != "a revoked" else (3, "a lost", 0, [0]) for event in GOOD]
    for wrong, ends, said in [
        ([*GOOD[:4], (5, "b read", 2, [0, [4]]), GOOD[5]], 5, "only 3 records had been read"),
        ([*GOOD[:4], (5, "b read", 2, [0, [2, 3, 4]]), GOOD[5]], 5, "although 3 were read and committed"),
        ([GOOD[0], (2, "a read", 1, [0, [0, 2]]), *GOOD[2:]], 5, "with gaps"),
        (GOOD, 6, "it ends at 6"),
        ([*GOOD[:3], (4, "b assigned", 1, [0]), *GOOD[4:]], 5, "in epoch 1"),
        ([*GOOD[:2], *GOOD[3:], (7, "a read", 1, [0, [3]])], 5, "had begun"),
        ([*GOOD, (7, "a read", 1, [0, [5]])], 5, "without having it"),
    ]:
        anomalies = judge(notes(*wrong), {0: ends}, {}).anomalies
        assert any(said in anomaly for anomaly in anomalies), (said, anomalies)
    repeated = [*lost[:4], (5, "b read", 2, [0, [1, 2, 3, 4]]), lost[5]]
    assert judge(notes(*repeated), {0: 5}, {}).anomalies == [], "after an unclean end records come again"
    assert judge(notes(*repeated), {0: 5}, {}).repeated == 2
