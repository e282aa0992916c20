"""Wall clocks that are set, on real processes (R40): nothing goes because of a clock, and a clock that
is wrong is seen."""

from __future__ import annotations

import json
import re
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.process.rig.cluster import CONTROLLER, ProcessCluster, process_cluster
from tests.process.rig.wall_clock import library
from tests.process.routes.test_group_routes import Shell

pytestmark = pytest.mark.skipif(library() is None, reason="libfaketime is not installed: apt-get install libfaketime")

DAY_S = 86_400
LONG_AGO_MS = 1_357_034_400_000
"""The first of January 2013."""


class Bench:
    def __init__(self, cluster: ProcessCluster) -> None:
        self.cluster, self.shell = cluster, Shell(cluster)
        self.producer_id: int | None = None
        self.written: Counter[str] = Counter()

    def create(self, topic: str, **config: str) -> None:
        settings = {name.replace("_", "."): value for name, value in config.items()}
        body = {"topic": topic, "partitions": 1, "replication_factor": 3, "config": settings}
        self.shell.ok("POST", "/v1/topics", body)
        self.cluster.wait_in_sync(topic)

    def write(self, topic: str, timestamp_ms: int | None = None) -> None:
        """Numbered, and so sent again until it is written, once: a busy disk may move a leader, which
        is no matter of clocks."""
        if self.producer_id is None:
            self.producer_id = int(self.shell.ok("POST", "/v1/producers")["producer_id"])
        record: dict[str, Any] = {"value": "v"} if timestamp_ms is None else {"value": "v", "timestamp": timestamp_ms}
        number = {"Id": self.producer_id, "Epoch": 0}
        headers = {f"Minilog-Producer-{name}": str(value) for name, value in number.items()}
        headers |= {"Minilog-Sequence": str(self.written[topic]), "Content-Type": "application/json"}
        body = json.dumps({"records": [record]}).encode()

        def is_written() -> bool:
            url = f"{self.cluster._find(self.cluster.leader(topic)).url}/v1/topics/{topic}/partitions/0/records"
            try:
                with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=15) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        self.cluster.wait(is_written, f"a record of {topic} to be written")
        self.written[topic] += 1

    def start(self, topic: str) -> int:
        path = f"/v1/topics/{topic}/partitions/0/offsets?at=earliest"
        return int(self.cluster.told(self.cluster.leader(topic), path)["offset"])

    def wait_start(self, topic: str, offset: int) -> None:
        self.cluster.wait(lambda: self.start(topic) == offset, f"{topic} begins at {offset}")

    def metric(self, name: int | str, metric: str) -> float:
        member = self.cluster._find(name)
        with urllib.request.urlopen(f"{member.url}/metrics", timeout=5) as answer:
            found = re.search(rf"^{re.escape(metric)} (\S+)$", answer.read().decode(), re.MULTILINE)
        return float(found[1]) if found else float("nan")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with process_cluster(tmp_path / "cluster", overrides=["retention_check_ms=200"], clocks=True) as cluster:
        yield Bench(cluster)


def test_no_clock_deletes_what_was_written_a_moment_ago(bench: Bench) -> None:
    """All clocks of the cluster go forward by a month, then back. That retention is at work is seen
    by a topic that keeps records for a second."""
    bench.create("new", retention_ms="3600000")
    bench.create("old", retention_ms="3600000")
    bench.create("short", retention_ms="1000")
    bench.create("kafka", retention_ms="3600000", retention_by="timestamp")
    bench.write("new")
    bench.write("old", LONG_AGO_MS)
    for written, days in enumerate((30, -30), 1):
        bench.cluster.set_clock(days * DAY_S, CONTROLLER, *bench.cluster.broker_ids)
        bench.write("short")
        bench.wait_start("short", written)
    bench.write("kafka", LONG_AGO_MS)
    bench.wait_start("kafka", 1)
    assert (bench.start("new"), bench.start("old")) == (0, 0)


def test_a_broker_whose_clock_is_off_is_seen_and_deletes_nothing(bench: Bench) -> None:
    bench.create("t", retention_ms="500")
    leader = bench.cluster.leader("t")
    other = next(broker_id for broker_id in bench.cluster.broker_ids if broker_id != leader)

    def findings() -> list[str]:
        health = bench.cluster.told(other, "/v1/cluster/health")
        return [found["sentence"] for found in health["findings"] if found["kind"] == "clock_skew"]

    for ahead_s in (DAY_S, -DAY_S):
        bench.cluster.set_clock(ahead_s, leader)
        bench.cluster.wait(lambda: bool(findings()), "the clock of the leader is told of")
        assert f"the clock of broker {leader} is" in findings()[0]
        assert abs(bench.metric(leader, "minilog_clock_skew_seconds") - ahead_s) < 10
        assert abs(bench.metric(CONTROLLER, f'minilog_broker_clock_skew_seconds{{broker="{leader}"}}') - ahead_s) < 10
        bench.write("t")
        bench.cluster.set_clock(0, leader)
        bench.cluster.wait(lambda: not findings(), "the clock is right again")
    bench.wait_start("t", 2)
