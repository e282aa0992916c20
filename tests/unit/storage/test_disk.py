"""What only the real disk does. What every disk must do is in test_disk_contract.py."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from minilog import machine
from minilog.errors import CorruptRange, DiskFull, StorageFailed
from minilog.storage.disk import Buffer, Disk, OsDisk
from minilog.storage.open_files import OpenFiles


def content(disk: Disk, path: str) -> bytes:
    handle = disk.open(path)
    data = disk.pread(handle, 0, disk.size(path) + 10)
    disk.close(handle)
    return data


class FaultyDisk(OsDisk):
    """Writes at most ``step`` bytes a call, and fails with ``error`` once ``room`` bytes have been
    written."""

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


def test_a_failed_sync_is_not_retried(tmp_path: Path) -> None:
    disk = OsDisk()
    os.mkfifo(tmp_path / "pipe")
    writer = disk.open(f"{tmp_path}/pipe")
    with pytest.raises(StorageFailed, match="fdatasync"):
        disk.fdatasync(writer)  # a pipe cannot be synced
    with pytest.raises(StorageFailed, match="not trusted"):
        disk.fdatasync(writer)
    disk.close(writer)


def test_an_unreadable_place_is_a_corrupt_range_and_stops_nothing(tmp_path: Path) -> None:
    files = OpenFiles()
    disk = OsDisk(files)
    unreadable = files.open(str(tmp_path), machine.OPEN_DIRECTORY)  # pread fails, and a sync does not
    with pytest.raises(CorruptRange, match="could not be read"):
        disk.pread(unreadable, 0, 10)
    disk.fdatasync(unreadable)
    disk.close(unreadable)


def test_errors_name_path_and_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("mkdir", "create", "lock"):
        with pytest.raises(StorageFailed, match=r"file/x: (Not a directory|File exists)"):
            getattr(OsDisk(), name)(f"{tmp_path}/file/x")
