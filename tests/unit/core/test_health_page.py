"""The page about health and the code say the same: each state that can be found has a section that
says how to look and what to do, and no other has one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

MINILOG = Path(__file__).parents[3] / "minilog"
SOURCES = (MINILOG / "core" / "health.py", MINILOG / "core" / "broker" / "standing" / "ailment.py")
PAGE = MINILOG / "docs" / "health.md"


def kinds_in(path: Path) -> set[str]:
    """Of every Finding and Condition that is made there by name."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    firsts = [
        call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("Finding", "Condition")
    ]
    return {first.value for first in firsts if isinstance(first, ast.Constant) and isinstance(first.value, str)}


def sections() -> dict[str, str]:
    parts = re.split(r"^### `(\w+)`$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_state_that_can_be_found_has_a_section_and_no_other() -> None:
    found = set().union(*(kinds_in(path) for path in SOURCES))
    assert len(found) >= 16
    assert set(sections()) == found


def test_every_section_says_how_to_look_and_what_to_do() -> None:
    for kind, text in sections().items():
        assert text.strip().split("\n\n")[0], kind
        assert "\n* Look: " in text, kind
        assert "\n* Do: " in text, kind


def test_kinds_are_made_nowhere_else() -> None:
    """A broker tells of conditions by name, and health passes them on."""
    making = [path for path in MINILOG.rglob("*.py") if kinds_in(path)]
    assert sorted(making) == sorted(SOURCES)
