"""When a start may trust what the last process has left."""

from __future__ import annotations

import pytest

from minilog.errors import RefusesToStart, StorageFailed
from minilog.storage.store import Store
from tests.unit.storage.batches import NOW_MS, fill, flush
from tests.unit.storage.memory_disk import MemoryDisk
from tests.unit.storage.store.store_bench import SETTINGS, started, store_on


def test_clean_or_not() -> None:
    disk = MemoryDisk()
    assert store_on(disk).start("boot-1") is False, "an empty directory may be a replaced disk"
    disk.crash()
    assert store_on(disk).start("boot-1") is False, "still unclean: nobody was told"
    disk.crash()

    def next_start(boot_id: str) -> tuple[Store, bool]:
        store = store_on(disk)
        return store, store.start(boot_id)

    store, _ = next_start("boot-1")
    store.registered()
    store.abandon()
    store, clean = next_start("boot-1")
    assert clean, "kill -9: the page cache is whole"
    store.abandon()
    store, clean = next_start("boot-2")
    assert not clean, "the machine has restarted"
    store.abandon()
    store, clean = next_start("boot-2")
    assert not clean, "and nobody was told of it"
    store.registered()
    store.close_cleanly(9)
    store, clean = next_start("boot-3")
    assert (clean, store.last_broker_epoch) == (True, 9)
    store.abandon()
    store, clean = next_start("boot-3")
    assert (clean, store.last_broker_epoch) == (True, -1)
    store.distrust()
    store.abandon()
    assert not next_start("boot-3")[1], "after a disk failure the page cache proves nothing"


def test_an_unknown_boot_id_is_never_trusted() -> None:
    disk = MemoryDisk()
    store = store_on(disk)
    store.start("")
    store.registered()
    store.abandon()
    assert store_on(disk).start("") is False


def test_the_marker_is_gone_before_anything_else_happens() -> None:
    disk = MemoryDisk()
    started(disk).close_cleanly(5)
    store_on(disk).start("boot-1")
    disk.crash()
    assert store_on(disk).start("boot-2") is False


def test_a_clean_stop_before_registration_vouches_for_nothing() -> None:
    """The disk was replaced, and the process stopped in order before it could tell: the next start
    is unclean still."""
    disk = MemoryDisk()
    store = store_on(disk)
    assert store.start("boot-1") is False
    store.close_cleanly(-1)
    assert store_on(disk).start("boot-1") is False


def test_a_damaged_marker_is_no_marker() -> None:
    disk = MemoryDisk()
    started(disk).close_cleanly(5)
    disk.file("/data/clean-shutdown").content[30] ^= 1
    assert store_on(disk).start("boot-2") is False


def test_tear_or_corruption_is_judged_by_the_boot_of_the_last_checkpoint() -> None:
    """A power cut stays one for a log that the first process after it never opened."""
    for boot_id, damaged in (("boot-2", False), ("boot-1", True)):
        disk = MemoryDisk()
        store = started(disk)
        log = store.open("events", "id-1", 0, SETTINGS)
        fill(log, 3)
        flush(log)
        store.checkpoint()
        fill(log, 1)
        disk.file("/data/events-0/00000000000000000000.log").content[-1] ^= 1
        store.abandon()
        started(disk, boot_id).abandon()
        log = started(disk, boot_id).open("events", "id-1", 0, SETTINGS)
        assert (log.end_offset, log.is_damaged) == (3, damaged)


def test_a_log_without_any_checkpoint_is_judged_by_the_boot_it_was_made_in() -> None:
    for boot_id, damaged in (("boot-2", False), ("boot-1", True)):
        disk = MemoryDisk()
        store = started(disk)
        log = store.open("events", "id-1", 0, SETTINGS)
        fill(log, 3)
        disk.file("/data/events-0/00000000000000000000.log").content[-1] ^= 1
        store.abandon()
        log = started(disk, boot_id).open("events", "id-1", 0, SETTINGS)
        assert (log.end_offset, log.is_damaged) == (2, damaged)


def test_a_disk_that_failed_in_this_boot_vouches_for_no_log_made_in_it() -> None:
    disk = MemoryDisk()
    store = started(disk)
    log = store.open("events", "id-1", 0, SETTINGS)
    fill(log, 3)
    store.distrust()
    disk.kill()
    disk.file("/data/events-0/00000000000000000000.log").content[-1] ^= 1
    store = started(disk)
    assert not store.was_clean
    store.abandon()
    log = started(disk).open("events", "id-1", 0, SETTINGS)
    assert (log.end_offset, log.is_damaged) == (2, False)


@pytest.mark.parametrize("is_full", [False, True])
def test_what_was_written_since_the_machine_started_is_not_torn_by_it(is_full: bool) -> None:
    """After a power cut an end that nothing good follows is torn. Only what was written before the
    cut can be."""
    disk = MemoryDisk()
    store = started(disk)
    log = store.open("events", "id-1", 0, SETTINGS)
    fill(log, 3)
    flush(log)
    store.checkpoint()
    disk.crash()
    store = store_on(disk)
    store.start("boot-2")
    disk.full = is_full
    store.recover(lambda: None)  # on a full disk the next checkpoint has to say it
    disk.full = False
    log = store.open("events", "id-1", 0, SETTINGS)
    fill(log, 1)
    if is_full:
        store.checkpoint()
    disk.kill()
    disk.file("/data/events-0/00000000000000000000.log").content[-10] ^= 1
    for _ in range(2):
        store = store_on(disk)
        store.start("boot-2")
        log = store.open("events", "id-1", 0, SETTINGS)
        assert log.is_damaged, "a bit has changed: this replica must not lead"
        store.abandon()


def test_a_disk_that_cannot_even_withdraw_the_marker_is_not_trusted_either() -> None:
    disk = MemoryDisk()
    store = started(disk)
    log = store.open("events", "id-1", 0, SETTINGS)
    fill(log, 3)
    disk.read_only = True
    with pytest.raises(StorageFailed):
        flush(log)
    disk.kill()
    with pytest.raises(RefusesToStart, match="read-only"):
        Store(disk, "/data", 1, lambda: NOW_MS).start("boot-1")
    disk.kill()
    disk.read_only = False
    assert store_on(disk).start("boot-1") is False, "the marker is still there, and so is the doubt"
    disk.kill()
    store = store_on(disk)
    assert store.start("boot-1") is False, "nobody was told"
    store.registered()
    disk.kill()
    assert store_on(disk).start("boot-1"), "the doubt is over"


def test_a_sync_that_fails_withdraws_the_marker_before_anybody_hears_of_it() -> None:
    disk = MemoryDisk()
    log = started(disk).open("events", "id-1", 0, SETTINGS)
    fill(log, 3)
    disk.failure = "input/output error"
    with pytest.raises(StorageFailed):
        log.flush_job().run()
    assert "running" not in disk.list("/data")
