"""Faults of processes: ``kill`` is SIGKILL, ``pause`` SIGSTOP, ``stop`` SIGTERM; and no fault at
all.

Source: the fault catalogues of public test campaigns.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.process.nemesis.nemesis import nemesis
from tests.process.nemesis.scene import Scene
from tests.process.rig.cluster import CONTROLLER, Name


@nemesis()
async def quiet(scene: Scene) -> None:
    """No fault: what is measured now is the cluster itself."""
    await scene.hold()


@contextlib.asynccontextmanager
async def killed(scene: Scene, name: str, *targets: Name) -> AsyncIterator[None]:
    """Dead while the block runs, serving again after it."""
    async with scene.fault(name, *targets):
        await scene.call(scene.cluster.kill, *targets)
        try:
            yield
        finally:
            await scene.start(*targets)


@contextlib.asynccontextmanager
async def paused(scene: Scene, name: str, *targets: Name) -> AsyncIterator[None]:
    async with scene.fault(name, *targets):
        await scene.call(scene.cluster.pause, *targets)
        try:
            yield
        finally:
            await scene.call(scene.cluster.resume, *targets)


@nemesis()
async def kill_leader(scene: Scene) -> None:
    async with killed(scene, "kill_leader", await scene.leader()):
        await scene.served()


@nemesis()
async def kill_follower(scene: Scene) -> None:
    async with killed(scene, "kill_follower", await scene.follower()):
        await scene.served()


@nemesis()
async def kill_leader_then_next(scene: Scene) -> None:
    """Two of three die one after the other. The last one alone may acknowledge nothing."""
    async with killed(scene, "kill_leader_then_next", await scene.leader()):
        await scene.served()
        async with killed(scene, "kill_leader_then_next", await scene.leader()):
            await scene.hold(0.3)


@nemesis()
async def kill_while_starting(scene: Scene) -> None:
    """The leader dies, and again and again at some moment of its return: recovery is interrupted
    too."""
    leader = await scene.leader()
    async with killed(scene, "kill_while_starting", leader):
        for _ in range(3):
            await scene.call(scene.cluster.launch, leader)
            await asyncio.sleep(scene.random.uniform(0.2, 1.2))
            await scene.call(scene.cluster.kill, leader)
        await scene.served()


@nemesis()
async def kill_majority(scene: Scene) -> None:
    leader = await scene.leader()
    async with killed(scene, "kill_majority", leader, scene.any_broker(but=[leader])):
        await scene.hold(0.3)


@nemesis()
async def kill_all(scene: Scene) -> None:
    """Brokers and controller at once."""
    async with killed(scene, "kill_all", *scene.cluster.names):
        pass


@nemesis()
async def kill_controller(scene: Scene) -> None:
    async with killed(scene, "kill_controller", CONTROLLER):
        await scene.hold()


@nemesis()
async def kill_controller_and_leader(scene: Scene) -> None:
    """Nobody can elect before the controller is back."""
    async with killed(scene, "kill_controller_and_leader", CONTROLLER, await scene.leader()):
        await scene.hold(0.3)


@nemesis()
async def stop_leader(scene: Scene) -> None:
    """A clean stop: leaderships move first."""
    leader = await scene.leader()
    async with scene.fault("stop_leader", leader):
        try:
            await scene.stop(leader)
            await scene.served()
        finally:
            await scene.start(leader)


@nemesis()
async def rolling_restart(scene: Scene) -> None:
    for broker_id in scene.cluster.broker_ids:
        async with scene.fault("rolling_restart", broker_id):
            await scene.stop(broker_id)
            await scene.start(broker_id)
        await scene.in_sync()


@nemesis()
async def pause_leader(scene: Scene) -> None:
    """Longer than its session: it wakes up deposed and may not have acknowledged anything
    meanwhile."""
    async with paused(scene, "pause_leader", await scene.leader()):
        await scene.served()


@nemesis()
async def pause_follower(scene: Scene) -> None:
    async with paused(scene, "pause_follower", await scene.follower()):
        await scene.served()


@nemesis()
async def pause_briefly(scene: Scene) -> None:
    """Hiccups shorter than a session, of anybody."""
    for _ in range(8):
        names = scene.cluster.names
        async with paused(scene, "pause_briefly", scene.random.choice(names)):
            await asyncio.sleep(scene.random.uniform(0.05, 1.0))
        await asyncio.sleep(scene.random.uniform(0.0, 0.3))


@nemesis()
async def pause_all(scene: Scene) -> None:
    """As if the whole machine had slept."""
    async with paused(scene, "pause_all", *scene.cluster.names):
        await scene.hold()


@nemesis()
async def pause_controller(scene: Scene) -> None:
    """A controller that stood still longer than a session must fence nobody when it goes on."""
    async with paused(scene, "pause_controller", CONTROLLER):
        await scene.hold()


@nemesis()
async def pause_kill(scene: Scene) -> None:
    """The script that catches stale leaders: A stands still while the others go on without it. Then
    C dies, A wakes up while B stands still, and C comes back: A and C together are a majority that
    lacks what only B has."""
    leader = await scene.leader()
    a, b = scene.others(leader)
    async with contextlib.AsyncExitStack() as asleep:
        await asleep.enter_async_context(paused(scene, "pause_kill", a))
        await scene.hold(1.25)
        await scene.served()
        await scene.call(scene.cluster.kill, leader)
        async with paused(scene, "pause_kill", b):
            await asleep.aclose()
            await scene.start(leader)
            await scene.hold(1.25)
