"""A sector that cannot be read in a file that others can be made from costs its making, and nothing
else."""

from __future__ import annotations

import pytest

from minilog.config import TopicSettings
from minilog.errors import CorruptRange
from minilog.storage.log.log import PartitionLog
from minilog.storage.store import Store
from tests.sim.nodes.disk import File
from tests.unit.storage.batches import everything, fill, flush, grow_old, make, open_in
from tests.unit.storage.memory_disk import MemoryDisk


class BadSectorDisk(MemoryDisk):
    bad: File | None = None

    def pread(self, handle: int, position: int, size: int) -> bytes:
        if self._opened(handle) is self.bad and size:
            raise CorruptRange(f"bytes from {position} on could not be read: Input/output error")
        return super().pread(handle, position, size)


def opened(suffix: str) -> PartitionLog:
    """A log of several segments. Of the first one the file with this suffix cannot be read."""
    disk = BadSectorDisk()
    log = open_in(disk)
    fill(log, 8, size=2000)
    flush(log)
    log.high_watermark = log.end_offset
    again = open_in(disk, point=log.close())
    name = next(name for name in disk.list("/d/t-0") if name.endswith(suffix))
    disk.bad = disk.file(f"/d/t-0/{name}")
    return again


@pytest.mark.parametrize("suffix", [".timeindex", ".index"])
def test_an_index_that_cannot_be_read_is_made_anew(suffix: str) -> None:
    log = opened(suffix)
    grow_old(log, 10**10)
    assert log.expired_end(10**13) == log.segments[-1].base_offset
    assert log.offset_at(0) == (0, 1000)
    everything(log)
    assert not log.is_damaged


def started(disk: BadSectorDisk) -> Store:
    store = Store(disk, "/data", 1, lambda: 0)
    store.start("boot-1")
    return store


def store_with_a_log(disk: BadSectorDisk) -> Store:
    disk.mkdir("/data")
    disk.fsync_dir("/")
    store = started(disk)
    store.registered()
    log = store.open("t", "a" * 32, 0, TopicSettings())
    log.append([make(0)])
    log.flush()
    store.checkpoint()
    return store


def test_the_trash_is_emptied_whatever_can_be_read_of_it() -> None:
    disk = BadSectorDisk()
    store = store_with_a_log(disk)
    store.delete("t", "a" * 32, 0)
    store.checkpoint()
    disk.bad = disk.file("/data/trash/t-0.1/partition.json")
    store.purge_trash()
    assert disk.list("/data/trash") == []


@pytest.mark.parametrize("name", ["recovery-points", "running", "clean-shutdown"])
def test_a_store_starts_without_what_it_can_do_without(name: str) -> None:
    disk = BadSectorDisk()
    store_with_a_log(disk).close_cleanly(7)
    disk.bad = disk.file(f"/data/{name}")
    again = started(disk)
    assert again.open("t", "a" * 32, 0, TopicSettings()).end_offset == 1
