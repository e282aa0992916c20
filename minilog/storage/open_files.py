"""Open files: handles without number on the descriptors that a process may have (R43).

A broker has a file for each of its logs, and the operating system may allow fewer. So a handle
stays valid while its descriptor is closed and opened again, the one that was not used for longest
first. Nobody who holds a handle notices.

Invariants
* A file with writes that are not synced keeps its descriptor: what failed to reach the disk is told
  to the descriptor that wrote.
* A file that was unlinked, or replaced by a rename, keeps its descriptor: it has no name any more.
* What is opened again is the same file, by device and inode, or nothing is read or written.
* A descriptor in use by one thread is not closed by another.

Source: the Vfd cache of PostgreSQL's fd.c.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from minilog import machine
from minilog.errors import StorageFailed, TooManyOpenFiles

_LACKING: Final = (errno.EMFILE, errno.ENFILE)
_SHARE: Final = 2
"""Logs get half of the descriptors. The others are for connections, and whatever is opened for a
moment."""
OPEN_MIN: Final = 8


class OpenFile:
    """``writes`` is for who writes to count up, before that; ``synced`` is how many were counted
    when a sync began that has succeeded."""

    __slots__ = ("fd", "flags", "handles", "has_name", "inode", "path", "pins", "synced", "was_used", "writes")

    def __init__(self, path: str, fd: int, flags: int) -> None:
        self.path, self.fd = path, fd
        self.flags = flags & ~(os.O_CREAT | os.O_TRUNC)
        status = os.fstat(fd)
        self.inode = (status.st_dev, status.st_ino)
        self.handles = 1
        self.pins = self.writes = self.synced = 0
        self.has_name = self.was_used = True

    @property
    def may_go(self) -> bool:
        return self.pins == 0 and self.writes == self.synced and self.has_name


class OpenFiles:
    """May be called in any thread."""

    def __init__(self, open_max: int | None = None) -> None:
        """``open_max``: descriptors for files that could be closed, as far as that goes; by default
        what the process may have, in part."""
        self.open_max = open_max or max(OPEN_MIN, machine.descriptors_max() // _SHARE)
        self._lock = threading.RLock()
        self._by_handle: dict[int, OpenFile] = {}
        self._by_directory: dict[str, set[OpenFile]] = {}
        self._open: OrderedDict[OpenFile, None] = OrderedDict()
        """Files with a descriptor. The first one goes, unless it was used since it came there."""
        self._next_handle = 1

    @property
    def descriptors(self) -> int:
        return len(self._open)

    def open(self, path: str, flags: int, mode: int = 0o644) -> int:
        """A handle. Raises OSError, or TooManyOpenFiles when no descriptor can be had."""
        with self._lock:
            self._make_room()
            file = OpenFile(path, self._open_fd(path, flags, mode), flags)
            self._open[file] = None
            self._by_directory.setdefault(os.path.dirname(path), set()).add(file)
            return self._handle(file)

    def duplicate(self, handle: int) -> int:
        with self._lock:
            file = self._known(handle)
            file.handles += 1
            return self._handle(file)

    def close(self, handle: int) -> None:
        """Raises OSError."""
        with self._lock:
            file = self._known(handle)
            del self._by_handle[handle]
            file.handles -= 1
            if file.handles == 0:
                if file.has_name:
                    self._forget_name(file)
                self._let_go(file)

    def take(self, handle: int) -> OpenFile:
        """The file, which keeps its descriptor until it is given back. Raises StorageFailed when it
        is not there any more, or the handle was closed; TooManyOpenFiles."""
        with self._lock:
            file = self._by_handle.get(handle)
            if file is None:
                raise StorageFailed("Bad file descriptor: a file handle was used that is closed")
            if file.fd < 0:
                self._open_again(file)
            file.pins += 1
            file.was_used = True
            return file

    def give_back(self, file: OpenFile) -> None:
        with self._lock:
            file.pins -= 1

    @contextmanager
    def a_moment(self, path: str, flags: int) -> Iterator[int]:
        """A descriptor of its own, closed with the block. Raises OSError, TooManyOpenFiles."""
        with self._lock:
            fd = self._open_fd(path, flags, 0)
        try:
            yield fd
        finally:
            os.close(fd)

    # --- names ------------------------------------------------------------------------------------

    def before_unlink(self, path: str) -> None:
        """Whoever has the file open keeps it. Raises StorageFailed, TooManyOpenFiles."""
        with self._lock:
            for file in self._named(path):
                if file.fd < 0:
                    self._open_again(file)
                self._forget_name(file)

    def on_renamed(self, source: str, target: str) -> None:
        """A file, or a directory with all that is in it, has another name. What had the name before
        was told of by ``before_unlink``."""
        with self._lock:
            for file in self._named(source):
                self._by_directory[os.path.dirname(source)].discard(file)
                file.path = target
                self._by_directory.setdefault(os.path.dirname(target), set()).add(file)
            moved = self._by_directory.pop(source, None)
            if moved:
                for file in moved:
                    file.path = f"{target}/{os.path.basename(file.path)}"
                self._by_directory.setdefault(target, set()).update(moved)

    def _named(self, path: str) -> list[OpenFile]:
        return [file for file in self._by_directory.get(os.path.dirname(path), ()) if file.path == path]

    def _forget_name(self, file: OpenFile) -> None:
        file.has_name = False
        directory = os.path.dirname(file.path)
        known = self._by_directory.get(directory)
        if known is not None:
            known.discard(file)
            if not known:
                del self._by_directory[directory]

    def _known(self, handle: int) -> OpenFile:
        file = self._by_handle.get(handle)
        if file is None:
            raise StorageFailed("Bad file descriptor: a file handle was used that is closed")
        return file

    # --- descriptors ------------------------------------------------------------------------------

    def _handle(self, file: OpenFile) -> int:
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._by_handle[handle] = file
        return handle

    def _open_again(self, file: OpenFile) -> None:
        self._make_room()
        try:
            fd = self._open_fd(file.path, file.flags, 0)
        except OSError as error:
            raise StorageFailed(f"could not open {file.path} again: {error.strerror}") from error
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != file.inode:
            os.close(fd)
            raise StorageFailed(f"{file.path} is another file than it was: somebody has replaced it")
        file.fd = fd
        self._open[file] = None

    def _open_fd(self, path: str, flags: int, mode: int) -> int:
        while True:
            try:
                return os.open(path, flags | os.O_CLOEXEC, mode)
            except OSError as error:
                if error.errno not in _LACKING:
                    raise
                if not self._close_one():
                    soft = machine.descriptors_max()
                    raise TooManyOpenFiles(
                        f"no more files can be opened ({error.strerror}; this process may have {soft}): "
                        "raise the limit of open files (ulimit -n, LimitNOFILE)"
                    ) from error

    def _make_room(self) -> None:
        while len(self._open) >= self.open_max and self._close_one():
            pass

    def _close_one(self) -> bool:
        for _ in range(2 * len(self._open)):
            file = next(iter(self._open))
            if file.may_go and not file.was_used:
                self._let_go(file)
                return True
            file.was_used = False
            self._open.move_to_end(file)
        return False

    def _let_go(self, file: OpenFile) -> None:
        fd, file.fd = file.fd, -1
        self._open.pop(file, None)
        if fd >= 0:
            os.close(fd)
