"""The ratings as a table for a terminal, as JSON, and as the table of ``minilog/docs/incidents.md``."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.process.incidents.ratings import QUESTIONS, Rating

PAGE: Final = Path(__file__).parents[3] / "minilog" / "docs" / "incidents.md"
BEGIN: Final = "<!-- incidents: written by tests.process.incidents -->"
END: Final = "<!-- end of incidents -->"
COLUMNS_MAX: Final = 100
HEAD: Final = ("incident", "paged, s", "wrong", "what happened", "what was lost", "how long", "what now")


def text(ratings: Sequence[Rating]) -> str:
    lines = [f"{'incident':<28}{'paged':>7} {'wrong':>6}  " + "  ".join(f"{name:<8}" for name in QUESTIONS)]
    for rating in ratings:
        cells = "  ".join(f"{'full' if not rating.missing[name] else 'part':<8}" for name in QUESTIONS)
        lines.append(f"{rating.name:<28}{_paged(rating):>7} {len(rating.wrong_pages):>6}  {cells}")
        lines += [f"    {name}: {problem}" for name in QUESTIONS for problem in rating.missing[name]]
    full = sum(rating.is_full for rating in ratings)
    return "\n".join([*lines, f"{full} of {len(ratings)} incidents are told in full"])


def save(ratings: Sequence[Rating], file: Path) -> None:
    """Beside what is there of other incidents."""
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    known |= {rating.name: dataclasses.asdict(rating) for rating in ratings}
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def load(file: Path, names: Sequence[str]) -> list[Rating]:
    known = json.loads(file.read_text())
    return [Rating(**known[name]) for name in names if name in known]


def markdown(ratings: Sequence[Rating]) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "| --- | ---: | ---: | --- | --- | --- | --- |"]
    for rating in ratings:
        cells = [rating.what, _paged(rating), str(len(rating.wrong_pages))]
        cells += [_cell(rating, name) for name in QUESTIONS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_page(ratings: Sequence[Rating], about: str, page: Path = PAGE) -> None:
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{textwrap.fill(about, COLUMNS_MAX)}\n\n{markdown(ratings)}\n{END}{after}")


def _paged(rating: Rating) -> str:
    return "" if rating.paged_s is None else f"{rating.paged_s:.0f}"


def _cell(rating: Rating, name: str) -> str:
    if rating.missing[name]:
        return "**not in full:** " + "; ".join(rating.missing[name]).replace("|", "/")
    said = rating.answers.get(name, "").replace("|", "/")
    return said or (f"the page about {rating.pages[0]}" if rating.pages else "nothing")
