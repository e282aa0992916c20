"""Machines that are not Linux, as far as Linux can play them: what only Linux has is hidden from
every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RIG = Path(__file__).parents[1] / "rig"
TIMEOUT_S = 120

SMOKE = """
import os
from minilog import machine
from minilog.testing import cluster

assert not hasattr(os, "fdatasync") and machine.boot_id() == ""
with cluster(brokers=3) as c:
    c.create_topic("t", partitions=1, replication_factor=3)
    with c.client() as client:
        producer = client.producer()
        for number in range(100):
            producer.send("t", b"%d" % number)
        assert producer.flush() == 0
        leader = c.leader("t")
        c.pause(leader)
        c.resume(leader)
        c.kill(c.leader("t"))
        producer.send("t", b"after").result(30)
    dead = next(broker for broker in c.broker_ids if broker not in c.isr("t"))
    c.start(dead)
    c.wait_in_sync("t")
    with c.client() as client:
        values = [record.value for record in client.consumer([("t", 0)], start="earliest").batch(200, 5000)]
    assert values == [b"%d" % number for number in range(100)] + [b"after"], values
print("all of it")
"""

CLIENT = """
import sys
from minilog_client import Client

with Client(sys.argv[1]) as client:
    client.producer().send("t", b"hello").result(30)
    consumer = client.consumer("t", group="g", start="earliest")
    (record,) = consumer.batch(1, 10_000)
    assert record.value == b"hello"
    consumer.commit()
    consumer.close()
    assert not {"fcntl", "resource", "termios"} & set(sys.modules)
print("all of it")
"""


def python(hidden: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(RIG / hidden), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path} | more,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_a_cluster_fails_over_where_nothing_is_that_only_linux_has() -> None:
    done = python("without_linux", "-c", SMOKE)
    assert done.stdout == "all of it\n", done.stdout + done.stderr


@pytest.mark.parametrize(
    "tests",
    [
        "tests/unit/storage/test_disk.py",
        "tests/unit/storage/test_disk_contract.py",
        "tests/unit/storage/store/test_store.py",
    ],
)
def test_storage_keeps_its_contract_there(tests: str, tmp_path: Path) -> None:
    done = python(
        "without_linux", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "t"), tests
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_client_needs_no_posix(tmp_path: Path) -> None:
    from minilog.testing import cluster

    with cluster(brokers=1) as c:
        c.create_topic("t", partitions=1, replication_factor=1)
        done = python("without_posix", "-c", CLIENT, c.url)
    assert done.stdout == "all of it\n", done.stdout + done.stderr
