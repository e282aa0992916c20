"""What differs between operating systems, each way of it."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilog import machine


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    handle = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    yield handle
    os.close(handle)


def as_macos(monkeypatch: pytest.MonkeyPatch, answer: OSError | None) -> list[int]:
    """F_FULLFSYNC is there, and answers so."""
    asked: list[int] = []

    def full(fd: int, command: int) -> int:
        asked.append(command)
        if answer is not None:
            raise answer
        return 0

    monkeypatch.delattr(os, "fdatasync")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full)
    return asked


def test_where_there_is_a_full_sync_that_one_is_used(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = as_macos(monkeypatch, None)
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("that leaves it to the disk"))
    machine.sync_content(fd)
    machine.sync_directory(fd)
    assert asked == [51, 51]


def test_a_file_system_without_it_is_synced_as_it_can_be(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    as_macos(monkeypatch, OSError(errno.ENOTSUP, "no"))
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    machine.sync_content(fd)
    assert synced == [fd]


def test_a_full_sync_that_fails_is_no_success(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    as_macos(monkeypatch, OSError(errno.EIO, "the disk"))
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("that would hide it"))
    with pytest.raises(OSError, match="the disk"):
        machine.sync_content(fd)


@pytest.mark.parametrize("is_plain", [False, True])
def test_buffers_are_written_in_order_whatever_there_is(
    fd: int, is_plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_plain:
        monkeypatch.delattr(os, "pwritev")
    buffers: list[bytes | bytearray | memoryview] = [b"", b"abc", memoryview(b"de")]
    written = machine.write_at(fd, buffers, 4)
    assert written == (3 if is_plain else 5)
    assert os.pread(fd, 9, 0)[4:] == b"abcde"[:written]


def test_the_boot_is_the_kernels_or_the_systems_or_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.boot_id() == machine.boot_id() != ""
    monkeypatch.setattr(machine, "_BOOT_FILE", tmp_path / "none")
    monkeypatch.setattr(machine, "_output", lambda *command: "uuid" if command[0] == "sysctl" else "")
    assert machine.boot_id() == "uuid"
    monkeypatch.undo()
    monkeypatch.setattr(machine, "_BOOT_FILE", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.boot_id() == ""


def test_a_place_for_marks_is_always_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_VOLATILE_DIR", tmp_path / "none")
    assert Path(machine.volatile_dir()).is_dir()


@pytest.mark.parametrize(
    ("limits", "raised", "allowed"),
    [
        ((256, 4096), [(4096, 4096)], 4096),
        ((256, resource.RLIM_INFINITY), [(machine.DESCRIPTORS_PLENTY, resource.RLIM_INFINITY)], 10_240),
        ((4096, 4096), [], None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), [], None),
    ],
)
def test_descriptors_are_raised_as_far_as_that_goes(
    limits: tuple[int, int], raised: list[tuple[int, int]], allowed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS refuses to make it infinite, whatever the hard limit says."""
    asked: list[tuple[int, int]] = []

    def set_limit(_: int, wanted: tuple[int, int]) -> None:
        if wanted[0] == resource.RLIM_INFINITY:
            raise ValueError("not allowed")
        asked.append(wanted)

    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    machine.raise_descriptors()
    assert asked == raised
    assert machine.descriptors_max() == (limits[0] if limits[0] != resource.RLIM_INFINITY else 10_240)


def test_what_a_connection_holds_is_told_or_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            assert machine.unsent_bytes(client.fileno()) == 0
    with open(os.devnull) as file:
        assert machine.unsent_bytes(file.fileno()) == 0, "no connection"
    monkeypatch.delattr(termios, "TIOCOUTQ")
    assert machine.unsent_bytes(0) == 0


def sleeping() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


@pytest.mark.parametrize("has_proc", [True, False])
def test_a_process_is_known_by_its_start(has_proc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_proc:
        monkeypatch.setattr(machine, "_proc_fields", lambda _: None)
    child = sleeping()
    try:
        seen = machine.process_stat(child.pid)
        assert seen is not None
        assert seen.start_mark == machine.process_stat(child.pid).start_mark  # type: ignore[union-attr]
        assert seen.start_mark
        assert (machine.cpu_seconds(child.pid) is None) == (not has_proc)
    finally:
        child.kill()
        child.wait()
    assert machine.process_stat(child.pid) is None


@pytest.mark.parametrize("holds", [True, False])
def test_a_process_is_signalled(holds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not holds:
        monkeypatch.delattr(os, "pidfd_open")
    child = sleeping()
    handle = machine.ProcessHandle(child.pid)
    handle.signal(signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL
    handle.close()
