"""Handles without number on few descriptors (R43): whatever is closed and opened again behind them,
reads and writes go to the same files."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from minilog.errors import StorageFailed, TooManyOpenFiles
from minilog.storage.disk import OsDisk
from minilog.storage.open_files import OpenFiles


@pytest.fixture
def files() -> OpenFiles:
    return OpenFiles(open_max=4)


@pytest.fixture
def disk(files: OpenFiles) -> OsDisk:
    return OsDisk(files)


def written(disk: OsDisk, path: Path, data: bytes) -> int:
    handle = disk.create(str(path))
    disk.append(handle, 0, [data])
    disk.fdatasync(handle)
    return handle


def test_many_files_are_open_on_few_descriptors(disk: OsDisk, files: OpenFiles, tmp_path: Path) -> None:
    handles = [written(disk, tmp_path / f"{number}", b"%d" % number) for number in range(50)]
    assert files.descriptors <= 4
    rng = Random(1)
    for round_ in range(200):
        number = rng.randrange(50)
        size = disk.size(f"{tmp_path}/{number}")
        if round_ % 3:
            assert disk.pread(handles[number], 0, size).startswith(b"%d" % number)
        else:
            disk.append(handles[number], size, [b"x"])
            disk.fdatasync(handles[number])
        assert files.descriptors <= 4
    for handle in handles:
        disk.close(handle)
    assert files.descriptors == 0


def test_what_is_not_synced_keeps_its_descriptor(disk: OsDisk, files: OpenFiles, tmp_path: Path) -> None:
    handles = []
    for number in range(10):
        handles.append(disk.create(f"{tmp_path}/{number}"))
        disk.append(handles[-1], 0, [b"x"])
    assert files.descriptors == 10
    for handle in handles[:9]:
        disk.fdatasync(handle)
    written(disk, tmp_path / "another", b"x")
    assert files.descriptors <= 4


def test_a_sync_covers_what_was_written_before_it_began(disk: OsDisk, files: OpenFiles, tmp_path: Path) -> None:
    """By a duplicate, in a thread, while somebody goes on writing."""
    handle = disk.create(f"{tmp_path}/a")
    disk.append(handle, 0, [b"x"])
    other = disk.duplicate(handle)
    file = files.take(other)
    writes = file.writes
    disk.append(handle, 1, [b"y"])  # while the sync of what was there before runs
    file.synced = writes
    files.give_back(file)
    disk.close(other)
    assert not file.may_go
    for number in range(8):
        written(disk, tmp_path / f"{number}", b"x")
    assert files.descriptors > 0
    os.replace(tmp_path / "7", tmp_path / "a")  # by somebody else: an open descriptor reads on
    assert disk.pread(handle, 0, 2) == b"xy"


def test_a_file_without_a_name_can_be_read_on(disk: OsDisk, files: OpenFiles, tmp_path: Path) -> None:
    """Removed, replaced, or renamed with its directory, also while its descriptor is closed."""
    (tmp_path / "d").mkdir()
    removed = written(disk, tmp_path / "removed", b"removed")
    replaced = written(disk, tmp_path / "replaced", b"replaced")
    moved = written(disk, tmp_path / "d" / "moved", b"moved")
    renamed = written(disk, tmp_path / "renamed", b"renamed")
    for number in range(8):
        written(disk, tmp_path / f"{number}", b"x")
    disk.remove(f"{tmp_path}/removed")
    disk.rename(f"{tmp_path}/7", f"{tmp_path}/replaced")
    disk.rename(f"{tmp_path}/d", f"{tmp_path}/e")
    disk.rename(f"{tmp_path}/renamed", f"{tmp_path}/d")
    for number in range(8, 16):
        written(disk, tmp_path / f"{number}", b"x")
    for handle, content in ((removed, b"removed"), (replaced, b"replaced"), (moved, b"moved"), (renamed, b"renamed")):
        assert disk.pread(handle, 0, 20) == content
        disk.close(handle)
    assert files.descriptors <= 4


def test_another_file_of_that_name_is_not_taken_for_it(disk: OsDisk, tmp_path: Path) -> None:
    handle = written(disk, tmp_path / "a", b"mine")
    for number in range(8):
        written(disk, tmp_path / f"{number}", b"x")
    (tmp_path / "other").write_bytes(b"theirs")
    os.replace(tmp_path / "other", tmp_path / "a")
    with pytest.raises(StorageFailed, match="another file than it was"):
        disk.pread(handle, 0, 4)
    os.unlink(tmp_path / "a")
    with pytest.raises(StorageFailed, match="could not open"):
        disk.pread(handle, 0, 4)


def write_unsynced(disk: OsDisk, folder: Path, handles: list[int]) -> None:
    for number in range(40):
        handles.append(disk.create(f"{folder}/{number}"))
        disk.append(handles[-1], 0, [b"x"])


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = len(os.listdir("/proc/self/fd")) + 12
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_lack_of_descriptors_closes_what_can_be_closed(few_descriptors: int, tmp_path: Path) -> None:
    disk = OsDisk(OpenFiles(open_max=1000))
    handles = [written(disk, tmp_path / f"{number}", b"%d" % number) for number in range(40)]
    assert [disk.pread(handle, 0, 9) for handle in handles] == [b"%d" % number for number in range(40)]
    disk.fsync_dir(str(tmp_path))


def test_a_lack_of_descriptors_refuses_the_one_file_and_harms_no_other(few_descriptors: int, tmp_path: Path) -> None:
    disk = OsDisk(OpenFiles(open_max=1000))
    dirty: list[int] = []
    with pytest.raises(TooManyOpenFiles, match=f"this process may have {few_descriptors}"):
        write_unsynced(disk, tmp_path, dirty)
    assert disk.failure == ""
    for handle in dirty:
        disk.fdatasync(handle)
    written(disk, tmp_path / "more", b"x")


def test_threads_share_the_descriptors(files: OpenFiles, tmp_path: Path) -> None:
    disk = OsDisk(files)
    handles = [written(disk, tmp_path / f"{number}", b"%d" % number * 1000) for number in range(20)]
    wrong: list[int] = []

    def read(seed: int) -> None:
        rng = Random(seed)
        for _ in range(300):
            number = rng.randrange(20)
            if disk.pread(handles[number], 0, 5000) != b"%d" % number * 1000:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert files.descriptors <= 4 + 6
