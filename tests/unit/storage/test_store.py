from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from minilog.config import TopicSettings
from minilog.core.ports import LogStore
from minilog.errors import CorruptRange, DiskFull, NameRefused, RefusesToStart, StorageFailed
from minilog.storage import checkpoint
from minilog.storage.directories import StoredPartition
from minilog.storage.disk import OsDisk
from minilog.storage.store import Checked, Store
from minilog.wire.batch import split, stamp
from minilog.wire.journal.metadata_copy import MetadataCopy
from minilog.wire.journal.metadata_records import PartitionChanged, TopicCreated
from minilog.wire.messages import ReplicaName
from minilog.wire.records import encode_values
from tests.sim.nodes.disk import File
from tests.unit.storage.batches import NOW_MS, everything, fill, flush, make
from tests.unit.storage.memory_disk import Crash, MemoryDisk

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


def test_refuses_a_directory_in_use() -> None:
    disk = MemoryDisk()
    started(disk)
    assert refusal(disk) == (
        "/data is in use by another process: stop it first, or give this broker a data_dir of its own"
    )


def test_refusal_names_the_process_that_holds_the_lock(tmp_path: Path) -> None:
    first = Store(OsDisk(), str(tmp_path), 1, lambda: NOW_MS)
    first.start("boot-1")
    first.registered()
    with pytest.raises(RefusesToStart, match=r"in use by process \d+: stop it first"):
        Store(OsDisk(), str(tmp_path), 1, lambda: NOW_MS).start("boot-1")
    first.close_cleanly(1)
    assert Store(OsDisk(), str(tmp_path), 1, lambda: NOW_MS).start("boot-1")


def test_refuses_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RefusesToStart, match=r"cannot be used: could not make the directory .*file/data"):
        Store(OsDisk(), f"{tmp_path}/file/data", 1, lambda: NOW_MS).start("boot-1")


def test_refuses_the_directory_of_another_broker() -> None:
    disk = MemoryDisk()
    started(disk).close_cleanly(1)
    assert refusal(disk, broker_id=2) == (
        "/data/meta.json belongs to broker 1, this is broker 2: correct broker_id or data_dir in the configuration"
    )
    assert disk.open_handles == 0
    assert store_on(disk).start("boot-1"), "a refusal changes nothing"


def test_refuses_the_directory_of_another_cluster() -> None:
    disk = MemoryDisk()
    store = started(disk)
    store.bind_cluster("c1")
    store.bind_cluster("c1")
    with pytest.raises(RefusesToStart) as caught:
        store.bind_cluster("c2")
    assert str(caught.value) == (
        "/data belongs to cluster 'c1', the controller leads cluster 'c2': "
        "correct controller_url or data_dir in the configuration"
    )
    assert store.cluster_id == "c1"


def test_refuses_an_unknown_format() -> None:
    disk = MemoryDisk()
    started(disk).close_cleanly(1)
    checkpoint.save(disk, "/data/meta.json", {"broker_id": 1, "format": 3})
    assert refusal(disk) == (
        "/data/meta.json says data format 3, this version of minilog reads format 2: start the version that wrote it"
    )
    checkpoint.save(disk, "/data/meta.json", {"broker_id": "one", "format": 2})
    assert refusal(disk).startswith("/data/meta.json cannot be read (Expected `int`, got `str`")


def test_refuses_damaged_or_missing_metadata() -> None:
    disk = MemoryDisk()
    store = started(disk)
    store.bind_cluster("c1")
    store.open("events", "id-1", 0, SETTINGS)
    store.close_cleanly(1)
    whole = bytes(disk.file("/data/meta.json").content)
    disk.file("/data/meta.json").content[40] ^= 1
    assert refusal(disk) == (
        "/data/meta.json is damaged (its checksum does not match): restore it from a backup, or check "
        "/data/meta.json.previous and copy it over, or start with an empty data directory"
    )
    disk.remove("/data/meta.json")
    disk.file("/data/meta.json.previous").content[40] ^= 1
    assert "is missing and /data/meta.json.previous is damaged" in refusal(disk)
    disk.remove("/data/meta.json.previous")
    assert refusal(disk) == (
        "/data/meta.json is missing although /data holds partitions (events-0, ...): "
        "restore it from a backup, or start with an empty data directory"
    )
    handle = disk.create("/data/meta.json")
    disk.append(handle, 0, [whole])
    disk.close(handle)
    disk.file("/data/events-0/partition.json").content.clear()
    assert refusal(disk) == (
        "/data/events-0/partition.json is missing or damaged, so it is not known which topic the log beside it belongs "
        "to: restore it from a backup, or move the directory events-0 away to have it copied from its leader"
    )


def test_a_crash_between_two_renames_of_the_metadata_is_no_damage() -> None:
    disk = MemoryDisk()
    store = started(disk)
    store.bind_cluster("c1")
    store.save_controller_epoch(3)
    store.close_cleanly(1)
    disk.rename("/data/meta.json", "/data/meta.json.previous")
    assert started(disk).controller_epoch == 3


def test_a_topic_made_again_under_the_same_name_starts_empty() -> None:
    disk = MemoryDisk()
    store = started(disk)
    old = store.open("events", "id-1", 0, SETTINGS)
    fill(old, 3)
    flush(old)
    store.checkpoint()
    log = store.open("events", "id-2", 0, SETTINGS)
    assert (log.end_offset, store.partitions()) == (0, [StoredPartition("events", "id-2", 0)])
    assert disk.list("/data/trash") == ["events-0.1"]
    fill(log, 1)
    store.abandon()
    log = started(disk).open("events", "id-2", 0, SETTINGS)
    assert (log.end_offset, log.is_damaged) == (1, False)


def test_delete_moves_to_trash_only_what_belongs_to_the_topic_id() -> None:
    disk = MemoryDisk()
    store = started(disk)
    for partition in (0, 1):
        fill(store.open("events", "id-1", partition, SETTINGS), 3)
    store.delete("events", "id-2", 0)
    store.delete("other", "id-1", 0)
    assert len(store.partitions()) == 2
    store.delete("events", "id-1", 0)
    store.close("events", 1)
    store.delete("events", "id-1", 1)
    assert (store.partitions(), store.get("events", 0)) == ([], None)
    assert disk.list("/data/trash") == ["events-0.1", "events-1.1"]
    disk.crash()
    assert started(disk).partitions() == []
    assert started_trash_bytes(disk) > 0


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


LONGEST = "t" * 249


@pytest.mark.parametrize("partition", [0, 10, 99_999])
@pytest.mark.parametrize("kind", ["memory", "real"])
def test_whatever_can_be_opened_can_be_cut_deleted_and_made_again(kind: str, partition: int, tmp_path: Path) -> None:
    """No name that storage makes of a partition's is longer than the partition's own."""
    disk: MemoryDisk | OsDisk = MemoryDisk() if kind == "memory" else OsDisk()
    store = Store(disk, str(tmp_path / "data"), 1, lambda: NOW_MS)
    store.start("boot-1")
    for number in range(3):
        log = store.open(LONGEST, f"id-{number}", partition, SETTINGS)
        fill(log, 3)
        log.truncate(1)
    assert len(disk.list(f"{store.data_dir}/trash")) == 2
    store.checkpoint()
    store.delete(LONGEST, "id-2", partition)
    store.checkpoint()
    store.purge_trash()
    assert disk.list(f"{store.data_dir}/trash") == []
    assert disk.list(f"{store.data_dir}/quarantine") == [f"{LONGEST}-{partition}"]
    assert disk.failure == ""


@pytest.mark.parametrize("kind", ["memory", "real"])
def test_a_name_the_file_system_does_not_take_is_no_failure_of_the_disk(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk: MemoryDisk | OsDisk = MemoryDisk() if kind == "memory" else OsDisk()
    store = Store(disk, str(tmp_path / "data"), 1, lambda: NOW_MS)
    store.start("boot-1")
    for _ in range(3):
        with pytest.raises(NameRefused):
            store.open(LONGEST, "id-1", 100_000, SETTINGS)
    (said,) = caplog.messages
    assert said.startswith(f"no replica of {LONGEST}-100000 can be kept here, the others are not affected: ")
    assert disk.failure == ""
    fill(store.open("events", "id-2", 0, SETTINGS), 1)
    store.registered()
    store.abandon()
    again = Store(disk, str(tmp_path / "data"), 1, lambda: NOW_MS)
    assert again.start("boot-1"), "nothing has shaken the trust in what was written"
    assert [stored.topic for stored in again.partitions()] == ["events"]


def test_a_name_that_is_taken_is_no_failure_of_the_disk_either(tmp_path: Path) -> None:
    """Where file names do not tell upper from lower case, two topics can mean one directory."""
    disk = OsDisk()
    store = Store(disk, str(tmp_path / "data"), 1, lambda: NOW_MS)
    store.start("boot-1")
    taken = tmp_path / "data" / "events-0"
    taken.mkdir()
    (taken / "something").write_text("")
    with pytest.raises(NameRefused, match=r"takes no such name: .*/events-0 "):
        store.open("events", "id-1", 0, SETTINGS)
    assert disk.failure == ""
    fill(store.open("others", "id-2", 0, SETTINGS), 1)


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


class BadSectorDisk(MemoryDisk):
    unreadable: File | None = None

    def pread(self, handle: int, position: int, size: int) -> bytes:
        if self._opened(handle) is self.unreadable and size:
            raise CorruptRange(f"bytes from {position} on could not be read: Input/output error")
        return super().pread(handle, position, size)


@pytest.mark.parametrize("path", ["/data/meta.json", "/data/events-0/partition.json"])
def test_a_file_that_cannot_be_read_is_a_refusal_that_names_it(path: str) -> None:
    disk = BadSectorDisk()
    started(disk).open("events", "id-1", 0, SETTINGS)
    disk.kill()
    disk.unreadable = disk.file(path)
    told = refusal(disk)
    assert path in told
    assert "from a backup" in told


def test_a_start_on_a_full_disk_says_where() -> None:
    disk = MemoryDisk()
    started(disk)
    disk.kill()
    disk.full = True
    with pytest.raises(DiskFull, match="/data cannot be used: the disk is full"):
        store_on(disk).start("boot-1")


def test_a_directory_that_somebody_has_left_in_a_partitions_is_no_failure_of_the_disk(tmp_path: Path) -> None:
    disk = OsDisk()
    store = Store(disk, f"{tmp_path}/data", 1, lambda: NOW_MS)
    store.start("boot-1")
    store.open("events", "a", 0, TopicSettings())
    disk.mkdir(f"{store.data_dir}/events-0/mine/notes")
    store.delete("events", "a", 0)
    for _ in range(2):
        store.purge_trash()
        assert disk.list(f"{store.data_dir}/trash/events-0.1") == ["mine"]
    assert not disk.failure
    store.abandon()


def test_a_topic_made_again_does_not_hold_its_predecessors_name_in_the_trash() -> None:
    disk = MemoryDisk()
    store = started(disk)
    for topic_id in ("id-1", "id-2"):
        fill(store.open("events", topic_id, 0, SETTINGS), 3)
        flush_all(store)
        store.checkpoint()
    store.purge_trash()
    assert disk.list("/data/trash") == []


def flush_all(store: Store) -> None:
    for _, log in store.logs():
        flush(log)


def started_trash_bytes(disk: MemoryDisk) -> int:
    disk.crash()
    store = started(disk)
    freed = store.purge_trash()
    assert disk.list("/data/trash") == []
    return freed


@pytest.mark.parametrize("topic", ["../etc", "a/b", "", ".", "..", "a\0b", "x" * 250, "é"])
def test_a_topic_name_cannot_be_a_path(topic: str) -> None:
    store = started(MemoryDisk())
    with pytest.raises(AssertionError):
        store.open(topic, "id-1", 0, SETTINGS)
    with pytest.raises(AssertionError):
        store.open("events", "id-1", -1, SETTINGS)


def test_topic_names_with_dashes_and_digits_are_told_apart() -> None:
    disk = MemoryDisk()
    store = started(disk)
    opened = [("a", 12), ("a-1", 2), ("a-1-2", 0), ("0", 0), ("trash", 1), ("x.new", 3)]
    for topic, partition in opened:
        fill(store.open(topic, f"id of {topic}", partition, SETTINGS), partition)
    store.close_cleanly(1)
    store = started(disk)
    assert [(stored.topic, stored.partition) for stored in store.partitions()] == sorted(opened)
    for topic, partition in opened:
        assert store.open(topic, f"id of {topic}", partition, SETTINGS).end_offset == partition


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


def full_at(disk: MemoryDisk, operation: str, action: Callable[[], object]) -> None:
    """Do ``action`` on a full disk, which is felt at ``operation``."""
    disk.faults = dict.fromkeys(range(len(disk.operations) + 1, 10000), "full")
    with pytest.raises(DiskFull):
        action()
    disk.faults = {}
    assert disk.operations[-1] == operation


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


def test_a_file_that_somebody_left_in_the_trash_ends_no_broker(tmp_path: Path) -> None:
    for disk, data_dir in ((MemoryDisk(), "/data"), (OsDisk(), str(tmp_path))):
        disk.mkdir(data_dir)
        store = Store(disk, data_dir, 1, lambda: NOW_MS)
        store.start("boot-1")
        disk.close(disk.create(f"{data_dir}/trash/.DS_Store"))
        store.open("events", "id-1", 0, SETTINGS)
        store.delete("events", "id-1", 0)
        assert store.purge_trash() > 0, "what is a deleted topic's goes"
        assert disk.list(f"{data_dir}/trash") == [".DS_Store"]
        store.checkpoint()
        store.abandon()


def test_a_cluster_that_found_no_room_is_saved_when_it_comes_again() -> None:
    """It must not count as saved while the disk does not hold it."""
    disk = MemoryDisk()
    store = started(disk)
    full_at(disk, "create meta.json.tmp", lambda: store.bind_cluster("c1"))
    assert store.cluster_id == ""
    store.bind_cluster("c1")
    store.abandon()
    assert started(disk).cluster_id == "c1"


def test_a_topic_that_the_full_disk_does_not_let_go_stays_whole() -> None:
    disk = MemoryDisk()
    store = started(disk)
    log = store.open("events", "id-1", 0, SETTINGS)
    fill(log, 3)
    full_at(disk, "rename events-0.1", lambda: store.delete("events", "id-1", 0))
    full_at(disk, "rename events-0.1", lambda: store.open("events", "id-2", 0, SETTINGS))
    assert store.get("events", 0) is log
    fill(log, 1)
    assert store.open("events", "id-2", 0, SETTINGS).end_offset == 0
    assert disk.list("/data/trash") == ["events-0.1"]


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


# ---- recovery before the first open


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


def test_a_recovered_log_is_opened_without_reading_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = crashed_with_logs(2)
    store = store_on(disk)
    store.start("boot-2")
    asked: list[Checked] = []
    store.recover(lambda: asked.append(store.checked))
    assert asked[0] == Checked(0, 2)
    assert len(asked) > 2 * 3, "asked between segments too"
    assert store.checked == Checked(2, 2)
    assert list(store.logs()) == [], "nobody has opened one yet"
    for partition in (0, 1):
        with monkeypatch.context() as patched:
            patched.setattr(disk, "pread", None)
            log = store.open("events", "id-1", partition, SETTINGS)
        assert log.end_offset == 30
        assert log is store.open("events", "id-1", partition, SETTINGS)
        fill(log, 1)
    store.registered()
    store.close_cleanly(1)
    assert everything(started(disk).open("events", "id-1", 1, SETTINGS))


@pytest.mark.parametrize("ended_at", range(9))
def test_a_recovery_that_is_ended_anywhere_is_done_again_by_the_next_start(ended_at: int) -> None:
    disk = crashed_with_logs(2)
    store = store_on(disk)
    store.start("boot-2")
    left = ended_at

    def ask() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Crash

    with pytest.raises(Crash):
        store.recover(ask)
    store.abandon()
    store = store_on(disk)
    assert not store.start("boot-2"), "still unclean: the controller has not been told"
    store.recover(lambda: None)
    for partition in (0, 1):
        assert store.open("events", "id-1", partition, SETTINGS).end_offset == 30


def test_a_log_is_recovered_before_it_is_known_how_long_producers_are_remembered() -> None:
    """The state of the producers is that of the topic's own setting, as if the log had been opened
    with it."""
    remembering = TopicSettings(producer_id_expiration_ms=10**12)
    disk = MemoryDisk()
    store = started(disk)
    log = store.open("events", "id-1", 0, remembering)
    for producer_id, timestamp in ((1, 1000), (2, 10**11)):
        data = encode_values([b"v"], timestamp, producer_id=producer_id, producer_epoch=0, base_sequence=0)
        (batch,) = split(data, 2**31)
        log.append([stamp(batch, log.end_offset, 0, 3)])
    flush(log)
    known = log.producers.table.items()
    disk.crash()
    store = store_on(disk)
    store.start("boot-2")
    store.recover(lambda: None)
    assert store.open("events", "id-1", 0, remembering).producers.table.items() == known
    assert len(known) == 2


def test_a_recovered_log_whose_topic_is_gone_goes_to_the_trash() -> None:
    disk = crashed_with_logs(2)
    store = store_on(disk)
    store.start("boot-2")
    store.recover(lambda: None)
    store.delete("events", "id-1", 0)
    assert store.open("events", "id-2", 1, SETTINGS).end_offset == 0, "made anew under the same name"
    assert disk.list("/data/trash") == ["events-0.1", "events-1.1"]
    store.close_cleanly(1)
    assert store.purge_trash() > 0


def test_a_log_that_cannot_be_recovered_is_left_to_whoever_opens_it() -> None:
    disk = crashed_with_logs(2)
    path = "/data/events-0/00000000000000000000.log"
    handle = disk.open(path)
    data = bytearray(disk.pread(handle, 0, disk.size(path)))
    data[70] ^= 1
    disk.truncate(handle, 0)
    disk.append(handle, 0, [bytes(data)])
    store = store_on(disk)
    store.start("boot-2")
    store.recover(lambda: None)
    assert store.checked == Checked(2, 2)
    assert store.open("events", "id-1", 1, SETTINGS).end_offset == 30


def test_emptying_the_trash_ends_between_files() -> None:
    disk = crashed_with_logs(1)
    store = store_on(disk)
    store.start("boot-2")
    store.delete("events", "id-1", 0)
    count = len(disk.list("/data/trash/events-0.1"))
    asked = iter([False, False, True])
    store.purge_trash(lambda: next(asked))
    assert len(disk.list("/data/trash/events-0.1")) == count - 2
    store.purge_trash()
    assert disk.list("/data/trash") == []


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


@pytest.mark.parametrize("at", ["a purge", "a deletion", "a start"])
def test_a_trash_that_somebody_has_removed_is_an_empty_one(tmp_path: Path, at: str) -> None:
    """Who needs room removes what is in there, and the folder with it."""
    disk = OsDisk()
    store = Store(disk, f"{tmp_path}/data", 1, lambda: NOW_MS)
    store.start("boot-1")
    store.open("events", "a", 0, TopicSettings())
    shutil.rmtree(f"{store.data_dir}/trash")
    if at == "a deletion":
        store.delete("events", "a", 0)
        assert disk.list(f"{store.data_dir}/trash") == ["events-0.1"]
    if at == "a start":
        store.abandon()
        store = Store(disk, f"{tmp_path}/data", 1, lambda: NOW_MS)
        store.start("boot-1")
    for _ in range(2):
        store.purge_trash()
    assert not disk.failure
    store.abandon()


def test_what_somebody_removes_during_a_purge_is_not_missed(tmp_path: Path) -> None:
    disk = OsDisk()
    store = Store(disk, f"{tmp_path}/data", 1, lambda: NOW_MS)
    store.start("boot-1")
    for number in range(3):
        store.open("events", "a", number, TopicSettings())
        store.delete("events", "a", number)

    def is_stopped() -> bool:
        shutil.rmtree(f"{store.data_dir}/trash", ignore_errors=True)
        return False

    store.purge_trash(is_stopped)
    assert not disk.failure
    store.abandon()


@pytest.mark.parametrize(
    ("name", "is_directory"),
    [("t-1", False), ("t-1.new", False), ("recovery-points", True), ("running", True), ("meta.json", True)],
)
def test_what_lies_in_the_place_of_a_file_is_named_and_what_to_do(
    tmp_path: Path, name: str, is_directory: bool
) -> None:
    store = Store(OsDisk(), str(tmp_path), 1, lambda: NOW_MS)
    store.start("boot-1")
    store.close_cleanly(1)
    path = tmp_path / name
    path.unlink(missing_ok=True)
    path.mkdir() if is_directory else path.write_text("notes")
    with pytest.raises(RefusesToStart, match=rf"{path}.*; check the disk .* or move away what is not minilog's"):
        Store(OsDisk(), str(tmp_path), 1, lambda: NOW_MS).start("boot-1")


@pytest.mark.parametrize("folder", ["stray", "trash"])
@pytest.mark.parametrize("name", ["README", ".DS_Store", "events-0.1.tar", "notes.1"])
def test_what_people_put_beside_what_was_moved_away_ends_no_broker_and_stays(
    tmp_path: Path, folder: str, name: str
) -> None:
    store = Store(OsDisk(), str(tmp_path), 1, lambda: NOW_MS)
    store.start("boot-1")
    store.registered()
    store.open("events", "id-1", 0, SETTINGS)
    store.put_aside("events", "id-1", 0)
    (tmp_path / folder / name).write_text("notes")
    store.open("events", "id-1", 1, SETTINGS)
    store.delete("events", "id-1", 1)
    store.purge_trash()
    store.checkpoint()
    store.close_cleanly(1)
    again = Store(OsDisk(), str(tmp_path), 1, lambda: NOW_MS)
    assert again.start("boot-1")
    assert again.strays == 1 + (folder == "stray" and name == "notes.1"), "it has the name of a log"
    again.open("events", "id-1", 0, SETTINGS)
    assert again.partitions() == [StoredPartition("events", "id-1", 0)]
    assert not (tmp_path / "stray" / "events-0.1").exists(), "put back"
    again.abandon()
    assert (tmp_path / folder / name).read_text() == "notes"


def test_what_people_put_beside_partitions_is_not_removed(tmp_path: Path) -> None:
    store = Store(OsDisk(), str(tmp_path), 1, lambda: NOW_MS)
    store.start("boot-1")
    store.close_cleanly(1)
    (tmp_path / "backup.new").mkdir()
    for path in (tmp_path / "config.new", tmp_path / "backup.new" / "orders.tar"):
        path.write_text("notes")
    Store(OsDisk(), str(tmp_path), 1, lambda: NOW_MS).start("boot-1")
    for path in (tmp_path / "config.new", tmp_path / "backup.new" / "orders.tar"):
        assert path.read_text() == "notes"


def test_a_link_with_the_name_of_a_partition_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    store = Store(OsDisk(), str(tmp_path), 1, lambda: NOW_MS)
    store.start("boot-1")
    store.close_cleanly(1)
    (tmp_path / "t-1").symlink_to(tmp_path / "nowhere")
    store = Store(OsDisk(), str(tmp_path), 1, lambda: NOW_MS)
    with pytest.raises(RefusesToStart, match=rf"{tmp_path}/t-1.*move away"):
        store.start("boot-1")
    (tmp_path / "t-1").unlink()
    store.start("boot-1")
    assert store.partitions() == []
