"""One idempotent producer while leaders are killed, one a second, and cut off: what it was told
against what is there.

    python -m tests.process.load.idempotence --minutes 10                      the promise: 0 duplicated, 0 reordered, 0 lost
    python -m tests.process.load.idempotence --minutes 1 --without-numbers     what the same faults do to idempotent=False

The producer (acks=all, the default settings) writes numbered values to every partition without
waiting for the answers, so that there is always something in flight to be lost. At the end a fresh
client reads everything back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from minilog.errors import MinilogError
from minilog_client import AsyncClient, Producer, Receipt
from tests.process.conftest import SHORT_SESSIONS
from tests.process.rig import network
from tests.process.rig.cluster import ProcessCluster, process_cluster
from tests.process.rig.network import CLIENT

TOPIC = "numbers"
PARTITIONS = 6
REPLICATION_FACTOR = 3
FAULT_EVERY_S = 1.0
"""At most; and the cluster gets ``HEALTHY_S`` in between with two replicas in sync, or nothing
could be acknowledged."""
HEALTHY_S = 0.5
DOWN_S = 0.25
CUT_S = 1.5
CUT_EVERY = 4
"""One fault in so many is a cut, the others are kills, where networks can be made."""
PAUSE_S = 0.01
WAIT_S = 0.05
OUTSTANDING_MAX = 2000
"""Records without an answer, per partition: enough for several batches, little enough to go on at
once after a fault."""
STALE_S = 20.0
"""Much longer than the heartbeat of a broker that was cut off waits for an answer on its dead
connection."""
SETTLE_S = 130.0
"""Longer than the delivery timeout: by then every record has its fate."""


@dataclass
class Stream:
    """What one partition was sent, and what the producer was told of it. Values are the numbers
    from 0 on."""

    partition: int
    sent: int = 0
    offsets: dict[int, int] = field(default_factory=dict)
    """Number -> offset, of what was acknowledged."""
    refused: set[int] = field(default_factory=set)
    """Failed with ``definite``."""
    failed: Counter[str] = field(default_factory=Counter)
    duplicate_answers: int = 0
    """Acknowledged as written before: each would have been a second copy."""

    @property
    def outstanding(self) -> int:
        return self.sent - len(self.offsets) - self.failed.total()

    def send(self, producer: Producer) -> None:
        number, self.sent = self.sent, self.sent + 1
        future = producer.send_nowait(TOPIC, b"%d" % number, partition=self.partition)
        future.add_done_callback(lambda done: self._settle(number, done))

    def _settle(self, number: int, done: asyncio.Future[Receipt]) -> None:
        error = done.exception()
        if error is None:
            receipt = done.result()
            assert receipt.offset is not None, "acks=all names an offset"
            self.offsets[number] = receipt.offset
            self.duplicate_answers += receipt.duplicate
            return
        self.failed[type(error).__name__] += 1
        if isinstance(error, MinilogError) and error.definite:
            self.refused.add(number)


@dataclass
class Outcome:
    """``unclear``: records whose future failed without saying whether they are in the log."""

    seconds: float = 0.0
    acknowledged: int = 0
    duplicates: int = 0
    reorderings: int = 0
    lost: int = 0
    misplaced: int = 0
    """Acknowledged at an offset where something else is."""
    refused_but_written: int = 0
    unclear: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    kills: int = 0
    partitions: int = 0
    retries: int = 0
    duplicate_answers: int = 0
    restarts: int = 0
    longest_silence_ms: float = 0.0

    @property
    def valid(self) -> bool:
        wrong = (self.duplicates, self.reorderings, self.lost, self.misplaced, self.refused_but_written)
        return self.acknowledged > 0 and not any(wrong)

    def judge(self, stream: Stream, values: list[int]) -> None:
        """``values``: what partition ``stream.partition`` holds, by offset."""
        self.acknowledged += len(stream.offsets)
        self.unclear += stream.failed.total() - len(stream.refused)
        self.duplicate_answers += stream.duplicate_answers
        present = Counter(values)
        self.duplicates += len(values) - len(present)
        firsts = list(dict.fromkeys(values))
        self.reorderings += sum(later < earlier for earlier, later in pairwise(firsts))
        self.lost += sum(number not in present for number in stream.offsets)
        self.misplaced += sum(
            number in present and (offset >= len(values) or values[offset] != number)
            for number, offset in stream.offsets.items()
        )
        self.refused_but_written += len(stream.refused & present.keys())
        for name, count in stream.failed.items():
            self.failures[name] = self.failures.get(name, 0) + count


class Run:
    def __init__(self, cluster: ProcessCluster, random: Random, with_network: bool) -> None:
        self.cluster, self.random, self.with_network = cluster, random, with_network
        self.streams = [Stream(partition) for partition in range(PARTITIONS)]
        self.outcome = Outcome()
        self._stop = False

    async def play(self, seconds: float, **options: Any) -> Outcome:
        began_s = time.monotonic()
        async with AsyncClient(self.cluster.url) as client:
            await client.create_topic(TOPIC, PARTITIONS, REPLICATION_FACTOR, {"min.insync.replicas": "2"})
            await asyncio.to_thread(self.cluster.wait_in_sync, TOPIC)
            async with client.producer(**options) as producer:
                async with self._sending(producer):
                    await self._break_things(began_s + seconds)
                await asyncio.to_thread(self.cluster.heal)
                await producer.flush(int(SETTLE_S * 1000))
                statistics = producer.statistics()
        self.outcome.retries, self.outcome.restarts = statistics.retries, statistics.restarts
        self.outcome.seconds = round(time.monotonic() - began_s, 1)
        await self._judge()
        return self.outcome

    # --- the load ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def _sending(self, producer: Producer) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            for stream in self.streams:
                tasks.create_task(self._send(producer, stream))
            tasks.create_task(self._watch(producer))
            try:
                yield
            finally:
                self._stop = True

    async def _send(self, producer: Producer, stream: Stream) -> None:
        while not self._stop:
            for _ in range(self.random.randrange(1, 8)):
                if stream.outstanding < OUTSTANDING_MAX:
                    stream.send(producer)
            await asyncio.sleep(PAUSE_S)

    async def _watch(self, producer: Producer) -> None:
        last, since_s = 0, time.monotonic()
        while not self._stop:
            await asyncio.sleep(PAUSE_S)
            acknowledged = producer.statistics().records_acknowledged
            silence_ms = round((time.monotonic() - since_s) * 1000, 1)
            self.outcome.longest_silence_ms = max(self.outcome.longest_silence_ms, silence_ms)
            if acknowledged != last:
                last, since_s = acknowledged, time.monotonic()

    # --- the faults -------------------------------------------------------------------------------

    async def _break_things(self, until_s: float) -> None:
        fault_s = healthy_s = time.monotonic()
        faults = 0
        while (now_s := time.monotonic()) < until_s:
            leader = await self._leader()
            if leader is None:
                healthy_s = now_s
            elif now_s >= max(fault_s + FAULT_EVERY_S, healthy_s + HEALTHY_S):
                faults += 1
                fault_s = healthy_s = now_s
                is_cut = self.with_network and faults % CUT_EVERY == 0
                await asyncio.to_thread(self._cut_off if is_cut else self._kill, leader)
            await asyncio.sleep(WAIT_S)

    async def _leader(self) -> int | None:
        """Somebody who leads, while every partition has two replicas in sync; None: nobody may be
        hurt now.

        With one of them the partition goes on, so that what happens next is a change of leader and
        not an outage."""
        states = await asyncio.to_thread(self.cluster.partitions, TOPIC)
        if len(states) < PARTITIONS or any(len(state["isr"]) < 2 for state in states):
            return None
        running = [id for id in self.cluster.broker_ids if self.cluster.state(id) == "running"]
        leaders = [int(state["leader"]) for state in states if int(state["leader"]) in running]
        return self.random.choice(leaders) if leaders else None

    def _kill(self, leader: int) -> None:
        self.cluster.kill(leader)
        self.outcome.kills += 1
        time.sleep(DOWN_S)
        self.cluster.launch(leader)

    def _cut_off(self, leader: int) -> None:
        """From everybody, the producer too."""
        net, node = self.cluster.network, self.cluster.node(leader)
        others = [other for other in [*net.nodes, CLIENT] if other != node]
        self.outcome.partitions += 1
        for other in others:
            net.cut(node, other)
            net.cut(other, node)
        time.sleep(CUT_S)
        for other in others:
            net.mend(node, other)
            net.mend(other, node)

    # --- the verdict ------------------------------------------------------------------------------

    async def _judge(self) -> None:
        async with AsyncClient(self.cluster.url) as client:
            for stream in self.streams:
                acknowledged_end = max(stream.offsets.values(), default=-1) + 1
                self.outcome.judge(stream, await _read(client, stream.partition, acknowledged_end))


async def _end(client: AsyncClient, partition: int, acknowledged_end: int) -> int:
    """Where the partition ends, as soon as that is not before what was acknowledged. What it is in
    the end, if ever.

    A leader that was cut off and is not fenced in its own eyes yet (R30 is off with one controller)
    shows an old end."""
    deadline_s = time.monotonic() + STALE_S
    while True:
        start, end = await client.offsets(TOPIC, partition)
        assert start == 0, "nothing expires during a run"
        if end >= acknowledged_end or time.monotonic() > deadline_s:
            return end
        await asyncio.sleep(WAIT_S)


async def _read(client: AsyncClient, partition: int, acknowledged_end: int) -> list[int]:
    end = await _end(client, partition, acknowledged_end)
    values: list[int] = []
    async with client.consumer([(TOPIC, partition)], start="earliest") as consumer:
        while len(values) < end:
            records = await consumer.batch(max_records=10_000, max_wait_ms=10_000)
            assert records, f"partition {partition} ends at {len(values)} instead of {end}"
            for record in records:
                assert record.offset == len(values), f"offset {record.offset} follows {len(values) - 1}"
                values.append(int(record.value or b""))
    return values


def run(folder: Path, seconds: float, seed: int, **options: Any) -> Outcome:
    """A cluster of its own, ``seconds`` of faults, and the verdict. ``options`` are those of the
    producer."""
    with_network = network.unavailable() is None
    with process_cluster(folder, overrides=SHORT_SESSIONS, network=with_network) as cluster:
        return asyncio.run(Run(cluster, Random(seed), with_network).play(seconds, **options))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-numbers", action="store_true", help="idempotent=False, for comparison")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    if reason := network.unavailable():
        print(f"no partitions, only kills: {reason}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(
            Path(folder) / "cluster", arguments.minutes * 60, arguments.seed, idempotent=not arguments.without_numbers
        )
    for name, value in asdict(outcome).items():
        print(f"{name.replace('_', ' '):22} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(outcome), indent=2) + "\n")
    return 0 if outcome.valid else 1


if __name__ == "__main__":
    sys.exit(main())
