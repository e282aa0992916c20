"""The cleaner: what is due is cleaned in a thread, at a pace, and stopping it stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from minilog.broker.cleaner import Cleaner, Pace, Stopped
from minilog.broker.clock import Clock
from minilog.broker.process import Failure
from minilog.config import BrokerSettings
from minilog.storage.compaction import CleaningFigures
from minilog.storage.disk import OsDisk
from minilog.storage.log import PartitionLog
from minilog.storage.recovery import open_log
from minilog.storage.store import StoredPartition
from tests.unit.shells.peer_server import until
from tests.unit.storage.batches import place
from tests.unit.storage.keyed import COMPACTED, commit, keyed, read_from

P0 = ("t", 0)


class OneLog:
    """A store with one log that is open, or is not."""

    def __init__(self, directory: Path) -> None:
        self.disk = OsDisk()
        self.log = open_log(place(self.disk, f"{directory}/t-0"), COMPACTED)
        self.is_open = True
        for i in range(60):
            keyed(self.log, [(b"k%d" % (i % 4), b"%d" % i)], 0, 1000)
        commit(self.log)
        self.log.maybe_roll(1000 + COMPACTED.segment_ms + 1)

    def get(self, topic: str, partition: int) -> PartitionLog | None:
        return self.log if self.is_open else None

    def logs(self) -> Iterator[tuple[StoredPartition, PartitionLog]]:
        if self.is_open:
            yield StoredPartition("t", "id", 0), self.log

    def damage(self) -> None:
        path = Path(self.log.segments[0].path)
        data = bytearray(path.read_bytes())
        data[80] ^= 1
        path.write_bytes(data)

    @property
    def leftovers(self) -> list[str]:
        names = self.disk.list(self.log.place.directory)
        return [name for name in names if "cleaned" in name or "swap" in name or "deleted" in name]


def run(
    directory: Path, check: Callable[[OneLog, Cleaner, Failure], Coroutine[Any, Any, None]], **settings: Any
) -> None:
    async def main() -> None:
        store, failure = OneLog(directory), Failure()
        chosen = BrokerSettings(broker_id=1, data_dir="", **settings)
        cleaner = Cleaner(store, chosen, Clock(), failure, CleaningFigures())
        async with asyncio.timeout(10):
            await check(store, cleaner, failure)
        cleaner.stop()

    asyncio.run(main())


def test_a_dirty_log_is_cleaned_and_its_old_files_go(tmp_path: Path) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure) -> None:
        assert await cleaner.look() == 1
        assert [seen.offset for seen in read_from(store.log, 0)] == [56, 57, 58, 59]
        assert store.leftovers == []
        assert await cleaner.look() == 0, "it is clean"
        assert cleaner.figures.rounds == 1
        assert cleaner.figures.records_removed > 40

    run(tmp_path, check)


def test_it_looks_by_itself_and_stops_when_told(tmp_path: Path) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure) -> None:
        task = asyncio.create_task(cleaner.run())
        await until(lambda: store.log.state.cleaned_end > 0)
        cleaner.stop()
        await task
        assert not failure.tripped

    run(tmp_path, check, retention_check_ms=1)


def test_a_round_under_way_is_given_up_when_the_broker_stops(tmp_path: Path) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure) -> None:
        task = asyncio.create_task(cleaner.run())
        await until(lambda: cleaner.figures.rounds == 1)
        cleaner.stop()
        await task
        assert not failure.tripped
        assert store.log.state.cleaned_end == 0
        assert store.leftovers == []

    run(tmp_path, check, retention_check_ms=1, cleaner_bytes_per_second=1)


def test_a_log_that_is_closed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure) -> None:
        look = asyncio.create_task(cleaner.look())
        await until(lambda: cleaner.figures.rounds == 1)
        store.is_open = False
        assert await look == 0
        assert store.log.state.cleaned_end == 0

    run(tmp_path, check, cleaner_bytes_per_second=10_000)


def test_a_failed_disk_stops_the_process(tmp_path: Path) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure) -> None:
        store.disk.failure = "somebody pulled the plug"
        await cleaner.run()
        assert failure.tripped

    run(tmp_path, check, retention_check_ms=1)


def test_a_damaged_log_is_not_tried_again(tmp_path: Path) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure) -> None:
        store.damage()
        assert await cleaner.look() == 0
        assert await cleaner.look() == 0
        assert cleaner.figures.rounds == 1
        assert not failure.tripped

    run(tmp_path, check)


def test_pace_waits_as_long_as_the_bytes_take_and_no_longer_once_stopped() -> None:
    pace = Pace(1_000_000)
    pace(1000)
    pace.stop()
    with pytest.raises(Stopped):
        pace(10_000_000)
