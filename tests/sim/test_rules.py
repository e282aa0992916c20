"""Every rule of the design that is built has a story, and something notices when it is taken away."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.sim.ablation import ABLATIONS

BUILT = {*range(1, 31), 34, 35}
"""R31 to R33, idempotent producers, are not built yet."""


def told_rules() -> dict[int, list[str]]:
    """The stories by the rules that their docstring begins with: ``R8: ...`` or ``R8, R9: ...``."""
    stories: dict[int, list[str]] = {}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                begins = re.match(r"R\d+(, R\d+)*: ", ast.get_docstring(node) or "")
                for rule in re.findall(r"\d+", begins[0]) if begins else []:
                    stories.setdefault(int(rule), []).append(node.name)
    return stories


def test_every_rule_has_a_story() -> None:
    assert BUILT - set(told_rules()) == set()


def test_every_rule_is_taken_away_once() -> None:
    removed = {int(a.rule[1:]) for a in ABLATIONS if re.fullmatch(r"R\d+", a.rule)}
    assert BUILT - removed == set()


def test_a_story_that_stands_for_a_rule_is_one_of_that_rule() -> None:
    stories = told_rules()
    for ablation in ABLATIONS:
        if ablation.story is not None:
            assert ablation.story.__name__ in stories[int(ablation.rule[1:])], ablation.name
