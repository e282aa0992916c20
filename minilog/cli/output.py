"""What the commands print: tables of at most 100 columns for people, JSON and YAML for programs,
errors in a sentence.

Data goes to stdout, everything else to stderr. JSON keeps every field and its name stays stable. A
table shows the columns asked for, ``wide`` all of them.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

COLUMNS_MAX = 100
SHORT_COLUMNS = 24


class Format(StrEnum):
    table = "table"
    wide = "wide"
    json = "json"
    yaml = "yaml"


OutputOption = Annotated[Format, typer.Option("--output", "-o", help="table, wide, json or yaml", show_default=True)]


class ExitCode:
    FINE = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3


class CliError(Exception):
    """One sentence for stderr, with what to try next, and the exit code."""

    def __init__(self, sentence: str, exit_code: int = ExitCode.REFUSED) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.exit_code = exit_code


@dataclass(frozen=True)
class Column:
    """``key`` is the field of the row. ``wide`` columns are left out of the narrow table."""

    key: str
    title: str
    wide: bool = False
    right: bool = False


def note(text: str) -> None:
    """A line for the person at the terminal. Never mixed into data. Nothing fails because it cannot
    be read."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def is_terminal() -> bool:
    return sys.stdout.isatty()


def show_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], output: Format, empty: str = "") -> None:
    """``empty`` is said on stderr in place of a table without rows."""
    if output in (Format.json, Format.yaml):
        show_value([dict(row) for row in rows], output)
        return
    if not rows:
        note(empty or "nothing to show")
        return
    if output is Format.wide:
        show_table(rows, columns, columns_max=None)
    else:
        show_table(rows, [column for column in columns if not column.wide])


def show_value(value: Any, output: Format) -> None:
    """One JSON or YAML document; tables of single things are made of key and value."""
    if output is Format.json:
        print(json.dumps(value, indent=2, ensure_ascii=False))
    elif output is Format.yaml:
        print("\n".join(yaml_lines(value)))
    else:
        rows = [{"key": key, "value": item} for key, item in value.items()]
        show_table(rows, [Column("key", ""), Column("value", "")])


def show_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], columns_max: int | None = COLUMNS_MAX
) -> None:
    """Plain columns; rich only where its wrapping is needed, it takes long to import."""
    cells = [[cell(row.get(column.key)) for column in columns] for row in rows]
    titles = [column.title for column in columns]
    widths = [max(map(len, each)) for each in zip(titles, *cells, strict=True)]
    if columns_max is not None and sum(widths) + 2 * (len(widths) - 1) > columns_max:
        _show_wrapped(titles, columns, cells, widths)
        return
    for line in ([titles] if any(titles) else []) + cells:
        padded = [
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ]
        print("  ".join(padded).rstrip())


def _show_wrapped(
    titles: Sequence[str], columns: Sequence[Column], cells: Sequence[Sequence[str]], widths: Sequence[int]
) -> None:
    """Long cells are folded, short columns stay as they are."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="", show_header=any(titles))
    for title, column, width in zip(titles, columns, widths, strict=True):
        short = width <= SHORT_COLUMNS
        table.add_column(title, justify="right" if column.right else "left", overflow="fold", no_wrap=short)
    for line in cells:
        table.add_row(*(Text(text) for text in line))
    Console(width=COLUMNS_MAX, highlight=False, color_system=None).print(table)


def cell(value: Any) -> str:
    """None is a dash, lists are joined by commas, whole floats lose their tail."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, list | tuple):
        return ",".join(cell(item) for item in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}={cell(item)}" for key, item in value.items()) or "-"
    return str(value) or "-"


_PLAIN_YAML = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+-]*( [A-Za-z0-9_./+-]+)*")
_YAML_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def yaml_lines(value: Any) -> list[str]:
    """Block YAML of JSON values; text that could be read as anything else is quoted."""
    if isinstance(value, dict) and value:
        lines = []
        for key, item in value.items():
            lines += _yaml_item(f"{_yaml_scalar(str(key))}:", item, indent="  ")
        return lines
    if isinstance(value, list) and value:
        return [line for item in value for line in _yaml_item("-", item, indent="  ")]
    return [_yaml_scalar(value)]


def _yaml_item(head: str, item: Any, indent: str) -> list[str]:
    body = yaml_lines(item)
    if not isinstance(item, dict | list) or not item:
        return [f"{head} {body[0]}"]
    if head == "-":
        return [f"- {body[0]}", *(indent + line for line in body[1:])]
    return [head, *(indent + line for line in body)]


def _yaml_scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN_YAML.fullmatch(value) and value.lower() not in _YAML_WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
