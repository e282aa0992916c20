"""Clients that write down what they do and see: producers with acks=all and acks=1, tailing
consumers, a final reader.

Every partition has a producer of its own that has one send under way at a time, so what a process
did is in order. A send is one record batch. After an outcome nobody can know (``info``) the process
goes on under a new name, a consumer with a new client as well. Values are unique: process and
number.

Two kinds of producers, because they promise different things:
    retries="definite"   a record is sent again only when it provably was not written
    retries="all"        what applications use: after any failure. This one's silence is the unavailability measured
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from minilog.errors import MinilogError
from minilog_client import AsyncClient, ProducerOptions
from tests.process.checker.history import Options, Recorder, digest
from tests.process.rig.cluster import ProcessCluster
from tests.process.rig.recorded import SEPARATOR, RecordedConsumer, final_read, history_key

Retries = Literal["definite", "all"]
PAYLOAD_BYTES = 100
CONSUMERS = 2
REPLICATION_FACTOR = 3
TAIL_PAUSE_S = 0.05
OBSERVE_S = 0.5
TRY_TIMEOUT_MS = 2500


@dataclass(frozen=True)
class Ack:
    t_s: float
    """Monotonic."""
    latency_ms: float
    leader_epoch: int
    """In which it was written; -1 for a repeated send, which some later leader may have
    answered."""


@dataclass
class Rate:
    records_per_send: int = 10
    pause_s: float = 0.02
    """Between the end of one send and the begin of the next, of each producer."""


@dataclass
class Tally:
    """What the acks=all producers experienced."""

    acks: dict[int, list[Ack]] = field(default_factory=lambda: defaultdict(list))
    """By partition."""
    records: int = 0
    """Acknowledged."""
    errors: list[str] = field(default_factory=list)


class Workload:
    """Clients of one topic, from ``running`` to the history and what is judged of it."""

    def __init__(self, cluster: ProcessCluster, topic: str, partitions: int, retries: Retries, rate: Rate) -> None:
        self.cluster, self.topic, self.partitions, self.retries, self.rate = cluster, topic, partitions, retries, rate
        self.recorder = Recorder()
        self.tally = Tally()
        self._stop = False

    @property
    def options(self) -> Options:
        """What these clients were promised: they are idempotent, so retries double nothing and
        change no order."""
        return Options(idempotent=True, ordered_sends=True, ok_share_min=0.05)

    def key(self, partition: int) -> str:
        return history_key(self.topic, partition)

    async def create_topic(self, config: Mapping[str, str]) -> None:
        async with AsyncClient(self.cluster.url) as client:
            await client.create_topic(self.topic, self.partitions, REPLICATION_FACTOR, config)

    async def delete_topic(self) -> None:
        async with AsyncClient(self.cluster.url) as client:
            await client.delete_topic(self.topic)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the block runs, so do the clients. At its end all they began has ended."""
        self._stop = False
        async with AsyncClient(self.cluster.url) as client, asyncio.TaskGroup() as tasks:
            for partition in range(self.partitions):
                tasks.create_task(self._produce(client, [partition], "all"))
            tasks.create_task(self._produce(client, range(self.partitions), 1))
            for number in range(CONSUMERS):
                tasks.create_task(self._consume(f"tail{number}"))
            tasks.create_task(self._observe())
            try:
                yield
            finally:
                self._stop = True

    # --- producing --------------------------------------------------------------------------------

    async def _produce(self, client: AsyncClient, partitions: Sequence[int], acks: Any) -> None:
        """Sends to ``partitions`` in turn."""
        name = f"{self.retries}-acks-{acks}-{partitions[0]}"
        process, number = self.recorder.process(name), 0
        options: ProducerOptions = {"acks": acks, "linger_ms": 1, "retries": self.retries}
        if self.retries == "definite":
            options["try_timeout_ms"] = TRY_TIMEOUT_MS
        async with client.producer(**options) as producer:
            while not self._stop:
                partition = partitions[number // self.rate.records_per_send % len(partitions)]
                values = [f"{process}:{number + i}" for i in range(self.rate.records_per_send)]
                number += len(values)
                if not await self._send(producer, process, partition, values, acks):
                    process, number = self.recorder.process(name), 0
                await asyncio.sleep(self.rate.pause_s)

    async def _send(self, producer: Any, process: str, partition: int, values: list[str], acks: Any) -> bool:
        """False when the outcome is unknown."""
        key, payloads = self.key(partition), [payload_of(value) for value in values]
        sends = [["send", key, v, digest(p)] for v, p in zip(values, payloads, strict=True)]
        op = self.recorder.invoke(process, "send", sends, acks=acks, batch=True)
        began_s = time.monotonic()
        try:
            receipts = await producer.send_many(self.topic, payloads, partition=partition)
        except MinilogError as error:
            self.recorder.error(op, error)
            self.tally.errors.append(f"{key} acks={acks}: {error!r}")
            return error.definite
        assert len(receipts) == 1, f"a send of {len(values)} small records became {len(receipts)} batches"
        receipt = receipts[0]
        base = receipt.base_offset
        done = [["send", key, [base + i, value]] for i, value in enumerate(values)]
        self.recorder.ok(op, done, epoch=None if receipt.duplicate else receipt.leader_epoch)
        if acks == "all":
            now_s = time.monotonic()
            self.tally.acks[partition].append(
                Ack(now_s, (now_s - began_s) * 1000, -1 if receipt.duplicate else receipt.leader_epoch)
            )
            self.tally.records += len(values)
        return True

    # --- consuming --------------------------------------------------------------------------------

    async def _consume(self, name: str) -> None:
        """Goes on with a new client, where the old one was, after an error."""
        partitions = range(self.partitions)
        positions = dict.fromkeys(partitions, 0)
        while not self._stop:
            async with AsyncClient(self.cluster.url) as client:
                consumer = client.consumer([(self.topic, partition) for partition in partitions], start=0)
                recorded = RecordedConsumer(self.recorder, consumer, self.topic, partitions, name=name)
                try:
                    await consumer.start()
                    for partition, offset in positions.items():
                        recorded.seek(self.topic, partition, offset)
                    await self._tail(recorded, positions)
                except MinilogError as error:
                    self.tally.errors.append(f"{recorded.process}: {error!r}")

    async def _tail(self, recorded: RecordedConsumer, positions: dict[int, int]) -> None:
        while not self._stop:
            for record in await recorded.poll(max_records=5000, max_wait_ms=500):
                positions[record.partition] = record.offset + 1
            await asyncio.sleep(TAIL_PAUSE_S)

    async def _observe(self) -> None:
        """The leader epochs each broker believes in may only grow."""
        while not self._stop:
            answers = await asyncio.to_thread(self.cluster.ask_all, f"/v1/metadata?topics={self.topic}")
            for broker_id, answer in answers.items():
                epochs = {
                    f"partition {self.topic}-{state['partition']}": int(state["leader_epoch"])
                    for found in answer.get("topics", ())
                    for state in found["partitions"]
                }
                self.recorder.observe(f"broker {broker_id}", epochs)
            await asyncio.sleep(OBSERVE_S)

    # --- the end ----------------------------------------------------------------------------------

    async def final_read(self) -> dict[int, int]:
        """A fresh client reads every partition from its beginning to its end; end offset by
        partition."""
        async with AsyncClient(self.cluster.url) as client:
            await final_read(self.recorder, client, self.topic, range(self.partitions))
            return {partition: (await client.offsets(self.topic, partition))[1] for partition in range(self.partitions)}


def payload_of(value: str) -> bytes:
    return (value.encode() + SEPARATOR).ljust(PAYLOAD_BYTES, b"x")
