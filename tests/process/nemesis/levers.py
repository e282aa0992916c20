"""Operators change something while somebody dies."""

from __future__ import annotations

from minilog.cli.api import Api
from tests.process.nemesis.nemesis import nemesis
from tests.process.nemesis.processes import killed
from tests.process.nemesis.scene import Scene
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
