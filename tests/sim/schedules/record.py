"""Record: tables in README.md that are written by the commands which found their figures, never by
hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def record(section: str, lines: Sequence[str]) -> None:
    """Replace what stands between the section's two markers."""
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    before, found, rest = README.read_text().partition(begin)
    assert found, f"{README} has no marker {begin}"
    _, found, after = rest.partition(end)
    assert found, f"{README} has no marker {end}"
    README.write_text("\n".join([before + begin, "", *lines, "", end + after]))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> list[str]:
    """A table. The columns named in ``right`` are numbers."""
    rule = ["---:" if column in right else "---" for column in columns]
    return [f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows)]
