"""Disks that are full when a store starts or writes what it knows."""

from __future__ import annotations

import pytest

from minilog.config import TopicSettings
from minilog.errors import DiskFull
from minilog.storage.store import Store
from tests.unit.storage.batches import make
from tests.unit.storage.memory_disk import MemoryDisk
from tests.unit.storage.store.store_bench import full_at, started


def test_a_cluster_that_found_no_room_is_saved_when_it_comes_again() -> None:
    """It must not count as saved while the disk does not hold it."""
    disk = MemoryDisk()
    store = started(disk)
    full_at(disk, "create meta.json.tmp", lambda: store.bind_cluster("c1"))
    assert store.cluster_id == ""
    store.bind_cluster("c1")
    store.abandon()
    assert started(disk).cluster_id == "c1"


def test_a_start_that_finds_no_room_costs_nothing() -> None:
    """The next one, with room, is as clean as this one would have been."""
    disk = MemoryDisk()
    disk.mkdir("/data")
    disk.fsync_dir("/")
    store = Store(disk, "/data", 1, lambda: 0)
    store.start("boot-1")
    store.registered()
    log = store.open("t", "a" * 32, 0, TopicSettings())
    log.append([make(0)])
    store.close_cleanly(7)
    disk.crash()
    disk.full = True
    with pytest.raises(DiskFull):
        Store(disk, "/data", 1, lambda: 0).start("boot-2")
    disk.full = False
    again = Store(disk, "/data", 1, lambda: 0)
    assert again.start("boot-2")
    assert again.last_broker_epoch == 7
