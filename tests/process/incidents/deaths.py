"""Processes that die, stand still, or come and go; and machines that do not come back."""

from __future__ import annotations

import asyncio
from typing import Final

from tests.process.incidents.incident import FAILOVER, incident
from tests.process.incidents.play import Play
from tests.process.rig import faulty_disk
from tests.process.rig.cluster import CONTROLLER, Name

BROKER_DIED: Final = ("broker_fenced", "leaders_elected")
FLAPS: Final = 5
FLAP_S: Final = 6.0
FLAP_EVERY_S: Final = 20.0
CONTROLLER_AWAY_S: Final = 120.0


@incident(
    "kill -9 of a leader",
    page="MinilogBrokerDown", events=BROKER_DIED, finding="broker_not_running", how_long=FAILOVER,
)  # fmt: skip
async def kill_leader(play: Play) -> None:
    leader = await play.leader()
    async with play.fault(leader):
        await play.call(play.cluster.kill, leader)
        await play.clients.served()
        await play.paged()
        await play.call(play.cluster.start, leader)


@incident(
    "SIGSTOP of a leader",
    page="MinilogBrokerDown", events=BROKER_DIED, finding="broker_not_running", how_long=FAILOVER,
)  # fmt: skip
async def pause_leader(play: Play) -> None:
    leader = await play.leader()
    async with play.fault(leader):
        await play.call(play.cluster.pause, leader)
        await play.paged()
        await play.call(play.cluster.resume, leader)


@incident(
    "a broker comes and goes every 20 s",
    page="MinilogIsrFlapping", also=frozenset({"MinilogBrokerDown"}), within_s=180.0, events=("isr_shrunk", "isr_expanded"), finding="broker_not_running",
    how_long=FAILOVER,
)  # fmt: skip
async def flapping(play: Play) -> None:
    """A death is counted once for each partition. The fifth is what makes it a pattern."""
    leader = await play.leader()
    async with play.fault(leader):
        for number in range(FLAPS):
            await play.call(play.cluster.pause, leader)
            await asyncio.sleep(FLAP_S)
            if number == FLAPS - 1:
                await play.paged()
            await play.call(play.cluster.resume, leader)
            if number < FLAPS - 1:
                await asyncio.sleep(FLAP_EVERY_S - FLAP_S)


@incident(
    "the controller is dead for 2 min, and a broker dies in it",
    page="MinilogNoActiveController", also=frozenset({"MinilogBrokerDown", "MinilogOverloaded", "MinilogUnderMinIsr"}),
    events=("controller_lost", "controller_found", "broker_fenced"), finding="controller_unheard",
    how_long=("controller_lost", "controller_found"),
)  # fmt: skip
async def controller_and_broker(play: Play) -> None:
    leader = await play.leader()
    play.at("controller")
    async with play.fault(leader):
        await play.call(play.cluster.kill, CONTROLLER)
        await asyncio.sleep(5.0)
        await play.call(play.cluster.kill, leader)
        await play.paged(CONTROLLER_AWAY_S)
        await play.call(play.cluster.start, CONTROLLER)
    await play.clients.served()
    await play.call(play.cluster.start, leader)


def cut_power(play: Play, *brokers: int) -> None:
    play.cluster.kill(*play.cluster.names)
    for broker_id in brokers:
        play.cluster.volumes[broker_id].fail()
        play.cluster.volumes[broker_id].power_on()


@incident(
    "power loss of all",
    page="MinilogBrokerDown", also=frozenset({"MinilogNoActiveController"}), events=("controller_started",),
    how_long=FAILOVER, needs=("volumes",),
)  # fmt: skip
async def power_loss_of_all(play: Play) -> None:
    """Nobody is there to be asked before they are back."""
    async with play.fault(*play.cluster.broker_ids, "controller"):
        await play.call(cut_power, play, *play.cluster.broker_ids)
        await play.paged()
        await play.call(play.cluster.start, *play.cluster.names)


@incident(
    "power loss of all, and one never returns",
    page="MinilogBrokerDown", also=frozenset({"MinilogNoActiveController"}), events=("broker_fenced",),
    finding="broker_not_running", needs=("volumes",), how_long=FAILOVER,
)  # fmt: skip
async def one_never_returns(play: Play) -> None:
    """In the end it does, as an empty machine: an incident has to end."""
    gone = await play.leader()
    others: list[Name] = [CONTROLLER, *play.others(gone)]
    async with play.fault(gone):
        await play.call(cut_power, play, *play.cluster.broker_ids)
        await play.call(play.cluster.start, *others)
        await play.clients.served()
        await play.paged()
        await play.call(faulty_disk.wipe, play.cluster.data_dir(gone))
        await play.call(play.cluster.start, gone)


@incident(
    "a new machine for a dead one",
    page="MinilogBrokerDown", also=frozenset({"MinilogDiskLost"}), events=("broker_fenced", "broker_registered"),
    says="another disk",
    finding="broker_not_running", how_long=FAILOVER,
)  # fmt: skip
async def new_machine(play: Play) -> None:
    """The same broker id, and an empty directory."""
    dead = await play.leader()
    async with play.fault(dead):
        await play.call(play.cluster.kill, dead)
        await play.paged()
        await play.call(faulty_disk.wipe, play.cluster.data_dir(dead))
        await play.call(play.cluster.start, dead)
