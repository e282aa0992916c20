"""A round of cleaning over a log that is deleted, closed or cut under it, and the files that it
keeps open."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from minilog.config import TopicSettings
from minilog.storage.compaction.cleaning_round import Round, survey
from minilog.storage.compaction.rewrite import CleaningFigures
from minilog.storage.log.log import PartitionLog
from minilog.storage.log.stored_log import OPEN_SEALED_MAX
from minilog.storage.store import Store
from minilog.wire.batch import split, stamp
from minilog.wire.records import Record
from tests.unit.storage.batches import flush, open_in
from tests.unit.storage.compaction.rounds import clean_now
from tests.unit.storage.memory_disk import MemoryDisk
from tests.unit.wire.batches import encode_batch

COMPACT = TopicSettings(segment_bytes=4096, cleanup_policy="compact")
NOW_MS = 10**13
OLD, NEW = "a" * 32, "b" * 32


class MeddledDisk(MemoryDisk):
    """Something else happens on the loop before one of the operations of the thread."""

    left = 1 << 30
    meddle: Callable[[], None]

    def _meet(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.meddle()

    def open(self, path: str) -> int:
        self._meet()
        return super().open(path)

    def pread(self, handle: int, position: int, size: int) -> bytes:
        self._meet()
        return super().pread(handle, position, size)

    def _count(self, operation: str, path: str = "") -> None:
        self._meet()
        super()._count(operation, path)


def put(log: PartitionLog, count: int, keys: int = 1) -> None:
    for n in range(count):
        (batch,) = split(encode_batch([Record(0, 1000 + n, b"key%d" % (n % keys), bytes(2500))]), 1 << 20)
        log.append([stamp(batch, log.end_offset, 0, 3)])
    flush(log)
    log.high_watermark = log.end_offset


def started(disk: MemoryDisk) -> tuple[Store, PartitionLog]:
    disk.mkdir("/data")
    disk.fsync_dir("/")
    store = Store(disk, "/data", 1, lambda: 0)
    store.start("boot-1")
    log = store.open("t", OLD, 0, COMPACT)
    put(log, 6)
    return store, log


def delete(store: Store) -> None:
    store.delete("t", OLD, 0)


def delete_and_make_again(store: Store) -> None:
    store.delete("t", OLD, 0)
    put(store.open("t", NEW, 0, COMPACT), 6)


def close(store: Store) -> None:
    store.close("t", 0)


def begin_anew(store: Store) -> None:
    log = store.get("t", 0)
    assert log is not None
    log.reset(100)


def let_go(store: Store) -> None:
    log = store.get("t", 0)
    assert log is not None
    log.advance_start(log.end_offset - 1)


@pytest.mark.parametrize("meddle", [delete, delete_and_make_again, close, begin_anew, let_go])
def test_a_round_over_a_log_that_goes_meanwhile_is_given_up(meddle: Callable[[Store], None]) -> None:
    for at in range(1, 200):
        disk = MeddledDisk()
        store, log = started(disk)
        round_ = Round(log, survey(log, NOW_MS).end_offset, NOW_MS, CleaningFigures())
        disk.meddle = lambda store=store: meddle(store)  # type: ignore[misc]
        before = disk.open_handles
        disk.left = at
        for group in round_.prepare():
            written = round_.clean(group)
            if disk.left > 0:
                return  # the whole of the thread's work has been met
            assert not (written and round_.install(group))
        assert not round_.complete()
        round_.close()
        assert disk.open_handles <= before
        there = disk.list("/data/t-0") if "t-0" in disk.list("/data") else []
        if meddle is not close:  # whose next opening removes it
            assert not [name for name in there if "cleaned" in name or name.count("-") == 1], (at, there)
        assert len(store.get("t", 0).recompute_epochs()) == 1 if meddle is delete_and_make_again else True  # type: ignore[union-attr]
    raise AssertionError("the round never ended")


def test_a_round_opens_one_segment_at_a_time() -> None:
    disk = MemoryDisk()
    log = open_in(disk, COMPACT)
    put(log, 200, keys=20)
    before = highest = disk.open_handles

    def watch(bytes_total: int) -> None:
        nonlocal highest
        highest = max(highest, disk.open_handles)

    round_ = Round(log, survey(log, NOW_MS).end_offset, NOW_MS, CleaningFigures(), watch)
    for group in round_.prepare():
        assert not round_.clean(group) or round_.install(group)
    assert round_.complete()
    round_.close()
    assert highest <= before + 3
    assert disk.open_handles <= before + 1


def test_looking_at_a_log_leaves_no_more_files_open_than_reading_it() -> None:
    disk = MemoryDisk()
    log = open_in(disk, COMPACT)
    for n in range(100):
        put(log, 1, keys=200)
        if n % 10 == 0:  # more rolls between two looks than files are kept open
            survey(log, NOW_MS)
            clean_now(log, NOW_MS)
    assert sum(segment.is_open for segment in log.segments) <= OPEN_SEALED_MAX + 2
