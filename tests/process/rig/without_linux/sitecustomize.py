"""Put this folder on PYTHONPATH: every Python process under it finds a kernel that has nothing of
what only Linux has, and no /proc and /dev/shm."""

import os
import pathlib
import signal
import termios

GONE = ("/proc/", "/dev/shm")

for module, names in (
    (
        os,
        (
            "fdatasync",
            "posix_fadvise",
            "pidfd_open",
            "O_DIRECTORY",
            "pwritev",
            "preadv",
            "sched_getaffinity",
            "memfd_create",
        ),
    ),
    (signal, ("pidfd_send_signal",)),
    (termios, ("TIOCOUTQ",)),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

_read_text, _is_dir, _exists = pathlib.Path.read_text, pathlib.Path.is_dir, pathlib.Path.exists


def _is_gone(path: pathlib.Path) -> bool:
    return str(path).startswith(GONE)


def read_text(self: pathlib.Path, *how: object, **more: object) -> str:
    if _is_gone(self):
        raise FileNotFoundError(2, "hidden", str(self))
    return _read_text(self, *how, **more)  # type: ignore[arg-type]


pathlib.Path.read_text = read_text  # type: ignore[method-assign]
pathlib.Path.is_dir = lambda self: not _is_gone(self) and _is_dir(self)  # type: ignore[method-assign]
pathlib.Path.exists = lambda self: not _is_gone(self) and _exists(self)  # type: ignore[method-assign]
