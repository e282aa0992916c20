"""The bench of the client: everything it measures really happens, and each figure lands in its
cell."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys

import pytest

from minilog.cli.bench import client_cost
from minilog.cli.output import CliError, Format


def test_every_operation_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_cost, "RECORDS_MAX", 300)
    timings = asyncio.run(client_cost._measure(2))
    operations = (
        "send_many",
        "send_many pairs",
        "send_nowait",
        "send_nowait with key",
        "send in a loop, blocking",
        "batch()",
        "iteration",
        "decode",
    )
    assert set(timings) == {f"{operation} {size}" for operation in operations for size in (100, 1024)}
    assert all(len(times) == 2 and min(times) > 0 for times in timings.values())


def test_the_table_shows_medians_and_leaves_cells_empty(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    children = {
        "compiled": {"decode 100": [3.0, 1.0, 2.0]},
        "pure": {"decode 100": [4.0], "batch() 100": [5.0]},
        "confluent": {"batch() 100": [6.0]},
    }
    monkeypatch.setattr(client_cost, "_child", lambda variant, runs: children[variant])
    client_cost.bench_client(1, Format.json)
    decode, batch = json.loads(capsys.readouterr().out)
    assert (decode["compiled"], decode["pure"], decode["confluent"]) == (2.0, 4.0, None)
    assert (batch["compiled"], batch["pure"], batch["confluent"], batch["confluent_call"]) == (
        None,
        5.0,
        6.0,
        "consume()",
    )


def test_nothing_measured_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_cost, "_child", lambda variant, runs: {})
    with pytest.raises(CliError, match="nothing could be measured"):
        client_cost.bench_client(1, Format.table)


def test_a_missing_column_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install 'minilog-broker\[compare\]'"):
        client_cost.child("confluent", 1)


def test_the_codec_can_be_measured_from_its_source() -> None:
    lines = (
        "from minilog.cli.bench.client_cost import _use_pure_codec",
        "_use_pure_codec()",
        "from minilog.wire.codec import codec",
        "print(codec.COMPILED, codec.__file__.endswith('codec.py'))",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.stdout == "False True\n", done.stderr
