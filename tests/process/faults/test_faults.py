"""Faults under load: nothing acknowledged is lost, changed, doubled or out of order, and the
replicas end identical.

The short mix of ``python -m tests.process.campaign.soak``, one round each, always with the same
dice.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from tests.process.campaign.campaign import MIXED, Outcome, Settings, run_round
from tests.process.conftest import Stage, leave_out
from tests.process.nemesis.catalogue import CATALOGUE

SETTINGS = Settings(hold_s=1.2, quiet_s=0.3)
SEED = 1
LEFT_TO_SOAKS = {
    "quiet", "kill_majority", "pause_follower", "pause_all", "cut_in_halves", "cut_one_follower", "cut_clients",
    "flap", "slow_links", "narrow_links", "full_disk_follower", "part_kill", "misplace_sectors", "older_journal",
    "clock_hour_off_leader", "clock_hour_off_controller", "stuck_fsync", "few_descriptors",
}  # fmt: skip


def play(stage: Stage, name: str, random: Random) -> Outcome:
    outcome = run_round(stage.cluster(), name, stage.round(), random, SETTINGS)
    silence = f"{outcome.longest_ms:.0f} ms without an acknowledgement"
    print(f"{outcome.nemesis}: {outcome.acknowledged} acknowledged, {silence}, {outcome.duplicates} duplicates")
    assert outcome.valid, outcome.explain()
    return outcome


def cases() -> list[Any]:
    found: list[Any] = []
    for nemesis in CATALOGUE.values():
        if nemesis.name not in LEFT_TO_SOAKS:
            known = pytest.mark.xfail(reason=nemesis.open_problem, strict=True)
            found.append(pytest.param(nemesis.name, marks=[known] if nemesis.open_problem else []))
    return found


@pytest.mark.parametrize("name", cases())
def test_acknowledged_records_survive(stage: Stage, name: str) -> None:
    if reason := CATALOGUE[name].lacks(stage.missing):
        leave_out(reason)
    outcome = play(stage, name, Random(SEED))
    check = EXPECTED.get(name)
    if check is not None:
        check(outcome)


@pytest.mark.parametrize("seed", [1, 2])
def test_several_faults_at_once(stage: Stage, seed: int) -> None:
    play(stage, MIXED, Random(seed))


def test_a_promise_not_kept_is_seen(stage: Stage) -> None:
    """The proof that the harness proves something: acknowledged before it is synced, a power cut
    takes it away."""
    if reason := CATALOGUE["power_all"].lacks(stage.missing):
        leave_out(reason)
    unsafe = replace(SETTINGS, topic_config={"min.insync.replicas": "2", "flush.policy": "never"})
    outcome = run_round(stage.cluster(), "power_all", stage.round(), Random(SEED), unsafe)
    lost = sum(verdict.classes["final-missing"].violations for verdict in outcome.verdicts.values())
    print(f"flush.policy=never: {lost} of {outcome.acknowledged} acknowledged records lost in a power cut")
    assert not outcome.valid
    assert lost > 0
    stage.discard()


def _data_path_goes_on(outcome: Outcome) -> None:
    """Without a controller nothing can change, and nothing has to. It is away for longer than
    this."""
    assert outcome.longest_ms < 800


def _nobody_is_fenced(outcome: Outcome) -> None:
    assert outcome.split == []


def _soon_available(outcome: Outcome) -> None:
    """The goals, with ample room for a busy machine; soaks measure them."""
    assert outcome.longest_ms < 2000


EXPECTED = {
    "kill_controller": _data_path_goes_on,
    "pause_controller": _nobody_is_fenced,
    "pause_briefly": _nobody_is_fenced,
    "kill_leader": _soon_available,
    "stop_leader": _soon_available,
}
