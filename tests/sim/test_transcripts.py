"""The flows everybody must understand happen as the transcripts say.

A change that is meant: ``python -m tests.sim.transcripts --write``, and read the difference before
it is committed.
"""

from __future__ import annotations

import pytest

from tests.sim.transcripts.flows import DIRECTORY, FLOWS

LINES_MAX = 50


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_happens_as_its_transcript_says(name: str) -> None:
    text = (DIRECTORY / f"{name}.txt").read_text()
    assert FLOWS[name]() == text
    assert len(text.splitlines()) <= LINES_MAX, "nobody would read it"


def test_there_is_no_transcript_of_anything_else() -> None:
    assert {path.stem for path in DIRECTORY.glob("*.txt")} == set(FLOWS)
