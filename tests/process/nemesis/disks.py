"""Faults of disks: power cuts, disks that die or are full, files that change, disks that come back
empty.

Never two brokers' disks at a time before every replica is back: no promise covers that. The one
exception is a power cut, which takes nothing that was synced.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.process.nemesis.nemesis import nemesis
from tests.process.nemesis.processes import killed
from tests.process.nemesis.scene import Scene
from tests.process.rig import faulty_disk
from tests.process.rig.cluster import CONTROLLER


def cut_power(scene: Scene, *targets: int) -> None:
    """What was not synced when the process died is gone. The machines are up again, the brokers
    not."""
    scene.cluster.kill(*targets)
    for broker_id in targets:
        scene.cluster.volumes[broker_id].fail()
        scene.cluster.volumes[broker_id].power_on()


@nemesis(needs_volumes=True, hurts_disk=True)
async def power_leader(scene: Scene) -> None:
    leader = await scene.leader()
    async with scene.fault("power_leader", leader):
        try:
            await scene.call(cut_power, scene, leader)
            await scene.served()
        finally:
            await scene.start(leader)


@nemesis(needs_volumes=True, hurts_disk=True)
async def power_all(scene: Scene) -> None:
    """Every broker's machine at the same moment."""
    async with scene.fault("power_all", *scene.cluster.broker_ids):
        try:
            await scene.call(cut_power, scene, *scene.cluster.broker_ids)
        finally:
            await scene.start(*scene.cluster.broker_ids)


@nemesis(needs_volumes=True, hurts_disk=True)
async def dead_disk(scene: Scene) -> None:
    """Every write and sync of a running leader fails: it must stop by itself, and nothing
    acknowledged may be missing."""
    leader = await scene.leader()
    volume = scene.cluster.volumes[leader]
    async with scene.fault("dead_disk", leader):
        try:
            await scene.call(volume.fail)
            await scene.call(scene.cluster.await_dead, leader)
            await scene.served()
        finally:
            await scene.call(volume.power_on)
            await scene.start(leader)


@nemesis(needs_volumes=True, hurts_disk=True)
async def full_disk_leader(scene: Scene) -> None:
    await _fill(scene, "full_disk_leader", await scene.leader())


@nemesis(needs_volumes=True, hurts_disk=True)
async def full_disk_follower(scene: Scene) -> None:
    await _fill(scene, "full_disk_follower", await scene.follower())


async def _fill(scene: Scene, name: str, broker_id: int) -> None:
    volume = scene.cluster.volumes[broker_id]
    async with scene.fault(name, broker_id):
        try:
            await scene.call(volume.fill, 64 * 1024)
            await scene.hold(2.0)
        finally:
            await scene.call(volume.empty)
            await scene.start(broker_id)


@contextlib.asynccontextmanager
async def dead(scene: Scene, name: str, broker_id: int) -> AsyncIterator[None]:
    """Stopped while the block works on its files, by a clean stop or by kill -9; serving again
    after it."""
    async with scene.fault(name, broker_id):
        try:
            if scene.random.random() < 0.5:
                await scene.call(scene.cluster.kill, broker_id)
            else:
                await scene.stop(broker_id)
            await scene.served(2)
            scene.cluster.hurt.add(broker_id)
            yield
        finally:
            await scene.start(broker_id)


@nemesis(hurts_disk=True)
async def torn_journal(scene: Scene) -> None:
    """The controller died while it wrote a decision: half a frame is at the end of its journal."""
    async with killed(scene, "torn_journal", CONTROLLER):
        await scene.call(faulty_disk.tear_tail, scene.cluster.journal_file(), scene.random)
        await scene.served()


def _some_segments(scene: Scene, broker_id: int) -> list[Path]:
    """Two of the broker's segment files that hold something."""
    data_dir = scene.cluster.data_dir(broker_id)
    found = [path for workload in scene.workloads for path in faulty_disk.segment_files(data_dir, workload.topic)]
    return scene.random.sample(found, min(2, len(found)))


@nemesis(hurts_disk=True)
async def wipe(scene: Scene) -> None:
    """A broker comes back with an empty disk."""
    broker_id = scene.any_broker()
    async with dead(scene, "wipe", broker_id):
        await scene.call(faulty_disk.wipe, scene.cluster.data_dir(broker_id))


@nemesis(hurts_disk=True)
async def come_back_empty(scene: Scene) -> None:
    """The last but one to die was complete and would be asked first. It comes back alone, and
    empty. It must not lead: everybody else would throw away what it lacks (R20, R21)."""
    last = await scene.leader()
    b, c = scene.others(last)
    async with killed(scene, "come_back_empty", c):
        await scene.served()
        async with scene.fault("come_back_empty", b):
            try:
                await scene.call(scene.cluster.kill, b)
                async with killed(scene, "come_back_empty", last):
                    await scene.call(faulty_disk.wipe, scene.cluster.data_dir(b))
                    await scene.start(b)
                    await scene.hold(0.5)
            finally:
                await scene.start(b)


@nemesis(hurts_disk=True)
async def flip_bits(scene: Scene) -> None:
    """Two flipped bits in some segment files of one broker, which then leads."""
    broker_id = scene.any_broker()
    async with dead(scene, "flip_bits", broker_id):
        for path in _some_segments(scene, broker_id):
            faulty_disk.flip_bits(path, 2, scene.random)
    await _let_lead(scene, broker_id)


@nemesis(hurts_disk=True)
async def cut_tails(scene: Scene) -> None:
    """The ends of some segment files are missing, little or much."""
    broker_id = scene.any_broker()
    async with dead(scene, "cut_tails", broker_id):
        for path in _some_segments(scene, broker_id):
            faulty_disk.cut_tail(path, scene.random)


@nemesis(hurts_disk=True)
async def misplace_sectors(scene: Scene) -> None:
    """Whole sectors hold what belongs elsewhere in the file."""
    broker_id = scene.any_broker()
    async with dead(scene, "misplace_sectors", broker_id):
        for path in _some_segments(scene, broker_id):
            faulty_disk.misplace(path, scene.random)
    await _let_lead(scene, broker_id)


async def _let_lead(scene: Scene, broker_id: int) -> None:
    """Restart the others, so that what this one has on its disk is what everybody gets."""
    if scene.crowded:
        return
    await scene.in_sync()
    for other in scene.others(broker_id):
        async with scene.fault("restart", other):
            await scene.stop(other)
            await scene.served(2)
            await scene.start(other)
        await scene.in_sync()
