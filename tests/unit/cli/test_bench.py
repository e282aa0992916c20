"""What ``minilog bench`` says of its figures: nothing of too few, medians and ranges of several runs,
and what they were measured on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from minilog import machine
from minilog.cli.bench.load import Load
from minilog.cli.bench.matrix import _say_missed_rate, counts, loads
from minilog.cli.bench.report import COLUMNS, HTTP_COLUMNS, CpuMeter, of_runs
from minilog.cli.bench.surroundings import header, surroundings, sync_ms
from minilog.cli.output import COLUMNS_MAX, CliError, Format, show_rows


def test_of_several_runs_medians_and_ranges_are_shown() -> None:
    rows: list[dict[str, Any]] = [
        {"acks": "all", "mb_per_second": rate, "n": 10, "p99_ms": late, "cpu_s": {"client": rate}}
        for rate, late in ((30.0, 5.0), (10.0, None), (20.0, 6.0))
    ]
    merged = of_runs(rows, "mb_per_second")
    assert (merged["mb_per_second"], merged["range"], merged["runs"]) == (20.0, "10.0..30.0", 3)
    assert merged["ranges"]["mb_per_second"] == [10.0, 30.0]
    assert merged["p99_ms"] is None, "one of the runs had too few"
    assert (merged["acks"], merged["n"], merged["cpu_s"]) == ("all", 10, {"client": 20.0})
    alone = of_runs(rows[:1], "mb_per_second")
    assert (alone["range"], alone["runs"], alone["p99_ms"]) == (None, 1, 5.0)


def test_a_rate_that_was_missed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"acks": "all", "flush_policy": "commit", "rate": 1000}
    _say_missed_rate({**result, "rate_sent": 995.0})
    _say_missed_rate({**result, "rate": None})
    assert capsys.readouterr().err == ""
    _say_missed_rate({**result, "rate_sent": 850.0})
    assert "850 records/s were sent, not the 1,000 asked for" in capsys.readouterr().err


def test_a_figure_has_its_surroundings(tmp_path: Path) -> None:
    found = surroundings()
    assert found["cores"] == os.cpu_count()
    line = header(found)
    for word in (found["version"], found["python"], "codec", f"fsync {found['fsync_ms']} ms", "load"):
        assert word in line
    assert sync_ms(tmp_path) > 0


def test_without_a_local_cluster_nobody_knows_what_is_foreign() -> None:
    figures = CpuMeter(None).figures(1, 1)
    assert (figures["foreign_cpu"], figures["cpu_us_per_request"]) == (None, None)
    spent = machine.cpu_spent()
    assert spent is None or (spent.busy_s > 0 and spent.steal_s >= 0)


@pytest.mark.parametrize("text", ["", "0", "1,x", "-1", "1.5"])
def test_connections_are_whole_numbers(text: str) -> None:
    with pytest.raises(CliError, match="whole numbers from 1 on"):
        counts(text)
    assert counts("1, 64") == [1, 64]


def test_a_load_for_each_promise() -> None:
    assert [load.acks for load in loads(Load(""), "all,1")] == ["all", "1"]
    with pytest.raises(CliError):
        loads(Load(""), "most")


@pytest.mark.parametrize("columns", [COLUMNS, HTTP_COLUMNS])
def test_a_table_fits_into_a_terminal(columns: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, Any] = {column.key: 99_999.9 for column in columns if column.right}
    row |= {"acks": "all", "flush_policy": "commit", "range": "99.9..999.9", "n": 99_999, "connections": 64}
    row |= {"mb_per_second": 999.9, "foreign_cpu": 199.9, "p50_ms": 999.9, "p99_ms": 999.9, "p999_ms": 999.9}
    show_rows([row], columns, Format.table)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2, "nothing is folded"
    assert max(map(len, lines)) <= COLUMNS_MAX
