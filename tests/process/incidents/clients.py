"""Clients of an incident, and what they measure: how long each partition took no write, and which
acknowledged records cannot be read any more."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, Final, Literal

from minilog.errors import MinilogError
from minilog_client import AsyncClient
from tests.process.rig.cluster import ProcessCluster

Acks = Literal["all"] | int
TOPIC: Final = "orders"
PARTITIONS: Final = 3
RECORDS: Final = 5
PAUSE_S: Final = 0.05
PATIENCE_S: Final = 40.0
VALUE_BYTES: Final = 200
TRY_TIMEOUT_MS: Final = 2000


class Clients:
    def __init__(self, cluster: ProcessCluster) -> None:
        self.cluster = cluster
        self.acked: dict[Acks, set[bytes]] = {"all": set(), 1: set()}
        self.tried: dict[Acks, set[bytes]] = {"all": set(), 1: set()}
        self.acks_s: dict[int, list[float]] = defaultdict(list)
        """When acks=all was acknowledged, by partition, in seconds since 1970."""
        self.errors: list[str] = []
        self._ended = False
        self._numbers = itertools.count()

    async def create(self, replication_factor: int, min_isr: int, **config: str) -> None:
        async with AsyncClient(self.cluster.url) as client:
            settings = {"min.insync.replicas": str(min_isr), **config}
            await client.create_topic(TOPIC, PARTITIONS, replication_factor, settings)
        await asyncio.to_thread(self.cluster.wait_in_sync, TOPIC)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with AsyncClient(self.cluster.url) as client, asyncio.TaskGroup() as tasks:
            for partition in range(PARTITIONS):
                tasks.create_task(self._produce(client, partition))
            try:
                yield
            finally:
                self._ended = True

    async def _produce(self, client: AsyncClient, partition: int) -> None:
        async with client.producer(
            acks="all", linger_ms=1, retries="all", try_timeout_ms=TRY_TIMEOUT_MS, close_timeout_ms=1000
        ) as producer:
            while not self._ended:
                values = self.values("all", RECORDS)
                sending = asyncio.ensure_future(producer.send_many(TOPIC, values, partition=partition))
                if not await self._done(sending):
                    return
                with contextlib.suppress(asyncio.CancelledError, MinilogError):
                    self._acknowledged(partition, values, sending)
                await asyncio.sleep(PAUSE_S)

    async def _done(self, sending: asyncio.Future[Any]) -> bool:
        """False when it does not end although the clients have to."""
        while not sending.done():
            await asyncio.wait([sending], timeout=0.5)
            if self._ended and not sending.done():
                sending.cancel()
                await asyncio.wait([sending])
                return False
        return True

    def _acknowledged(self, partition: int, values: list[bytes], sending: asyncio.Future[Any]) -> None:
        error = sending.exception()
        if error is not None:
            self.errors.append(str(error))
            return
        self.acks_s[partition].append(time.time())
        self.acked["all"].update(values)

    def values(self, acks: Acks, count: int) -> list[bytes]:
        made = [f"{acks}:{next(self._numbers)} ".encode().ljust(VALUE_BYTES, b"x") for _ in range(count)]
        self.tried[acks].update(made)
        return made

    async def served(self, sends: int = 5, partitions: int = PARTITIONS) -> None:
        """Each partition was acknowledged so often from now on."""
        goals = {partition: len(self.acks_s[partition]) + sends for partition in range(partitions)}
        deadline_s = time.monotonic() + PATIENCE_S
        while any(len(self.acks_s[partition]) < goal for partition, goal in goals.items()):
            assert time.monotonic() < deadline_s, f"no progress within {PATIENCE_S:.0f} s: {self.errors[-3:]}"
            await asyncio.sleep(0.05)

    def silence_s(self, partition: int, began_s: float, ended_s: float) -> float:
        """The longest time without an acknowledgement that touches this while."""
        times = self.acks_s[partition]
        pairs = [(a, b) for a, b in itertools.pairwise(times) if b >= began_s and a <= ended_s]
        return max((b - a for a, b in pairs), default=0.0)

    async def lost(self) -> dict[Acks, int]:
        """Acknowledged, and not there any more. The cluster has to be well."""
        found: set[bytes] = set()
        async with AsyncClient(self.cluster.url) as client:
            for partition in range(PARTITIONS):
                begin, end = await client.offsets(TOPIC, partition)
                found |= await _read(client, partition, begin, end)
        return {acks: len(acked - found) for acks, acked in self.acked.items()}


async def _read(client: AsyncClient, partition: int, begin: int, end: int) -> set[bytes]:
    found: set[bytes] = set()
    async with client.consumer([(TOPIC, partition)], start="earliest") as consumer:
        reached = begin
        while reached < end:
            records = await consumer.batch(max_records=10_000, max_wait_ms=5000)
            assert records, f"{TOPIC}-{partition}: nothing more came; reached {reached} of {end}"
            found |= {record.value or b"" for record in records}
            reached = records[-1].offset + 1
    return found
