"""The machine: what operating systems call by different names, or do not have at all.

Written for Linux and macOS. Where a kernel does not tell something, the answer is the one that
believes less: an unknown boot counts as another one, so that what the page cache held counts as
lost. Nobody else in minilog asks which system this is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
import struct
import subprocess
import tempfile
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

OPEN_DIRECTORY: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
DESCRIPTORS_PLENTY: Final = 10_240
"""Where a limit is not a number: what macOS lets a process raise its own to."""
_BOOT_FILE: Final = Path("/proc/sys/kernel/random/boot_id")
_VOLATILE_DIR: Final = Path("/dev/shm")
_ASK_S: Final = 5.0


# --- files ----------------------------------------------------------------------------------------


def sync_content(fd: int) -> None:
    """The content is on the disk itself, past its cache. Raises OSError."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        _sync_fully(fd)


def sync_directory(fd: int) -> None:
    """Creations, renames and removals in it are. Raises OSError."""
    _sync_fully(fd)


def _sync_fully(fd: int) -> None:
    """On macOS fsync leaves it to the disk when it writes."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(fd, full)
        except OSError as error:  # a file system that has no such thing
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise
        else:
            return
    os.fsync(fd)


def forget_cached(fd: int, position: int) -> None:
    """Let the next read come from the disk, from ``position`` on, where the kernel takes such
    advice."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, position, 0, os.POSIX_FADV_DONTNEED)


def write_at(fd: int, buffers: Sequence[bytes | bytearray | memoryview], position: int) -> int:
    """How many bytes of ``buffers`` were written, perhaps not all. Raises OSError."""
    if hasattr(os, "pwritev"):
        return os.pwritev(fd, buffers, position)
    return os.pwrite(fd, next((buffer for buffer in buffers if len(buffer)), b""), position)


# --- the process ----------------------------------------------------------------------------------


class Space(NamedTuple):
    bytes_total: int
    bytes_free: int
    inodes_total: int
    inodes_free: int


def space(path: str) -> Space | None:
    """Of the disk that ``path`` lies on, as far as this process may use it."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    size = found.f_frsize
    return Space(found.f_blocks * size, found.f_bavail * size, found.f_files, found.f_favail)


def disk_bytes() -> tuple[int, int] | None:
    """What this process has had read from disks, and written to them. None where the kernel does
    not tell."""
    with contextlib.suppress(OSError, KeyError, ValueError):
        lines = Path("/proc/self/io").read_text().splitlines()
        told = dict(line.split(": ", 1) for line in lines)
        return int(told["read_bytes"]), int(told["write_bytes"])
    return None


def descriptors_max() -> int:
    """How many files and connections this process may have open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return DESCRIPTORS_PLENTY if soft == resource.RLIM_INFINITY else soft


def raise_descriptors() -> None:
    """As far as this process may: the soft limit is often far below the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, DESCRIPTORS_PLENTY):
        if soft == resource.RLIM_INFINITY or (wanted != resource.RLIM_INFINITY and soft >= wanted):
            return
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def boot_id() -> str:
    """Changes when the machine restarts, that is, when its page cache is lost; "" where the kernel
    does not tell."""
    with contextlib.suppress(OSError):
        return _BOOT_FILE.read_text(encoding="ascii").strip()
    return _output("sysctl", "-n", "kern.bootsessionuuid")


def volatile_dir() -> str:
    """A place that does not need the disk, or need not outlive the boot."""
    return str(_VOLATILE_DIR) if _VOLATILE_DIR.is_dir() else tempfile.gettempdir()


def unsent_bytes(fd: int) -> int:
    """Of a connection: what this kernel still holds for the other side, 0 where it does not
    tell."""
    request = getattr(termios, "TIOCOUTQ", None)
    if request is None:
        return 0
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(fd, request, bytes(4)))
    except OSError:
        return 0
    return int(count)


# --- other processes ------------------------------------------------------------------------------


class ProcessStat(NamedTuple):
    """``state``: one letter, Z for a zombie, T for stopped. ``start_mark`` is equal for the same
    process and another one for a later process of the same pid."""

    state: str
    start_mark: str


def process_stat(pid: int) -> ProcessStat | None:
    """None when there is no such process."""
    fields = _proc_fields(pid)
    if fields is not None:
        return ProcessStat(fields[0], fields[19])
    if _proc_fields(os.getpid()) is not None:
        return None
    letter, _, started = _output("ps", "-o", "state=,lstart=", "-p", str(pid)).partition(" ")
    return ProcessStat(letter[:1], started.strip()) if letter else None


def cpu_seconds(pid: int) -> float | None:
    """User and system time so far; None where the kernel does not tell."""
    fields = _proc_fields(pid)
    return None if fields is None else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class CpuSpent(NamedTuple):
    """Seconds of all cores since the machine started. ``steal_s``: what a hypervisor gave to
    others."""

    busy_s: float
    steal_s: float


def cpu_spent() -> CpuSpent | None:
    """By whatever runs here; None where the kernel does not tell."""
    try:
        words = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, words)
    tick = os.sysconf("SC_CLK_TCK")
    return CpuSpent((user + nice + system + irq + softirq) / tick, steal / tick)


def _proc_fields(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


class ProcessHandle:
    """Holds a process, where the kernel lets us, so that its pid cannot come to mean another one.
    Raises ProcessLookupError when there is none."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._fd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1

    def signal(self, number: signal.Signals) -> None:
        if self._fd >= 0:
            signal.pidfd_send_signal(self._fd, number)
        else:
            os.kill(self._pid, number)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ASK_S)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
