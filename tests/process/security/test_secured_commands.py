"""``bench`` and ``demo`` on a cluster that asks for tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys


def minilog(*words: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MINILOG_")}
    done = subprocess.run(
        [sys.executable, "-m", "minilog", *words], env=kept, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_failover_is_measured_with_tokens() -> None:
    told = json.loads(minilog("bench", "failover", "--secure", "--runs", "1", "--rate", "200", "-o", "json"))
    assert told["lost"] == told["out_of_order"] == told["duplicates"] == 0
    assert told["acknowledged"] > 0


def test_json_requests_are_measured_with_tokens() -> None:
    words = ("--connections", "2", "--seconds", "1", "--warm-up", "0", "-o", "json")
    (row,) = json.loads(minilog("bench", "http", "--secure", *words))
    assert row["requests"] > 0
