"""The contract of Disk, held by the real one and by the fake alike."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from minilog.errors import CorruptRange, DiskFull, StorageFailed
from minilog.storage.disk import IOV_MAX, Buffer, Disk, OsDisk
from tests.unit.storage.memory_disk import MemoryDisk


@pytest.fixture(params=["os", "memory"])
def disk(request: pytest.FixtureRequest) -> Disk:
    return OsDisk() if request.param == "os" else MemoryDisk()


@pytest.fixture
def root(disk: Disk, tmp_path: Path) -> str:
    disk.mkdir(str(tmp_path))
    return str(tmp_path)


def content(disk: Disk, path: str) -> bytes:
    handle = disk.open(path)
    data = disk.pread(handle, 0, disk.size(path) + 10)
    disk.close(handle)
    return data


def test_append_read_truncate(disk: Disk, root: str) -> None:
    path = f"{root}/a"
    handle = disk.create(path)
    disk.append(handle, 0, [b"hello ", memoryview(b"world")])
    disk.append(handle, 11, [b"!"])
    disk.fdatasync(handle)
    disk.fsync_dir(root)
    assert disk.size(path) == 12
    assert disk.pread(handle, 6, 5) == b"world"
    assert disk.pread(handle, 10, 100) == b"d!"
    assert disk.pread(handle, 12, 1) == b""
    disk.truncate(handle, 5)
    disk.append(handle, 5, [b"."])
    disk.close(handle)
    assert content(disk, path) == b"hello."


def test_more_buffers_than_one_system_call_takes(disk: Disk, root: str) -> None:
    handle = disk.create(f"{root}/a")
    disk.append(handle, 0, [b"%04d" % i for i in range(2 * IOV_MAX + 5)])
    assert content(disk, f"{root}/a") == b"".join(b"%04d" % i for i in range(2 * IOV_MAX + 5))
    disk.close(handle)


def test_create_empties_what_is_there(disk: Disk, root: str) -> None:
    for data in (b"long content", b"short"):
        handle = disk.create(f"{root}/a")
        disk.append(handle, 0, [data])
        disk.close(handle)
    assert content(disk, f"{root}/a") == b"short"


def test_names(disk: Disk, root: str) -> None:
    disk.mkdir(f"{root}/x/y")
    disk.mkdir(f"{root}/x/y")
    for name in ("b", "a", "c"):
        disk.close(disk.create(f"{root}/x/{name}"))
    disk.rename(f"{root}/x/c", f"{root}/x/a")
    assert disk.list(f"{root}/x") == ["a", "b", "y"]
    disk.rename(f"{root}/x", f"{root}/z")
    disk.remove(f"{root}/z/y")
    disk.remove(f"{root}/z/a")
    assert disk.list(f"{root}/z") == ["b"]
    assert disk.list(root) == ["z"]


def test_what_is_missing(disk: Disk, root: str) -> None:
    for operation in (disk.open, disk.remove, disk.size, disk.list):
        with pytest.raises(FileNotFoundError):
            operation(f"{root}/none")
    with pytest.raises(FileNotFoundError):
        disk.rename(f"{root}/none", f"{root}/other")


def test_a_duplicate_outlives_its_original(disk: Disk, root: str) -> None:
    handle = disk.create(f"{root}/a")
    disk.append(handle, 0, [b"abc"])
    other = disk.duplicate(handle)
    disk.close(handle)
    disk.remove(f"{root}/a")
    disk.fdatasync(other)
    assert disk.pread(other, 0, 3) == b"abc"
    disk.close(other)


def test_the_lock_has_one_holder(disk: Disk, root: str) -> None:
    held = disk.lock(f"{root}/lock")
    assert held is not None
    assert disk.lock(f"{root}/lock") is None
    disk.close(held)
    again = disk.lock(f"{root}/lock")
    assert again is not None
    disk.close(again)


class FaultyDisk(OsDisk):
    """Writes at most ``step`` bytes a call, and fails with ``error`` once ``room`` bytes have been written."""

    def __init__(self, step: int, room: int = 1 << 30, error: int = errno.ENOSPC) -> None:
        super().__init__()
        self.step, self.room, self.error = step, room, error

    def _pwritev(self, handle: int, buffers: Sequence[Buffer], position: int) -> int:
        data = b"".join(buffers)[: min(self.step, self.room)]
        if not data:
            raise OSError(self.error, os.strerror(self.error))
        self.room -= len(data)
        return os.pwrite(handle, data, position)


@pytest.mark.parametrize("step", [1, 3, 4, 7, 100])
def test_short_writes_are_continued(step: int, tmp_path: Path) -> None:
    disk = FaultyDisk(step)
    handle = disk.create(f"{tmp_path}/a")
    disk.append(handle, 0, [b"abcd", b"", b"efghij", memoryview(b"klm")])
    assert content(disk, f"{tmp_path}/a") == b"abcdefghijklm"
    disk.close(handle)


def test_a_full_disk_leaves_no_partial_tail_and_is_not_fatal(tmp_path: Path) -> None:
    disk = FaultyDisk(3, room=5)
    handle = disk.create(f"{tmp_path}/a")
    disk.append(handle, 0, [b"ab"])
    with pytest.raises(DiskFull):
        disk.append(handle, 2, [b"cdefgh"])
    assert content(disk, f"{tmp_path}/a") == b"ab"
    disk.room = 100
    disk.append(handle, 2, [b"c"])
    disk.fdatasync(handle)
    disk.close(handle)


def test_a_failed_write_ends_all_writing(tmp_path: Path) -> None:
    disk = FaultyDisk(3, room=3, error=errno.EIO)
    handle = disk.create(f"{tmp_path}/a")
    with pytest.raises(StorageFailed):
        disk.append(handle, 0, [b"abcdef"])
    disk.room = 100
    with pytest.raises(StorageFailed, match="not trusted"):
        disk.append(handle, 0, [b"a"])
    with pytest.raises(StorageFailed, match="not trusted"):
        disk.fdatasync(handle)
    with pytest.raises(StorageFailed, match="not trusted"):
        disk.fsync_dir("/")
    disk.close(handle)


def test_a_failed_sync_is_not_retried() -> None:
    disk = OsDisk()
    reader, writer = os.pipe()
    try:
        with pytest.raises(StorageFailed, match="fdatasync"):
            disk.fdatasync(writer)  # a pipe cannot be synced
        with pytest.raises(StorageFailed, match="not trusted"):
            disk.fdatasync(writer)
    finally:
        os.close(reader)
        os.close(writer)


def test_an_unreadable_place_is_a_corrupt_range_and_stops_nothing(tmp_path: Path) -> None:
    disk = OsDisk()
    write_only = os.open(f"{tmp_path}/a", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(CorruptRange, match="could not be read"):
        disk.pread(write_only, 0, 10)
    disk.fdatasync(write_only)
    disk.close(write_only)


def test_errors_name_path_and_reason(tmp_path: Path) -> None:
    disk = OsDisk()
    (tmp_path / "file").write_text("x")
    for operation in (disk.mkdir, disk.create, disk.lock):
        with pytest.raises(StorageFailed, match=r"file/x: (Not a directory|File exists)"):
            operation(f"{tmp_path}/file/x")
    with pytest.raises(StorageFailed, match="Is a directory"):
        disk.open(str(tmp_path))
    with pytest.raises(StorageFailed, match="not empty"):
        disk.remove(str(tmp_path))
