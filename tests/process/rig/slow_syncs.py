"""Syncs that take long, of one process, as on a disk that is worn out or shared: a small library
stands before ``fsync`` and ``fdatasync`` and waits as long as a file says, also while the process
runs."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

VARIABLE: Final = "SYNC_DELAY_FILE"
SOURCE: Final = r"""
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *delay_us;

int delay_syncs_as_told_by(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    void *mapped = mmap(NULL, sizeof *delay_us, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED) return -1;
    delay_us = mapped;
    return 0;
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SYNC_DELAY_FILE");
    if (path) delay_syncs_as_told_by(path);
}

static void delay(void) {
    int64_t us = delay_us ? *delay_us : 0;
    struct timespec left = {us / 1000000, us % 1000000 * 1000};
    if (us > 0) nanosleep(&left, NULL);
}

int fsync(int fd) { delay(); return syscall(SYS_fsync, fd); }
int fdatasync(int fd) { delay(); return syscall(SYS_fdatasync, fd); }
"""


def unavailable() -> str | None:
    """Why there can be no slow syncs here; None when there can."""
    return None if shutil.which("gcc") else "the command gcc is missing (Debian: apt-get install gcc libc6-dev)"


@functools.cache
def library() -> Path:
    """Compiled once a process."""
    folder = Path(tempfile.mkdtemp(prefix="slow-syncs-"))
    source, library = folder / "slow_syncs.c", folder / "slow_syncs.so"
    source.write_text(SOURCE)
    command = ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library


class SlowSyncs:
    """The syncs of one process. At first they take as long as they take."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._file.write_bytes(bytes(8))

    @property
    def library(self) -> Path:
        return library()

    @property
    def variables(self) -> dict[str, str]:
        return {VARIABLE: str(self._file)}

    @property
    def file(self) -> Path:
        return self._file

    def set(self, seconds: float) -> None:
        """Each takes so much longer from now on."""
        with self._file.open("r+b") as file:
            file.write(round(seconds * 1e6).to_bytes(8, "little"))
