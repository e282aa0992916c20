"""/openapi.json says what is served: schemathesis asks broker and controller whatever the documents
allow, and what they do not, and compares the answers with them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.faults.test_stop import Serving, ended

RIG = Path(__file__).parents[1] / "rig"
TIME_S = 300
"""Far more than the run takes. Who has fewer cores gets the same examples."""


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with ended(Serving(tmp_path_factory.mktemp("serve"))) as process:
        process.create()
        process.fill(3)
        yield process


@pytest.mark.parametrize("role", ["broker", "controller"])
def test_what_is_served_is_what_is_described(serving: Serving, role: str, tmp_path: Path) -> None:
    found = re.search(rf"{role}(?: \d+)? listening on (http://[0-9.:]+)", serving.log)
    assert found is not None
    words = ["--config-file", str(RIG / "schemathesis.toml"), "run", f"{found[1]}/openapi.json"]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *words, "--checks", "all", "--no-color"],
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.process.rig.schemathesis_hooks"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=TIME_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert serving.status("/readyz") == 200
    assert "Traceback" not in serving.log, serving.log
