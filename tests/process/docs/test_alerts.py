"""Alerts of a real Prometheus while brokers and a controller of a real cluster die: the right one
fires within a minute, and no other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from minilog_client import AsyncClient
from tests.process.conftest import leave_out
from tests.process.rig import prometheus
from tests.process.rig.cluster import CONTROLLER, process_cluster
from tests.process.rig.prometheus import Prometheus

TOPICS = ("orders", "clicks")
PAGED_S = 60.0


@pytest.fixture
def prometheus_is_here() -> None:
    missing = prometheus.unavailable()
    if missing:
        leave_out(missing)


async def _create(url: str) -> None:
    async with AsyncClient(url) as client:
        for topic in TOPICS:
            await client.create_topic(topic, partitions=6, replication_factor=3, config={"min.insync.replicas": "2"})
            async with client.producer(acks="all") as producer:
                await producer.send(topic, b"1")


def firing(seen: Prometheus) -> set[str]:
    return {rule["name"] for rule in seen.rules() if rule["state"] == "firing"}


def pending(seen: Prometheus) -> set[str]:
    return {rule["name"] for rule in seen.rules() if rule["state"] != "inactive"}


@pytest.mark.usefixtures("prometheus_is_here")
def test_who_dies_is_paged_and_nothing_else(tmp_path: Path) -> None:
    with process_cluster(tmp_path / "cluster") as cluster:
        asyncio.run(_create(cluster.url))
        for topic in TOPICS:
            cluster.wait_in_sync(topic)
        with prometheus.prometheus(cluster, tmp_path) as seen:
            seen.wait(lambda p: p.now("minilog_broker_running"), "the controller's word", PAGED_S)
            dead = cluster.leader(TOPICS[0])
            cluster.kill(dead)
            seen.wait(firing, "a page", PAGED_S)
            assert firing(seen) == {"MinilogBrokerDown"}
            assert "MinilogIsrFlapping" not in pending(seen)
            cluster.start(dead)
            seen.wait(lambda p: not firing(p), "the page to end", PAGED_S)
            cluster.kill(CONTROLLER)
            seen.wait(firing, "a page", PAGED_S)
            assert firing(seen) == {"MinilogNoActiveController"}
