"""A disk in memory that forgets, in a crash, whatever was not synced; and that fails on demand at its n-th operation."""

from __future__ import annotations

import random
from collections.abc import Sequence

from minilog.errors import DiskFull, StorageFailed
from minilog.storage.disk import Buffer

SECTOR = 512


class Crash(BaseException):
    """The process and the machine stop before this operation."""


class File:
    def __init__(self) -> None:
        self.content = bytearray()
        self.durable = b""

    def crash(self, rng: random.Random | None) -> None:
        """Fall back to the durable image; with ``rng`` some sectors that were not synced survive."""
        if rng is None:
            self.content = bytearray(self.durable)
            return
        new, old = bytes(self.content), self.durable
        size = rng.choice([len(old), len(new), rng.randint(min(len(old), len(new)), max(len(old), len(new)))])
        kept = bytearray(old[:size].ljust(size, b"\0"))
        for start in range(0, size, SECTOR):
            sector = new[start : min(start + SECTOR, size)]
            if rng.random() < 0.5 and sector:
                kept[start : start + len(sector)] = sector
        self.content, self.durable = kept, bytes(kept)


class Dir:
    def __init__(self) -> None:
        self.entries: dict[str, File | Dir] = {}
        self.durable: dict[str, File | Dir] = {}

    def crash(self, rng: random.Random | None) -> None:
        if rng is None or rng.random() < 0.5:
            self.entries = dict(self.durable)
        self.durable = dict(self.entries)
        for entry in self.entries.values():
            entry.crash(rng)


class MemoryDisk:
    def __init__(self) -> None:
        self.root = Dir()
        self.operations: list[str] = []
        """Name and last path part of every changing operation so far."""
        self.faults: dict[int, str] = {}
        """Operation number to "crash", "full" or "error"."""
        self.failure = ""
        self._handles: dict[int, File] = {}
        self._locks: dict[int, str] = {}
        self._next_handle = 3

    # ---- what a test does to it

    def crash(self, rng: random.Random | None = None) -> None:
        """Power cut: every handle and lock is gone, and what was not synced."""
        self.root.crash(rng)
        self._handles.clear()
        self._locks.clear()
        self.failure = ""
        self.faults.clear()

    def file(self, path: str) -> File:
        node = self._find(path)
        assert isinstance(node, File)
        return node

    @property
    def open_handles(self) -> int:
        return len(self._handles)

    # ---- the Disk protocol

    def open(self, path: str) -> int:
        node = self._find(path)
        assert isinstance(node, File)
        return self._handle(node)

    def create(self, path: str) -> int:
        self._count("create", path)
        parent, name = self._parent(path)
        node = parent.entries.get(name)
        if node is None:
            node = parent.entries[name] = File()
        assert isinstance(node, File)
        node.content.clear()
        return self._handle(node)

    def duplicate(self, handle: int) -> int:
        return self._handle(self._handles[handle])

    def close(self, handle: int) -> None:
        self._locks.pop(handle, None)
        del self._handles[handle]

    def append(self, handle: int, position: int, buffers: Sequence[Buffer]) -> None:
        content = self._handles[handle].content
        assert position == len(content), f"append at {position}, the file has {len(content)} bytes"
        self._count("append")
        for buffer in buffers:
            content.extend(buffer)

    def pread(self, handle: int, position: int, size: int) -> bytes:
        assert size >= 0
        return bytes(self._handles[handle].content[position : position + size])

    def truncate(self, handle: int, size: int) -> None:
        self._count("truncate")
        content = self._handles[handle].content
        del content[size:]
        content.extend(bytes(size - len(content)))

    def fdatasync(self, handle: int) -> None:
        self._count("fdatasync")
        node = self._handles[handle]
        node.durable = bytes(node.content)

    def fsync_dir(self, path: str) -> None:
        self._count("fsync_dir", path)
        node = self._find(path)
        assert isinstance(node, Dir)
        node.durable = dict(node.entries)

    def rename(self, source: str, target: str) -> None:
        node = self._find(source)
        self._count("rename", target)
        parent, name = self._parent(source)
        new_parent, new_name = self._parent(target)
        assert not isinstance(new_parent.entries.get(new_name), Dir)
        del parent.entries[name]
        new_parent.entries[new_name] = node

    def remove(self, path: str) -> None:
        node = self._find(path)
        self._count("remove", path)
        assert isinstance(node, File) or not node.entries
        parent, name = self._parent(path)
        del parent.entries[name]

    def mkdir(self, path: str) -> None:
        self._count("mkdir", path)
        node = self.root
        for part in _parts(path):
            child = node.entries.setdefault(part, Dir())
            assert isinstance(child, Dir)
            node = child

    def list(self, path: str) -> list[str]:
        node = self._find(path)
        assert isinstance(node, Dir)
        return sorted(node.entries)

    def size(self, path: str) -> int:
        return len(self.file(path).content)

    def lock(self, path: str) -> int | None:
        if path in self._locks.values():
            return None
        handle = self.create(path)
        self._locks[handle] = path
        return handle

    # ---- inside

    def _count(self, operation: str, path: str = "") -> None:
        self.operations.append(f"{operation} {path.rsplit('/', 1)[-1]}".strip())
        fault = self.faults.get(len(self.operations))
        if fault == "crash":
            raise Crash
        if fault == "full" and operation in ("create", "append", "rename", "mkdir"):
            raise DiskFull("no space left")
        if fault == "error" and operation not in ("create", "mkdir", "rename"):
            self.failure = operation
        if self.failure and operation in ("append", "fdatasync", "fsync_dir", "truncate"):
            raise StorageFailed(f"{operation}: input/output error")

    def _handle(self, node: File) -> int:
        self._next_handle += 1
        self._handles[self._next_handle] = node
        return self._next_handle

    def _parent(self, path: str) -> tuple[Dir, str]:
        *parts, name = _parts(path)
        node = self._find("/".join(parts))
        assert isinstance(node, Dir)
        return node, name

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
