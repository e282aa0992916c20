"""A few incidents as ``python -m tests.process.incidents`` plays them: each of the four questions is
answered in full by what minilog says itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.conftest import leave_out
from tests.process.incidents import pages
from tests.process.incidents.catalogue import CATALOGUE
from tests.process.incidents.play import play
from tests.process.incidents.ratings import rate
from tests.process.rig import equipment, prometheus

SCRAPE_S = 1


@pytest.mark.parametrize("name", ["kill_leader", "acks_1_loss"])
def test_an_incident_is_told_in_full(tmp_path: Path, name: str) -> None:
    incident, missing = CATALOGUE[name], equipment.missing()
    lacks = [missing[need] for need in incident.needs if need in missing]
    if reason := prometheus.unavailable() or pages.unavailable() or (lacks and lacks[0]):
        leave_out(str(reason))
    found = rate(play(incident, tmp_path, SCRAPE_S))
    assert found.is_full, found.missing


def test_there_are_the_incidents_that_were_asked_for() -> None:
    assert len(CATALOGUE) == 22
