"""A thread that reads is interrupted again and again, at whatever line it is: a signal's handler
raises, as a time limit or Ctrl-C does. Nothing is skipped, and nothing is committed that the thread
has not got.

    python -m tests.unit.client.blocking.interrupts --count 10000
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, NamedTuple

from minilog_client import Record, SyncConsumer
from tests.unit.client.blocking.test_groups import connected
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator

_LIMIT_S: Final = 0.002
WAYS: Final = ("next", "batch", "columns")
_AHEAD: Final = 300
"""How many records the log has more than were read."""


class Interrupted(Exception):
    pass


class Result(NamedTuple):
    interrupts: int
    received: int
    skipped: int
    repeated: int
    committed_unseen: int


class Reading:
    """Reads record by record, in batches or in columns, and is interrupted after a random time."""

    def __init__(self, consumer: SyncConsumer, coordinator: FakeCoordinator, random: Random, way: str) -> None:
        self._consumer = consumer
        self._coordinator = coordinator
        self._random = random
        self._iterates = way == "next"
        self._read = consumer.batch_columns if way == "columns" else consumer.batch
        self._is_armed = False
        self.next_offset = 0
        self.interrupts = self.skipped = self.repeated = self.committed_unseen = 0

    def strike(self, *_: object) -> None:
        if self._is_armed:
            self._is_armed = False
            raise Interrupted

    def until_interrupted(self) -> None:
        """The names are bound in the step in which the call returns."""
        records: Sequence[Record] = ()
        record: Record | None = None
        received = self._received
        try:
            self._is_armed = True
            signal.setitimer(signal.ITIMER_REAL, self._random.uniform(0.00005, _LIMIT_S))
            while self._iterates and self._is_armed:
                record = self._consumer.__next__()
                received(record.offset, record.offset)
            while self._is_armed:  # Python drops an exception that is raised in a destructor
                if records := self._read(self._random.randrange(1, 20), 1000):
                    received(records[0].offset, records[-1].offset)
        except Interrupted:
            self.interrupts += 1
        finally:
            self._is_armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        last = records or ([record] if record is not None else [])
        if last and last[-1].offset >= self.next_offset:
            received(last[0].offset, last[-1].offset)
        if (self._coordinator.committed("g").get(0) or 0) > self.next_offset:
            self.committed_unseen += 1

    def _received(self, first: int, last: int) -> None:
        """Counted in one step that cannot be interrupted."""
        expected, self.next_offset = self.next_offset, last + 1
        self.skipped += first - expected if first > expected else 0
        self.repeated += expected - first if first < expected else 0


async def feed(cluster: FakeCluster, read: Callable[[], int], random: Random) -> None:
    """Records come now and then, so that reads wait as often as they find something."""
    log = cluster.logs["t"][0]
    while True:
        while log.batches and log.batches[0].end_offset < read():
            log.start_offset = log.batches.pop(0).end_offset
        if log.end_offset < read() + _AHEAD:
            fill(log, random.randrange(1, 40), each=10)
            cluster._wake()
        await asyncio.sleep(random.uniform(0, 0.002))


def run(count: int, *, group: bool, way: str, seed: int = 1) -> Result:
    options: dict[str, Any] = {"group": "g", "auto_commit_interval_ms": 2} if group else {}
    random = Random(seed)
    with connected(1) as (cluster, coordinator, client):
        consumer = client.consumer("t", **options)
        reading = Reading(consumer, coordinator, random, way)
        client._thread.submit(feed(cluster, lambda: reading.next_offset, Random(seed)))
        before, hook = signal.signal(signal.SIGALRM, reading.strike), sys.unraisablehook
        sys.unraisablehook = lambda _: None  # it struck in a destructor, where Python drops it
        try:
            while reading.interrupts < count:
                reading.until_interrupted()
        finally:
            signal.signal(signal.SIGALRM, before)
            sys.unraisablehook = hook
        assert consumer.batch(), "the consumer is usable"
    return Result(
        reading.interrupts, reading.next_offset, reading.skipped, reading.repeated, reading.committed_unseen,
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    bad = 0
    for group in (False, True):
        for way in WAYS:
            result = run(arguments.count // (2 * len(WAYS)), group=group, way=way, seed=arguments.seed)
            print(f"{'a group' if group else 'no group'}, {way}: {result}", flush=True)
            bad += result.skipped + result.repeated + result.committed_unseen
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
