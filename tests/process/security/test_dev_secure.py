"""``minilog dev up --secure``, as somebody types it in a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Shell = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Where the default dev cluster lies in a folder of its own, and nothing is exported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MINILOG_")}

    def run(line: str) -> subprocess.CompletedProcess[str]:
        text = f'minilog() {{ "{sys.executable}" -m minilog "$@"; }}\n{line}'
        return subprocess.run(
            ["bash", "-c", text],
            env={**kept, "XDG_STATE_HOME": str(tmp_path / "state")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    yield run
    run("minilog dev down; minilog dev down --data elsewhere")


def fine(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_default_cluster_is_found_with_its_keys_and_another_one_by_the_line_to_export(shell: Shell) -> None:
    ports = "--port 0 --controller-port 0"
    up = shell(f"minilog dev up --secure -n 1 {ports} --topics orders --detach")
    assert "every command is the administrator's with: export MINILOG_URL=https://127.0.0.1:" in fine(up) + up.stderr
    assert "orders" in fine(shell("minilog topic list"))
    assert fine(shell("echo tea | minilog topic produce orders; minilog topic consume orders -e")) == "tea\n"
    fine(shell(f"minilog dev up --secure -n 1 {ports} --topics clicks --detach --data elsewhere"))
    assert "clicks" in fine(shell('eval "$(minilog dev env --data elsewhere)"; minilog topic list'))
    stranger = shell('eval "$(minilog dev env --data elsewhere)"; unset MINILOG_TOKEN_FILE; minilog topic list')
    assert stranger.returncode == 1
    assert "this needs a token" in stranger.stderr
    fine(shell("minilog dev down && minilog dev up --no-secure --detach"))
    assert "orders" in fine(shell("minilog topic list")), "the data is the same without keys"
