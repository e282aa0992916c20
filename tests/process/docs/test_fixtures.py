"""The fixtures in a test run of their own, as an application has it: of any scope, in several
processes, with warnings as errors; nothing runs on, whatever a test raises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CONFTEST = """
import json, os
import pytest
from minilog.testing import cluster_fixture

shop = cluster_fixture(scope="session", brokers=1, settings=["session_timeout_ms=2000"], deadline_ms=60_000)

@pytest.fixture(scope="session")
def note():
    def add(cluster):
        pids = [member.pid() for member in cluster._dev.members]
        with open(os.environ["NOTES"], "a") as notes:
            notes.write(json.dumps([pids, str(cluster._dev.folder)]) + "\\n")
    return add
"""
TESTS = """
import gc
import sys
import pytest

held = []

@pytest.mark.parametrize("number", range(4))
def test_a_shared_cluster(shop, note, number):
    note(shop)
    shop.create_topic(f"t{number}")
    shop.client().producer().send(f"t{number}", b"x").result()
    if number == 1:
        shop.kill(1)
        shop.heal()

def test_that_fails(shop, note):
    note(shop)
    raise ValueError("the test's own")

def test_a_callback_that_raises(minilog_clusters, note):
    cluster = minilog_clusters(brokers=1)
    note(cluster)
    cluster.create_topic("t")
    def revoked(partitions):
        raise ValueError("a test's own callback fails")
    held.append(cluster.client().consumer("t", group="g", on_revoked=revoked))
    held[0].batch(max_wait_ms=3000)

def test_that_ends_by_itself(minilog_clusters, note):
    cluster = minilog_clusters(brokers=1)
    note(cluster)
    sys.exit(3)

def test_a_broker(minilog_broker):
    minilog_broker.create_topic("t")
    minilog_broker.kill()
    minilog_broker.start()

def test_after():
    gc.collect()
"""


def run(folder: Path, *words: str, tests: str = TESTS, ini: str = "") -> tuple[subprocess.CompletedProcess[str], Path]:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_app.py").write_text(tests)
    (folder / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
    notes = folder / "notes"
    notes.write_text("")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis", *words]
    environment = {**os.environ, "NOTES": str(notes)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    return done, notes


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_two_processes_with_warnings_as_errors_leave_nothing_behind(tmp_path: Path) -> None:
    done, notes = run(tmp_path, "-n", "2", "-W", "error")
    last = done.stdout.strip().splitlines()[-1]
    assert "7 passed" in last, done.stdout
    assert "2 failed" in last, "the test's own error, and the one that ended by itself"
    assert "1 error" in last, "what a callback raised is told where the cluster ends"
    told = [line for line in done.stdout.splitlines() if "Warning" in line]
    assert not told, told
    _assert_nothing_is_left(notes)


def test_what_ends_the_whole_run_leaves_no_process(tmp_path: Path) -> None:
    tests = """
import os, signal, pytest
def test_a(shop, note):
    note(shop)
def test_b(minilog_clusters, note):
    note(minilog_clusters(brokers=1))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs in the background may have inherited none
    os.kill(os.getpid(), signal.SIGINT)
"""
    done, notes = run(tmp_path, tests=tests)
    assert done.returncode == 2, done.stdout
    _assert_nothing_is_left(notes)


def test_a_setting_says_how_long_clusters_live_and_how_long_is_waited(tmp_path: Path) -> None:
    tests = """
seen = []
def test_a(minilog_broker):
    seen.append(minilog_broker)
    assert minilog_broker.deadline_s == 45
def test_b(minilog_broker):
    assert seen == [minilog_broker]
"""
    done, _ = run(tmp_path, tests=tests, ini="minilog_scope = module\nminilog_deadline_ms = 45000")
    assert done.returncode == 0, done.stdout
    done, _ = run(tmp_path, tests=tests, ini="minilog_scope = forever")
    assert "allowed are function, class, module, package, session" in done.stdout + done.stderr
    done, _ = run(tmp_path, tests=tests, ini="minilog_deadline_ms = soon")
    assert "allowed are whole numbers >= 1, in ms" in done.stdout + done.stderr


def _assert_nothing_is_left(notes: Path) -> None:
    lines = [json.loads(line) for line in notes.read_text().splitlines()]
    assert lines
    for pids, folder in lines:
        assert not [pid for pid in pids if is_running(pid)]
        assert not Path(folder).exists()
