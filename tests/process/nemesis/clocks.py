"""Wall clocks that are wrong by an hour, both ways (R40, R74, R75)."""

from __future__ import annotations

from tests.process.nemesis.nemesis import nemesis
from tests.process.nemesis.scene import Scene
from tests.process.rig.cluster import CONTROLLER, Name

HOUR_S = 3600


@nemesis(needs_clocks=True)
async def clock_hour_off_leader(scene: Scene) -> None:
    await _with_clock(scene, "clock_hour_off_leader", await scene.leader())


@nemesis(needs_clocks=True)
async def clock_hour_off_controller(scene: Scene) -> None:
    await _with_clock(scene, "clock_hour_off_controller", CONTROLLER)


async def _with_clock(scene: Scene, name: str, target: Name) -> None:
    """A process has a clock of its own while this lasts: it starts with it an hour off, and then it
    jumps."""
    cluster = scene.cluster
    await scene.call(cluster.give_clock, target)
    ways = scene.random.sample([HOUR_S, -HOUR_S], 2)
    try:
        await scene.call(cluster.set_clock, ways[0], target)
        await _restart(scene, name, target)
        if target != CONTROLLER and not scene.crowded:
            await _let_lead(scene, target)
        async with scene.fault(name, target):
            for ahead_s in (*ways, 0):
                await scene.call(cluster.set_clock, ahead_s, target)
                await scene.hold(0.5)
                await scene.served()
    finally:
        await scene.call(cluster.take_clock, target)
        await _restart(scene, name, target)


async def _restart(scene: Scene, name: str, target: Name) -> None:
    async with scene.fault(name, target):
        await scene.stop(target)
        await scene.start(target)
    await scene.in_sync()


async def _let_lead(scene: Scene, broker_id: Name) -> None:
    """Leaderships stay where they went, and each stop moves some."""
    for other in scene.others(broker_id):
        await _restart(scene, "restart", other)
