"""``bench failover``: kill -9 of a leader under load, again and again, as a client sees it.

Unavailability of a run is the longest time without an acknowledgement on any partition that the
killed broker led: from the last acknowledgement of the old leader to the first of the new one. At
the end everything is read back and held against the receipts, as in the demo.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from minilog.cli.access import client_options
from minilog.cli.api import Api
from minilog.cli.local import process
from minilog.cli.local.cluster import DevCluster, Member
from minilog.cli.output import CliError
from minilog.cli.proof import Ledger, Proof, ReadBack, read_back, wrap
from minilog.errors import BufferFull, MinilogError
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import PartitionInfo
from minilog_client import AsyncClient, Producer, Receipt

PACE_S = 0.005
POLL_S = 0.05
BEFORE_KILL_S = 1.0
HEAL_TIMEOUT_S = 30.0


@dataclass
class Run:
    """Milliseconds. The phases are the controller's, counted from the kill."""

    run: int
    broker: int
    partitions: int
    unavailable_ms: float = 0.0
    kind: str = ""
    detected_ms: float | None = None
    elected_ms: float | None = None
    published_ms: float | None = None
    rejoined_ms: float | None = None


@dataclass
class Watch:
    """How long each partition that lost its leader went without an acknowledgement, told by the
    leader epochs."""

    epochs: dict[int, int] = field(default_factory=dict)
    """Partition -> epoch of the leader that is about to be killed."""
    last_ack_s: dict[int, float] = field(default_factory=dict)
    pauses_s: dict[int, float] = field(default_factory=dict)

    def begin(self, epochs: dict[int, int]) -> None:
        self.epochs = epochs
        self.pauses_s = {}

    def on_ack(self, partition: int, leader_epoch: int, now_s: float) -> None:
        newly = partition in self.epochs and partition not in self.pauses_s
        if newly and leader_epoch > self.epochs[partition]:
            self.pauses_s[partition] = now_s - self.last_ack_s.get(partition, now_s)
        self.last_ack_s[partition] = now_s

    def recovered(self) -> bool:
        """Every watched partition was acknowledged by a new leader."""
        return self.pauses_s.keys() == self.epochs.keys()


class FailoverBench:
    def __init__(self, cluster: DevCluster, topic: str, record_bytes: int, rate: int) -> None:
        self.cluster = cluster
        self.topic = topic
        self.rate = rate
        self.ledger = Ledger()
        self.failed = 0
        self._pad = b'"' + b"x" * max(0, record_bytes - 32) + b'"'
        self._watch = Watch()
        self._api = Api(cluster.url, timeout_s=2.0)

    async def measure(self, runs: int, progress: Callable[[Run], None]) -> tuple[list[Run], Proof]:
        results: list[Run] = []
        async with AsyncClient(self.cluster.url, **client_options()) as client:
            async with client.producer(acks="all", delivery_timeout_ms=60_000) as producer:
                stop = asyncio.Event()
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._load(producer, stop))
                    try:
                        for number in range(1, runs + 1):
                            results.append(await self._one(number))
                            progress(results[-1])
                    finally:
                        stop.set()
                await producer.flush()
            proof = await self._read_back(client)
        return results, proof

    async def _load(self, producer: Producer, stop: asyncio.Event) -> None:
        """Records go to the partitions in turn, so that each of them always has one under way."""
        began_s, behind_from = time.monotonic(), 0
        partitions = itertools.cycle(part.partition for part in self._partitions())
        while not stop.is_set():
            due = int((time.monotonic() - began_s) * self.rate)
            try:
                for number in range(behind_from, min(due, behind_from + self.rate // 10 + 1)):
                    value = wrap(self.ledger.sent, self._pad)
                    future = producer.send_nowait(self.topic, value, partition=next(partitions))
                    future.add_done_callback(partial(self._on_done, self.ledger.on_sent(value)))
                    behind_from = number + 1
            except BufferFull:
                began_s += PACE_S
            await asyncio.sleep(PACE_S)

    def _on_done(self, id: int, future: Future[Receipt]) -> None:
        if future.cancelled() or future.exception() is not None:
            self.failed += 1
            return
        receipt = future.result()
        assert receipt.offset is not None, "acks=all names it"
        assert receipt.leader_epoch is not None, "acks=all names it"
        self.ledger.on_acknowledged(id, receipt.partition, receipt.offset)
        self._watch.on_ack(receipt.partition, receipt.leader_epoch, time.monotonic())

    async def _one(self, number: int) -> Run:
        await self._until(self._all_in_sync, "all replicas in sync")
        await asyncio.sleep(BEFORE_KILL_S)
        member, led = self._choose(number)
        known = member.known()
        assert known is not None, "it was chosen because it runs"
        self._watch.begin(led)
        killed_ms = time.time() * 1000
        process.signal_to(known, signal.SIGKILL)
        result = Run(number, member.id, len(led))
        await self._until(self._watch.recovered, f"a new leader for what broker {member.id} led")
        self.cluster.reap()
        await self._until(lambda: self._told_by_controller(result, killed_ms), "the controller's account of it")
        result.unavailable_ms = round(max(self._watch.pauses_s.values()) * 1000, 1)
        restarted_s = time.monotonic()
        self.cluster.start(member, exit_with_parent=True)
        await self._until(self._all_in_sync, f"broker {member.id} back in sync")
        result.rejoined_ms = round((time.monotonic() - restarted_s) * 1000)
        return result

    def _choose(self, number: int) -> tuple[Member, dict[int, int]]:
        """The brokers in turn, passing over one that leads nothing. With what it leads and in which
        epochs."""
        led: dict[int, dict[int, int]] = {}
        for part in self._partitions():
            led.setdefault(part.leader, {})[part.partition] = part.leader_epoch
        count = len(self.cluster.spec.ports)
        for broker in ((number + step) % count + 1 for step in range(count)):
            if led.get(broker):
                return self.cluster.member(str(broker)), led[broker]
        raise CliError(f"no broker of {self.cluster.folder} leads a partition of {self.topic}")

    def _told_by_controller(self, result: Run, killed_ms: float) -> bool:
        """Take over the phases of the failover, once the controller knows them all."""
        told = self._api.failover_of(result.broker, killed_ms)
        if told is None or told.elected_ms is None or told.published_ms is None:
            return False
        result.kind = told.kind
        result.detected_ms = round(told.detected_ms - killed_ms, 1)
        result.elected_ms = round(told.elected_ms - killed_ms, 1)
        result.published_ms = round(told.published_ms - killed_ms, 1)
        return True

    def _partitions(self) -> list[PartitionInfo]:
        try:
            topics = self._api.metadata([self.topic]).topics
        except MinilogError:
            return []
        return topics[0].partitions if topics else []

    def _all_in_sync(self) -> bool:
        parts = self._partitions()
        return bool(parts) and all(p.leader != NO_LEADER and len(p.isr) == len(p.replicas) for p in parts)

    async def _until(self, condition: Callable[[], object], wanted: str) -> None:
        deadline_s = time.monotonic() + HEAL_TIMEOUT_S
        while not await asyncio.to_thread(condition):
            if time.monotonic() >= deadline_s:
                raise CliError(
                    f"after {HEAL_TIMEOUT_S:.0f} s not yet: {wanted}; logs in {self.cluster.folder / 'logs'}"
                )
            await asyncio.sleep(POLL_S)

    async def _read_back(self, client: AsyncClient) -> Proof:
        judge = ReadBack(self.ledger)
        await read_back(client, self._api, self.topic, len(self._partitions()), judge)
        return judge.finish()


def rows(results: list[Run]) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(result) for result in results]
