"""Topics made, deleted and made again: names, directories and the trash."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from minilog.config import TopicSettings
from minilog.errors import NameRefused
from minilog.storage.directories import StoredPartition
from minilog.storage.disk import OsDisk
from minilog.storage.store import Store
from tests.unit.storage.batches import NOW_MS, fill, flush
from tests.unit.storage.memory_disk import MemoryDisk
from tests.unit.storage.store.store_bench import (
    LONGEST,
    SETTINGS,
    crashed_with_logs,
    flush_all,
    full_at,
    started,
    store_on,
)


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


def test_a_topic_made_again_does_not_hold_its_predecessors_name_in_the_trash() -> None:
    disk = MemoryDisk()
    store = started(disk)
    for topic_id in ("id-1", "id-2"):
        fill(store.open("events", topic_id, 0, SETTINGS), 3)
        flush_all(store)
        store.checkpoint()
    store.purge_trash()
    assert disk.list("/data/trash") == []


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
