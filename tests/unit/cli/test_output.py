from __future__ import annotations

import json
from typing import Any

import pytest

from minilog.cli.output import COLUMNS_MAX, Column, Format, cell, show_rows, show_value, yaml_lines

COLUMNS = [Column("name", "NAME"), Column("size", "SIZE", right=True), Column("id", "ID", wide=True)]
ROWS = [{"name": "a", "size": 5, "id": "x"}, {"name": "bc", "size": 1000, "id": "y"}]


def test_a_table_aligns_and_leaves_wide_columns_out(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(ROWS, COLUMNS, Format.table)
    assert capsys.readouterr().out == "NAME  SIZE\na        5\nbc    1000\n"
    show_rows(ROWS, COLUMNS, Format.wide)
    assert capsys.readouterr().out.splitlines()[0] == "NAME  SIZE  ID"


def test_a_table_never_passes_its_width_and_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    long = "v" * 250
    show_rows([{"name": long, "size": 1, "id": ""}], COLUMNS, Format.table)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= COLUMNS_MAX
    assert out.count("v") == 250


def test_wide_is_as_wide_as_it_gets(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"name": "v" * 250, "size": 1, "id": "x"}], COLUMNS, Format.wide)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_json_has_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(ROWS, COLUMNS, Format.json)
    assert json.loads(capsys.readouterr().out) == ROWS
    show_rows([], COLUMNS, Format.json)
    assert json.loads(capsys.readouterr().out) == []


def test_an_empty_table_says_so_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([], COLUMNS, Format.table, empty="no such thing")
    assert tuple(capsys.readouterr()) == ("", "no such thing\n")


def test_a_single_thing_is_a_table_of_keys(capsys: pytest.CaptureFixture[str]) -> None:
    show_value({"a": 1, "bb": None}, Format.table)
    assert capsys.readouterr().out == "a   1\nbb  -\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (True, "yes"), ([], "-"), ([1, 2], "1,2"), (1234.56, "1,234.6"), ({"a": 1}, "a=1")],
)
def test_cells(value: Any, shown: str) -> None:
    assert cell(value) == shown


def test_yaml_quotes_what_could_be_misread() -> None:
    value = {"a": [1, {"b": "plain text", "c": ["x"]}], "yes": "no", "n": None, "e": [], "t": "1.5", "u": "a: b"}
    assert yaml_lines(value) == [
        "a:",
        "  - 1",
        "  - b: plain text",
        "    c:",
        "      - x",
        '"yes": "no"',
        '"n": null',
        "e: []",
        't: "1.5"',
        'u: "a: b"',
    ]
