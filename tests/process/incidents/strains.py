"""Consumers that stand still, promises that were weaker, clocks that are wrong, and too much load."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from minilog.errors import MinilogError
from minilog_client import AsyncClient
from tests.process.incidents.clients import TOPIC
from tests.process.incidents.incident import FAILOVER, incident
from tests.process.incidents.play import Play

GROUP: Final = "billing"
LOST: Final = 2000
HOUR_S: Final = 3600
FLOODS: Final = 40


@contextlib.asynccontextmanager
async def _stuck(play: Play) -> AsyncIterator[None]:
    """A group that has committed, is alive, and reads no more while the block runs."""
    async with AsyncClient(play.cluster.url) as client, client.consumer(TOPIC, group=GROUP, start="earliest") as reader:
        for _ in range(3):
            await reader.batch(max_records=50, max_wait_ms=500)
            await reader.commit()
        yield


@incident(
    "a consumer is stuck",
    page="MinilogConsumerStuck", also=frozenset({"MinilogConsumerLagGrowing"}), within_s=480.0,
)  # fmt: skip
async def consumer_stuck(play: Play) -> None:
    play.at(GROUP)
    async with _stuck(play), play.fault():
        await play.paged()


@incident(
    "retention overtakes a consumer",
    page="MinilogConsumerLosesRecords", also=frozenset({"MinilogRetentionOvertakesConsumer"}),
    overrides=("retention_check_ms=1000",),
    topic={"replication_factor": 3, "min_isr": 2, "retention.bytes": "200000", "segment.bytes": "100000"},
)  # fmt: skip
async def retention_overtakes(play: Play) -> None:
    play.at(GROUP)
    play.reads_all = False
    async with _stuck(play), play.fault():
        await play.paged()


@incident(
    "a leader dies with records of acks=1 that nobody else has",
    page="MinilogRecordsLost", also=frozenset({"MinilogBrokerDown", "MinilogUnderMinIsr"}), events=("records_cut",),
    finding="lost_records", how_long=FAILOVER, loses=True, stays="lost_records",
)  # fmt: skip
async def acks_1_loss(play: Play) -> None:
    """The followers stand still for less than a session, and the leader dies meanwhile."""
    leader = await play.leader()
    followers = play.others(leader)
    play.at(f"{TOPIC}-0")
    async with AsyncClient(play.cluster.url) as client, client.producer(acks=1) as producer:
        await producer.send_many(TOPIC, play.clients.values(1, 1), partition=0)
        async with play.fault(leader):
            await play.call(play.cluster.pause, *followers)
            values = play.clients.values(1, LOST)
            await producer.send_many(TOPIC, values, partition=0)
            play.clients.acked[1].update(values)
            await play.call(play.cluster.kill, leader)
            await play.call(play.cluster.resume, *followers)
            await play.clients.served()
            await play.call(play.cluster.start, leader)
            await play.paged()


@incident(
    "the clock of a broker is an hour ahead",
    page="MinilogClockSkew", events=("clock_skew",), finding="clock_skew", needs=("clocks",),
)  # fmt: skip
async def wrong_clock(play: Play) -> None:
    leader = await play.leader()
    await play.call(play.cluster.give_clock, leader)
    await play.call(play.cluster.terminate, leader)
    await play.call(play.cluster.start, leader)
    await play.call(play.cluster.wait_in_sync, TOPIC)
    async with play.fault(leader):
        await play.call(play.cluster.set_clock, HOUR_S, leader)
        await play.paged()
        await play.call(play.cluster.set_clock, 0, leader)


@incident(
    "more is written than the brokers can take",
    page="MinilogOverloaded", events=("condition_began",), finding="overloaded",
    how_long=("condition_began", "condition_ended"), overrides=("broker.limits.parked_requests_max=20",),
)  # fmt: skip
async def overload(play: Play) -> None:
    leader = await play.leader()
    ended = asyncio.Event()

    async def flood(client: AsyncClient) -> None:
        async with client.producer(
            acks="all", idempotent=False, retries="none", linger_ms=0, close_timeout_ms=1000
        ) as producer:
            while not ended.is_set():
                with contextlib.suppress(MinilogError):
                    await producer.send_many(TOPIC, [b"flood"], partition=0)

    async with AsyncClient(play.cluster.url) as client, asyncio.TaskGroup() as tasks, play.fault(leader):
        for _ in range(FLOODS):
            tasks.create_task(flood(client))
        await play.paged()
        ended.set()
