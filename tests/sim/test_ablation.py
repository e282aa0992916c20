"""The simulator catches what it is there for: rules taken away one at a time, by schedules or by the story of the rule.

``python -m tests.sim --ablations`` tries all of them with many schedules.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sim import test_isr
from tests.sim.ablation import ABLATIONS, Ablation, detect

SCHEDULES = 4
QUICK = [a for a in ABLATIONS if a.rule in ("R1", "R9", "R12", "R13", "R20", "R24", "fsync")]
STORIES: dict[str, Callable[[], None]] = {
    "R5": test_isr.test_a_copied_diverging_answer_cuts_nothing,
    "R15": test_isr.test_a_late_copy_of_a_refused_proposal_is_never_applied,
    "R16": test_isr.test_a_proposal_for_an_isr_of_yesterday_is_not_applied,
}


@pytest.mark.parametrize("ablation", QUICK, ids=lambda a: f"{a.rule}-{a.what}")
def test_schedules_notice_that_a_rule_is_gone(ablation: Ablation) -> None:
    assert detect(ablation, SCHEDULES).outcome is not None


@pytest.mark.parametrize("ablation", [a for a in ABLATIONS if a.rule in STORIES], ids=lambda a: f"{a.rule}-{a.what}")
def test_the_story_of_a_rule_fails_without_it(ablation: Ablation) -> None:
    with ablation.applied(), pytest.raises(AssertionError):
        STORIES[ablation.rule]()
