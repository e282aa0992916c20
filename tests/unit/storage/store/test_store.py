"""A store of a broker: what a start finds is what a stop or a crash has left."""

from __future__ import annotations

import random

import pytest

from minilog.core.ports import LogStore
from minilog.errors import DiskFull, RefusesToStart, StorageFailed
from minilog.storage.directories import StoredPartition
from minilog.storage.store import Store
from tests.unit.storage.batches import everything, fill, flush
from tests.unit.storage.memory_disk import Crash, MemoryDisk
from tests.unit.storage.store.store_bench import SETTINGS, started, store_on


def test_a_store_is_what_the_core_expects() -> None:
    store = started(MemoryDisk())
    port: LogStore = store
    assert (port.cluster_id, port.controller_epoch) == ("", 0)
    log = port.open("events", "id-1", 0, SETTINGS)
    assert log is port.open("events", "id-1", 0, SETTINGS) is store.get("events", 0)
    assert store.get("events", 1) is None
    assert store.partitions() == [StoredPartition("events", "id-1", 0)]
    assert [stored for stored, _ in store.logs()] == store.partitions()


def test_a_clean_stop_brings_everything_back() -> None:
    disk = MemoryDisk()
    store = started(disk)
    store.bind_cluster("c1")
    store.save_controller_epoch(7)
    log = store.open("events", "id-1", 3, SETTINGS)
    fill(log, 20, epoch=2, size=900)
    log.high_watermark = 17
    stored = everything(log)
    store.close_cleanly(broker_epoch=42)
    assert disk.open_handles == 0
    disk.crash()
    again = store_on(disk)
    assert again.start("boot-2")
    assert (again.last_broker_epoch, again.cluster_id, again.controller_epoch) == (42, "c1", 7)
    log = again.open("events", "id-1", 3, SETTINGS)
    assert everything(log) == stored
    assert (log.high_watermark, log.durable_end, log.last_epoch) == (17, 20, 2)


def test_what_was_flushed_survives_a_power_cut_with_its_directory() -> None:
    disk = MemoryDisk()
    log = started(disk).open("events", "id-1", 0, SETTINGS)
    fill(log, 2)
    flush(log)
    disk.crash()
    log = started(disk, "boot-2").open("events", "id-1", 0, SETTINGS)
    assert (log.end_offset, disk.list("/data/trash")) == (2, [])


def test_what_recovery_calls_durable_survives_a_power_cut() -> None:
    disk = MemoryDisk()
    store = started(disk)
    fill(store.open("events", "id-1", 0, SETTINGS), 2)
    store.abandon()
    assert started(disk).open("events", "id-1", 0, SETTINGS).durable_end == 2
    disk.crash()
    assert started(disk, "boot-2").open("events", "id-1", 0, SETTINGS).end_offset == 2


def test_a_directory_that_was_never_finished_is_removed() -> None:
    disk = MemoryDisk()
    store = started(disk)
    disk.mkdir("/data/events-0.new")
    disk.close(disk.create("/data/events-0.new/partition.json"))
    store.abandon()
    store = started(disk)
    assert ("events-0.new" in disk.list("/data"), store.partitions()) == (False, [])


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("step", ["flush", "roll", "truncate", "reset", "close"])
def test_the_first_claim_of_durability_covers_the_directory(step: str, killed: bool) -> None:
    disk = MemoryDisk()
    store = started(disk)
    log = store.open("events", "id-1", 0, SETTINGS)
    if killed:
        store.abandon()
        store = started(disk)
        log = store.open("events", "id-1", 0, SETTINGS)
    fill(log, 2, size=3000)
    if step == "flush":
        flush(log)
    elif step == "roll":
        fill(log, 1, size=3000)
    elif step == "truncate":
        log.truncate(1)
    elif step == "reset":
        log.reset(50)
    else:
        store.close("events", 0)
    durable_end = log.durable_end
    assert durable_end > 0
    disk.crash()
    log = started(disk, "boot-2").open("events", "id-1", 0, SETTINGS)
    assert log.end_offset >= durable_end
    everything(log)


def test_an_unchanged_checkpoint_is_not_written_again() -> None:
    disk = MemoryDisk()
    store = started(disk)
    log = store.open("events", "id-1", 0, SETTINGS)
    fill(log, 1)
    store.checkpoint()
    before = len(disk.operations)
    store.checkpoint()
    assert len(disk.operations) == before
    flush(log)
    store.checkpoint()
    assert len(disk.operations) > before


def test_a_partition_of_which_only_the_name_became_durable_is_made_anew() -> None:
    disk = MemoryDisk()
    started(disk)
    disk.mkdir("/data/events-0")
    disk.fsync_dir("/data")
    disk.crash()
    assert disk.list("/data/events-0") == []
    store = started(disk)
    assert store.partitions() == []
    assert fill(store.open("events", "id-2", 0, SETTINGS), 1)


def life(store: Store) -> None:
    """What a broker does in its life, touching every kind of operation."""
    store.bind_cluster("c1")
    store.registered()
    store.save_controller_epoch(store.controller_epoch + 1)
    log = store.open("events", "id-1", 0, SETTINGS)
    fill(log, 8, epoch=max(log.last_epoch, 0) + 1, size=1500)
    flush(log)
    log.high_watermark = log.end_offset - 6
    store.checkpoint()
    log.truncate(log.end_offset - 5)
    fill(log, 2, epoch=log.last_epoch + 1, size=1500)
    flush(log)
    log.advance_start(log.high_watermark)
    other = store.open("other", f"id-{store.controller_epoch}", 1, SETTINGS)
    fill(other, 2)
    other.reset(100)
    fill(other, 2)
    store.delete("other", f"id-{store.controller_epoch}", 1)
    store.purge_trash()
    store.close_cleanly(store.controller_epoch)


@pytest.mark.parametrize("fault", ["crash", "full", "error"])
def test_a_fault_at_every_operation_of_a_life_leaves_a_directory_that_starts(fault: str) -> None:
    reached = 0
    for at in range(1, 1000):
        disk = MemoryDisk()
        store = store_on(disk)
        disk.faults[len(disk.operations) + at] = fault
        finished = False
        try:
            store.start("boot-1")
            life(store)
            finished = True
        except (Crash, DiskFull, StorageFailed, RefusesToStart):
            reached += 1
        if finished and at > len(disk.operations):
            break
        disk.crash(random.Random(at) if at % 2 else None)
        again = started(disk, "boot-2")
        for stored in again.partitions():
            log = again.open(stored.topic, stored.topic_id, stored.partition, SETTINGS)
            assert not log.is_damaged
            everything(log)
            assert log.epoch_entries == log.recompute_epochs()
        life(again)
        assert disk.open_handles == 0
    else:
        raise AssertionError("the life never ended without a fault")
    assert reached > 60
