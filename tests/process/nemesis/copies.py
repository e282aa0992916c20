"""Disks and journals that are older than what they say: restored backups, snapshots of virtual
machines, a lost journal that is made anew from the brokers (R36, R37, R38)."""

from __future__ import annotations

import shutil

from tests.process.nemesis.nemesis import nemesis
from tests.process.nemesis.processes import killed
from tests.process.nemesis.scene import Scene
from tests.process.rig import faulty_disk
from tests.process.rig.cluster import CONTROLLER
from tests.process.rig.older_copy import restore, take_copy


@nemesis(hurts_disk=True)
async def older_disk(scene: Scene) -> None:
    """A broker comes back first of all, on an older copy of its disk. It was in sync when the copy
    was made, and when it died. It must not lead: the others would cut what it lacks."""
    last = await scene.leader()
    old, third = scene.others(last)
    data_dir = scene.cluster.data_dir(old)
    copy = data_dir.with_name(f"{data_dir.name}.copy")
    if scene.random.random() < 0.5:
        await scene.call(take_copy, data_dir, copy)  # of a running process
    else:
        async with scene.fault("older_disk", old):
            await scene.stop(old)
            await scene.call(take_copy, data_dir, copy)
            await scene.start(old)
    await scene.in_sync()
    await scene.served()
    async with killed(scene, "older_disk", third):
        await scene.served()
        async with scene.fault("older_disk", old):
            try:
                await scene.call(scene.cluster.kill, old)
                async with killed(scene, "older_disk", last):
                    await scene.call(restore, copy, data_dir)
                    await scene.start(old)
                    await scene.hold(0.5)
            finally:
                await scene.start(old)
    shutil.rmtree(copy)


@nemesis(hurts_disk=True)
async def older_journal(scene: Scene) -> None:
    """The controller comes back on an older copy of its journal, and ends by itself: its brokers
    know more. Then its journal is made anew from theirs."""
    cluster = scene.cluster
    copy = cluster.controller_dir.with_name("controller.copy")
    async with killed(scene, "older_journal", CONTROLLER):
        await scene.call(take_copy, cluster.controller_dir, copy)
    async with killed(scene, "older_journal", await scene.leader()):
        await scene.served()  # in epochs that the copy does not know
    await scene.in_sync()
    async with killed(scene, "older_journal", CONTROLLER):
        await scene.call(restore, copy, cluster.controller_dir)
        await scene.call(cluster.launch, CONTROLLER)
        await scene.call(cluster.await_dead, CONTROLLER)
        await scene.served()
        await scene.call(cluster.recover_journal)
    shutil.rmtree(copy)


@nemesis(hurts_disk=True)
async def lost_journal(scene: Scene) -> None:
    """The controller's disk is gone. Its journal is made anew from the brokers."""
    async with killed(scene, "lost_journal", CONTROLLER):
        await scene.call(faulty_disk.wipe, scene.cluster.controller_dir)
        await scene.served()
        await scene.call(scene.cluster.recover_journal)
