"""FaultyDisk: a SimDisk on which exactly one operation, chosen by its number, goes wrong in one of nine ways.

Counted is every operation that may change something. A crash is the machine's, a kill the process's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import TypeVar

from minilog.storage.disk import Buffer
from tests.sim.disk import SimDisk

T = TypeVar("T")

GROWING = ("append", "create", "mkdir", "rename")
"""What a full disk refuses."""
DIVISIBLE = ("append", "fdatasync", "fsync_dir")
"""What can be done by halves; the others happen or do not."""
FAULTS: dict[str, str] = {
    "crash before": "the power goes before the operation",
    "crash after": "the power goes right after it",
    "torn": "the power goes in the middle of it",
    "kill": "the process is killed before it",
    "short": "the process is killed when part of it is written",
    "eio": "it fails; the process must stop, and what was not synced may be missing",
    "eio, read-only": "it fails, and from then on nothing can be changed until the file system is mounted anew",
    "eio, kill": "it fails, and the process is killed before it can do anything about it",
    "enospc": "the disk is full from here on, until somebody has been told",
}


class Crash(BaseException):
    """The machine stopped."""


class Kill(BaseException):
    """The process was killed."""


def applies(fault: str, operation: str) -> bool:
    kind = operation.partition(" ")[0]
    if fault == "enospc":
        return kind in GROWING
    if fault == "torn":
        return kind in DIVISIBLE
    return fault != "short" or kind == "append"


class FaultyDisk(SimDisk):
    def __init__(self, rng: Random) -> None:
        """``rng`` is for what happens before the fault."""
        super().__init__()
        self.rng = rng
        self.operations: list[str] = []
        """Kind and file name of every operation counted so far."""
        self.struck: list[str] = []
        """The operations at which a fault struck, ever."""
        self._fault, self._at, self._then = "", 0, rng
        self._names: dict[int, str] = {}

    def arm(self, fault: str, at: int, rng: Random) -> None:
        """Let ``fault`` strike at the ``at``-th operation from here on; 0 is never. ``rng`` is for what comes then."""
        self._fault, self._at, self._then = fault, at, rng
        self.operations = []

    # --- the operations that count -----------------------------------------------------------------------------

    def open(self, path: str) -> int:
        return self._named(super().open(path), path)

    def create(self, path: str) -> int:
        return self._named(self._operate("create", path, partial(super().create, path)), path)

    def duplicate(self, handle: int) -> int:
        return self._named(super().duplicate(handle), self._names[handle])

    def lock(self, path: str) -> int | None:
        return self._operate("lock", path, partial(super().lock, path))

    def append(self, handle: int, position: int, buffers: Sequence[Buffer]) -> None:
        whole = partial(super().append, handle, position, buffers)
        data = b"".join(buffers)
        half = partial(super().append, handle, position, [data[: self.rng.randrange(len(data) + 1)]])
        self._operate("append", self._names[handle], whole, half)

    def truncate(self, handle: int, size: int) -> None:
        self._operate("truncate", self._names[handle], partial(super().truncate, handle, size))

    def fdatasync(self, handle: int) -> None:
        half = partial(self._opened(handle).fail_sync, self.rng)
        self._operate("fdatasync", self._names[handle], partial(super().fdatasync, handle), half)

    def fsync_dir(self, path: str) -> None:
        self._operate("fsync_dir", path, partial(super().fsync_dir, path), self._sync_some_changes)

    def rename(self, source: str, target: str) -> None:
        self._find(source)
        self._operate("rename", target, partial(super().rename, source, target))

    def remove(self, path: str) -> None:
        self._find(path)
        self._operate("remove", path, partial(super().remove, path))

    def mkdir(self, path: str) -> None:
        self._operate("mkdir", path, partial(super().mkdir, path))

    # --- what goes wrong ---------------------------------------------------------------------------------------

    def _operate(self, kind: str, path: str, whole: Callable[[], T], half: Callable[[], object] | None = None) -> T:
        operation = f"{kind} {path.rsplit('/', 1)[-1]}"
        self.operations.append(operation)
        if len(self.operations) != self._at or not applies(self._fault, operation):
            return whole()
        self.struck.append(operation)
        self.rng = self._then
        match self._fault:
            case "crash before":
                raise Crash
            case "crash after":
                whole()
                raise Crash
            case "torn":
                (half or whole)()
                raise Crash
            case "kill":
                raise Kill
            case "short":
                (half or whole)()
                raise Kill
            case "enospc":
                self.full = True
                return whole()
            case fault:
                self._break(fault, whole, half)
                raise Kill

    def _break(self, fault: str, whole: Callable[[], object], half: Callable[[], object] | None) -> None:
        """Nobody knows how much of it was done. A sync that fails has never done all."""
        outcomes: list[Callable[[], object]] = [lambda: None, half or whole]
        self.rng.choice(outcomes)()
        if fault == "eio, kill":
            return
        self.read_only = fault == "eio, read-only"
        self.fail("input/output error")

    def _sync_some_changes(self) -> None:
        self._commit(self.rng.randint(0, len(self._changes)))

    def _named(self, handle: int, path: str) -> int:
        self._names[handle] = path
        return handle
