"""SimDisk: the file system of one simulated machine; satisfies storage's ``Disk``.

A process kill keeps everything that was written. A machine crash keeps what was synced and, of the
rest: of each file a random subset of the unsynced sectors (torn, reordered, holes of zeros), of the
changes to directories a random prefix. Directory changes reach the disk in order, as in the journal
of ext4 or XFS, so fsync_dir also makes durable what came before; syncing a file makes its content
durable and not its name.

Faults on demand: a full disk (no file grows, not even back to the size it was truncated from, and
no name is made; what is overwritten in place has its blocks), a failed sync or write, after which
the process must stop, and a file system that has become read-only.

A failed sync leaves ghosts, as ext4 and XFS do: some of the unsynced bytes reach the disk, none of
them counts as dirty any more, and reads show them all the same until the kernel needs the memory. A
later sync writes none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from random import Random
from typing import NoReturn

from minilog import machine
from minilog.errors import DiskFull, NameRefused, StorageFailed, TooManyOpenFiles
from minilog.storage.disk import Buffer

SECTOR = 512
NAME_MAX = 255
VOLATILE = f"{machine.volatile_dir()}/"
"""Not on the disk but in memory: works whatever the disk does, and is empty after a crash."""


class File:
    def __init__(self) -> None:
        self.content = bytearray()
        """What reads show."""
        self.durable = bytearray()
        self.dirty_from = 0
        """The next sync writes what lies from here on; below, only ghosts and ``overwritten``
        differ from ``durable``."""
        self.overwritten: list[range] = []
        """Below ``dirty_from``, what the next sync writes besides."""

    def append(self, data: Buffer) -> None:
        self.content.extend(data)

    def overwrite(self, position: int, data: Buffer) -> None:
        end = position + len(data)
        self.content[position:end] = data
        if position < self.dirty_from:
            self.overwritten.append(range(position, min(end, self.dirty_from)))

    def truncate(self, size: int) -> None:
        content = self.content
        self.dirty_from = min(self.dirty_from, size, len(content))
        self.overwritten = [part[: max(self.dirty_from - part.start, 0)] for part in self.overwritten]
        del content[size:]
        content.extend(bytes(size - len(content)))

    def sync(self) -> None:
        for part in [*self.overwritten, range(self.dirty_from, len(self.content))]:
            self._write(part.start, part.stop)
        del self.durable[len(self.content) :]
        self.dirty_from, self.overwritten = len(self.content), []

    def _write(self, start: int, end: int) -> None:
        self.durable.extend(bytes(max(start - len(self.durable), 0)))
        self.durable[start:end] = self.content[start:end]

    def crash(self, rng: Random) -> int:
        """Returns how many bytes were torn off or mixed up."""
        new = self.content
        self.fail_sync(rng)
        self.evict()
        return int(new != self.content)

    def fail_sync(self, rng: Random) -> None:
        """Some of what is dirty reaches the disk, and nothing is dirty any more."""
        overwritten, self.overwritten = self.overwritten, []
        for part in overwritten:
            for start in range(part.start, part.stop, SECTOR):
                if rng.random() < 0.5:
                    self._write(start, min(start + SECTOR, part.stop))
        old, new, start = len(self.durable), len(self.content), self.dirty_from
        self.dirty_from = new
        if start == old == new:
            return
        size = rng.choice((old, new, rng.randint(min(old, new), max(old, new))))
        kept = self.durable[:size].ljust(size, b"\0")
        likely = rng.choice((0.0, 0.5, 0.9, 1.0))
        while start < min(size, new):
            end = min((start // SECTOR + 1) * SECTOR, size, new)
            if rng.random() < likely:
                kept[start:end] = self.content[start:end]
            start = end
        self.durable = kept

    def evict(self) -> None:
        """What was in memory only is gone, the size too."""
        self.content = bytearray(self.durable)
        self.dirty_from, self.overwritten = len(self.content), []

    def reload(self) -> None:
        """Reads show what is on the disk. The size is the inode's, which stays in memory."""
        size = len(self.content)
        self.content = self.durable[:size].ljust(size, b"\0")


Entries = dict[str, "File | Dir"]


class Dir:
    def __init__(self) -> None:
        self.entries: Entries = {}


class Change:
    """Of directory entries, not synced yet: in these directories these names now mean these nodes
    (None: nothing)."""

    def __init__(self, *parts: tuple[Dir, str, File | Dir | None]) -> None:
        self.parts = parts

    def touches(self, directory: Dir) -> bool:
        return any(part[0] is directory for part in self.parts)

    def apply(self, durable: dict[int, Entries]) -> None:
        for directory, name, node in self.parts:
            entries = durable.setdefault(id(directory), {})
            if node is None:
                entries.pop(name, None)
            else:
                entries[name] = node


class SimDisk:
    def __init__(self) -> None:
        self.root = Dir()
        self.full = False
        self.failure = ""
        """Why writes and syncs are refused until the process restarts."""
        self.name_max = NAME_MAX
        self.lacks = 0
        self.files_max = 10**9
        """So many files may be open."""
        self.read_only = False
        """Nothing can be changed until ``remount``, not even by another process. Only memory can
        (``machine.volatile_dir``)."""
        self.on_failure: Callable[[], None] = _nobody
        self.torn = 0
        self._durable: dict[int, Entries] = {}
        """Entries of each directory as they would be after a crash that loses all changes."""
        self._changes: list[Change] = []
        self._handles: dict[int, File] = {}
        self._locks: dict[int, str] = {}
        self._next_handle = 0
        self._alive: list[Dir] = [self.root]
        """Every directory ever made: keeps ids unique."""

    def copy(self) -> SimDisk:
        """A backup: what reads show at this moment, on another disk, durably."""
        other = SimDisk()
        self._copy_into(other, self.root, other.root)
        return other

    def _copy_into(self, other: SimDisk, source: Dir, target: Dir) -> None:
        for name, node in source.entries.items():
            if isinstance(node, Dir):
                directory = Dir()
                other._alive.append(directory)
                self._copy_into(other, node, directory)
                target.entries[name] = directory
            else:
                file = File()
                file.append(bytes(node.content))
                file.sync()
                target.entries[name] = file
        other._durable[id(target)] = dict(target.entries)

    # --- what happens to the machine --------------------------------------------------------------

    def kill(self) -> None:
        """The process ends: its handles and locks go."""
        self._handles.clear()
        self._locks.clear()
        self.failure = ""
        self.on_failure = _nobody

    def lose_pages(self, rng: Random) -> None:
        """The process ends because the disk failed: nothing unsynced is sure to be there, whatever
        reads may show."""
        self.kill()
        evicted = rng.random() < 0.5
        for file in self._files(self.root):
            file.fail_sync(rng)
            if evicted:
                file.evict()

    def _files(self, directory: Dir) -> Iterator[File]:
        for node in directory.entries.values():
            if isinstance(node, Dir):
                yield from self._files(node)
            else:
                yield node

    def crash(self, rng: Random) -> None:
        """The power goes."""
        self.kill()
        self.read_only = False
        self._commit(rng.choice((0, len(self._changes), rng.randint(0, len(self._changes)))))
        self._changes = []
        self._durable.get(id(self.root), {}).pop("dev", None)
        self._revert(self.root, rng)

    def _revert(self, directory: Dir, rng: Random) -> None:
        directory.entries = dict(self._durable.get(id(directory), {}))
        for node in directory.entries.values():
            if isinstance(node, Dir):
                self._revert(node, rng)
            else:
                self.torn += node.crash(rng)

    # --- the Disk protocol ------------------------------------------------------------------------

    def open(self, path: str) -> int:
        self._need_handle()
        return self._handle(self._file(path))

    def create(self, path: str) -> int:
        self._refuse_after_failure()
        self._need_handle()
        return self._create(path)

    def _need_handle(self) -> None:
        if len(self._handles) >= self.files_max:
            self.lacks += 1
            raise TooManyOpenFiles(f"no more than {self.files_max} files can be open")

    def _create(self, path: str) -> int:
        parent, name = self._parent(path)
        node = parent.entries.get(name)
        if node is None:
            self._need_room()
            node = File()
            self._change((parent, name, node))
        if isinstance(node, Dir):
            self.fail(f"could not create {path}: Is a directory")
        node.truncate(0)
        return self._handle(node)

    def duplicate(self, handle: int) -> int:
        return self._handle(self._opened(handle))

    def close(self, handle: int) -> None:
        self._opened(handle)
        self._locks.pop(handle, None)
        del self._handles[handle]

    def append(self, handle: int, position: int, buffers: Sequence[Buffer]) -> None:
        self._refuse_after_failure()
        file = self._opened(handle)
        assert position == len(file.content), f"append at {position}, the file has {len(file.content)} bytes"
        self._need_room()
        for buffer in buffers:
            file.append(buffer)

    def overwrite(self, handle: int, position: int, data: Buffer) -> None:
        self._refuse_after_failure()
        file, end = self._opened(handle), position + len(data)
        assert end <= len(file.content), f"overwriting up to {end}, the file has {len(file.content)} bytes"
        file.overwrite(position, data)

    def pread(self, handle: int, position: int, size: int) -> bytes:
        assert size >= 0
        return bytes(self._opened(handle).content[position : position + size])

    def truncate(self, handle: int, size: int) -> None:
        self._refuse_after_failure()
        self._opened(handle).truncate(size)

    def fdatasync(self, handle: int) -> None:
        self._refuse_after_failure()
        self._opened(handle).sync()

    def reload(self, handle: int, position: int) -> None:
        self.fdatasync(handle)
        self._opened(handle).reload()

    def fsync_dir(self, path: str) -> None:
        self._refuse_after_failure()
        directory = self._dir(path)
        self._commit(max((i + 1 for i, change in enumerate(self._changes) if change.touches(directory)), default=0))

    def rename(self, source: str, target: str) -> None:
        self._refuse_after_failure()
        node = self._find(source)
        parent, name = self._parent(source)
        new_parent, new_name = self._parent(target)
        self._need_room()
        assert not isinstance(new_parent.entries.get(new_name), Dir), f"{target} is a directory"
        self._change((parent, name, None), (new_parent, new_name, node))

    def remove(self, path: str) -> None:
        if not path.startswith(VOLATILE):
            self._refuse_if_read_only()
        node = self._find(path)
        if isinstance(node, Dir) and node.entries:
            raise NameRefused(f"could not remove the directory {path}: Directory not empty")
        parent, name = self._parent(path)
        self._change((parent, name, None))

    def mkdir(self, path: str) -> None:
        self._refuse_name(path)
        node = self.root
        for part in _parts(path):
            child = node.entries.get(part)
            if child is None:
                if not path.startswith(VOLATILE):
                    self._refuse_if_read_only()
                    self._need_room()
                child = Dir()
                self._alive.append(child)
                self._change((node, part, child))
            if isinstance(child, File):
                self.fail(f"could not make the directory {path}: Not a directory")
            node = child

    def list(self, path: str) -> list[str]:
        return sorted(self._dir(path).entries)

    def size(self, path: str) -> int:
        return len(self._file(path).content)

    def identity(self, path: str) -> str:
        return f"{id(self)}:{id(self._file(path))}"

    def lock(self, path: str) -> int | None:
        if path in self._locks.values():
            return None
        self._refuse_if_read_only()
        handle = self._create(path)
        self._locks[handle] = path
        return handle

    # --- inside -----------------------------------------------------------------------------------

    def _change(self, *parts: tuple[Dir, str, File | Dir | None]) -> None:
        for directory, name, node in parts:
            if node is None:
                del directory.entries[name]
            else:
                directory.entries[name] = node
        self._changes.append(Change(*parts))

    def _commit(self, count: int) -> None:
        """Make the first ``count`` changes durable."""
        for change in self._changes[:count]:
            change.apply(self._durable)
        del self._changes[:count]

    def _need_room(self) -> None:
        if self.full:
            self.lacks += 1
            raise DiskFull("the disk is full: nothing was written; make room and try again")

    def _refuse_after_failure(self) -> None:
        self._refuse_if_read_only()
        if self.failure:
            self.fail(self.failure)

    def _refuse_if_read_only(self) -> None:
        if self.read_only:
            self.fail("read-only file system")

    def fail(self, reason: str) -> NoReturn:
        """As OsDisk: the first failure is told at once, and every later write and sync fails
        too."""
        self.failure = self.failure or reason
        on_failure, self.on_failure = self.on_failure, _nobody
        on_failure()
        raise StorageFailed(reason)

    def _opened(self, handle: int) -> File:
        if handle not in self._handles:
            raise StorageFailed(f"handle {handle} is closed: Bad file descriptor")
        return self._handles[handle]

    def _handle(self, node: File) -> int:
        self._next_handle += 1
        self._handles[self._next_handle] = node
        return self._next_handle

    def _refuse_name(self, path: str) -> None:
        if _longest(path) > self.name_max:
            raise NameRefused(f"the file system takes no such name: {path} (File name too long)")

    def _parent(self, path: str) -> tuple[Dir, str]:
        self._refuse_name(path)
        *parts, name = _parts(path)
        return self._dir("/".join(parts)), name

    def flip_bit(self, path: str, at: int) -> int:
        """One bit of this byte is another one, on the disk and in memory. The byte as it is now."""
        file = self._file(path)
        for content in (file.content, file.durable):
            if at < len(content):
                content[at] ^= 1
        return file.content[at]

    def restore_bit(self, path: str, at: int, flipped: int) -> None:
        """Undo ``flip_bit``, unless somebody has written the file anew meanwhile."""
        try:
            is_flipped = self._file(path).content[at : at + 1] == bytes([flipped])
        except FileNotFoundError:
            return
        if is_flipped:
            self.flip_bit(path, at)

    def _file(self, path: str) -> File:
        node = self._find(path)
        if isinstance(node, Dir):
            raise StorageFailed(f"could not open {path}: Is a directory")
        return node

    def _dir(self, path: str) -> Dir:
        node = self._find(path)
        if isinstance(node, File):
            raise StorageFailed(f"{path}: Not a directory")
        return node

    def _find(self, path: str) -> File | Dir:
        self._refuse_name(path)
        node: File | Dir = self.root
        for part in _parts(path):
            if isinstance(node, File):
                raise StorageFailed(f"{path}: Not a directory")
            child = node.entries.get(part)
            if child is None:
                raise FileNotFoundError(path)
            node = child
        return node


def _nobody() -> None:
    pass


@lru_cache(4096)
def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)


@lru_cache(4096)
def _longest(path: str) -> int:
    """Of the names in it."""
    return max((len(part.encode()) for part in _parts(path)), default=0)
