"""Disks that are full, slow, emptied, replaced or damaged."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from random import Random

from tests.process.incidents import told
from tests.process.incidents.clients import PARTITIONS, TOPIC
from tests.process.incidents.incident import FAILOVER, incident
from tests.process.incidents.play import Play
from tests.process.rig import faulty_disk
from tests.process.rig.cluster import Name
from tests.process.rig.faulty_disk import BALLAST, Volume

SLOW_S = 0.4
STUCK_S = 5.0
FREE_BYTES = 64 * 1024


@incident(
    "the disk of a leader is full",
    page="MinilogDiskFull", also=frozenset({"MinilogOverloaded"}), events=("condition_began", "condition_ended"),
    finding="disk_full", how_long=("condition_began", "condition_ended"), needs=("volumes",),
)  # fmt: skip
async def disk_full(play: Play) -> None:
    leader = await play.leader()
    volume = play.cluster.volumes[leader]
    async with play.fault(leader):
        await play.call(_fill_up, volume)
        await play.paged(10.0)
        await play.call(volume.empty)
        await play.call(play.cluster.start, leader)


def _fill_up(volume: Volume) -> None:
    """Root's share as well, which the brokers of tests may use."""
    volume.fill(FREE_BYTES)
    with contextlib.suppress(OSError), (volume.folder / BALLAST).open("ab", buffering=0) as ballast:
        while True:
            ballast.write(bytes(FREE_BYTES))


async def _slow(play: Play, seconds: float) -> None:
    leader = await play.leader()
    async with play.fault(leader):
        await play.call(play.cluster.slow_syncs, seconds, leader)
        await play.paged(20.0)
        await play.call(play.cluster.slow_syncs, 0, leader)


@incident(
    "each sync of a leader takes 400 ms",
    page="MinilogSyncSlow", also=frozenset({"MinilogOverloaded"}), events=("condition_began", "condition_ended"),
    finding="sync_slow", how_long=("condition_began", "condition_ended"), needs=("slow_syncs",),
)  # fmt: skip
async def slow_fsync(play: Play) -> None:
    await _slow(play, SLOW_S)


@incident(
    "each sync of a leader takes 5 s",
    page="MinilogSyncStuck", also=frozenset({"MinilogOverloaded", "MinilogSyncSlow"}),
    events=("condition_began", "condition_ended"), finding="disk_slow",
    how_long=("condition_began", "condition_ended"), needs=("slow_syncs",),
)  # fmt: skip
async def stuck_fsync(play: Play) -> None:
    await _slow(play, STUCK_S)


async def _elect(play: Play) -> None:
    """What the health of a lost partition says, and then what the page about it says. Of those that
    are not lost it is refused."""
    commands = [("partition", "elect", TOPIC, f"{number}", "--unclean", "--yes") for number in range(PARTITIONS)]
    for code, said in await asyncio.gather(*(play.call(told.minilog, play.cluster, *words) for words in commands)):
        assert code in (0, 1), said


async def _empty(play: Play, broker_id: int) -> None:
    await play.call(play.cluster.kill, broker_id)
    await play.call(faulty_disk.wipe, play.cluster.data_dir(broker_id))


@incident(
    "the disk of a broker is emptied, and nobody else has its partition (RF 1)",
    page="MinilogPartitionLost", also=frozenset({"MinilogDiskLost", "MinilogUncleanElection", "MinilogBrokerDown"}),
    events=("broker_fenced", "partitions_offline", "unclean_election"), finding="lost",
    how_long=("partitions_offline", "unclean_election"), loses=True, stays="unclean_election",
    topic={"replication_factor": 1, "min_isr": 1},
)  # fmt: skip
async def wiped_rf_1(play: Play) -> None:
    leader = await play.leader()
    play.at(f"{TOPIC}-0")
    async with play.fault(leader):
        await _empty(play, leader)
        await play.call(play.cluster.start, leader)
        await play.paged()
        await _elect(play)


@incident(
    "the disk of the last in-sync replica is replaced",
    page="MinilogPartitionLost", also=frozenset({"MinilogDiskLost", "MinilogUncleanElection", "MinilogBrokerDown"}),
    events=("partitions_offline", "unclean_election"), finding="lost",
    how_long=("partitions_offline", "unclean_election"), loses=True, stays="unclean_election",
    topic={"replication_factor": 3, "min_isr": 1},
)  # fmt: skip
async def last_disk_replaced(play: Play) -> None:
    last = await play.leader()
    others: list[Name] = [*play.others(last)]
    play.at(f"{TOPIC}-0")
    async with play.fault(last):
        await play.call(play.cluster.kill, *others)
        await play.clients.served()
        await _empty(play, last)
        await play.call(play.cluster.start, *play.cluster.names)
        await play.paged()
        await _elect(play)


@incident(
    "the disk of a broker is emptied, twice, otherwise all is well",
    also=frozenset({"MinilogDiskLost", "MinilogBrokerDown"}), events=("broker_fenced", "broker_registered"),
    says="another disk", how_long=FAILOVER,
)  # fmt: skip
async def wiped_twice(play: Play) -> None:
    """All is copied within a second, sooner than anybody scrapes, so nobody is paged."""
    broker_id = await play.leader()
    async with play.fault(broker_id):
        for _ in range(2):
            await _empty(play, broker_id)
            await play.call(play.cluster.start, broker_id)
            await play.call(play.cluster.wait_in_sync, TOPIC)
        await play.paged()


def _flip(data_dir: Path) -> None:
    """In the middle of what was durable."""
    path = faulty_disk.segment_files(data_dir, TOPIC)[0]
    place = path.stat().st_size // 2
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << Random(place).randrange(8)]))


@incident(
    "a byte has flipped in a log, and its broker refuses to start",
    page="MinilogBrokerDown", events=("broker_fenced",), finding="broker_not_running", logged="is damaged",
    how_long=FAILOVER,
)  # fmt: skip
async def flipped_byte(play: Play) -> None:
    broker_id = await play.leader()
    play.at(f"{TOPIC}-0")
    async with play.fault(broker_id):
        await play.call(play.cluster.kill, broker_id)
        await play.call(_flip, play.cluster.data_dir(broker_id))
        play.cluster.hurt.add(broker_id)
        await play.call(play.cluster.launch, broker_id)
        await play.paged()
        play.logged = await play.call(play.cluster.log, broker_id)
        await play.call(play.cluster.start, broker_id)
