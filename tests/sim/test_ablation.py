"""The simulator catches what it is there for: rules taken away one at a time, by schedules or by
the story of the rule.

``python -m tests.sim --ablations`` tries all of them with many schedules.
"""

from __future__ import annotations

import pytest

from tests.sim.removals.ablation import ABLATIONS, Ablation, detect, told
from tests.sim.removals.access import ACCESS_ABLATIONS
from tests.sim.removals.bounds import BOUNDS_ABLATIONS
from tests.sim.removals.cleaning import CLEANING_ABLATIONS
from tests.sim.removals.clocks import CLOCK_ABLATIONS
from tests.sim.removals.controllers import CONTROLLER_ABLATIONS
from tests.sim.removals.disks import DISK_ABLATIONS
from tests.sim.removals.evidence import EVIDENCE_ABLATIONS
from tests.sim.removals.groups import GROUP_ABLATIONS
from tests.sim.removals.levers import LEVER_ABLATIONS
from tests.sim.removals.moves import MOVE_ABLATIONS
from tests.sim.removals.reading import READING_ABLATIONS
from tests.sim.removals.storage import STORAGE_ABLATIONS
from tests.sim.removals.told import TOLD_ABLATIONS

SCHEDULES = 12
QUICK = [
    "R1: followers cut",
    "R2: leaders never point out",
    "R9: acks=all is answered",
    "R12: ",
    "R13: ",
    "R20: ",
    "R24: ",
    "R27: fencing leaves",
    "R27: fencing opens",
    "fsync: ",
    "retention: only what",
]
ALL = (
    *ABLATIONS,
    *EVIDENCE_ABLATIONS,
    *ACCESS_ABLATIONS,
    *BOUNDS_ABLATIONS,
    *CLEANING_ABLATIONS,
    *CLOCK_ABLATIONS,
    *CONTROLLER_ABLATIONS,
    *DISK_ABLATIONS,
    *TOLD_ABLATIONS,
    *GROUP_ABLATIONS,
    *LEVER_ABLATIONS,
    *MOVE_ABLATIONS,
    *READING_ABLATIONS,
    *STORAGE_ABLATIONS,
)


@pytest.mark.parametrize("ablation", [a for a in ALL if a.name.startswith(tuple(QUICK))], ids=lambda a: a.name)
def test_schedules_notice_that_a_rule_is_gone(ablation: Ablation) -> None:
    found = detect(ablation, SCHEDULES)
    assert found.violation
    assert not found.by_story


@pytest.mark.parametrize("ablation", [a for a in ALL if a.story], ids=lambda a: a.name)
def test_the_story_of_a_rule_fails_without_it(ablation: Ablation) -> None:
    assert told(ablation)
