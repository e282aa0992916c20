"""Faults of the network: ``cut`` drops packets without a word, in one direction or both; and links
that are bad."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from tests.process.nemesis.disks import cut_power
from tests.process.nemesis.nemesis import nemesis
from tests.process.nemesis.scene import Scene
from tests.process.rig.cluster import CONTROLLER, Name
from tests.process.rig.network import CLIENT
from tests.process.rig.slow_link import Link


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


@nemesis(needs_network=True)
async def cut_off_leader(scene: Scene) -> None:
    """From everybody, clients too."""
    leader = await scene.leader()
    node = scene.node(leader)
    everybody = [other for other in [*scene.cluster.network.nodes, CLIENT] if other != node]
    async with cut(scene, "cut_off_leader", [leader], *both_ways([node], everybody)):
        await scene.served()
        await scene.hold(0.5)


@nemesis(needs_network=True)
async def cut_leader_from_followers(scene: Scene) -> None:
    """The controller hears it, clients reach it, but it can replicate nothing."""
    leader = await scene.leader()
    followers = [scene.node(other) for other in scene.others(leader)]
    async with cut(scene, "cut_leader_from_followers", [leader], *both_ways([scene.node(leader)], followers)):
        await scene.hold(2.0)


@nemesis(needs_network=True)
async def cut_leader_from_controller(scene: Scene) -> None:
    """Deposed without knowing it, with clients and followers at hand."""
    leader = await scene.leader()
    pairs = both_ways([scene.node(leader)], [scene.node(CONTROLLER)])
    async with cut(scene, "cut_leader_from_controller", [leader], *pairs):
        await scene.hold(1.5)
        await scene.served()


@nemesis(needs_network=True)
async def cut_one_way(scene: Scene) -> None:
    """The leader is heard, or hears, but not both."""
    leader = await scene.leader()
    node = scene.node(leader)
    others = [other for other in scene.cluster.network.nodes if other != node]
    outward = scene.random.random() < 0.5
    pairs = [(node, other) if outward else (other, node) for other in others]
    async with cut(scene, "cut_one_way", [leader], *pairs):
        await scene.hold(2.0)


@nemesis(needs_network=True)
async def cut_one_follower(scene: Scene) -> None:
    """Between the leader and one follower. Both see everybody else."""
    leader = await scene.leader()
    follower = scene.any_broker(but=[leader])
    pairs = both_ways([scene.node(leader)], [scene.node(follower)])
    async with cut(scene, "cut_one_follower", [leader, follower], *pairs):
        await scene.served()
        await scene.hold(1.5)


@nemesis(needs_network=True)
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


@nemesis(needs_network=True)
async def cut_in_halves(scene: Scene) -> None:
    """Random halves of brokers and controller. Clients reach both."""
    nodes = scene.cluster.network.nodes
    scene.random.shuffle(nodes)
    half = len(nodes) // 2
    async with cut(scene, "cut_in_halves", scene.cluster.names, *both_ways(nodes[:half], nodes[half:])):
        await scene.hold(2.0)


@nemesis(needs_network=True)
async def cut_off_controller(scene: Scene) -> None:
    """The data path goes on without it."""
    brokers = [scene.node(broker_id) for broker_id in scene.cluster.broker_ids]
    async with cut(scene, "cut_off_controller", [CONTROLLER], *both_ways([scene.node(CONTROLLER)], brokers)):
        await scene.hold(1.5)


@nemesis(needs_network=True)
async def cut_clients(scene: Scene) -> None:
    """The cluster is well, but clients cannot reach the leader: nothing can be elected for them,
    they must wait."""
    leader = await scene.leader()
    async with cut(scene, "cut_clients", [leader], *both_ways([CLIENT], [scene.node(leader)])):
        await scene.hold()


@nemesis(needs_network=True)
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


@nemesis(needs_network=True)
async def slow_links(scene: Scene) -> None:
    await _slowly(scene, "slow_links", Link(delay_ms=50, jitter_ms=10))


@nemesis(needs_network=True)
async def lossy_links(scene: Scene) -> None:
    await _slowly(scene, "lossy_links", Link(delay_ms=1, loss=0.2, duplicate=0.05))


@nemesis(needs_network=True)
async def narrow_links(scene: Scene) -> None:
    await _slowly(scene, "narrow_links", Link(delay_ms=5, bytes_per_second=125_000))


@nemesis(needs_network=True)
async def part_kill(scene: Scene) -> None:
    """As pause_kill, with cuts: A is alone, the others go on. The leader dies; A and the leader
    come together again while B, the only one that has everything, is alone."""
    await _part_kill(scene, "part_kill", lose_unsynced=False)


@nemesis(needs_network=True, needs_volumes=True, hurts_disk=True)
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
            await scene.call(cut_power, scene, leader)
        else:
            await scene.call(scene.cluster.kill, leader)
        async with cut(scene, name, [b], *alone(b)):
            await scene.call(_mend, scene, alone(a))
            await scene.start(leader)
            await scene.hold(1.25)


def _mend(scene: Scene, pairs: Sequence[tuple[str, str]]) -> None:
    for source, destination in pairs:
        scene.cluster.network.mend(source, destination)
