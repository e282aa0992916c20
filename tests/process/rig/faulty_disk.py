"""Disks that fail: a small volume that loses power, dies or fills up, and bytes that change in a
stopped broker's files.

A ``Volume`` is an ext4 file system in a file. Its power cut is the kernel's own (the ioctl that the
file system's developers test crash recovery with): what was not synced is gone, the journal is
replayed at the next mount. The same ioctl under a running broker is a disk that dies: every write
and every sync fails with EIO from then on.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import time
import uuid
from pathlib import Path
from random import Random

MIB = 1 << 20
BALLAST = "ballast"
SECTOR_BYTES = 512
_EXT4_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_NOTES = Path("/run")
_NOTE = "minilog-volumes-"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def unavailable() -> str | None:
    """Why there can be no volumes here; None when there can."""
    if os.geteuid() != 0:
        return "mounting a volume needs root"
    for command in ("mkfs.ext4", "mount", "umount", "unshare"):
        if shutil.which(command) is None:
            return f"the command {command} is missing (Debian: apt-get install e2fsprogs mount util-linux)"
    if not Path("/dev/loop-control").exists():
        return "this kernel has no loop devices"
    return None


class Volume:
    """A file system of ``size_bytes`` at ``folder``. ``boot_id`` is the machine's as its broker
    sees it."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder = folder
        self._image = folder.with_name(folder.name + ".ext4")
        self._boot_file = folder.with_name(folder.name + ".boot-id")
        self._mounted = False
        folder.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(size_bytes)
        _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", str(self._image))
        self._new_boot_id()
        self.mount()

    @property
    def boot_id(self) -> str:
        return self._boot_file.read_text().strip()

    @property
    def boot_file(self) -> Path:
        return self._boot_file

    def command(self) -> list[str]:
        """What to put before a command so that it sees the boot id of this volume's machine. The
        pid stays."""
        script = f'mount --bind "$0" {_BOOT_ID} && exec "$@"'
        return ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script, str(self._boot_file)]

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.folder))
        shutil.rmtree(self.folder / "lost+found", ignore_errors=True)
        self._mounted = True

    def fail(self) -> None:
        """From now on nothing reaches the disk: unsynced data is lost, and whoever writes or syncs
        gets EIO."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _EXT4_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def power_on(self) -> None:
        """After ``fail``, once nobody uses the volume: mount what is left, as after a restart of
        the machine."""
        self.unmount()
        self._new_boot_id()
        self.mount()

    def fill(self, free_bytes: int = 0) -> None:
        """Leave ``free_bytes``. ``empty`` gives the rest back."""
        state = os.statvfs(self.folder)
        size_bytes = state.f_bavail * state.f_frsize - free_bytes
        with (self.folder / BALLAST).open("ab") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, max(1, size_bytes))

    def empty(self) -> None:
        (self.folder / BALLAST).unlink(missing_ok=True)

    def unmount(self) -> None:
        deadline_s = time.monotonic() + 5.0
        while self._mounted:
            done = subprocess.run(["umount", str(self.folder)], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                self._mounted = False
            else:
                assert time.monotonic() < deadline_s, done.stderr
                time.sleep(0.05)

    def _new_boot_id(self) -> None:
        self._boot_file.write_text(f"{uuid.uuid4()}\n")


def share(folder: Path) -> None:
    """Make mounts below ``folder`` come and go for processes with mount namespaces of their own,
    too."""
    sweep()
    _note(os.getpid()).write_text(f"{folder}\n")
    _run("mount", "--bind", str(folder), str(folder))
    _run("mount", "--make-shared", str(folder))


def unshare(folder: Path) -> None:
    """Unmount ``folder`` and everything below it. Nothing when nothing is mounted there."""
    subprocess.run(["umount", "--recursive", str(folder)], capture_output=True, check=False)
    _note(os.getpid()).unlink(missing_ok=True)


def sweep() -> None:
    """Unmount what dead test processes left behind."""
    for note in _NOTES.glob(f"{_NOTE}*"):
        if not Path(f"/proc/{note.name.removeprefix(_NOTE)}").exists():
            subprocess.run(["umount", "--recursive", note.read_text().strip()], capture_output=True, check=False)
            note.unlink(missing_ok=True)


def _note(pid: int) -> Path:
    return _NOTES / f"{_NOTE}{pid}"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"


# --- what changes in files ------------------------------------------------------------------------


def segment_files(data_dir: Path, topic: str) -> list[Path]:
    """The log files of ``topic`` that hold anything, in order."""
    return sorted(path for path in data_dir.glob(f"{topic}-*/*.log") if path.stat().st_size)


def flip_bits(path: Path, count: int, random: Random) -> list[int]:
    """Flip one bit at each of ``count`` places; returns the places."""
    places = sorted(random.sample(range(path.stat().st_size), count))
    with path.open("r+b") as file:
        for place in places:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1 << random.randrange(8)]))
    return places


def cut_tail(path: Path, random: Random) -> int:
    """Cut off the end, mostly little and sometimes much; returns the bytes cut."""
    size_bytes = path.stat().st_size
    cut_bytes = min(size_bytes, int(SECTOR_BYTES * random.paretovariate(0.5)))
    os.truncate(path, size_bytes - cut_bytes)
    return cut_bytes


def tear_tail(path: Path, random: Random) -> int:
    """Append noise or zeros, as a write leaves that was cut short; returns the bytes added."""
    size_bytes = random.randint(1, 200)
    with path.open("ab") as file:
        file.write(bytes(size_bytes) if random.random() < 0.5 else random.randbytes(size_bytes))
    return size_bytes


def misplace(path: Path, random: Random) -> tuple[int, int]:
    """Copy one sector of the file over another, as a misdirected write does; returns (from, to)."""
    sectors = path.stat().st_size // SECTOR_BYTES
    assert sectors >= 2, f"{path} is too small to misplace anything in it"
    source, target = random.sample(range(sectors), 2)
    with path.open("r+b") as file:
        file.seek(source * SECTOR_BYTES)
        data = file.read(SECTOR_BYTES)
        file.seek(target * SECTOR_BYTES)
        file.write(data)
    return source, target


def wipe(folder: Path) -> None:
    """A new, empty disk."""
    for path in list(folder.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
