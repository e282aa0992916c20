"""Racers that append on a condition, while leaders die: ``python -m tests.process.load.races``.

Each racer appends where it believes the partition to end, and learns from a refusal where that is.
In the end the log is read: whoever was told to have won an offset has its record there, nobody else
was told so, and what nobody won is of a racer that was told that it does not know (R101).
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from minilog.errors import EndOffsetMismatch, MinilogError
from minilog_client import AsyncClient, Producer
from tests.process.rig.cluster import Name, ProcessCluster, process_cluster

TOPIC: Final = "races"
Place = tuple[int, int]
"""(partition, offset)"""


@dataclass
class Account:
    """``unknown``: values of which nobody knows whether they are in the log."""

    attempts: int = 0
    won: dict[Place, list[bytes]] = field(default_factory=dict)
    unknown: set[bytes] = field(default_factory=set)
    refused: int = 0
    failed: Counter[str] = field(default_factory=Counter)

    def judge(self, log: dict[Place, bytes]) -> list[str]:
        """What is not as it was told."""
        found = [f"{place} was won by {values}" for place, values in self.won.items() if len(values) > 1]
        for place, (value, *_) in self.won.items():
            if log.get(place) != value:
                found.append(f"{place} holds {log.get(place)!r}, and was won by {value!r}")
        found += [
            f"{place} holds {value!r}, which was told that it is not written"
            for place, value in log.items()
            if place not in self.won and value not in self.unknown
        ]
        found += [f"{value!r} is there {count} times" for value, count in Counter(log.values()).items() if count > 1]
        return found


async def race(account: Account, producer: Producer, name: int, partition: int, attempts: int) -> None:
    end = 0
    while account.attempts < attempts:
        account.attempts += 1
        value = b"%d.%d" % (name, account.attempts)
        try:
            receipt = await producer.append(TOPIC, [value], partition=partition, expected_offset=end)
        except EndOffsetMismatch as error:
            account.refused += 1
            if not error.definite:
                account.unknown.add(value)
            end = int(error.info["end_offset"])
        except MinilogError as error:
            account.failed[error.code] += 1
            if not error.definite:
                account.unknown.add(value)
        else:
            assert receipt.base_offset is not None
            account.won.setdefault((partition, receipt.base_offset), []).append(value)
            end = receipt.base_offset + 1


async def run(cluster: ProcessCluster, attempts: int, racers: int, partitions: int, kill_every_s: float) -> Account:
    account = Account()
    async with AsyncClient(cluster.url) as client:
        await client.create_topic(TOPIC, partitions=partitions, config={"min.insync.replicas": "2"})
        racing = asyncio.gather(
            *(
                race(account, client.producer(linger_ms=0), number * partitions + partition, partition, attempts)
                for number in range(racers)
                for partition in range(partitions)
            )
        )
        await asyncio.gather(racing, _kill(cluster, racing, kill_every_s))
    return account


async def _kill(cluster: ProcessCluster, racing: asyncio.Future[list[None]], every_s: float) -> None:
    """The leader of the first partition dies and comes back, for as long as anybody races."""
    while every_s:
        done, _ = await asyncio.wait([racing], timeout=every_s)
        if done:
            return
        victim = await asyncio.to_thread(cluster.leader, TOPIC)
        await asyncio.to_thread(_restart, cluster, victim)


def _restart(cluster: ProcessCluster, name: Name) -> None:
    cluster.kill(name)
    cluster.await_dead(name)
    cluster.start(name)


async def read(cluster: ProcessCluster) -> dict[Place, bytes]:
    found: dict[Place, bytes] = {}
    async with AsyncClient(cluster.url) as client, client.consumer(TOPIC, start="earliest") as consumer:
        while True:
            for record in (batch := await consumer.batch(max_wait_ms=2000)):
                found[record.partition, record.offset] = record.value or b""
            if not batch and not any(lag.records for lag in consumer.lag().values()):
                return found


def judged(
    cluster: ProcessCluster, attempts: int, racers: int, partitions: int, kill_every_s: float
) -> tuple[Account, list[str]]:
    account = asyncio.run(run(cluster, attempts, racers, partitions, kill_every_s))
    return account, account.judge(asyncio.run(read(cluster)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, default=20_000)
    parser.add_argument("--racers", type=int, default=8, help="for each partition")
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--kill-every-s", type=float, default=5.0, help="0: nobody dies")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="minilog-races-"))
    try:
        with process_cluster(folder / "cluster") as cluster:
            began = time.monotonic()
            account, wrong = judged(cluster, options.attempts, options.racers, options.partitions, options.kill_every_s)
            seconds = time.monotonic() - began
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{account.attempts:,} appends in {seconds:.0f} s by {options.racers} racers a partition")
    print(
        f"{len(account.won):,} won, {account.refused:,} refused, {len(account.unknown):,} unknown, {dict(account.failed)}"
    )
    print(f"{len(wrong)} not as they were told" + "".join(f"\n  {line}" for line in wrong[:20]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
