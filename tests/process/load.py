"""Load with a memory: what was sent, what was acknowledged where and when, and the proof that it is all still there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from minilog.cli.demo_proof import Ledger, Proof, ReadBack, compare_replicas
from minilog.errors import BufferFull
from minilog_client import AsyncClient
from tests.process.cluster import ProcessCluster

PACE_S = 0.005


class Load:
    """Sends numbered records at a steady rate until told to stop; every record's fate is in ``ledger``."""

    def __init__(self, topic: str, partitions: int, records_per_second: int = 4000) -> None:
        self.topic, self.partitions, self.records_per_second = topic, partitions, records_per_second
        self.ledger = Ledger()
        self.errors: list[str] = []
        self.acked_s: dict[int, list[float]] = {p: [] for p in range(partitions)}
        self._stop = False

    @property
    def acknowledged(self) -> int:
        return self.ledger.acknowledged

    async def run(self, producer: Any) -> None:
        began = time.monotonic()
        while not self._stop:
            due = int((time.monotonic() - began) * self.records_per_second) - self.ledger.sent
            for _ in range(min(due, 500)):
                number = self.ledger.sent
                value = b"%d." % number + b"x" * 80
                try:
                    future = producer.send_nowait(self.topic, value, partition=number % self.partitions)
                except BufferFull:
                    break
                self.ledger.on_sent(value)
                future.add_done_callback(lambda done, number=number: self._on_done(number, done))
            await asyncio.sleep(PACE_S)

    def stop(self) -> None:
        self._stop = True

    def _on_done(self, number: int, done: asyncio.Future[Any]) -> None:
        if done.cancelled() or done.exception() is not None:
            self.errors.append(repr(done.exception() if not done.cancelled() else "cancelled"))
            return
        receipt = done.result()
        self.ledger.on_acknowledged(number, receipt.partition, receipt.offset)
        self.acked_s[receipt.partition].append(time.monotonic())

    def longest_gap_ms(self, since_s: float, until_s: float | None = None) -> float:
        """The longest silence between acknowledgements of one partition, over all partitions, after ``since_s``."""
        longest = 0.0
        for times in self.acked_s.values():
            inside = [t for t in times if t >= since_s and (until_s is None or t <= until_s)]
            edges = [since_s, *inside]
            longest = max([longest, *(b - a for a, b in zip(edges, edges[1:], strict=False))])
        return longest * 1000


@contextlib.asynccontextmanager
async def running(cluster: ProcessCluster, load: Load, **options: Any) -> AsyncIterator[AsyncClient]:
    """Produce in the background while the block runs; at its end everything sent has met its fate."""
    async with AsyncClient(cluster.url) as client:
        async with client.producer(**{"acks": "all", "linger_ms": 2, **options}) as producer:
            task = asyncio.create_task(load.run(producer))
            try:
                yield client
            finally:
                load.stop()
                await task
                await producer.flush()


async def until_acknowledged(load: Load, more: int, timeout_s: float = 30.0) -> None:
    """Wait for ``more`` acknowledgements from now on: the cluster serves."""
    goal, deadline = load.acknowledged + more, time.monotonic() + timeout_s
    while load.acknowledged < goal:
        assert time.monotonic() < deadline, f"{load.acknowledged} of {goal} acknowledged; errors {load.errors[-3:]}"
        await asyncio.sleep(0.01)


async def read_back(cluster: ProcessCluster, load: Load) -> tuple[Proof, dict[int, int]]:
    """A fresh client reads every partition from its beginning to its end; (verdict so far, end offset by partition)."""
    back = ReadBack(load.ledger)
    ends: dict[int, int] = {}
    async with AsyncClient(cluster.url) as client:
        for partition in range(load.partitions):
            ends[partition] = await _read_partition(client, load.topic, partition, back)
    return back.finish(), ends


async def _read_partition(client: AsyncClient, topic: str, partition: int, back: ReadBack) -> int:
    async with client.consumer([(topic, partition)], start="earliest") as consumer:
        end = (await client.offsets(topic, partition))[1]
        position = 0
        while position < end:
            batch = await consumer.batch(max_records=10_000, max_wait_ms=2000)
            assert batch, f"{topic}-{partition}: nothing more after offset {position} of {end}"
            for record in batch:
                back.on_record(partition, record.offset, int(record.value.split(b".")[0]), record.value)
            position = batch[-1].offset + 1
        return end


def prove(cluster: ProcessCluster, load: Load, *, ordered: bool = True) -> Proof:
    """Heal must be over. Reads everything back, stops the cluster cleanly and compares the replicas' bytes."""
    cluster.wait_in_sync(load.topic)
    proof, ends = asyncio.run(read_back(cluster, load))
    for broker_id in cluster.broker_ids:
        cluster.terminate(broker_id)
    compare_replicas(proof, [member.data_dir for member in cluster.dev.brokers], load.topic, ends)
    assert proof.acknowledged > 0, load.errors[:3]
    assert proof.lost == 0, proof
    assert (proof.misplaced, proof.changed, proof.unknown, proof.gaps) == (0, 0, 0, 0), proof
    assert proof.out_of_order == 0 or not ordered, proof
    assert proof.differing == [], proof
    return proof


def folders(cluster: ProcessCluster) -> list[Path]:
    return [member.data_dir for member in cluster.dev.brokers]
