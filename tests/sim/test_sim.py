"""A bounded number of random schedules, and the proof that a seed replays bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.schedules.options import draw
from tests.sim.schedules.schedule import Schedule

ROOT = Path(__file__).parent.parent.parent
SEEDS = range(int(os.environ.get("MINILOG_SIM_SEEDS", "40")))
FOUND = (9001417, 10017401)
"""Schedules that failed once because the checker was wrong: what it must not complain of."""
REPLAYED = 4


@pytest.mark.parametrize("seed", [*SEEDS, *FOUND])
def test_no_invariant_is_violated(seed: int) -> None:
    outcome = Schedule(draw(seed)).run()
    assert not outcome.violation, "\n".join(
        [*outcome.trace, outcome.violation, f"replay: python -m tests.sim --from {seed} --seeds 1"]
    )


def digests(hash_seed: int) -> str:
    command = [sys.executable, "-m", "tests.sim", "--seeds", str(REPLAYED), "--digests"]
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout


def test_a_seed_replays_bit_for_bit_in_another_process() -> None:
    first = digests(1)
    assert len(first.splitlines()) == REPLAYED
    assert digests(2) == first
