"""The cleaner: what is due is cleaned in a thread, at a pace, and stopping it stops it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from minilog.broker.cleaner import Cleaner, Pace
from minilog.config import BrokerSettings
from minilog.errors import CorruptRange
from minilog.server.background import Stop, Stopped
from minilog.server.clock import Clock
from minilog.server.process import Failure
from minilog.storage.compaction.rewrite import CleaningFigures
from minilog.storage.directories import StoredPartition
from minilog.storage.disk import OsDisk
from minilog.storage.log.log import PartitionLog
from minilog.storage.recovery.recovery import open_log
from tests.unit.server.peer_server import until
from tests.unit.storage.batches import place
from tests.unit.storage.compaction.keyed import COMPACTED, commit, keyed, read_from

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
    directory: Path, check: Callable[[OneLog, Cleaner, Failure, Stop], Coroutine[Any, Any, None]], **settings: Any
) -> None:
    async def main() -> None:
        store, failure, stop = OneLog(directory), Failure(), Stop()
        chosen = BrokerSettings(broker_id=1, data_dir="", **settings)
        cleaner = Cleaner(store, chosen, Clock().wall_ms, failure, CleaningFigures(), stop)
        async with asyncio.timeout(10):
            await check(store, cleaner, failure, stop)

    asyncio.run(main())


def test_a_dirty_log_is_cleaned_and_its_old_files_go(tmp_path: Path) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure, stop: Stop) -> None:
        assert await cleaner.look() == 1
        assert [seen.offset for seen in read_from(store.log, 0)] == [56, 57, 58, 59]
        assert store.leftovers == []
        assert await cleaner.look() == 0, "it is clean"
        assert cleaner.figures.rounds == 1
        assert cleaner.figures.records_removed > 40

    run(tmp_path, check)


def test_it_looks_by_itself_and_stops_when_told(tmp_path: Path) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure, stop: Stop) -> None:
        task = asyncio.create_task(cleaner.run())
        await until(lambda: store.log.state.cleaned_end > 0)
        stop.set()
        await task
        assert not failure.tripped

    run(tmp_path, check, retention_check_ms=1)


def test_a_round_under_way_is_given_up_when_the_broker_stops(tmp_path: Path) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure, stop: Stop) -> None:
        task = asyncio.create_task(cleaner.run())
        await until(lambda: cleaner.figures.rounds == 1)
        stop.set()
        await task
        assert not failure.tripped
        assert store.log.state.cleaned_end == 0
        assert store.leftovers == []

    run(tmp_path, check, retention_check_ms=1, cleaner_bytes_per_second=1)


def test_a_log_that_is_closed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure, stop: Stop) -> None:
        look = asyncio.create_task(cleaner.look())
        await until(lambda: cleaner.figures.rounds == 1)
        store.is_open = False
        assert await look == 0
        assert store.log.state.cleaned_end == 0

    run(tmp_path, check, cleaner_bytes_per_second=10_000)


def test_a_failed_disk_stops_the_process(tmp_path: Path) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure, stop: Stop) -> None:
        store.disk.failure = "somebody pulled the plug"
        await cleaner.run()
        assert failure.tripped

    run(tmp_path, check, retention_check_ms=1)


def test_a_damaged_log_is_not_tried_again(tmp_path: Path) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure, stop: Stop) -> None:
        store.damage()
        assert await cleaner.look() == 0
        assert await cleaner.look() == 0
        assert cleaner.figures.rounds == 1
        assert not failure.tripped

    run(tmp_path, check)


def test_what_it_finds_damaged_the_log_knows(tmp_path: Path) -> None:
    """R53: nobody else reads what is old, and the replica must neither lead nor count."""

    async def check(store: OneLog, cleaner: Cleaner, failure: Failure, stop: Stop) -> None:
        store.damage()
        await cleaner.look()
        assert store.log.bad_ranges == [(1, 2)]

    run(tmp_path, check)


def test_nothing_is_noted_in_a_log_that_was_closed_meanwhile(tmp_path: Path) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure, stop: Stop) -> None:
        store.log.abandon()
        cleaner._on_damaged(store.log, CorruptRange("its file may be another's by now", start_offset=0))
        assert not store.log.is_damaged

    run(tmp_path, check)


def test_pace_waits_as_long_as_the_bytes_take_and_no_longer_once_stopped() -> None:
    stop = Stop()
    pace = Pace(1_000_000, stop)
    pace(1000)
    stop.set()
    with pytest.raises(Stopped):
        pace(10_000_000)


def test_a_pace_that_never_has_to_wait_ends_all_the_same() -> None:
    stop = Stop()
    pace = Pace(10**12, stop)
    pace(1000)
    stop.set()
    with pytest.raises(Stopped):
        pace(1000)


def garbage(store: OneLog, count: int) -> list[Path]:
    """Files that retention has taken out of the log and nobody has removed yet."""
    paths = [Path(f"{store.log.place.directory}/{number:020d}.log.deleted") for number in range(count)]
    for path in paths:
        path.write_bytes(b"x")
    store.log.garbage = [str(path) for path in paths]
    return paths


def test_a_stop_while_files_wait_to_be_removed_is_no_failure(tmp_path: Path) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure, stop: Stop) -> None:
        task = asyncio.create_task(cleaner.run())
        await asyncio.sleep(0)
        paths = garbage(store, 2)
        stop.set()
        await task
        assert not failure.tripped
        assert all(path.exists() for path in paths), "nothing begins once it is told to stop"
        store.log.close()
        open_log(place(store.disk, store.log.place.directory), COMPACTED)
        assert not any(path.exists() for path in paths), "the next start removes them"

    run(tmp_path, check)


@pytest.mark.parametrize("ended_by", ["stop", "cancel"])
def test_no_file_is_removed_after_the_cleaner_has_ended(
    tmp_path: Path, ended_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure, stop: Stop) -> None:
        paths, begun, go_on = garbage(store, 3), threading.Event(), threading.Event()
        remove = store.disk.remove

        def slowly(path: str) -> None:
            begun.set()
            assert go_on.wait(5)
            remove(path)

        monkeypatch.setattr(store.disk, "remove", slowly)
        task = asyncio.create_task(cleaner.run())
        await until(begun.is_set)
        if ended_by == "stop":
            stop.set()
        else:
            task.cancel()
        await asyncio.sleep(0.02)
        assert not task.done(), "a thread is still at work on the log's files"
        go_on.set()
        await asyncio.wait([task])
        assert not failure.tripped
        assert [path.exists() for path in paths] == [False, True, True]

    run(tmp_path, check, retention_check_ms=1)


def test_a_topic_that_is_deleted_while_it_is_cleaned_ends_its_round_and_no_broker(tmp_path: Path) -> None:
    async def check(store: OneLog, cleaner: Cleaner, failure: Failure, stop: Stop) -> None:
        task = asyncio.create_task(cleaner.run())
        await until(lambda: bool(store.leftovers))
        store.is_open = False
        store.disk.rename(store.log.place.directory, f"{tmp_path}/trash")
        store.log.abandon()
        await until(lambda: cleaner.figures.cancelled == 1)
        assert not failure.tripped
        stop.set()
        await task

    run(tmp_path, check, retention_check_ms=1, cleaner_bytes_per_second=65536)
