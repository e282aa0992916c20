"""Every panel and alert in a real Prometheus, while a leader dies, a follower freezes and a
consumer stops.

Nothing may be empty, and what the faults change must be seen to change.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilog_client import AsyncClient
from tests.process.conftest import leave_out
from tests.process.incidents import panels
from tests.process.rig import prometheus
from tests.process.rig.cluster import ProcessCluster, process_cluster
from tests.process.rig.prometheus import ROOT, Prometheus

TOPIC, GROUP = "orders", "billing"
OVERRIDES = ("session_timeout_ms=4000", "replica_lag_max_ms=1500")
"""A frozen follower falls out of the ISR by its lag, long before its session ends."""
PARTITIONS = 3
SEND_EVERY_S = 0.02
SEEN_S = 20.0

MUST_MOVE = {
    "Brokers running", "Under-replicated", "Elections in 1 h", "ISR size", "Partitions in trouble",
    "ISR shrinks and expands per minute", "Replica lag, records", "Replica lag, seconds", "Partitions led",
    "Elections per minute", "Brokers by state", "Heartbeat age", "Records in per second",
    "Largest lag", "Records waiting", "Lag by group, seconds", "Lag by group, records", "Committed per second",
}  # fmt: skip
"""Panels whose numbers the faults of this test must change."""


class Traffic:
    """A producer all the time, and a consumer in a group until it is told to stop. On a thread of
    their own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.stuck, self.ended = threading.Event(), threading.Event()
        self.consumed = 0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.ended.set()
        self._thread.join(30)
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except BaseException as failure:
            self._failure = failure

    async def _work(self) -> None:
        async with AsyncClient(self._url) as client, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._produce(client))
            tasks.create_task(self._consume(client))

    async def _produce(self, client: AsyncClient) -> None:
        async with client.producer(acks="all", linger_ms=5) as producer:
            number = 0
            while not self.ended.is_set():
                await producer.send(TOPIC, b"%d" % number, key=b"%d" % number)
                number += 1
                await asyncio.sleep(SEND_EVERY_S)

    async def _consume(self, client: AsyncClient) -> None:
        async with client.consumer(TOPIC, group=GROUP, start="earliest") as consumer:
            while not self.ended.is_set() and not self.stuck.is_set():
                self.consumed += len(await consumer.batch(max_records=500, max_wait_ms=200))
                await consumer.commit()
            await asyncio.to_thread(self.ended.wait)  # still a member: what a consumer that hangs looks like


@contextlib.contextmanager
def traffic(url: str) -> Iterator[Traffic]:
    found = Traffic(url)
    try:
        yield found
    finally:
        found.stop()


async def _create(url: str) -> None:
    async with AsyncClient(url) as client:
        await client.create_topic(
            TOPIC, partitions=PARTITIONS, replication_factor=3, config={"min.insync.replicas": "2"}
        )


def _break_things(cluster: ProcessCluster, seen: Prometheus, load: Traffic) -> None:
    seen.wait(lambda p: load.consumed > 100 and p.now("minilog_consumergroup_lag"), "the group's lag", SEEN_S)
    dead = cluster.leader(TOPIC)
    elections = "sum(minilog_leader_elections_total)"
    seen.wait(
        lambda p: p.now("sum(increase(minilog_leader_elections_total[1h]))"), "elections to be counted twice", SEEN_S
    )
    before = max(seen.now(elections).values())
    cluster.kill(dead)
    seen.wait(lambda p: max(p.now(elections).values(), default=0) > before, "an election to be seen", SEEN_S)
    seen.wait(
        lambda p: max(p.now("sum(minilog_partition_under_replicated)").values(), default=0) > 0, "a smaller ISR", SEEN_S
    )
    seen.wait(lambda p: panels.has_moved(p, "Brokers running"), "the controller to count one less", SEEN_S)
    cluster.start(dead)
    cluster.wait_in_sync(TOPIC)
    shrinks = "sum(minilog_isr_shrinks_total)"
    before = max(seen.now(shrinks).values())
    follower = next(broker for broker in cluster.broker_ids if broker not in (dead, cluster.leader(TOPIC)))
    cluster.pause(follower)
    try:
        seen.wait(
            lambda p: max(p.now(shrinks).values(), default=0) > before, "the frozen follower to leave the ISR", SEEN_S
        )
        seen.wait(lambda p: max(p.now("max(minilog_replica_lag_seconds)").values(), default=0) > 1, "its lag", SEEN_S)
    finally:
        cluster.resume(follower)
    cluster.wait_in_sync(TOPIC)
    load.stuck.set()
    lag_s = f'max(minilog_consumergroup_lag_seconds{{group="{GROUP}"}})'
    seen.wait(lambda p: max(p.now(lag_s).values(), default=0) > 2, "the consumer's lag", SEEN_S)


@pytest.fixture
def prometheus_is_here() -> None:
    missing = prometheus.unavailable()
    if missing:
        leave_out(missing)


@pytest.mark.usefixtures("prometheus_is_here")
def test_every_panel_shows_something_and_the_right_ones_move(tmp_path: Path) -> None:
    with process_cluster(tmp_path / "cluster", overrides=OVERRIDES) as cluster:
        asyncio.run(_create(cluster.url))
        with prometheus.prometheus(cluster, tmp_path) as seen, traffic(cluster.url) as load:
            _break_things(cluster, seen, load)
            empty, moved = panels.judge(seen)
            _check_rules(seen)
        _check_expositions(cluster)
    assert not empty
    assert sorted(MUST_MOVE - moved) == []


def _check_rules(seen: Prometheus) -> None:
    rules = seen.rules()
    assert rules
    wrong = {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")}
    assert not wrong


def _check_expositions(cluster: ProcessCluster) -> None:
    for member in cluster.dev.members:
        with urllib.request.urlopen(f"{member.url}/metrics", timeout=5) as answer:
            text = answer.read()
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        assert checked.returncode == 0, f"{member.name}: {checked.stdout.decode()}{checked.stderr.decode()}"


@pytest.mark.usefixtures("prometheus_is_here")
@pytest.mark.parametrize(
    "command",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
)
def test_promtool_is_content(command: tuple[str, ...]) -> None:
    *verb, name = command
    checked = subprocess.run(
        ["promtool", *verb, str(ROOT / "config" / name)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
