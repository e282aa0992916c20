"""Directories that a store refuses, and what the refusal names."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilog.config import TopicSettings
from minilog.errors import CorruptRange, DiskFull, RefusesToStart
from minilog.storage import checkpoint
from minilog.storage.disk import OsDisk
from minilog.storage.store import Store
from tests.sim.nodes.disk import File
from tests.unit.storage.batches import NOW_MS
from tests.unit.storage.memory_disk import MemoryDisk
from tests.unit.storage.store.store_bench import SETTINGS, refusal, started, store_on


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
