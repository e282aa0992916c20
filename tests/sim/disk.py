"""SimDisk: the file system of one simulated machine; satisfies storage's ``Disk``.

A process kill keeps everything that was written. A machine crash keeps what was synced and, of the rest: of each
file a random subset of the unsynced sectors (torn, reordered, holes of zeros), of the changes to directories a random
prefix. Directory changes reach the disk in order, as in the journal of ext4 or XFS, so fsync_dir also makes durable
what came before; syncing a file makes its content durable and not its name.

Faults on demand: a full disk (nothing is written, as OsDisk leaves it) and a failed sync or write, after which the
process must stop and the machine is to be trusted with the durable part only.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from minilog.errors import DiskFull, StorageFailed
from minilog.storage.disk import Buffer

SECTOR = 512


class File:
    def __init__(self) -> None:
        self.content = bytearray()
        self.durable = b""

    def sync(self) -> None:
        self.durable = bytes(self.content)

    def crash(self, rng: Random) -> int:
        """Returns how many bytes were torn off or mixed up."""
        new, old = bytes(self.content), self.durable
        if new == old:
            return 0
        low, high = sorted((len(old), len(new)))
        size = rng.choice((len(old), len(new), rng.randint(low, high)))
        kept = bytearray(old[:size].ljust(size, b"\0"))
        likely = rng.choice((0.0, 0.5, 0.9, 1.0))
        for start in range(0, min(size, len(new)), SECTOR):
            if rng.random() < likely:
                end = min(start + SECTOR, size, len(new))
                kept[start:end] = new[start:end]
        self.content, self.durable = kept, bytes(kept)
        return int(bytes(kept) != new)


Entries = dict[str, "File | Dir"]


class Dir:
    def __init__(self) -> None:
        self.entries: Entries = {}


class Change:
    """Of directory entries, not synced yet: in these directories these names now mean these nodes (None: nothing)."""

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
        self.torn = 0
        self._durable: dict[int, Entries] = {}
        """Entries of each directory as they would be after a crash that loses all changes."""
        self._changes: list[Change] = []
        self._handles: dict[int, File] = {}
        self._locks: dict[int, str] = {}
        self._next_handle = 0
        self._alive: list[Dir] = [self.root]
        """Every directory ever made: keeps ids unique."""

    # --- what happens to the machine ---------------------------------------------------------------------------

    def kill(self) -> None:
        """The process ends: its handles and locks go."""
        self._handles.clear()
        self._locks.clear()
        self.failure = ""

    def crash(self, rng: Random) -> None:
        """The power goes."""
        self.kill()
        for change in self._changes[: rng.choice((0, len(self._changes), rng.randint(0, len(self._changes))))]:
            change.apply(self._durable)
        self._changes = []
        self._revert(self.root, rng)

    def _revert(self, directory: Dir, rng: Random) -> None:
        directory.entries = dict(self._durable.get(id(directory), {}))
        for node in directory.entries.values():
            if isinstance(node, Dir):
                self._revert(node, rng)
            else:
                self.torn += node.crash(rng)

    # --- the Disk protocol -------------------------------------------------------------------------------------

    def open(self, path: str) -> int:
        return self._handle(self._file(path))

    def create(self, path: str) -> int:
        parent, name = self._parent(path)
        node = parent.entries.get(name)
        if node is None:
            self._need_room()
            node = File()
            self._change((parent, name, node))
        assert isinstance(node, File)
        node.content.clear()
        return self._handle(node)

    def duplicate(self, handle: int) -> int:
        return self._handle(self._handles[handle])

    def close(self, handle: int) -> None:
        self._locks.pop(handle, None)
        del self._handles[handle]

    def append(self, handle: int, position: int, buffers: Sequence[Buffer]) -> None:
        self._refuse_after_failure()
        content = self._handles[handle].content
        assert position == len(content), f"append at {position}, the file has {len(content)} bytes"
        self._need_room()
        for buffer in buffers:
            content.extend(buffer)

    def pread(self, handle: int, position: int, size: int) -> bytes:
        assert size >= 0
        return bytes(self._handles[handle].content[position : position + size])

    def truncate(self, handle: int, size: int) -> None:
        self._refuse_after_failure()
        content = self._handles[handle].content
        del content[size:]
        content.extend(bytes(size - len(content)))

    def fdatasync(self, handle: int) -> None:
        self._refuse_after_failure()
        self._handles[handle].sync()

    def fsync_dir(self, path: str) -> None:
        self._refuse_after_failure()
        directory = self._dir(path)
        committed = max((i + 1 for i, change in enumerate(self._changes) if change.touches(directory)), default=0)
        for change in self._changes[:committed]:
            change.apply(self._durable)
        del self._changes[:committed]

    def rename(self, source: str, target: str) -> None:
        node = self._find(source)
        parent, name = self._parent(source)
        new_parent, new_name = self._parent(target)
        assert not isinstance(new_parent.entries.get(new_name), Dir), f"{target} is a directory"
        self._change((parent, name, None), (new_parent, new_name, node))

    def remove(self, path: str) -> None:
        self._refuse_after_failure()
        node = self._find(path)
        assert isinstance(node, File) or not node.entries, f"{path} is not empty"
        parent, name = self._parent(path)
        self._change((parent, name, None))

    def mkdir(self, path: str) -> None:
        node = self.root
        for part in _parts(path):
            child = node.entries.get(part)
            if child is None:
                self._need_room()
                child = Dir()
                self._alive.append(child)
                self._change((node, part, child))
            assert isinstance(child, Dir)
            node = child

    def list(self, path: str) -> list[str]:
        return sorted(self._dir(path).entries)

    def size(self, path: str) -> int:
        return len(self._file(path).content)

    def lock(self, path: str) -> int | None:
        if path in self._locks.values():
            return None
        handle = self.create(path)
        self._locks[handle] = path
        return handle

    # --- inside ------------------------------------------------------------------------------------------------

    def _change(self, *parts: tuple[Dir, str, File | Dir | None]) -> None:
        for directory, name, node in parts:
            if node is None:
                del directory.entries[name]
            else:
                directory.entries[name] = node
        self._changes.append(Change(*parts))

    def _need_room(self) -> None:
        if self.full:
            raise DiskFull("the disk is full: nothing was written; make room and try again")

    def _refuse_after_failure(self) -> None:
        if self.failure:
            raise StorageFailed(self.failure)

    def _handle(self, node: File) -> int:
        self._next_handle += 1
        self._handles[self._next_handle] = node
        return self._next_handle

    def _parent(self, path: str) -> tuple[Dir, str]:
        *parts, name = _parts(path)
        return self._dir("/".join(parts)), name

    def _file(self, path: str) -> File:
        node = self._find(path)
        assert isinstance(node, File), f"{path} is a directory"
        return node

    def _dir(self, path: str) -> Dir:
        node = self._find(path)
        assert isinstance(node, Dir), f"{path} is a file"
        return node

    def _find(self, path: str) -> File | Dir:
        node: File | Dir = self.root
        for part in _parts(path):
            child = node.entries.get(part) if isinstance(node, Dir) else None
            if child is None:
                raise FileNotFoundError(path)
            node = child
        return node


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
