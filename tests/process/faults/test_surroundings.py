"""What surrounds a process: signals that mean nothing to it, readers that leave, streams that are
closed or full, proxies and services in its environment."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.faults.test_stop import WAIT_S, Process, Serving, ended, stopped_cleanly

MINILOG = (sys.executable, "-m", "minilog")
NOBODY = "http://127.0.0.1:1"
PROXIES = {name: NOBODY for low in ("http_proxy", "https_proxy", "all_proxy") for name in (low, low.upper())}
OF_SERVICES = {
    "MINILOG_PORT": "tcp://10.0.0.1:8082",
    "MINILOG_SERVICE_HOST": "10.0.0.1",
    "MINILOG_BROKER_PORT_8082_TCP_ADDR": "10.0.0.1",
}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Its broker asks its controller although every proxy that is named is dead."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**PROXIES, **OF_SERVICES}.items():
            patch.setenv(name, value)
        process = Serving(tmp_path_factory.mktemp("serve"), ready=False)
    with ended(process):
        process.wait_for(lambda: process.status("/readyz") == 200, "readiness")
        process.create()
        process.fill(400)
        yield process


def run(serving: Serving, *words: str, shell: str = "") -> subprocess.CompletedProcess[str]:
    """One command, as a shell runs it: ``shell`` follows it."""
    environment = {**os.environ, **PROXIES, "MINILOG_URL": serving.url}
    line = " ".join([*MINILOG, *words, shell])
    return subprocess.run(
        ["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGHUP, "SIGHUP: credentials and certificates are looked at again"),
        (signal.SIGUSR1, "SIGUSR1: nothing is done"),
        (signal.SIGUSR2, "SIGUSR2: the log level is debug now"),
        (signal.SIGUSR2, "SIGUSR2: the log level is info now"),
    ],
)
def test_a_signal_that_does_not_end_says_what_it_does(serving: Serving, number: signal.Signals, said: str) -> None:
    serving.child.send_signal(number)
    serving.wait_for_log(said)
    assert serving.status("/readyz") == 200


def test_the_log_level_is_set_by_a_command_and_named_by_it_afterwards(serving: Serving) -> None:
    assert "say whose level" in run(serving, "loglevel", "debug").stderr
    assert "there is no broker 9 in this cluster" in run(serving, "loglevel", "debug", "--broker", "9").stderr
    done = run(serving, "loglevel", "debug", "--broker", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].split()[-2:] == ["debug", "info"]
    serving.wait_for_log("127.0.0.1: the log level is debug now, and was info; it holds until this process ends")
    shown = run(serving, "loglevel", "-o", "json")
    levels = {row["process"]: row["level"] for row in json.loads(shown.stdout)}
    assert levels == {"broker 1": "debug", "controller": "debug"}, "both are one process here"
    assert run(serving, "loglevel", "info", "--all").returncode == 0


def test_it_says_that_it_serves_once_it_does(serving: Serving) -> None:
    assert serving.log.index("broker 1 registered") < serving.log.index(f"minilog serves {serving.url}")


def test_what_kubernetes_tells_of_services_is_told_to_be_ignored(serving: Serving) -> None:
    assert (
        "MINILOG_BROKER_PORT_8082_TCP_ADDR, MINILOG_PORT, MINILOG_SERVICE_HOST: that is what Kubernetes" in serving.log
    )


def test_an_address_in_use_is_a_sentence_and_nothing_serves(serving: Serving, tmp_path: Path) -> None:
    words = ("serve", "--data", str(tmp_path), "--port", str(serving.port), "--controller-port", "0")
    done = run(serving, *words)
    assert done.returncode == 1
    assert f"port {serving.port} on '127.0.0.1' is in use by another process" in done.stderr
    assert "minilog serves" not in done.stderr


@pytest.mark.parametrize(
    "words",
    ["--help", "topic list -o yaml", "topic consume t -e -o earliest", "partition list", "topic consume t -e --ndjson"],
)
def test_a_reader_that_has_had_enough_is_no_failure(serving: Serving, words: str) -> None:
    done = run(serving, words, shell='| true; exit "${PIPESTATUS[0]}"')
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("shell", "reason"), [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")]
)
def test_output_that_cannot_be_written_is_a_failure_with_its_reason(serving: Serving, shell: str, reason: str) -> None:
    done = run(serving, "topic", "list", shell=shell)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"minilog: writing to stdout or reading stdin failed: {reason}"]


@pytest.mark.parametrize("shell", ["2>/dev/full", "2>&-", "</dev/null", "<&-"])
def test_nobody_need_listen_to_what_is_said_aside(serving: Serving, shell: str) -> None:
    done = run(serving, "topic", "list", shell=shell)
    assert done.returncode == 0
    assert done.stdout


def test_no_proxy_of_the_environment_comes_between(serving: Serving) -> None:
    """Each command talks by another way: the command line's own requests, the client, both."""
    for words in ("topic list", "topic consume t -e", "cluster health"):
        done = run(serving, words)
        assert done.returncode == 0, done.stderr
    assert run(serving, "topic", "produce", "t", shell="<<< x").returncode == 0


def test_a_process_whose_stderr_is_full_serves_and_stops(tmp_path: Path) -> None:
    """Nobody reads of its troubles. That is no reason to have some."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    words = f"exec {' '.join(MINILOG)} controller run --set data_dir={tmp_path}/c --set port={port} 2>/dev/full"
    child = subprocess.Popen(["bash", "-c", words])
    try:
        _until_answered(child, port)
        child.terminate()
        assert child.wait(WAIT_S) == 0
    finally:
        child.kill()
        child.wait()


def _until_answered(child: subprocess.Popen[bytes], port: int) -> None:
    while child.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), WAIT_S).close()
            return
        except ConnectionRefusedError:
            os.sched_yield()
    pytest.fail(f"it ended with {child.returncode}")


def test_a_controller_and_a_broker_stop_after_signals_that_mean_nothing(tmp_path: Path) -> None:
    words = ("controller", "run", "--set", f"data_dir={tmp_path / 'c'}", "--set", "port=0")
    with ended(Process(tmp_path, (), *words)) as process:
        process.wait_for_log("listening on")
        process.child.send_signal(signal.SIGHUP)
        process.wait_for_log("SIGHUP: credentials and certificates are looked at again")
        stopped_cleanly(process)
