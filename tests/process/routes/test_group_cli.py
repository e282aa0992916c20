"""The commands on groups and records as processes of their own, in pipes and under signals, on a
real cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from minilog.testing import MinilogCluster
from minilog.testing import cluster as small_cluster

TIMEOUT_S = 60.0
MINILOG = (sys.executable, "-m", "minilog")


class Terminal:
    """Runs commands on one cluster."""

    def __init__(self, cluster: MinilogCluster) -> None:
        self.environment = {**os.environ, "MINILOG_URL": cluster.url, "PYTHONUNBUFFERED": ""}

    def run(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = (*MINILOG, *arguments)
        return subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=TIMEOUT_S, env=self.environment
        )

    def ok(self, *arguments: str, given: str = "") -> str:
        done = self.run(*arguments, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, code: int, *arguments: str) -> str:
        done = self.run(*arguments)
        assert (done.returncode, done.stdout) == (code, ""), done
        return done.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "-o", "json"))

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        command = (*MINILOG, *arguments)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment
        ) as child:
            try:
                yield child
            finally:
                if child.poll() is None:
                    child.kill()

    def wait_members(self, group: str, members: int) -> None:
        deadline_s = time.monotonic() + TIMEOUT_S
        while [info["members"] for info in self.json("group", "list") if info["group"] == group] != [members]:
            assert time.monotonic() < deadline_s, f"{group} has not come to {members} members"


@pytest.fixture(scope="module")
def cluster() -> Iterator[MinilogCluster]:
    with small_cluster(brokers=2) as found:
        yield found


@pytest.fixture
def terminal(cluster: MinilogCluster) -> Terminal:
    return Terminal(cluster)


def lines(first: int, end: int) -> str:
    return "".join(f"{number}\n" for number in range(first, end))


def fill(cluster: MinilogCluster, topic: str, partitions: int, records: int) -> None:
    """The numbers from 0 on, shared out to the partitions in turn."""
    cluster.create_topic(topic, partitions=partitions)
    producer = cluster.client().producer()
    for number in range(records):
        producer.send(topic, b"%d" % number, partition=number % partitions)
    producer.flush()


def test_the_life_of_a_group(terminal: Terminal) -> None:
    terminal.ok("topic", "create", "orders", "-p", "1")
    terminal.ok("topic", "produce", "orders", given=lines(0, 20))
    assert terminal.ok("topic", "consume", "orders", "--group", "billing", "-c", "5") == lines(0, 5)
    assert terminal.ok("topic", "consume", "orders", "--group", "billing", "-e") == lines(5, 20)
    assert terminal.ok("topic", "consume", "orders", "--group", "billing", "-e") == ""

    terminal.ok("topic", "produce", "orders", given=lines(20, 26))
    found = terminal.json("group", "describe", "billing")
    assert (found["state"], found["members"], found["lag"]) == ("empty", [], 6)
    assert found["lag_seconds"] > 0
    (row,) = found["partitions"]
    assert (row["topic"], row["committed"], row["high_watermark"], row["lag"]) == ("orders", 20, 26, 6)
    assert "lag 6 records" in terminal.ok("group", "describe", "billing")

    shown = terminal.ok("group", "seek", "billing", "--to", "-3", "--dry-run")
    assert shown.splitlines()[1].split() == ["orders", "0", "20", "17", "-3"]
    terminal.ok("group", "seek", "billing", "--to", "=2", "--yes")
    assert terminal.ok("topic", "consume", "orders", "--group", "billing", "-e") == lines(2, 26)
    terminal.ok("group", "delete", "billing", "--yes")
    assert "no group 'billing'" in terminal.refused(1, "group", "describe", "billing")


def test_a_member_shares_is_protected_and_leaves_at_a_signal(cluster: MinilogCluster, terminal: Terminal) -> None:
    fill(cluster, "shared", partitions=4, records=40)
    with terminal.running("topic", "consume", "shared", "-g", "team") as first:
        assert first.stdout is not None
        seen = {int(first.stdout.readline()) for _ in range(40)}
        assert seen == set(range(40))
        assert "has 1 member; stop it first" in terminal.refused(
            1, "group", "seek", "team", "--to", "earliest", "--yes"
        )
        assert "stop" in terminal.refused(1, "group", "delete", "team", "--yes")
        with terminal.running("topic", "consume", "shared", "-g", "team") as second:
            terminal.wait_members("team", 2)
            second.send_signal(signal.SIGINT)
            assert second.wait(TIMEOUT_S) == 0
        terminal.wait_members("team", 1)
        first.send_signal(signal.SIGTERM)
        assert first.wait(TIMEOUT_S) == 0
        assert first.stdout.read() == ""
    found = terminal.json("group", "describe", "team")
    assert (found["members"], found["lag"], len(found["partitions"])) == ([], 0, 4)


def test_a_member_leaves_when_its_reader_has_left(cluster: MinilogCluster, terminal: Terminal) -> None:
    fill(cluster, "piped", partitions=1, records=3)
    with terminal.running("topic", "consume", "piped", "-g", "pipe") as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "0\n"
        child.stdout.close()
        assert child.wait(TIMEOUT_S) == 0
        assert child.stderr.read() == ""
    assert terminal.json("group", "describe", "pipe")["members"] == []


def test_tail(cluster: MinilogCluster, terminal: Terminal) -> None:
    fill(cluster, "logs", partitions=2, records=20)
    last = terminal.ok("topic", "tail", "logs", "-n", "3", "--no-follow", "-f", "%p:%o %v\\n").splitlines()
    assert sorted(last) == ["0:7 14", "0:8 16", "0:9 18", "1:7 15", "1:8 17", "1:9 19"]
    assert terminal.ok("topic", "tail", "logs", "-n", "100", "-p", "1", "--no-follow") == "".join(
        f"{number}\n" for number in range(1, 20, 2)
    )
    with terminal.running("topic", "tail", "logs", "-n", "1") as child:
        assert child.stdout is not None
        assert {child.stdout.readline(), child.stdout.readline()} == {"18\n", "19\n"}
        terminal.ok("topic", "produce", "logs", given="new\n")
        assert child.stdout.readline() == "new\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(TIMEOUT_S) == 0
