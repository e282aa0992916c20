"""The controller epoch (R25): noted whatever the disk has room for, and never forgotten."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from minilog.errors import DiskFull
from minilog.storage import checkpoint, slots
from minilog.storage.disk import Buffer, OsDisk
from minilog.storage.store import Store
from tests.unit.storage.batches import NOW_MS
from tests.unit.storage.memory_disk import Crash, MemoryDisk
from tests.unit.storage.small_file_system import small_file_system
from tests.unit.storage.store.store_bench import refusal, started


def test_a_controller_epoch_is_noted_on_a_full_disk() -> None:
    """R25: what a broker cannot note it must not obey, and one that obeys nobody leads what it
    should not."""
    disk = MemoryDisk()
    store = started(disk)
    disk.full = True
    for epoch in (1, 4, 5):
        store.save_controller_epoch(epoch)
    store.abandon()
    disk.crash()
    disk.full = False
    assert started(disk).controller_epoch == 5


def test_a_really_full_file_system_takes_a_controller_epoch(tmp_path: Path) -> None:
    """Where this process may mount one. What the simulated disk does instead is in the contract of
    both."""
    with small_file_system(tmp_path, "size=256k") as is_mounted:
        store = Store(OsDisk(), f"{tmp_path}/data", 1, lambda: NOW_MS)
        store.start("boot-1")
        if is_mounted:
            filled_up(tmp_path)
            with pytest.raises(DiskFull):
                store.bind_cluster("c" * 5000)
        for epoch in (1, 2, 30):
            store.save_controller_epoch(epoch)
        (tmp_path / "ballast").unlink(missing_ok=True)
        store.abandon()
        again = Store(OsDisk(), f"{tmp_path}/data", 1, lambda: NOW_MS)
        again.start("boot-1")
        assert again.controller_epoch == 30
        again.abandon()


def test_an_epoch_file_that_has_lost_its_end_is_made_whole() -> None:
    disk = MemoryDisk()
    store = started(disk)
    store.save_controller_epoch(5)
    store.abandon()
    handle = disk.open("/data/controller-epoch")
    disk.truncate(handle, slots.SLOT_BYTES)
    disk.close(handle)
    store = started(disk)
    assert store.controller_epoch == 5
    store.save_controller_epoch(6)
    store.abandon()
    assert started(disk).controller_epoch == 6


class TearingDisk(MemoryDisk):
    """The power goes in the middle of the overwrite with this number: not even its sector is whole
    then."""

    def __init__(self) -> None:
        super().__init__()
        self.torn_at = 0

    def overwrite(self, handle: int, position: int, data: Buffer) -> None:
        super().overwrite(handle, position, data)
        self.torn_at -= 1
        if self.torn_at == 0:
            super().overwrite(handle, position + 20, b"torn")
            self._opened(handle).sync()
            raise Crash


@pytest.mark.parametrize("damaged", [None, 30, 4096 + 30])
@pytest.mark.parametrize("torn_at", [1, 2])
def test_a_torn_write_leaves_the_epoch_before_it(torn_at: int, damaged: int | None) -> None:
    """Also when one of the two notes was damaged before, while the broker ran."""
    disk = TearingDisk()
    store = started(disk)
    store.save_controller_epoch(4)
    if damaged is not None:
        disk.file("/data/controller-epoch").content[damaged] ^= 1
    disk.torn_at = torn_at
    with pytest.raises(Crash):
        store.save_controller_epoch(5)
    disk.crash()
    assert started(disk).controller_epoch == (4 if torn_at == 1 else 5)


def filled_up(root: Path) -> None:
    with (root / "ballast").open("wb", buffering=0) as ballast:
        for size in (4096, 1):
            with suppress(OSError):
                while ballast.write(b"x" * size):
                    pass


@pytest.mark.parametrize("damage", ["first", "second", "both", "missing", "short"])
def test_a_damaged_controller_epoch(damage: str) -> None:
    disk = MemoryDisk()
    store = started(disk)
    store.save_controller_epoch(4)
    store.abandon()
    content = disk.file("/data/controller-epoch").content
    for name, at in (("first", 30), ("second", 4096 + 30)):
        if damage in (name, "both"):
            content[at] ^= 1
    if damage == "short":
        del content[4000:]
    if damage == "missing":
        disk.remove("/data/controller-epoch")
    if damage in ("first", "second"):
        assert started(disk).controller_epoch == 4
        assert content[:4096] == content[4096:], "the start has mended it"
        return
    wrong = "is missing" if damage == "missing" else "is damaged (neither copy in it is whole)"
    assert refusal(disk) == (
        f"/data/controller-epoch {wrong}, so it is not known which controller this broker has obeyed: "
        "restore it from a backup, or start with an empty data directory"
    )


def test_a_directory_of_format_1_goes_on_with_its_controller_epoch() -> None:
    disk = MemoryDisk()
    started(disk).close_cleanly(1)
    disk.remove("/data/controller-epoch")
    old = {"broker_id": 1, "cluster_id": "c1", "format": 1, "controller_epoch": 7}
    checkpoint.save(disk, "/data/meta.json", old)
    store = started(disk)
    assert (store.controller_epoch, store.cluster_id) == (7, "c1")
    body = checkpoint.load(disk, "/data/meta.json").body
    assert body == {"broker_id": 1, "cluster_id": "c1", "directory_id": store.directory_id, "format": 2}
    store.save_controller_epoch(9)
    store.abandon()
    checkpoint.save(disk, "/data/meta.json", old)  # somebody restores the copy from before
    assert started(disk).controller_epoch == 9, "R25: the epoch never goes back"
