"""The rule book (minilog/RULES.md) is true: what its rows name exists, and every number and every
removal has its row.

The last test is about other references: nothing is cited that is not in the tree.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.sim.removals.ablation import Ablation
from tests.sim.test_ablation import ALL

ROOT = Path(__file__).parent.parent.parent
BOOK = ROOT / "minilog" / "RULES.md"
NOTHING = "—"
NOT_BUILT = "not built yet"
READ = {".py", ".md", ".toml", ".yml", ".yaml", ".sh", ".txt", ""}
"""Endings of the files that people read."""


class Rule(NamedTuple):
    """One row. ``places``: file -> functions in it, by qualified name."""

    number: str
    name: str
    says: str
    where: str
    story: str
    removal: str
    source: str

    @property
    def built(self) -> bool:
        return self.where != NOT_BUILT

    @property
    def places(self) -> dict[str, list[str]]:
        pieces = [quoted(piece) for piece in self.where.split(" · ")]
        return {file: names for file, *names in pieces}


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@cache
def book() -> tuple[Rule, ...]:
    rules = []
    for line in BOOK.read_text(encoding="utf-8").splitlines():
        if line.startswith("| **"):
            first, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            match = re.fullmatch(r"\*\*(R\d+)\*\* (.+)", first)
            assert match, f"the first cell is a number in bold and a name, not {first!r}"
            assert len(cells) == 5, f"{match[1]} has {len(cells) + 1} cells"
            rules.append(Rule(match[1], match[2], *cells))
    return tuple(rules)


BUILT = [rule for rule in book() if rule.built]
STORIES = [path for path in sorted(Path(__file__).parent.rglob("test_*.py")) if path != Path(__file__)]


@cache
def told_rules() -> dict[str, list[str]]:
    """The numbers that the docstring of each story begins with: ``R8: ...`` or ``R8, R9: ...``."""
    stories: dict[str, list[str]] = {}
    for path in STORIES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                begins = re.match(r"R\d+(, R\d+)*: ", ast.get_docstring(node) or "")
                stories[node.name] = re.findall(r"R\d+", begins[0]) if begins else []
    return stories


def functions(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from functions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name


@cache
def functions_of(file: str) -> frozenset[str]:
    path = next(path for path in (ROOT / "minilog" / file, ROOT / file) if path.is_file())
    return frozenset(functions(ast.parse(path.read_text(encoding="utf-8")).body))


@cache
def texts() -> dict[Path, str]:
    """Every file of the tree that people read, without what tools have made."""
    found = {}
    for top in ("minilog", "clients", "tests", "config", "grafana", ".ci", "."):
        paths = (ROOT / top).rglob("*") if top != "." else ROOT.glob("*")
        for path in paths:
            made = any(part.endswith((".egg-info", "__pycache__")) for part in path.parts)
            if path.is_file() and path.suffix in READ and not made:
                found[path] = path.read_text(encoding="utf-8")
    return found


def cited(text: str) -> set[str]:
    """Numbers in a text, and of ``R14-R17`` those between as well."""
    numbers = set(re.findall(r"\bR\d+\b", text))
    for first, last in re.findall(r"\bR(\d+)-R?(\d+)\b", text):
        numbers |= {f"R{number}" for number in range(int(first), int(last) + 1)}
    return numbers


def test_a_rule_has_one_row_and_says_something() -> None:
    assert len(book()) > 80
    assert [number for number, rows in Counter(rule.number for rule in book()).items() if rows > 1] == []
    assert [rule.number for rule in book() if not (rule.name and rule.says and rule.source)] == []


@pytest.mark.parametrize("rule", BUILT, ids=lambda rule: rule.number)
def test_what_a_row_names_exists(rule: Rule) -> None:
    assert rule.places, "where the rule lives"
    for file, names in rule.places.items():
        assert (ROOT / "minilog" / file).is_file() or (ROOT / file).is_file(), f"there is no {file}"
        assert names, f"which function of {file}"
        assert set(names) - functions_of(file) == set(), f"not in {file}"
    assert quoted(rule.story), "a rule has a story"
    for story in quoted(rule.story):
        assert rule.number in told_rules().get(story, []), f"{story}: no such story, or its docstring begins otherwise"
    assert quoted(rule.removal), "a rule has a removal"
    assert set(quoted(rule.removal)) - {ablation.name for ablation in ALL} == set(), "no such removal"


def test_a_rule_that_is_not_built_has_neither_story_nor_removal() -> None:
    waiting = {rule.number for rule in book() if not rule.built}
    assert [rule for rule in book() if not rule.built and (rule.story, rule.removal) != (NOTHING, NOTHING)] == []
    assert {story: rules for story, rules in told_rules().items() if waiting & {*rules}} == {}
    assert [ablation.name for ablation in ALL if ablation.rule in waiting] == []


def test_every_number_that_is_cited_is_in_the_book() -> None:
    known = {rule.number for rule in book()}
    strange = {str(path.relative_to(ROOT)): cited(text) - known for path, text in texts().items()}
    assert {path: numbers for path, numbers in strange.items() if numbers} == {}


@pytest.mark.parametrize("ablation", ALL, ids=lambda ablation: ablation.name)
def test_a_removal_is_of_one_rule_and_so_is_its_story(ablation: Ablation) -> None:
    rows = [rule for rule in book() if ablation.name in quoted(rule.removal)]
    assert len(rows) == 1, f"rules that it takes away: {[rule.number for rule in rows]}"
    if re.fullmatch(r"R\d+", ablation.rule):
        assert rows[0].number == ablation.rule
    if ablation.story is not None:
        story = getattr(ablation.story, "func", ablation.story)  # one case of it, or all
        assert rows[0].number in told_rules()[story.__name__]


def test_nothing_is_cited_that_is_not_in_the_tree() -> None:
    """Documents by their names, and no numbers of lists that are kept elsewhere."""
    names = {path.name for path in texts()}
    lost = []
    for path, text in texts().items():
        for name in re.findall(r"(?<![\w/.-])[\w./-]*\w\.md\b", text):
            bases = (ROOT, ROOT / "minilog", path.parent)
            if name not in names and not any((base / name).is_file() for base in bases):
                lost.append(f"{path.relative_to(ROOT)}: {name}")
        words = re.findall(r"\bI\d{1,2}\b|(?:design|literature) notes?\b", text)
        lost += [f"{path.relative_to(ROOT)}: {word}" for word in words]
    assert lost == []
