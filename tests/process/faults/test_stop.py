"""SIGTERM in every state that a background task or a request can be in: exit code 0, a clean
marker, nothing that looks like a bug.

One table, a process of its own for each row. Where a state would be over too soon, one step of it
is slowed down (slow.py).
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minilog.cli.local.ports import free_ports

TOPIC = {"topic": "t", "config": {"segment.bytes": "4096"}}
STOP_S = 15.0
WAIT_S = 20.0


class Process:
    """One ``minilog`` with its stderr in a file."""

    def __init__(self, folder: Path, slow: tuple[str, ...], *command: str) -> None:
        self.log_file = folder / "log"
        self.clients: list[socket.socket] = []
        self._began = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            words = [sys.executable, "-m", "tests.process.rig.slow", *slow, "--", *command]
            self.child = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)

    @property
    def log(self) -> str:
        return self.log_file.read_bytes()[self._began :].decode(errors="replace")

    def wait_for(self, condition: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert self.child.poll() is None, f"it ended with {self.child.returncode}: {self.log}"
            assert time.monotonic() < deadline, f"{what} did not come: {self.log}"
            time.sleep(0.01)

    def wait_for_log(self, text: str) -> None:
        self.wait_for(lambda: text in self.log, text)

    def stop(self) -> int:
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(STOP_S)

    def kill(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()


class Serving(Process):
    """``minilog serve``, ready."""

    def __init__(
        self, folder: Path, slow: tuple[str, ...] = (), settings: tuple[str, ...] = (), *, ready: bool = True
    ) -> None:
        port, controller_port = free_ports(2)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.data_dir = folder / "data"
        flags = [word for setting in settings for word in ("--set", setting)]
        ports = ("--port", str(port), "--controller-port", str(controller_port))
        super().__init__(folder, slow, "serve", "--data", str(self.data_dir), *ports, *flags)
        if ready:
            self.wait_for(lambda: self.status("/readyz") == 200, "readiness")

    def status(self, path: str) -> int:
        return self.ask(path)[0]

    def ask(self, path: str, body: bytes | None = None, media: str = "application/json") -> tuple[int, bytes]:
        """(0, b"") when nothing answers, or no longer."""
        request = urllib.request.Request(self.url + path, body, {"Content-Type": media})
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def create(self, **config: str) -> None:
        body = {"topic": "t", "config": {"segment.bytes": "4096", **config}}
        assert self.ask("/v1/topics", json.dumps(body).encode())[0] == 201

    def produce(self, value: bytes, query: str = "") -> int:
        return self.ask(f"/v1/topics/t/records{query}", value, "application/octet-stream")[0]

    def fill(self, count: int, query: str = "") -> None:
        for _ in range(count):
            assert self.produce(b"x" * 3000, query) == 200

    def in_background(self, work: Callable[[], Any]) -> None:
        """A request that is under way when the signal comes. What becomes of it is not the matter
        here."""
        threading.Thread(target=work, daemon=True).start()

    def open_request(self, path: str, accept: str = "*/*") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), WAIT_S)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n".encode())
        return client

    @property
    def has_marker(self) -> bool:
        return (self.data_dir / "broker-1" / "clean-shutdown").exists()


def idle(serving: Serving) -> None:
    """Nothing is going on."""


def files_wait_to_be_removed(serving: Serving) -> None:
    serving.create(**{"retention.bytes": "8192"})
    serving.fill(8)
    serving.wait_for(lambda: list(serving.data_dir.glob("broker-1/t-0/*.deleted")), "retention")


def files_are_being_removed(serving: Serving) -> None:
    files_wait_to_be_removed(serving)
    serving.wait_for_log("slow step")


def compaction(serving: Serving) -> None:
    serving.create(**{"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0"})
    serving.fill(8, "?key=k")
    serving.wait_for_log("slow step")


def compaction_at_its_pace(serving: Serving) -> None:
    serving.create(**{"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0"})
    serving.fill(8, "?key=k")
    serving.wait_for(lambda: b"minilog_compaction_rounds_total 1\n" in serving.ask("/metrics")[1], "a round")


def trash_is_being_emptied(serving: Serving) -> None:
    serving.create()
    serving.fill(8)
    delete = urllib.request.Request(serving.url + "/v1/topics/t", method="DELETE")
    urllib.request.urlopen(delete, timeout=WAIT_S).close()
    serving.wait_for(lambda: serving.log.count("slow step") > 1, "the purge")


def flush_and_produces_under_way(serving: Serving) -> None:
    serving.create()
    body = json.dumps({"records": [{"value": 1}]}).encode()
    for _ in range(5):
        serving.in_background(lambda: serving.ask("/v1/topics/t/records", body))
    serving.wait_for_log("slow step")


def scrape_under_way(serving: Serving) -> None:
    serving.in_background(lambda: serving.ask("/metrics"))
    serving.wait_for_log("slow step")


def page_under_way(serving: Serving) -> None:
    serving.create()
    serving.fill(15)
    serving.in_background(lambda: serving.ask("/v1/topics/t/partitions/0/records?offset=earliest&format=text"))
    serving.wait_for_log("slow step")


def long_polls(serving: Serving) -> None:
    serving.create()
    path = "/v1/topics/t/partitions/0/records?offset=latest&wait_ms=60000"
    serving.clients = [serving.open_request(path) for _ in range(20)]
    serving.wait_for(lambda: parked(serving) >= 20, "the polls")


def tails(serving: Serving) -> None:
    serving.create()
    path = "/v1/topics/t/partitions/0/records?offset=latest"
    serving.clients = [serving.open_request(path, "text/event-stream") for _ in range(20)]
    serving.wait_for(lambda: parked(serving) >= 20, "the tails")


def parked(serving: Serving) -> float:
    lines = serving.ask("/metrics")[1].decode().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("minilog_parked_requests{"))


def answers_that_nobody_reads(serving: Serving) -> None:
    assert serving.ask("/v1/topics", b'{"topic": "t"}')[0] == 201
    for _ in range(12):
        assert serving.produce(b"x" * 1_000_000) == 200
    path = "/v1/topics/t/partitions/0/records?offset=earliest&max_bytes=16000000"
    medias = ("application/vnd.minilog.batch", "text/event-stream")
    serving.clients = [serving.open_request(path + "&format=text" * (media == medias[1]), media) for media in medias]
    time.sleep(0.5)


def a_body_that_does_not_come(serving: Serving) -> None:
    serving.create()
    client = socket.create_connection(("127.0.0.1", serving.port), WAIT_S)
    client.sendall(
        b"POST /v1/topics/t/records HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    )
    serving.clients = [client]
    time.sleep(0.2)


def decision_being_written(serving: Serving) -> None:
    seen = serving.log.count("slow step")
    serving.in_background(lambda: serving.ask("/v1/topics", json.dumps(TOPIC).encode()))
    serving.wait_for(lambda: serving.log.count("slow step") > seen, "the journal")


def group_heartbeats(serving: Serving) -> None:
    body = json.dumps({"topics": ["t"]}).encode()

    def beat(number: int) -> None:
        request = urllib.request.Request(
            f"{serving.url}/v1/groups/g/members/m{number}", body, {"Content-Type": "application/json"}, method="PUT"
        )
        with contextlib.suppress(OSError):
            urllib.request.urlopen(request, timeout=WAIT_S).close()

    serving.create()
    for number in range(5):
        serving.in_background(partial(beat, number))
    serving.wait_for_log("slow step")


class Row(NamedTuple):
    """``slow``: steps that take long. ``settings``: keys of the broker or the controller."""

    state: Callable[[Serving], None]
    slow: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


OFTEN = ("retention_check_ms=500",)
TABLE = [
    Row(idle),
    Row(files_wait_to_be_removed, (), ("retention_check_ms=3000",)),
    Row(files_are_being_removed, ("minilog.broker.cleaner:Cleaner._remove=1.5",), OFTEN),
    Row(compaction, ("minilog.storage.compaction.cleaning_round:Round.prepare=1.5",), OFTEN),
    Row(compaction, ("minilog.storage.compaction.cleaning_round:Round.clean=1.5",), OFTEN),
    Row(compaction_at_its_pace, (), (*OFTEN, "cleaner_bytes_per_second=1000")),
    Row(trash_is_being_emptied, ("minilog.storage.store:Store.purge_trash=1.5",), ("checkpoint_interval_ms=200",)),
    Row(flush_and_produces_under_way, ("minilog.storage.log.flush_job:FlushJob.run=1.5",)),
    Row(group_heartbeats, ("minilog.storage.log.flush_job:FlushJob.run=1",)),
    Row(scrape_under_way, ("minilog.broker.metrics.metrics:generate_latest=1.5",)),
    Row(page_under_way, ("minilog.broker.http.records.partition_reader:page_of=1.5",)),
    Row(long_polls),
    Row(tails),
    Row(answers_that_nobody_reads),
    Row(a_body_that_does_not_come),
    Row(decision_being_written, ("minilog.controller.journal:FileJournal.append=0.7",)),
    Row(decision_being_written, ("minilog.controller.journal:FileJournal.snapshot=1",), ("snapshot_records=1",)),
]


@pytest.mark.parametrize(
    "row", TABLE, ids=lambda row: "-".join((row.state.__name__, *(s.rpartition(":")[2] for s in row.slow)))
)
def test_a_stop_is_clean(tmp_path: Path, row: Row) -> None:
    with ended(Serving(tmp_path, row.slow, row.settings)) as serving:
        row.state(serving)
        assert not serving.has_marker
        stopped_cleanly(serving)
        assert serving.has_marker


def stopped_cleanly(process: Process) -> None:
    status = process.stop()
    assert status == 0, process.log
    assert "bug" not in process.log, process.log
    assert "Traceback" not in process.log, process.log


@contextlib.contextmanager
def ended(process: Any) -> Iterator[Any]:
    try:
        yield process
    finally:
        for client in process.clients:
            client.close()
        process.kill()


def test_a_stop_ends_a_recovery_and_leaves_the_marker_that_it_found(tmp_path: Path) -> None:
    with ended(Serving(tmp_path)) as serving:
        serving.create()
        stopped_cleanly(serving)
    slow = ("minilog.storage.store:Store._open_log=0.6",)
    with ended(Serving(tmp_path, slow, ready=False)) as serving:
        serving.wait_for_log("slow step")
        assert serving.status("/healthz") == 200
        status, body = serving.ask("/readyz")
        assert status == 503
        assert json.loads(body)["recovery"] == {"logs_checked": 0, "logs": 1}
        stopped_cleanly(serving)
        assert serving.has_marker


def test_a_stop_ends_a_recovery_that_does_not_come_to_an_end(tmp_path: Path) -> None:
    with ended(Serving(tmp_path)) as serving:
        serving.create()
        serving.kill()
    with ended(Serving(tmp_path, ("minilog.storage.store:Store._open_log=30",), ready=False)) as serving:
        serving.wait_for_log("slow step")
        began = time.monotonic()
        stopped_cleanly(serving)
        assert time.monotonic() - began < 5
        assert not serving.has_marker, "nobody has looked at what the kill left"
    with ended(Serving(tmp_path)) as serving:
        stopped_cleanly(serving)
        assert serving.has_marker


@pytest.mark.parametrize("seconds", ["0.5", "30"])
def test_a_stop_while_the_controller_reads_its_journal(tmp_path: Path, seconds: str) -> None:
    slow = (f"minilog.controller.journal:FileJournal.open={seconds}",)
    for command in (
        ("serve", "--data", str(tmp_path / "s"), "--port", "0", "--controller-port", "0"),
        controller(tmp_path),
    ):
        with ended(Process(tmp_path, slow, *command)) as process:
            process.wait_for_log("slow step")
            began = time.monotonic()
            stopped_cleanly(process)
            assert time.monotonic() - began < 5


def controller(folder: Path) -> tuple[str, ...]:
    return ("controller", "run", "--set", f"data_dir={folder / 'c'}", "--set", "port=0")


def test_a_broker_without_a_controller_stops_too(tmp_path: Path) -> None:
    settings = ("broker_id=1", f"data_dir={tmp_path / 'b'}", "port=0", "controller_url=http://127.0.0.1:1")
    flags = [word for setting in settings for word in ("--set", setting)]
    with ended(Process(tmp_path, (), "broker", "run", *flags)) as process:
        process.wait_for_log("listening on")
        stopped_cleanly(process)


def test_a_dev_cluster_stops_cleanly(tmp_path: Path) -> None:
    words = ("dev", "up", "-n", "2", "--data", str(tmp_path / "dev"), "--port", "0", "--controller-port", "0")
    with ended(Process(tmp_path, (), *words, "--topics", "t:4:2")) as process:
        process.wait_for_log("Ctrl-C stops it")
        stopped_cleanly(process)
        assert len(list((tmp_path / "dev").rglob("clean-shutdown"))) == 2


def test_what_dev_up_started_is_stopped_from_another_terminal(tmp_path: Path) -> None:
    """And nothing else: a pid that means another process by now is left alone."""
    data = ("--data", str(tmp_path / "dev"))
    words = ("dev", "up", "-n", "2", *data, "--port", "0", "--controller-port", "0")
    with ended(Process(tmp_path, (), *words)) as up:
        up.wait_for_log("Ctrl-C stops it")
        assert dev("stop", "2", *data) == (0, "broker 2 stopped")
        up.wait_for_log("broker 2 ended with exit code 0")
        assert dev("stop", "1", "2", *data)[0] == 1, "broker 2 is not running, so nothing is done"
        pid_file = tmp_path / "dev" / "run" / "broker-1.json"
        known = pid_file.read_text()
        pid_file.write_text(json.dumps(json.loads(known) | {"start_mark": "another process"}))
        assert "broker 1 is not running" in dev("stop", "1", *data)[1]
        pid_file.write_text(known)
        assert dev("stop", *data) == (0, "broker 1 stopped\ncontroller stopped")
        assert up.child.wait(STOP_S) == 0
        assert len(list((tmp_path / "dev").rglob("clean-shutdown"))) == 2
        assert "nothing was running" in dev("stop", *data)[1]


def dev(*words: str) -> tuple[int, str]:
    """Exit code and what it says, without the times."""
    command = [sys.executable, "-m", "minilog", "dev", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, re.sub(r" after [\d.]+ s", "", done.stdout + done.stderr).strip()
