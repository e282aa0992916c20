"""What can be said of the pages without running them: links lead somewhere, lines are short, names
exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "minilog" / "docs").glob("*.md"))
DESIGN = ROOT / "minilog" / "DESIGN.md"
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), DESIGN, *DOCS]
PROSE_COLUMNS_MAX = 100
README_LINES_MAX = 130
GENERATED = re.compile(r"<!-- figures: .*?<!-- end of figures -->", re.DOTALL)


def prose(page: Path) -> Iterator[str]:
    """Lines outside of fences, of tables and of what a program writes."""
    fenced = False
    for line in GENERATED.sub("", page.read_text(encoding="utf-8")).splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("|"):
            yield line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_is_narrow(page: Path) -> None:
    assert [line for line in prose(page) if len(line) > PROSE_COLUMNS_MAX] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", "\n".join(prose(page)))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_one_fact_a_sentence(page: Path) -> None:
    """A semicolon joins two facts; code spans may hold one."""
    assert [line for line in prose(page) if ";" in re.sub(r"`[^`]*`", "", line)] == []


def test_the_design_names_what_exists() -> None:
    """Tests that guard a claim, and modules."""
    text = DESIGN.read_text(encoding="utf-8")
    tests = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", text)
    assert len(named) > 40
    assert [name for name in named if f"def {name}(" not in tests] == []
    modules = re.findall(r"`([a-z_/]+\.py)`", text)
    paths = [str(file.relative_to(ROOT)) for file in ROOT.rglob("*.py") if ".venv" not in file.parts]
    assert [name for name in modules if not any(f"/{path}".endswith(f"/{name}") for path in paths)] == []


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= README_LINES_MAX
    assert [page.name for page in DOCS if f"(minilog/docs/{page.name})" not in text] == []
    assert "\nmake demo " in text
    assert "\nmake test " in text
    assert "![" not in text, "a picture with a relative path does not show on PyPI"


def test_metrics_that_are_named_are_those_of_the_alerts() -> None:
    """A test of the process ring runs every alert in a real Prometheus."""
    alerts = (ROOT / "config" / "alerts.yml").read_text(encoding="utf-8")
    rows = [
        line for line in (ROOT / "minilog/docs/operating.md").read_text().splitlines() if line.startswith("| `minilog_")
    ]
    assert len(rows) > 3
    assert [name for row in rows for name in re.findall(r"`(minilog_[a-z_]+)`", row) if name not in alerts] == []
