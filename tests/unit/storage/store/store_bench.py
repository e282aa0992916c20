"""Stores on a disk in memory, started and stopped."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from minilog.config import TopicSettings
from minilog.errors import DiskFull, RefusesToStart
from minilog.storage.store import Store
from tests.unit.storage.batches import NOW_MS, fill, flush
from tests.unit.storage.memory_disk import MemoryDisk

SETTINGS = TopicSettings(segment_bytes=8192)


def store_on(disk: MemoryDisk, broker_id: int = 1) -> Store:
    disk.mkdir("/data")
    disk.fsync_dir("/")
    return Store(disk, "/data", broker_id, lambda: NOW_MS)


def started(disk: MemoryDisk, boot_id: str = "boot-1") -> Store:
    """Started, and the controller knows of it."""
    store = store_on(disk)
    store.start(boot_id)
    store.registered()
    return store


def refusal(disk: MemoryDisk, broker_id: int = 1) -> str:
    with pytest.raises(RefusesToStart) as caught:
        store_on(disk, broker_id).start("boot-1")
    return str(caught.value)


LONGEST = "t" * 249


def flush_all(store: Store) -> None:
    for _, log in store.logs():
        flush(log)


def full_at(disk: MemoryDisk, operation: str, action: Callable[[], object]) -> None:
    """Do ``action`` on a full disk, which is felt at ``operation``."""
    disk.faults = dict.fromkeys(range(len(disk.operations) + 1, 10000), "full")
    with pytest.raises(DiskFull):
        action()
    disk.faults = {}
    assert disk.operations[-1] == operation


def crashed_with_logs(count: int, settings: TopicSettings = SETTINGS) -> MemoryDisk:
    """A machine that lost its power, with ``count`` logs of several segments."""
    disk = MemoryDisk()
    store = started(disk)
    for partition in range(count):
        log = store.open("events", "id-1", partition, settings)
        fill(log, 30, size=900)
        flush(log)
    disk.crash()
    return disk
