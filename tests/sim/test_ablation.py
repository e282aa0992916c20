"""The simulator catches what it is there for: rules taken away one at a time, by schedules or by the story of the rule.

``python -m tests.sim --ablations`` tries all of them with many schedules.
"""

from __future__ import annotations

import pytest

from tests.sim.ablation import ABLATIONS, Ablation, detect, told

SCHEDULES = 4
QUICK = [a for a in ABLATIONS if a.rule in ("R1", "R9", "R12", "R13", "R20", "R24", "fsync")]


@pytest.mark.parametrize("ablation", QUICK, ids=lambda a: f"{a.rule}-{a.what}")
def test_schedules_notice_that_a_rule_is_gone(ablation: Ablation) -> None:
    found = detect(ablation, SCHEDULES)
    assert found.violation
    assert not found.by_story


@pytest.mark.parametrize("ablation", [a for a in ABLATIONS if a.story], ids=lambda a: f"{a.rule}-{a.what}")
def test_the_story_of_a_rule_fails_without_it(ablation: Ablation) -> None:
    assert told(ablation)
