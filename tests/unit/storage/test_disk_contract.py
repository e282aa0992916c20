"""The contract of Disk: one test for each promise, which the real disk and the simulated one both
keep."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from minilog.errors import DiskFull, NameRefused, StorageFailed
from minilog.storage.disk import IOV_MAX, Buffer, Disk, OsDisk
from tests.sim.nodes.disk import SimDisk
from tests.unit.storage.small_file_system import small_file_system


class FailingOsDisk(OsDisk):
    """Its writes fail with ``errno`` when that is set, after the first byte. No room is needed for
    what has its blocks."""

    errno = 0

    def _pwritev(self, handle: int, buffers: Sequence[Buffer], position: int) -> int:
        if not self.errno:
            return super()._pwritev(handle, buffers, position)
        if self.errno == errno.ENOSPC and position < os.fstat(handle).st_size:
            return super()._pwritev(handle, buffers, position)
        first = b"".join(buffers)[:1]
        if os.fstat(handle).st_size == position and len(b"".join(buffers)) > 1:
            return os.pwrite(handle, first, position)
        raise OSError(self.errno, os.strerror(self.errno))


class Machine(NamedTuple):
    disk: Disk
    root: str
    fill: Callable[[], None]
    empty: Callable[[], None]
    break_it: Callable[[], None]


def os_machine(root: str) -> Machine:
    disk = FailingOsDisk()

    def fail(number: int) -> Callable[[], None]:
        return lambda: setattr(disk, "errno", number)

    return Machine(disk, root, fail(errno.ENOSPC), fail(0), fail(errno.EIO))


def sim_machine(root: str) -> Machine:
    disk = SimDisk()
    disk.mkdir(root)

    def fill(is_full: bool) -> Callable[[], None]:
        return lambda: setattr(disk, "full", is_full)

    return Machine(disk, root, fill(True), fill(False), lambda: setattr(disk, "failure", "input/output error"))


@pytest.fixture(params=["os", "sim"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return os_machine(str(tmp_path)) if request.param == "os" else sim_machine(str(tmp_path))


@pytest.fixture
def disk(machine: Machine) -> Disk:
    return machine.disk


@pytest.fixture
def root(machine: Machine) -> str:
    return machine.root


def content(disk: Disk, path: str) -> bytes:
    handle = disk.open(path)
    data = disk.pread(handle, 0, disk.size(path) + 10)
    disk.close(handle)
    return data


def write(disk: Disk, path: str, data: bytes) -> int:
    handle = disk.create(path)
    disk.append(handle, 0, [data])
    return handle


def test_append_read_truncate(disk: Disk, root: str) -> None:
    path = f"{root}/a"
    handle = disk.create(path)
    disk.append(handle, 0, [b"hello ", memoryview(b"world"), b""])
    disk.append(handle, 11, [b"!"])
    disk.fdatasync(handle)
    disk.fsync_dir(root)
    assert disk.size(path) == 12
    assert disk.pread(handle, 6, 5) == b"world"
    disk.truncate(handle, 5)
    disk.append(handle, 5, [b"."])
    disk.close(handle)
    assert content(disk, path) == b"hello."


def test_reads_are_short_at_the_end_only(disk: Disk, root: str) -> None:
    handle = write(disk, f"{root}/a", b"hello")
    assert disk.pread(handle, 3, 100) == b"lo"
    assert disk.pread(handle, 5, 1) == b""
    assert disk.pread(handle, 99, 1) == b""
    assert disk.pread(handle, 2, 0) == b""
    disk.close(handle)


def test_truncate_up_fills_with_zeros(disk: Disk, root: str) -> None:
    handle = write(disk, f"{root}/a", b"abcdef")
    disk.truncate(handle, 3)
    disk.truncate(handle, 6)
    assert disk.size(f"{root}/a") == 6
    disk.append(handle, 6, [b"g"])
    disk.close(handle)
    assert content(disk, f"{root}/a") == b"abc\0\0\0g"


def test_an_append_elsewhere_than_at_the_end_is_a_bug(disk: Disk, root: str) -> None:
    handle = write(disk, f"{root}/a", b"abc")
    for position in (0, 2, 4):
        with pytest.raises(AssertionError, match=f"append at {position}, the file has 3 bytes"):
            disk.append(handle, position, [b"x"])
    disk.close(handle)
    assert content(disk, f"{root}/a") == b"abc"


def test_an_overwrite_changes_what_is_there_and_nothing_else(disk: Disk, root: str) -> None:
    handle = write(disk, f"{root}/a", b"abcdef")
    disk.overwrite(handle, 2, memoryview(b"XY"))
    disk.fdatasync(handle)
    disk.overwrite(handle, 5, b"Z")
    assert content(disk, f"{root}/a") == b"abXYeZ"
    with pytest.raises(AssertionError, match="overwriting up to 7, the file has 6 bytes"):
        disk.overwrite(handle, 5, b"ZZ")
    disk.append(handle, 6, [b"g"])
    disk.reload(handle, 0)
    disk.close(handle)
    assert content(disk, f"{root}/a") == b"abXYeZg"


def test_more_buffers_than_one_system_call_takes(disk: Disk, root: str) -> None:
    handle = disk.create(f"{root}/a")
    disk.append(handle, 0, [b"%04d" % i for i in range(2 * IOV_MAX + 5)])
    assert content(disk, f"{root}/a") == b"".join(b"%04d" % i for i in range(2 * IOV_MAX + 5))
    disk.close(handle)


def test_create_empties_what_is_there_for_every_handle(disk: Disk, root: str) -> None:
    first = write(disk, f"{root}/a", b"long content")
    second = write(disk, f"{root}/a", b"short")
    assert content(disk, f"{root}/a") == disk.pread(first, 0, 99) == b"short"
    disk.close(first)
    disk.close(second)


def test_names(disk: Disk, root: str) -> None:
    disk.mkdir(f"{root}/x/y")
    disk.mkdir(f"{root}/x/y")
    for name in ("b", "a", "c", "B", "10", "9"):
        disk.close(write(disk, f"{root}/x/{name}", name.encode()))
    disk.rename(f"{root}/x/c", f"{root}/x/a")
    assert content(disk, f"{root}/x/a") == b"c"
    assert disk.list(f"{root}/x") == ["10", "9", "B", "a", "b", "y"], "by code point"
    disk.rename(f"{root}/x", f"{root}/z")
    disk.remove(f"{root}/z/y")
    for name in ("10", "9", "B", "a"):
        disk.remove(f"{root}/z/{name}")
    assert (disk.list(f"{root}/z"), disk.list(root)) == (["b"], ["z"])


def test_what_is_missing_is_no_failure_of_the_disk(disk: Disk, root: str) -> None:
    operations: tuple[Callable[[str], object], ...] = (disk.open, disk.remove, disk.size, disk.list, disk.fsync_dir)
    for operation in operations:
        with pytest.raises(FileNotFoundError):
            operation(f"{root}/none")
    for name in ("create", "lock"):
        with pytest.raises(FileNotFoundError):
            getattr(disk, name)(f"{root}/none/a")
    disk.close(disk.create(f"{root}/a"))
    for source, target in (("none", "other"), ("a", "none/a")):
        with pytest.raises(FileNotFoundError):
            disk.rename(f"{root}/{source}", f"{root}/{target}")
    disk.close(write(disk, f"{root}/a", b"goes on"))


def test_a_file_is_no_directory(disk: Disk, root: str) -> None:
    disk.close(disk.create(f"{root}/file"))
    with pytest.raises(StorageFailed, match="Is a directory"):
        disk.open(root)
    for operation in (disk.open, disk.list):
        with pytest.raises(StorageFailed, match="Not a directory"):
            operation(f"{root}/file/x" if operation == disk.open else f"{root}/file")
    disk.close(write(disk, f"{root}/a", b"goes on"))


@pytest.mark.parametrize("name", ["mkdir", "create", "lock"])
def test_nothing_is_made_inside_a_file(name: str, disk: Disk, root: str) -> None:
    disk.close(disk.create(f"{root}/file"))
    with pytest.raises(StorageFailed):
        getattr(disk, name)(f"{root}/file/x")


def test_a_directory_with_files_is_not_removed(disk: Disk, root: str) -> None:
    disk.mkdir(f"{root}/x")
    disk.close(disk.create(f"{root}/x/a"))
    with pytest.raises(NameRefused, match="not empty"):
        disk.remove(f"{root}/x")


def test_a_directory_is_not_overwritten_by_a_file(disk: Disk, root: str) -> None:
    disk.mkdir(f"{root}/x")
    with pytest.raises(StorageFailed, match="Is a directory"):
        disk.create(f"{root}/x")


def test_a_handle_outlives_the_name_and_its_original(disk: Disk, root: str) -> None:
    handle = write(disk, f"{root}/a", b"abc")
    replaced = disk.duplicate(handle)
    disk.close(handle)
    disk.close(write(disk, f"{root}/b", b"new"))
    disk.rename(f"{root}/b", f"{root}/a")
    disk.append(replaced, 3, [b"def"])
    disk.fdatasync(replaced)
    assert (disk.pread(replaced, 0, 9), content(disk, f"{root}/a")) == (b"abcdef", b"new")
    removed = disk.open(f"{root}/a")
    disk.remove(f"{root}/a")
    assert disk.pread(removed, 0, 9) == b"new"
    disk.close(replaced)
    disk.close(removed)


def test_reload_changes_nothing_that_was_written(disk: Disk, root: str) -> None:
    data = bytes(range(256)) * 64
    handle = write(disk, f"{root}/a", data)
    disk.reload(handle, 5000)
    assert disk.pread(handle, 0, len(data)) == data
    disk.append(handle, len(data), [b"more"])
    disk.reload(handle, 0)
    assert disk.pread(handle, len(data) - 2, 99) == data[-2:] + b"more"
    disk.close(handle)


@pytest.mark.parametrize(
    "name", ["append", "overwrite", "pread", "truncate", "fdatasync", "reload", "duplicate", "close"]
)
def test_a_closed_handle_is_refused(name: str, disk: Disk, root: str) -> None:
    handle = disk.create(f"{root}/a")
    disk.close(handle)
    arguments = {"append": (0, [b"x"]), "overwrite": (0, b""), "pread": (0, 1), "truncate": (0,), "reload": (0,)}
    with pytest.raises(StorageFailed, match="Bad file descriptor"):
        getattr(disk, name)(handle, *arguments.get(name, ()))


def test_the_lock_has_one_holder(disk: Disk, root: str) -> None:
    held = disk.lock(f"{root}/lock")
    assert held is not None
    assert disk.lock(f"{root}/lock") is None
    assert disk.lock(f"{root}/lock") is None, "asking does not break it"
    other = disk.lock(f"{root}/other")
    assert other is not None
    disk.close(other)
    disk.close(held)
    again = disk.lock(f"{root}/lock")
    assert again is not None
    disk.close(again)


def test_a_full_disk_leaves_the_file_as_it_was_and_is_not_fatal(machine: Machine) -> None:
    disk, path = machine.disk, f"{machine.root}/a"
    handle = write(disk, path, b"ab")
    machine.fill()
    with pytest.raises(DiskFull):
        disk.append(handle, 2, [b"cd", b"efgh"])
    assert (disk.size(path), content(disk, path)) == (2, b"ab")
    disk.fdatasync(handle)
    disk.truncate(handle, 1)
    disk.remove(path)
    machine.empty()
    disk.append(handle, 1, [b"c"])
    disk.fdatasync(handle)
    assert disk.pread(handle, 0, 9) == b"ac"
    disk.close(handle)


def test_a_full_disk_takes_what_is_written_in_place_and_not_what_is_written_anew(machine: Machine) -> None:
    disk, path = machine.disk, f"{machine.root}/a"
    handle = write(disk, path, b"old content")
    disk.fdatasync(handle)
    machine.fill()
    disk.overwrite(handle, 0, b"new")
    disk.fdatasync(handle)
    assert content(disk, path) == b"new content"
    disk.truncate(handle, 3)
    with pytest.raises(DiskFull):
        disk.append(handle, 3, [b" content"])
    assert content(disk, path) == b"new"
    machine.empty()
    disk.close(handle)


@pytest.fixture
def small_machines(tmp_path: Path) -> Iterator[list[Machine]]:
    """A simulated full disk, and a real one of 64 KiB where this process may mount one."""
    sim = sim_machine("/d")
    with small_file_system(tmp_path, "size=64k,nr_inodes=4") as mounted:
        yield [sim, Machine(OsDisk(), str(tmp_path), *sim[2:])] if mounted else [sim]


def test_no_room_for_names_is_a_full_disk_too(small_machines: list[Machine]) -> None:
    for disk, root, *_ in small_machines:
        handle = write(disk, f"{root}/a", b"x" * 40_000)
        for name in ("b", "c"):
            disk.close(disk.create(f"{root}/{name}"))
        if isinstance(disk, SimDisk):
            disk.full = True
        with pytest.raises(DiskFull):
            disk.append(handle, 40_000, [b"y" * 40_000])
        assert disk.size(f"{root}/a") == 40_000
        for operation in (disk.create, disk.mkdir, disk.lock):
            with pytest.raises(DiskFull, match="full"):
                operation(f"{root}/new")
        disk.overwrite(handle, 0, b"z" * 40_000)
        disk.fdatasync(handle)
        assert content(disk, f"{root}/a") == b"z" * 40_000
        disk.remove(f"{root}/c")
        disk.fdatasync(handle)
        if isinstance(disk, SimDisk):
            disk.full = False
        disk.close(write(disk, f"{root}/d", b"room again"))
        disk.close(handle)


def test_a_failure_is_told_at_once_and_ends_all_writing(machine: Machine) -> None:
    disk, root = machine.disk, machine.root
    disk.mkdir(f"{root}/d")
    disk.close(write(disk, f"{root}/b", b"b"))
    handle = write(disk, f"{root}/a", b"a")
    told: list[bytes] = []

    def on_failure() -> None:
        disk.remove(f"{root}/b")
        disk.mkdir(f"{root}/d/mark")
        told.append(disk.pread(handle, 0, 1))

    disk.on_failure = on_failure
    machine.break_it()
    with pytest.raises(StorageFailed, match=r"[Ii]nput/output error"):
        disk.append(handle, 1, [b"x", b"y"])
    assert told == [b"a"], "before the error comes out, and with removal and marks still allowed"
    if isinstance(disk, OsDisk):
        machine.empty()  # the medium would take it again
    refused: list[Callable[[], object]] = [
        lambda: disk.append(handle, disk.size(f"{root}/a"), [b"x"]),
        lambda: disk.overwrite(handle, 0, b"x"),
        lambda: disk.truncate(handle, 0),
        lambda: disk.fdatasync(handle),
        lambda: disk.reload(handle, 0),
        lambda: disk.fsync_dir(root),
        lambda: disk.create(f"{root}/c"),
        lambda: disk.rename(f"{root}/a", f"{root}/c"),
    ]
    for operation in refused:
        with pytest.raises(StorageFailed):
            operation()
    assert len(told) == 1
    assert disk.list(root) == ["a", "d"]
    assert disk.list(f"{root}/d") == ["mark"]
    disk.close(handle)


def test_a_failed_sync_is_told_too(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    disk = OsDisk()
    writer = disk.open(f"{tmp_path}/pipe")
    told: list[str] = []
    disk.on_failure = lambda: told.append(disk.failure)
    with pytest.raises(StorageFailed, match="fdatasync failed"):
        disk.fdatasync(writer)  # a pipe cannot be synced
    with pytest.raises(StorageFailed, match="not trusted"):
        disk.fdatasync(writer)
    assert len(told) == 1
    disk.close(writer)
