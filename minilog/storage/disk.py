"""The lowest seam: every file operation minilog's storage performs, so that a simulated disk can
stand in.

Owns: the file descriptors, by open_files.py, and the mapping of operating-system errors to what
the process must do about them.

Invariants:
* Files only grow by ``append`` at their end and shrink by ``truncate``. ``overwrite`` changes what
  is there and is for the one kind of file that must be written while the disk is full (slots.py).
* Nothing is durable before ``fdatasync`` (content) and ``fsync_dir`` (creations, renames, removals)
  return.
* A full disk leaves a file as it was: what was written of the failed append is cut off again.
* A name that the file system does not take (too long, or taken) is no failure of the disk, whatever
  is done with it.
* After one failed write or sync the disk refuses all further writes and syncs. A second fsync may
  report success although the kernel has dropped the pages the first one failed to write, so none is
  ever retried. ``on_failure`` is called before that first failure is raised, in the same thread:
  whatever vouches for the page cache must be gone before the process can be killed. Only ``remove``
  and ``mkdir`` still work then, for its sake.

Why raw descriptors: buffered files hide when a write happens and swallow errors at close, and with
mmap a bad sector is a SIGBUS instead of an exception. Source: the PostgreSQL "fsyncgate" discussion
of 2018; SQLite's VFS for the idea of the seam.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from minilog import machine
from minilog.errors import CorruptRange, DiskFull, NameRefused, StorageFailed
from minilog.storage.open_files import OpenFiles

Buffer = bytes | memoryview
IOV_MAX = os.sysconf("SC_IOV_MAX")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EEXIST, errno.ENOTEMPTY)
"""Too long, of characters it does not take, or taken: by a name that differs in case only, on
some."""


class Disk(Protocol):
    """File operations. All synchronous, paths absolute, handles opaque ints valid until closed.

    A missing file or directory raises FileNotFoundError, a path the file system cannot take
    NameRefused. Neither is a failure of the disk. Every failure but those named raises
    StorageFailed: the process must stop.
    """

    lacks: int
    """How often there was no room."""
    on_failure: Callable[[], None]
    """Called once, at the first failed write or sync, in its thread and before it is raised."""

    def open(self, path: str) -> int:
        """A handle on an existing file, for reading and appending."""
        ...

    def create(self, path: str) -> int:
        """A handle on a new empty file. A file of that name is emptied. Raises DiskFull."""
        ...

    def duplicate(self, handle: int) -> int:
        """A second handle on the same file, which stays valid when the first is closed or the file
        removed."""
        ...

    def close(self, handle: int) -> None: ...

    def append(self, handle: int, position: int, buffers: Sequence[Buffer]) -> None:
        """Write all of ``buffers`` at ``position``, the file's end (asserted). Raises DiskFull: the
        file is as before."""
        ...

    def overwrite(self, handle: int, position: int, data: Buffer) -> None:
        """Replace bytes that are there (asserted). A full disk does not mind, where files stay
        where they were written.

        Raises DiskFull on a file system that writes elsewhere. Then these bytes are the old ones,
        the new ones or a mixture.
        """
        ...

    def pread(self, handle: int, position: int, size: int) -> bytes:
        """``size`` bytes, fewer only at the end of the file. Raises CorruptRange for an unreadable
        sector."""
        ...

    def truncate(self, handle: int, size: int) -> None: ...

    def fdatasync(self, handle: int) -> None:
        """Make content and size durable. May be called in a thread."""
        ...

    def reload(self, handle: int, position: int) -> None:
        """``fdatasync``, then forget what is cached from ``position`` on: reads tell what is on the
        medium.

        Reading proves nothing otherwise: after a failed sync the kernel serves pages it has given
        up writing.
        """
        ...

    def fsync_dir(self, path: str) -> None: ...

    def rename(self, source: str, target: str) -> None:
        """Atomically replaces a file at ``target``. A directory must not exist there. Raises
        DiskFull."""
        ...

    def remove(self, path: str) -> None:
        """Unlink a file, or remove an empty directory. Raises NameRefused for one that is not
        empty."""
        ...

    def mkdir(self, path: str) -> None:
        """Make a directory and its parents. One that exists is fine. Raises DiskFull."""
        ...

    def list(self, path: str) -> list[str]:
        """Sorted names in a directory."""
        ...

    def size(self, path: str) -> int: ...

    def identity(self, path: str) -> str:
        """Which file this is, as long as the machine runs and nobody changes that: a copy of the
        file is another one."""
        ...

    def lock(self, path: str) -> int | None:
        """Take the exclusive lock on a file until its handle is closed; None when another has it.
        Raises DiskFull."""
        ...


class OsDisk:
    """The real file system."""

    def __init__(self, files: OpenFiles | None = None) -> None:
        self.on_failure: Callable[[], None] = _nobody
        self.failure = ""
        """Why writes are refused from now on; empty while the disk is well."""
        self._files = files or OpenFiles()
        self.lacks = 0
        """How often there was no room, or no descriptor."""

    def open(self, path: str) -> int:
        try:
            return self._files.open(path, os.O_RDWR)
        except FileNotFoundError:
            raise
        except OSError as error:
            _refuse_name(error)
            raise StorageFailed(f"could not open {path}: {error.strerror}") from error

    def create(self, path: str) -> int:
        self._refuse_after_failure()
        try:
            return self._files.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        except FileNotFoundError:
            raise
        except OSError as error:
            self._full_or_fail(f"could not create {path}", error)

    def duplicate(self, handle: int) -> int:
        return self._files.duplicate(handle)

    def close(self, handle: int) -> None:
        try:
            self._files.close(handle)
        except OSError as error:
            self._fail(f"close failed: {error.strerror}", error)

    def append(self, handle: int, position: int, buffers: Sequence[Buffer]) -> None:
        self._refuse_after_failure()
        file = self._files.take(handle)
        file.writes += 1
        try:
            size = os.fstat(file.fd).st_size
            assert position == size, f"append at {position}, the file has {size} bytes"
            self._write_all(file.fd, position, buffers)
        except OSError as error:
            if error.errno not in _FULL:
                self._fail(f"write of a data file failed: {error.strerror}", error)
            self.truncate(handle, position)
            self.lacks += 1
            raise DiskFull("the disk is full: nothing was written; make room and try again") from error
        finally:
            self._files.give_back(file)

    def overwrite(self, handle: int, position: int, data: Buffer) -> None:
        self._refuse_after_failure()
        file = self._files.take(handle)
        file.writes += 1
        try:
            end, size = position + len(data), os.fstat(file.fd).st_size
            assert end <= size, f"overwriting up to {end}, the file has {size} bytes"
            self._write_all(file.fd, position, [data])
        except OSError as error:
            if error.errno not in _FULL:
                self._fail(f"write of a data file failed: {error.strerror}", error)
            self.lacks += 1
            raise DiskFull("the disk is full: the file system has no room to write in place") from error
        finally:
            self._files.give_back(file)

    def _write_all(self, fd: int, position: int, buffers: Sequence[Buffer]) -> None:
        rest = buffers
        while rest:
            head = rest[:IOV_MAX] if len(rest) > IOV_MAX else rest
            written = self._pwritev(fd, head, position)
            if written <= 0:
                raise OSError(errno.EIO, "a write made no progress")
            position += written
            rest = _unwritten(rest, written)

    def _pwritev(self, fd: int, buffers: Sequence[Buffer], position: int) -> int:
        return machine.write_at(fd, buffers, position)

    def pread(self, handle: int, position: int, size: int) -> bytes:
        file = self._files.take(handle)
        try:
            data = os.pread(file.fd, size, position)
            while len(data) < size:  # the end of the file, or a read cut short by a bad sector or a signal
                more = os.pread(file.fd, size - len(data), position + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise CorruptRange(f"bytes from {position} on could not be read: {error.strerror}") from error
        finally:
            self._files.give_back(file)
        return data

    def truncate(self, handle: int, size: int) -> None:
        self._refuse_after_failure()
        file = self._files.take(handle)
        file.writes += 1
        try:
            os.ftruncate(file.fd, size)
        except OSError as error:
            self._fail(f"truncate failed: {error.strerror}", error)
        finally:
            self._files.give_back(file)

    def fdatasync(self, handle: int) -> None:
        self._refuse_after_failure()
        file = self._files.take(handle)
        writes = file.writes
        try:
            machine.sync_content(file.fd)
            file.synced = max(file.synced, writes)
        except OSError as error:
            self._fail(f"fdatasync failed: {error.strerror}; what was written since the last one may be lost", error)
        finally:
            self._files.give_back(file)

    def reload(self, handle: int, position: int) -> None:
        self.fdatasync(handle)
        file = self._files.take(handle)
        machine.forget_cached(file.fd, position - position % _PAGE_BYTES)  # whole pages
        self._files.give_back(file)

    def fsync_dir(self, path: str) -> None:
        self._refuse_after_failure()
        try:
            with self._files.a_moment(path, machine.OPEN_DIRECTORY) as fd:
                machine.sync_directory(fd)
        except FileNotFoundError:
            raise
        except OSError as error:
            self._fail(f"fsync of the directory {path} failed: {error.strerror}", error)

    def rename(self, source: str, target: str) -> None:
        self._refuse_after_failure()
        try:
            self._files.before_unlink(target)
            os.rename(source, target)
            self._files.on_renamed(source, target)
        except FileNotFoundError:
            raise
        except OSError as error:
            self._full_or_fail(f"could not rename {source} to {target}", error)

    def remove(self, path: str) -> None:
        try:
            self._files.before_unlink(path)
            os.unlink(path)
        except FileNotFoundError:
            raise
        except IsADirectoryError:
            self._remove_dir(path)
        except OSError as error:
            self._fail(f"could not remove {path}: {error.strerror}", error)

    def _remove_dir(self, path: str) -> None:
        try:
            os.rmdir(path)
        except OSError as error:
            _refuse_name(error)
            self._fail(f"could not remove the directory {path}: {error.strerror}", error)

    def mkdir(self, path: str) -> None:
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            self._full_or_fail(f"could not make the directory {path}", error)

    def list(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            raise
        except OSError as error:
            _refuse_name(error)
            raise StorageFailed(f"could not list {path}: {error.strerror}") from error

    def size(self, path: str) -> int:
        return _stat(path).st_size

    def identity(self, path: str) -> str:
        """Inodes are used again, so the time of the last change belongs to it."""
        status = _stat(path)
        return f"{status.st_dev}:{status.st_ino}:{status.st_ctime_ns}"

    def lock(self, path: str) -> int | None:
        handle = -1
        try:
            handle = self._files.open(path, os.O_RDWR | os.O_CREAT)
            fd = self._files.take(handle).fd  # never given back, so the descriptor that has the lock stays
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            self._files.close(handle)
            return None
        except FileNotFoundError:
            raise
        except OSError as error:
            if handle >= 0:
                self._files.close(handle)
            self._full_or_fail(f"could not lock {path}", error)
        return handle

    def _refuse_after_failure(self) -> None:
        if self.failure:
            raise StorageFailed(f"the disk has failed before and is not trusted any more: {self.failure}")

    def _full_or_fail(self, what: str, error: OSError) -> NoReturn:
        _refuse_name(error)
        if error.errno in _FULL:
            self.lacks += 1
            raise DiskFull(f"{what}: the disk is full; make room and try again") from error
        self._fail(f"{what}: {error.strerror}", error)

    def _fail(self, reason: str, error: OSError) -> NoReturn:
        if not self.failure:
            self.failure = reason
            self.on_failure()
        raise StorageFailed(reason) from error


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        _refuse_name(error)
        raise StorageFailed(f"could not stat {path}: {error.strerror}") from error


def _refuse_name(error: OSError) -> None:
    if error.errno in _NAME:
        name = error.filename2 or error.filename
        raise NameRefused(f"the file system takes no such name: {name} ({error.strerror})") from error


def _nobody() -> None:
    pass


def _unwritten(buffers: Sequence[Buffer], written: int) -> Sequence[Buffer]:
    """What is left of ``buffers`` after their first ``written`` bytes."""
    for index, buffer in enumerate(buffers):
        if written < len(buffer):
            return [memoryview(buffer)[written:], *buffers[index + 1 :]]
        written -= len(buffer)
    return ()
