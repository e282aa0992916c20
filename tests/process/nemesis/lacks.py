"""A lack that is no damage: syncs that take long, descriptors that run out (R43)."""

from __future__ import annotations

from tests.process.nemesis.nemesis import nemesis
from tests.process.nemesis.scene import Scene

SLOW_S = 0.4
STUCK_S = 5.0
"""Longer than ``flush_slow_ms``."""
FEW = 64


@nemesis(needs_slow_syncs=True)
async def slow_fsync(scene: Scene) -> None:
    """Each sync of a leader takes 0.4 s. It leads on, slowly."""
    await _slow(scene, "slow_fsync", SLOW_S)


@nemesis(needs_slow_syncs=True)
async def stuck_fsync(scene: Scene) -> None:
    """Each sync of a leader takes 5 s. It hands over what it leads, and its followers do without
    it."""
    await _slow(scene, "stuck_fsync", STUCK_S)


async def _slow(scene: Scene, name: str, seconds: float) -> None:
    leader = await scene.leader()
    async with scene.fault(name, leader):
        try:
            await scene.call(scene.cluster.slow_syncs, seconds, leader)
            await scene.hold(2.0)
            await scene.served(2)
        finally:
            await scene.call(scene.cluster.slow_syncs, 0, leader)


@nemesis()
async def few_descriptors(scene: Scene) -> None:
    """A leader may open two files more, and no third. Then it is restarted with so few that its
    logs share them."""
    cluster, leader = scene.cluster, await scene.leader()
    node = cluster.node(leader)
    async with scene.fault("few_descriptors", leader):
        try:
            await scene.call(cluster.limit_descriptors, leader, 2)
            await scene.hold(1.0)
            await scene.call(cluster.unlimit_descriptors, leader)
            cluster.dev.descriptors[node] = FEW
            await scene.stop(leader)
            await scene.start(leader)
            await scene.hold(1.0)
        finally:
            cluster.dev.descriptors.pop(node, None)
            await scene.call(cluster.unlimit_descriptors, leader)
            await scene.stop(leader)
            await scene.start(leader)
