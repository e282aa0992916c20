"""Operators change something while somebody dies."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from minilog.cli.api import Api
from minilog.errors import MinilogError
from tests.process.nemesis.nemesis import nemesis
from tests.process.nemesis.processes import killed, paused
from tests.process.nemesis.scene import PATIENCE_S, POLL_S, Scene
from tests.process.rig.cluster import CONTROLLER


async def configure(scene: Scene, **config: str | None) -> None:
    changes = {name.replace("_", "."): value for name, value in config.items()}
    for workload in scene.workloads:
        await scene.call(
            lambda topic=workload.topic: Api(scene.cluster.url).configure_topic(topic, changes, dry_run=False)
        )


@nemesis()
async def change_settings_and_kill(scene: Scene) -> None:
    """A higher minimum while the leader is dead, a lower one while the controller is."""
    async with killed(scene, "change_settings_and_kill", await scene.leader()):
        await scene.served(2)
        await configure(scene, segment_bytes="8192", flush_policy="commit")
        await scene.served(2)
    await scene.in_sync()
    await configure(scene, min_insync_replicas="3")
    await scene.served(2)
    async with killed(scene, "change_settings_and_kill", CONTROLLER):
        await scene.served(2)
    await configure(scene, min_insync_replicas="2", segment_bytes=None)
    await scene.served()


@nemesis()
async def balance_leaders_and_kill(scene: Scene) -> None:
    """Leaderships go back to a broker that was dead, while somebody else dies."""
    api = Api(scene.cluster.url)
    for victim in ("leader", CONTROLLER, "any"):
        async with killed(scene, "balance_leaders_and_kill", await scene.leader()):
            await scene.served(2)
        await scene.in_sync()
        await scene.call(lambda: api.balance_leaders([], dry_run=False))
        target = await scene.leader() if victim == "leader" else scene.any_broker()
        async with killed(scene, "balance_leaders_and_kill", CONTROLLER if victim == CONTROLLER else target):
            await scene.hold(0.3)
        await scene.in_sync()
    await scene.served()


def begin_moves(scene: Scene, replicas: list[int]) -> None:
    """Of all partitions, in one request. Asked for again it changes nothing."""
    moves: list[dict[str, Any]] = [
        {"topic": workload.topic, "partition": partition, "replicas": replicas}
        for workload in scene.workloads
        for partition in range(workload.partitions)
    ]
    with contextlib.suppress(MinilogError):  # somebody is dead, or a move waits for who is
        Api(scene.cluster.url, timeout_s=2).move_replicas(moves, dry_run=False)


def are_moved(scene: Scene, replicas: list[int]) -> bool:
    states = [state for workload in scene.workloads for state in scene.cluster.partitions(workload.topic)]
    return all(state["replicas"] == replicas and not state.get("adding") for state in states)


async def moved(scene: Scene, replicas: list[int]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not await scene.call(are_moved, scene, replicas):
        assert time.monotonic() < deadline_s, f"not moved to {replicas} within {PATIENCE_S} s"
        await scene.call(begin_moves, scene, replicas)
        await asyncio.sleep(10 * POLL_S)


@nemesis()
async def move_replicas_and_kill(scene: Scene) -> None:
    """Every replica goes from two brokers to two others, of which one is frozen until somebody is
    dead: who leads, who is to come, the controller."""
    ids = scene.cluster.broker_ids
    for place, victim in enumerate(("source", "target", CONTROLLER)):
        gone, stays, comes = (ids[(place + i) % len(ids)] for i in range(3))
        await moved(scene, [gone, stays])
        await scene.served(2)
        async with contextlib.AsyncExitStack() as trouble:
            target = {"source": gone, "target": comes}.get(victim, CONTROLLER)
            if target != comes:
                frozen = await trouble.enter_async_context(contextlib.AsyncExitStack())
                await frozen.enter_async_context(paused(scene, "move_replicas_and_kill", comes))
                begun = asyncio.create_task(scene.call(begin_moves, scene, [comes, stays]))
                await scene.hold(0.3)
                assert (await scene.call(Api(scene.cluster.url).list_moves)).moves, "nothing is on the move"
                await trouble.enter_async_context(killed(scene, "move_replicas_and_kill", target))
                await frozen.aclose()
            else:
                begun = asyncio.create_task(scene.call(begin_moves, scene, [comes, stays]))
                await asyncio.sleep(scene.random.uniform(0.0, 0.1))
                await trouble.enter_async_context(killed(scene, "move_replicas_and_kill", target))
            await begun
            await scene.hold(0.3)
        await moved(scene, [comes, stays])
        await scene.served(2)
    await moved(scene, list(ids))
    await scene.served()
