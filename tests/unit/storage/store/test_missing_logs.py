"""Logs that are gone, or that nobody knows: missed, told of, begun anew."""

from __future__ import annotations

import pytest

from minilog.errors import DiskFull
from minilog.storage import checkpoint
from minilog.wire.journal.metadata_copy import MetadataCopy
from minilog.wire.journal.metadata_records import PartitionChanged, TopicCreated
from minilog.wire.messages import ReplicaName
from tests.unit.storage.batches import fill, flush
from tests.unit.storage.memory_disk import MemoryDisk
from tests.unit.storage.store.store_bench import LONGEST, SETTINGS, flush_all, started, store_on


def test_a_log_that_is_gone_is_lost_and_the_others_are_not() -> None:
    """R37: someone moved the directory away. The broker must not count as complete for that
    partition."""
    for deleted in (False, True):
        disk = MemoryDisk()
        store = started(disk)
        fill(store.open("events", "id-1", 0, SETTINGS), 5)
        store.close_cleanly(broker_epoch=3)
        if deleted:
            disk.rename("/data/events-0", "/data/trash/events-0.1")
        else:
            disk.rename("/data/events-0", "/elsewhere")
        store = store_on(disk)
        assert store.start("boot-1")
        assert store.lost == ([] if deleted else [ReplicaName("events", "id-1", 0)])


@pytest.mark.parametrize(("cluster_id", "counts"), [("mine", True), ("another", False)])
def test_a_copy_of_another_clusters_metadata_says_nothing_of_this_one(cluster_id: str, counts: bool) -> None:
    """R38: shown to the controller, it would say that the journal is not the one that was followed,
    and end it."""
    disk = MemoryDisk()
    store = started(disk)
    store.bind_cluster("mine")
    replica = PartitionChanged("events", "id-1", 0, [1], 1, 0, 0, [1])
    store.save_metadata(MetadataCopy(cluster_id, 3, "term", 100, [TopicCreated("events", "id-1", {}), replica]))
    store.close_cleanly(broker_epoch=3)
    store = store_on(disk)
    store.start("boot-1")
    assert (store.metadata.metadata_offset, store.lost) == (
        (100, [ReplicaName("events", "id-1", 0)]) if counts else (0, [])
    )


def test_a_copy_that_is_older_than_its_directory_says_nothing() -> None:
    """All but the copy was removed by hand, and the controller began anew."""
    disk = MemoryDisk()
    store = started(disk)
    store.bind_cluster("before")
    store.save_metadata(MetadataCopy("before", 3, "term", 100, []))
    store.abandon()
    for name in disk.list("/data"):
        if name.startswith("meta.json"):
            disk.remove(f"/data/{name}")
    store = store_on(disk)
    store.start("boot-1")
    assert (store.cluster_id, store.metadata) == ("", MetadataCopy())


@pytest.mark.parametrize("boots", [["b1"] * 5, ["b1", "b2", "b3", "b4", "b5"]], ids=["one boot", "many boots"])
def test_a_log_that_is_gone_is_missed_until_the_controller_has_heard_of_it(boots: list[str]) -> None:
    """R37: the operator removes what a topic that was deleted meanwhile has left."""
    disk = MemoryDisk()
    store = started(disk, boots[0])
    for topic in ("kept", "stray"):
        fill(store.open(topic, f"id-{topic}", 0, SETTINGS), 3)
    store.close_cleanly(7)
    disk.rename("/data/stray-0", "/elsewhere")
    told = []
    for boot in [boots[1], *boots[1:]]:
        store = store_on(disk)
        assert store.start(boot)
        told.append(bool(store.lost))
        if len(told) > 1:  # the first one ends before it is registered
            store.registered()
            store.open("kept", "id-kept", 0, SETTINGS)
        store.close_cleanly(8)
        disk.kill()
    assert told == [True, True, False, False, False]


def test_a_log_that_found_no_room_at_first_is_synced_with_both_of_its_directories() -> None:
    """R69: its own directory was made, and its first segment was not. Not every file system keeps
    names in order."""
    for at in range(1, 20):
        disk = MemoryDisk()
        store = started(disk)
        disk.faults[len(disk.operations) + at] = "full"
        try:
            store.open("events", "id-1", 0, SETTINGS)
        except DiskFull:
            log = store.open("events", "id-1", 0, SETTINGS)
        else:
            assert at > 3
            return
        before = len(disk.operations)
        fill(log, 3)
        flush(log)
        assert {"fsync_dir events-0", "fsync_dir data"} <= set(disk.operations[before:]), f"full at operation {at}"
    raise AssertionError("it never had room")


def test_a_log_whose_directory_was_moved_away_begins_anew_and_whole() -> None:
    """What recovery points remember of the old one is not missing from the new one."""
    disk = MemoryDisk()
    store = started(disk)
    fill(store.open("events", "id-1", 0, SETTINGS), 5)
    store.close_cleanly(broker_epoch=3)
    disk.rename("/data/events-0", "/elsewhere")
    log = started(disk).open("events", "id-1", 0, SETTINGS)
    assert (log.start_offset, log.end_offset, log.is_damaged) == (0, 0, False)


def test_what_nobody_knows_is_put_aside_told_of_and_not_missed(caplog: pytest.LogCaptureFixture) -> None:
    disk = MemoryDisk()
    store = started(disk)
    for partition in (0, 1):
        log = store.open("events", "id-1", partition, SETTINGS)
        fill(log, 3)
        flush(log)
    store.checkpoint()
    store.put_aside("events", "id-2", 0)
    assert store.strays == 0
    store.close("events", 0)
    content = disk.list("/data/events-0")
    store.put_aside("events", "id-1", 0)
    store.put_aside("events", "id-1", 1)
    assert (store.partitions(), store.get("events", 1), store.strays) == ([], None, 2)
    assert disk.list("/data/stray/events-0.1") == content
    store.purge_trash()
    disk.crash()
    caplog.clear()
    again = started(disk)
    assert (again.partitions(), again.lost, again.strays) == ([], [], 2)
    (said,) = caplog.messages
    assert "events-0.1, events-1.1" in said
    for name in disk.list("/data/stray/events-0.1"):
        disk.remove(f"/data/stray/events-0.1/{name}")
    disk.remove("/data/stray/events-0.1")
    again.checkpoint()
    assert again.strays == 1, "an operator has dropped one"


@pytest.mark.parametrize(
    ("topic_id", "partition", "end_offset"), [("id-1", 0, 3), ("id-2", 0, 0), ("id-1", 1, 0), ("id-1", 2, 0)]
)
def test_a_log_that_was_put_aside_goes_back_to_its_place_and_to_no_other(
    topic_id: str, partition: int, end_offset: int
) -> None:
    """Of partition 2 there are two: an operator decides."""
    disk = MemoryDisk()
    store = started(disk)
    for made in (0, 2):
        log = store.open("events", "id-1", made, SETTINGS)
        fill(log, 3)
        flush(log)
        store.put_aside("events", "id-1", made)
    disk.mkdir("/data/stray/events-2.2")
    whose = checkpoint.read_file(disk, "/data/stray/events-2.1/partition.json")
    assert whose is not None
    checkpoint.write_synced(disk, "/data/stray/events-2.2/partition.json", whose)
    for name in ("/data/stray/events-2.2", "/data/stray"):
        disk.fsync_dir(name)
    store.abandon()
    store = started(disk)
    log = store.open("events", topic_id, partition, SETTINGS)
    assert log.end_offset == end_offset
    fill(log, 1)
    flush(log)
    disk.crash()
    again = started(disk)
    assert again.open("events", topic_id, partition, SETTINGS).end_offset == end_offset + 1
    assert again.strays == 3 - (end_offset > 0)


def test_what_is_in_the_trash_is_not_missed_while_a_checkpoint_speaks_of_it() -> None:
    """The topic went and the records with it, to make room. There was none for the checkpoint. Then
    the process is killed."""
    disk = MemoryDisk()
    store = started(disk)
    for topic in ("events", LONGEST):
        fill(store.open(topic, f"id-{topic[0]}", 10, SETTINGS), 3)
        flush_all(store)
    store.checkpoint()
    for topic in ("events", LONGEST):
        store.delete(topic, f"id-{topic[0]}", 10)
    disk.full = True
    with pytest.raises(DiskFull):
        store.checkpoint()
    assert store.purge_trash() > 0
    assert [disk.list(f"/data/trash/{name}") for name in disk.list("/data/trash")] == [["partition.json"]] * 2
    disk.full = False
    disk.kill()
    store = store_on(disk)
    assert store.start("boot-1"), "nothing is missing that was not deleted"
    store.checkpoint()
    store.purge_trash()
    assert disk.list("/data/trash") == [], "the checkpoint says nothing of them any more"


@pytest.mark.parametrize("is_made_anew", [False, True])
def test_a_log_that_vanished_is_missed_whatever_lies_in_the_trash(is_made_anew: bool) -> None:
    """R37: an older topic of that name was deleted, and this one was not."""
    disk = MemoryDisk()
    store = started(disk)
    if is_made_anew:
        fill(store.open("events", "id-1", 0, SETTINGS), 5)
        store.delete("events", "id-1", 0)
    fill(store.open("events", "id-2", 0, SETTINGS), 20)
    flush_all(store)
    store.checkpoint()
    disk.kill()
    for name in disk.list("/data/events-0"):
        disk.remove(f"/data/events-0/{name}")
    disk.remove("/data/events-0")
    store = store_on(disk)
    assert store.start("boot-1")
    assert store.lost == [ReplicaName("events", "id-2", 0)]
