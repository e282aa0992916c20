"""Networks that are cut, and links that are bad."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.process.incidents.incident import FAILOVER, incident
from tests.process.incidents.play import Play
from tests.process.nemesis.networks import both_ways
from tests.process.rig.network import CLIENT
from tests.process.rig.slow_link import Link

NARROW_BYTES_PER_SECOND = 500


def _each(act: Callable[[str, str], None], pairs: Sequence[tuple[str, str]]) -> None:
    for source, destination in pairs:
        act(source, destination)


@incident(
    "a leader is cut off from everybody",
    page="MinilogBrokerDown", events=("broker_fenced", "leaders_elected"), finding="broker_not_running",
    how_long=FAILOVER, needs=("network",),
)  # fmt: skip
async def cut_off_leader(play: Play) -> None:
    leader = await play.leader()
    network, node = play.cluster.network, play.cluster.node(leader)
    pairs = both_ways([node], [other for other in [*network.nodes, CLIENT] if other != node])
    async with play.fault(leader):
        await play.call(_each, network.cut, pairs)
        await play.paged()
        await play.call(_each, network.mend, pairs)


@incident(
    "a leader is cut off from its followers only",
    page="MinilogUnderMinIsr", also=frozenset({"MinilogOverloaded"}), events=("isr_shrunk", "under_min_isr"),
    finding="under_min_isr", how_long=("under_min_isr", "isr_expanded"), needs=("network",),
)  # fmt: skip
async def cut_leader_from_followers(play: Play) -> None:
    leader = await play.leader()
    network, node = play.cluster.network, play.cluster.node(leader)
    pairs = both_ways([node], [play.cluster.node(other) for other in play.others(leader)])
    play.at("orders-0")
    async with play.fault(leader):
        await play.call(_each, network.cut, pairs)
        await play.paged(15.0)
        await play.call(_each, network.mend, pairs)


@incident(
    "a follower behind a narrow link", also=frozenset({"MinilogIsrFlapping"}),
    events=("isr_shrunk", "isr_expanded"), finding="replicas_behind", how_long=("isr_shrunk", "isr_expanded"),
    needs=("network",),
)  # fmt: skip
async def slow_link(play: Play) -> None:
    """It falls behind, and the others go on without it: nobody is refused."""
    leader = await play.leader()
    follower = play.others(leader)[0]
    network, node = play.cluster.network, play.cluster.node(follower)
    link = Link(delay_ms=20, bytes_per_second=NARROW_BYTES_PER_SECOND)

    def narrow() -> None:
        for other in play.others(follower):
            network.slow(play.cluster.node(other), node, link)

    async with play.fault(follower):
        await play.call(narrow)
        await play.paged(25.0)
        await play.call(network.heal)
