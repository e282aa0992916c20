"""Faults under load with acks=all: nothing acknowledged may be lost, misplaced or reordered, replicas end identical."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from minilog_client import AsyncClient
from tests.process.cluster import ProcessCluster
from tests.process.load import Load, prove, running, until_acknowledged

TOPIC = "events"
PARTITIONS = 6
SOME = 2000
Fault = Callable[[ProcessCluster, Load], Awaitable[None]]


def create_topic(cluster: ProcessCluster, **config: str) -> None:
    async def create() -> None:
        async with AsyncClient(cluster.url) as client:
            settings = {"min.insync.replicas": "2", **config}
            await client.create_topic(TOPIC, partitions=PARTITIONS, replication_factor=3, config=settings)

    asyncio.run(create())


def suffer(cluster: ProcessCluster, fault: Fault) -> Load:
    """Load before, during and after the fault."""
    create_topic(cluster)
    load = Load(TOPIC, PARTITIONS)

    async def scenario() -> None:
        async with running(cluster, load):
            await until_acknowledged(load, SOME)
            await fault(cluster, load)
            await until_acknowledged(load, SOME)

    asyncio.run(scenario())
    assert load.errors == []
    return load


async def in_thread(function: Callable[..., object], *arguments: object) -> None:
    """Signals and waiting happen beside the load, never in its way."""
    await asyncio.to_thread(function, *arguments)


def follower_of(cluster: ProcessCluster, partition: int) -> int:
    state = cluster.partitions(TOPIC)[partition]
    return next(r for r in state["replicas"] if r != state["leader"])


async def kill_leader(cluster: ProcessCluster, load: Load) -> None:
    leader = await asyncio.to_thread(cluster.leader, TOPIC)
    await in_thread(cluster.kill, leader)
    await until_acknowledged(load, SOME)
    await in_thread(cluster.start, leader)


async def kill_follower(cluster: ProcessCluster, load: Load) -> None:
    follower = await asyncio.to_thread(follower_of, cluster, 0)
    await in_thread(cluster.kill, follower)
    await until_acknowledged(load, SOME)
    await in_thread(cluster.start, follower)


async def kill_controller(cluster: ProcessCluster, load: Load) -> None:
    """The data path goes on without it: acknowledgements must not pause."""
    await in_thread(cluster.kill, "controller")
    began = time.monotonic()
    await until_acknowledged(load, 2 * SOME)
    assert load.longest_gap_ms(began) < 500
    await in_thread(cluster.start, "controller")


async def kill_everything(cluster: ProcessCluster, load: Load) -> None:
    for name in ("controller", *cluster.broker_ids):
        await in_thread(cluster.kill, name)
    await in_thread(cluster.start, "controller", *cluster.broker_ids)


async def kill_leader_then_next(cluster: ProcessCluster, load: Load) -> None:
    """Two of three die one after the other; the last one alone may not acknowledge, and nothing is lost after it."""
    first = await asyncio.to_thread(cluster.leader, TOPIC)
    await in_thread(cluster.kill, first)
    await until_acknowledged(load, SOME)
    second = await asyncio.to_thread(cluster.leader, TOPIC)
    await in_thread(cluster.kill, second)
    await in_thread(cluster.start, first, second)


async def pause_leader(cluster: ProcessCluster, load: Load) -> None:
    leader = await asyncio.to_thread(cluster.leader, TOPIC)
    await in_thread(cluster.pause, leader)
    await until_acknowledged(load, SOME)
    await in_thread(cluster.resume, leader)


async def pause_controller(cluster: ProcessCluster, load: Load) -> None:
    """A controller that stood still longer than a session must fence nobody when it goes on."""
    before = await asyncio.to_thread(cluster.partitions, TOPIC)
    await in_thread(cluster.pause, "controller")
    await asyncio.sleep(3.0)
    await in_thread(cluster.resume, "controller")
    await until_acknowledged(load, SOME)
    after = await asyncio.to_thread(cluster.partitions, TOPIC)
    assert [p["leader_epoch"] for p in after] == [p["leader_epoch"] for p in before]


async def rolling_restart(cluster: ProcessCluster, load: Load) -> None:
    for broker_id in cluster.broker_ids:
        await in_thread(cluster.terminate, broker_id)
        await until_acknowledged(load, SOME // 2)
        await in_thread(cluster.start, broker_id)
        await in_thread(cluster.wait_in_sync, TOPIC)


@pytest.mark.parametrize(
    "fault",
    [
        kill_leader,
        kill_follower,
        kill_controller,
        kill_everything,
        kill_leader_then_next,
        pause_leader,
        pause_controller,
        rolling_restart,
    ],
)
def test_acknowledged_records_survive(cluster: ProcessCluster, fault: Fault) -> None:
    load = suffer(cluster, fault)
    proof = prove(cluster, load)
    print(f"{fault.__name__}: {proof.acknowledged} acknowledged, 0 lost, {proof.duplicates} duplicates")
