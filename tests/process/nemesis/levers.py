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
