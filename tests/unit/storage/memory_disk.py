"""SimDisk for tests of one process: a crash that keeps nothing unsynced, counted operations, faults
by number."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from minilog.errors import DiskFull
from minilog.storage.disk import Buffer
from tests.sim.nodes.disk import File, SimDisk

T = TypeVar("T")


class Crash(BaseException):
    """The process and the machine stop before this operation."""


class Nothing(random.Random):
    """Draws for a crash: of what was not synced, nothing is kept."""

    def random(self) -> float:
        return 1.0

    def randint(self, a: int, b: int) -> int:
        return a

    def choice(self, seq: Sequence[T]) -> T:  # type: ignore[override]
        return seq[0]


class MemoryDisk(SimDisk):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []
        """Name and last path part of every changing operation so far."""
        self.faults: dict[int, str] = {}
        """Operation number to "crash", "full" or "error"."""

    def crash(self, rng: random.Random | None = None) -> None:
        """Power cut: every handle and lock is gone, and what was not synced. With ``rng`` some of
        that survives."""
        super().crash(rng or Nothing())
        self.faults.clear()

    def file(self, path: str) -> File:
        return self._file(path)

    @property
    def open_handles(self) -> int:
        return len(self._handles)

    # ---- the operations that change something

    def create(self, path: str) -> int:
        self._count("create", path)
        return super().create(path)

    def append(self, handle: int, position: int, buffers: Sequence[Buffer]) -> None:
        self._count("append")
        super().append(handle, position, buffers)

    def overwrite(self, handle: int, position: int, data: Buffer) -> None:
        self._count("overwrite")
        super().overwrite(handle, position, data)

    def truncate(self, handle: int, size: int) -> None:
        self._count("truncate")
        super().truncate(handle, size)

    def fdatasync(self, handle: int) -> None:
        self._count("fdatasync")
        super().fdatasync(handle)

    def fsync_dir(self, path: str) -> None:
        self._count("fsync_dir", path)
        super().fsync_dir(path)

    def rename(self, source: str, target: str) -> None:
        self._find(source)
        self._count("rename", target)
        super().rename(source, target)

    def remove(self, path: str) -> None:
        self._find(path)
        self._count("remove", path)
        super().remove(path)

    def mkdir(self, path: str) -> None:
        self._count("mkdir", path)
        super().mkdir(path)

    def _count(self, operation: str, path: str = "") -> None:
        self.operations.append(f"{operation} {path.rsplit('/', 1)[-1]}".strip())
        fault = self.faults.get(len(self.operations))
        if fault == "crash":
            raise Crash
        if fault == "full" and operation in ("create", "append", "rename", "mkdir"):
            raise DiskFull("no space left")
        if fault == "error" and operation not in ("create", "mkdir", "rename"):
            self.fail(f"{operation}: input/output error")
