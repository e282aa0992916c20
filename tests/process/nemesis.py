"""The nemeses: each breaks something, lets it last, and puts it right again, whatever happens in between.

A nemesis is a function of a ``Scene``; ``CATALOGUE`` has them by name, with what each needs (a network or volumes of
the cluster's own). What they share is in their names: ``kill`` is SIGKILL, ``pause`` SIGSTOP, ``stop`` SIGTERM,
``cut`` drops packets, ``power`` takes unsynced data along. Faults of the disk are never done to two brokers at a time
before every replica is back: no promise covers that.
Source: the fault catalogues of public test campaigns, see testing.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.process import faulty_disk
from tests.process.cluster import CONTROLLER, Name
from tests.process.network import CLIENT
from tests.process.scene import Scene
from tests.process.slow_link import Link

Act = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Nemesis:
    name: str
    act: Act
    needs_network: bool = False
    needs_volumes: bool = False
    hurts_disk: bool = False
    """Must not run beside another one."""
    open_problem: str = ""
    """Why minilog is known not to survive it yet; kept out of soaks unless asked for by name."""


CATALOGUE: dict[str, Nemesis] = {}


def _nemesis(
    *, needs_network: bool = False, needs_volumes: bool = False, hurts_disk: bool = False, open_problem: str = ""
) -> Callable[[Act], Act]:
    def enter(act: Act) -> Act:
        name = act.__name__
        CATALOGUE[name] = Nemesis(name, act, needs_network, needs_volumes, hurts_disk, open_problem)
        return act

    return enter


# --- processes ---------------------------------------------------------------------------------------------------


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


@_nemesis()
async def kill_leader(scene: Scene) -> None:
    async with killed(scene, "kill_leader", await scene.leader()):
        await scene.served()


@_nemesis()
async def kill_follower(scene: Scene) -> None:
    async with killed(scene, "kill_follower", await scene.follower()):
        await scene.served()


@_nemesis()
async def kill_leader_then_next(scene: Scene) -> None:
    """Two of three die one after the other; the last one alone may acknowledge nothing."""
    async with killed(scene, "kill_leader_then_next", await scene.leader()):
        await scene.served()
        async with killed(scene, "kill_leader_then_next", await scene.leader()):
            await scene.hold(0.3)


@_nemesis()
async def kill_majority(scene: Scene) -> None:
    leader = await scene.leader()
    async with killed(scene, "kill_majority", leader, scene.any_broker(but=[leader])):
        await scene.hold(0.3)


@_nemesis()
async def kill_all(scene: Scene) -> None:
    """Brokers and controller at once."""
    async with killed(scene, "kill_all", *scene.cluster.names):
        pass


@_nemesis()
async def kill_controller(scene: Scene) -> None:
    async with killed(scene, "kill_controller", CONTROLLER):
        await scene.hold()


@_nemesis()
async def kill_controller_and_leader(scene: Scene) -> None:
    """Nobody can elect before the controller is back."""
    async with killed(scene, "kill_controller_and_leader", CONTROLLER, await scene.leader()):
        await scene.hold(0.3)


@_nemesis()
async def stop_leader(scene: Scene) -> None:
    """A clean stop: leaderships move first."""
    leader = await scene.leader()
    async with scene.fault("stop_leader", leader):
        try:
            await scene.stop(leader)
            await scene.served()
        finally:
            await scene.start(leader)


@_nemesis()
async def rolling_restart(scene: Scene) -> None:
    for broker_id in scene.cluster.broker_ids:
        async with scene.fault("rolling_restart", broker_id):
            await scene.stop(broker_id)
            await scene.start(broker_id)
        await scene.in_sync()


@_nemesis()
async def pause_leader(scene: Scene) -> None:
    """Longer than its session: it wakes up deposed and may not have acknowledged anything meanwhile."""
    async with paused(scene, "pause_leader", await scene.leader()):
        await scene.served()


@_nemesis()
async def pause_follower(scene: Scene) -> None:
    async with paused(scene, "pause_follower", await scene.follower()):
        await scene.served()


@_nemesis()
async def pause_briefly(scene: Scene) -> None:
    """Hiccups shorter than a session, of anybody."""
    for _ in range(8):
        names = scene.cluster.names
        async with paused(scene, "pause_briefly", scene.random.choice(names)):
            await asyncio.sleep(scene.random.uniform(0.05, 1.0))
        await asyncio.sleep(scene.random.uniform(0.0, 0.3))


@_nemesis()
async def pause_all(scene: Scene) -> None:
    """As if the whole machine had slept."""
    async with paused(scene, "pause_all", *scene.cluster.names):
        await scene.hold()


@_nemesis()
async def pause_controller(scene: Scene) -> None:
    """A controller that stood still longer than a session must fence nobody when it goes on."""
    async with paused(scene, "pause_controller", CONTROLLER):
        await scene.hold()


@_nemesis()
async def pause_kill(scene: Scene) -> None:
    """The script that catches stale leaders: A stands still while the others go on without it; then C dies, A wakes up
    while B stands still, and C comes back: A and C together are a majority that lacks what only B has."""
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


# --- network -----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def cut(scene: Scene, name: str, targets: Sequence[Name], *pairs: tuple[str, str]) -> AsyncIterator[None]:
    """Nothing passes from the first to the second of each pair of nodes."""
    network = scene.cluster.network

    def change(act: Callable[[str, str], None]) -> None:
        for source, destination in pairs:
            act(source, destination)

    async with scene.fault(name, *targets):
        await scene.call(change, network.cut)
        try:
            yield
        finally:
            await scene.call(change, network.mend)


def both_ways(some: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    return [pair for a in some for b in others for pair in ((a, b), (b, a))]


@_nemesis(needs_network=True)
async def cut_off_leader(scene: Scene) -> None:
    """From everybody, clients too."""
    leader = await scene.leader()
    node = scene.node(leader)
    everybody = [other for other in [*scene.cluster.network.nodes, CLIENT] if other != node]
    async with cut(scene, "cut_off_leader", [leader], *both_ways([node], everybody)):
        await scene.served()
        await scene.hold(0.5)


@_nemesis(needs_network=True)
async def cut_leader_from_followers(scene: Scene) -> None:
    """The controller hears it, clients reach it, but it can replicate nothing."""
    leader = await scene.leader()
    followers = [scene.node(other) for other in scene.others(leader)]
    async with cut(scene, "cut_leader_from_followers", [leader], *both_ways([scene.node(leader)], followers)):
        await scene.hold(2.0)


@_nemesis(needs_network=True)
async def cut_leader_from_controller(scene: Scene) -> None:
    """Deposed without knowing it, with clients and followers at hand."""
    leader = await scene.leader()
    pairs = both_ways([scene.node(leader)], [scene.node(CONTROLLER)])
    async with cut(scene, "cut_leader_from_controller", [leader], *pairs):
        await scene.hold(1.5)
        await scene.served()


@_nemesis(needs_network=True)
async def cut_one_way(scene: Scene) -> None:
    """The leader is heard, or hears, but not both."""
    leader = await scene.leader()
    node = scene.node(leader)
    others = [other for other in scene.cluster.network.nodes if other != node]
    outward = scene.random.random() < 0.5
    pairs = [(node, other) if outward else (other, node) for other in others]
    async with cut(scene, "cut_one_way", [leader], *pairs):
        await scene.hold(2.0)


@_nemesis(needs_network=True)
async def cut_one_follower(scene: Scene) -> None:
    """Between the leader and one follower; both see everybody else."""
    leader = await scene.leader()
    follower = scene.any_broker(but=[leader])
    pairs = both_ways([scene.node(leader)], [scene.node(follower)])
    async with cut(scene, "cut_one_follower", [leader, follower], *pairs):
        await scene.served()
        await scene.hold(1.5)


@_nemesis(needs_network=True)
async def cut_ring(scene: Scene) -> None:
    """Everybody sees two neighbours and nobody else: every view of the cluster is another one."""
    nodes = scene.cluster.network.nodes
    scene.random.shuffle(nodes)
    size = len(nodes)
    strangers = [
        (a, b) for i, a in enumerate(nodes) for j, b in enumerate(nodes) if (i - j) % size not in (0, 1, size - 1)
    ]
    async with cut(scene, "cut_ring", scene.cluster.names, *strangers):
        await scene.hold(2.0)


@_nemesis(needs_network=True)
async def cut_in_halves(scene: Scene) -> None:
    """Random halves of brokers and controller; clients reach both."""
    nodes = scene.cluster.network.nodes
    scene.random.shuffle(nodes)
    half = len(nodes) // 2
    async with cut(scene, "cut_in_halves", scene.cluster.names, *both_ways(nodes[:half], nodes[half:])):
        await scene.hold(2.0)


@_nemesis(needs_network=True)
async def cut_off_controller(scene: Scene) -> None:
    """The data path goes on without it."""
    brokers = [scene.node(broker_id) for broker_id in scene.cluster.broker_ids]
    async with cut(scene, "cut_off_controller", [CONTROLLER], *both_ways([scene.node(CONTROLLER)], brokers)):
        await scene.hold(1.5)


@_nemesis(needs_network=True)
async def cut_clients(scene: Scene) -> None:
    """The cluster is well, but clients cannot reach the leader: nothing can be elected for them, they must wait."""
    leader = await scene.leader()
    async with cut(scene, "cut_clients", [leader], *both_ways([CLIENT], [scene.node(leader)])):
        await scene.hold()


@_nemesis(needs_network=True)
async def flap(scene: Scene) -> None:
    """The leader's cable comes and goes."""
    for _ in range(6):
        leader = await scene.leader()
        node = scene.node(leader)
        others = [other for other in scene.cluster.network.nodes if other != node]
        async with cut(scene, "flap", [leader], *both_ways([node], others)):
            await asyncio.sleep(scene.random.uniform(0.1, 1.0))
        await asyncio.sleep(scene.random.uniform(0.1, 0.5))


async def _slowly(scene: Scene, name: str, link: Link) -> None:
    """All links between brokers and controller are like this."""
    network = scene.cluster.network
    nodes = network.nodes

    def change() -> None:
        for a in nodes:
            for b in nodes:
                if a != b:
                    network.slow(a, b, link)

    async with scene.fault(name, *scene.cluster.names):
        try:
            await scene.call(change)
            await scene.hold(2.0)
            await scene.served(2)
        finally:
            await scene.call(network.heal)


@_nemesis(needs_network=True)
async def slow_links(scene: Scene) -> None:
    await _slowly(scene, "slow_links", Link(delay_ms=50, jitter_ms=10))


@_nemesis(needs_network=True)
async def lossy_links(scene: Scene) -> None:
    await _slowly(scene, "lossy_links", Link(delay_ms=1, loss=0.2, duplicate=0.05))


@_nemesis(needs_network=True)
async def narrow_links(scene: Scene) -> None:
    await _slowly(scene, "narrow_links", Link(delay_ms=5, bytes_per_second=125_000))


@_nemesis(needs_network=True)
async def part_kill(scene: Scene) -> None:
    """As pause_kill, with cuts: A is alone, the others go on; the leader dies; A and the leader come together again
    while B, the only one that has everything, is alone."""
    await _part_kill(scene, "part_kill", lose_unsynced=False)


@_nemesis(needs_network=True, needs_volumes=True, hurts_disk=True)
async def part_kill_power(scene: Scene) -> None:
    """The same, and the leader's machine loses power instead."""
    await _part_kill(scene, "part_kill_power", lose_unsynced=True)


async def _part_kill(scene: Scene, name: str, *, lose_unsynced: bool) -> None:
    leader = await scene.leader()
    a, b = scene.others(leader)
    everybody = scene.cluster.network.nodes

    def alone(broker_id: int) -> list[tuple[str, str]]:
        node = scene.node(broker_id)
        return both_ways([node], [other for other in everybody if other != node])

    async with cut(scene, name, [a], *alone(a)):
        await scene.hold(1.25)
        await scene.served()
        if lose_unsynced:
            await scene.call(_cut_power, scene, leader)
        else:
            await scene.call(scene.cluster.kill, leader)
        async with cut(scene, name, [b], *alone(b)):
            await scene.call(_mend, scene, alone(a))
            await scene.start(leader)
            await scene.hold(1.25)


def _mend(scene: Scene, pairs: Sequence[tuple[str, str]]) -> None:
    for source, destination in pairs:
        scene.cluster.network.mend(source, destination)


# --- disks -------------------------------------------------------------------------------------------------------


def _cut_power(scene: Scene, *targets: int) -> None:
    """What was not synced when the process died is gone; the machines are up again, the brokers not."""
    scene.cluster.kill(*targets)
    for broker_id in targets:
        scene.cluster.volumes[broker_id].fail()
        scene.cluster.volumes[broker_id].power_on()


@_nemesis(needs_volumes=True, hurts_disk=True)
async def power_leader(scene: Scene) -> None:
    leader = await scene.leader()
    async with scene.fault("power_leader", leader):
        try:
            await scene.call(_cut_power, scene, leader)
            await scene.served()
        finally:
            await scene.start(leader)


@_nemesis(needs_volumes=True, hurts_disk=True)
async def power_all(scene: Scene) -> None:
    """Every broker's machine at the same moment."""
    async with scene.fault("power_all", *scene.cluster.broker_ids):
        try:
            await scene.call(_cut_power, scene, *scene.cluster.broker_ids)
        finally:
            await scene.start(*scene.cluster.broker_ids)


@_nemesis(needs_volumes=True, hurts_disk=True)
async def dead_disk(scene: Scene) -> None:
    """Every write and sync of a running leader fails: it must stop by itself, and nothing acknowledged may be missing."""
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


@_nemesis(needs_volumes=True, hurts_disk=True)
async def full_disk_leader(scene: Scene) -> None:
    await _fill(scene, "full_disk_leader", await scene.leader())


@_nemesis(needs_volumes=True, hurts_disk=True)
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
    """Stopped while the block works on its files, by a clean stop or by kill -9; serving again after it."""
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


def _some_segments(scene: Scene, broker_id: int) -> list[Path]:
    """Two of the broker's segment files that hold something."""
    data_dir = scene.cluster.data_dir(broker_id)
    found = [path for workload in scene.workloads for path in faulty_disk.segment_files(data_dir, workload.topic)]
    return scene.random.sample(found, min(2, len(found)))


@_nemesis(hurts_disk=True)
async def wipe(scene: Scene) -> None:
    """A broker comes back with an empty disk."""
    broker_id = scene.any_broker()
    async with dead(scene, "wipe", broker_id):
        await scene.call(faulty_disk.wipe, scene.cluster.data_dir(broker_id))


@_nemesis(hurts_disk=True)
async def come_back_empty(scene: Scene) -> None:
    """The last but one to die was complete and would be asked first; it comes back alone, and empty. It must not lead:
    everybody else would throw away what it lacks (R20, R21)."""
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


@_nemesis(hurts_disk=True)
async def flip_bits(scene: Scene) -> None:
    """Two flipped bits in some segment files of one broker, which then leads."""
    broker_id = scene.any_broker()
    async with dead(scene, "flip_bits", broker_id):
        for path in _some_segments(scene, broker_id):
            faulty_disk.flip_bits(path, 2, scene.random)
    await _let_lead(scene, broker_id)


@_nemesis(hurts_disk=True)
async def cut_tails(scene: Scene) -> None:
    """The ends of some segment files are missing, little or much."""
    broker_id = scene.any_broker()
    async with dead(scene, "cut_tails", broker_id):
        for path in _some_segments(scene, broker_id):
            faulty_disk.cut_tail(path, scene.random)


@_nemesis(hurts_disk=True)
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


# --- none and several --------------------------------------------------------------------------------------------


@_nemesis()
async def quiet(scene: Scene) -> None:
    """No fault: what is measured now is the cluster itself."""
    await scene.hold()
