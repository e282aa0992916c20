"""The dashboards that are provisioned are those that the code builds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grafana.__main__ import built
from grafana.panels import expressions


@pytest.mark.parametrize(("path", "text"), built().items(), ids=lambda value: getattr(value, "name", ""))
def test_the_json_is_up_to_date(path: Path, text: str) -> None:
    assert path.read_text() == text, "run: python -m grafana"


def test_every_panel_has_its_own_title_says_what_it_shows_and_asks_something() -> None:
    for text in built().values():
        board = json.loads(text)
        panels = [p for panel in board["panels"] for p in (panel, *(panel.get("panels") or ()))]
        shown = [panel for panel in panels if panel["type"] != "row"]
        assert len(shown) == len({panel["title"] for panel in shown})
        assert all(panel["description"] and panel["targets"] for panel in shown)
        assert {panel["title"] for panel in shown} == {title for title, _ in expressions(text)}
