"""FaultyDisk: a SimDisk on which exactly one operation, chosen by its number, goes wrong in one of
a dozen ways.

Counted are the operations that may change something and, for themselves, the reads. A crash is the
machine's, a kill the process's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import TypeVar

from minilog.errors import CorruptRange
from minilog.storage.disk import Buffer
from minilog.storage.segment.segment import LOG_SUFFIX
from minilog.wire.batch import PREFIX_BYTES
from tests.sim.nodes.disk import File, SimDisk

T = TypeVar("T")
EPOCH_BYTES = 4

GROWING = ("append", "create", "mkdir", "rename")
"""What a full disk refuses."""
WRITING = ("append", "overwrite")
DIVISIBLE = (*WRITING, "fdatasync", "fsync_dir")
"""What can be done by halves. The others happen or do not."""
UNREADABLE, BAD_SECTOR, FLIP = "unreadable", "bad sector", "flip"
READING = (UNREADABLE, BAD_SECTOR)
LASTING = (BAD_SECTOR, FLIP)
"""Still there when the process starts again."""
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
    UNREADABLE: "a read fails, this once; nothing may count as gone because of it",
    BAD_SECTOR: "a read fails, and so does every other read of that place until somebody has mended the disk",
    FLIP: "the process is killed before it, and a bit of what was durable changes",
}


class Crash(BaseException):
    """The machine stopped."""


class Kill(BaseException):
    """The process was killed."""


def applies(fault: str, operation: str) -> bool:
    kind = operation.partition(" ")[0]
    if fault in READING or kind == "pread":
        return fault in READING and kind == "pread"
    if fault == "enospc":
        return kind in GROWING
    if fault == "torn":
        return kind in DIVISIBLE
    return fault != "short" or kind in WRITING


class FaultyDisk(SimDisk):
    def __init__(self, rng: Random) -> None:
        """``rng`` is for what happens before the fault."""
        super().__init__()
        self.rng = rng
        self.operations: list[str] = []
        """Kind and file name of every change counted so far."""
        self.reads: list[str] = []
        """The same of every read."""
        self.misread = False
        """In the life of this process a read has failed, or told something else than was
        written."""
        self.struck: list[str] = []
        """The operations at which a fault struck, ever."""
        self._fault, self._at, self._then = "", 0, rng
        self._names: dict[int, str] = {}
        self._looking_on = False
        self.flipped = ""
        """The file a bit of which has changed."""
        self._bad: list[tuple[File, int]] = []

    def arm(self, fault: str, at: int, rng: Random) -> None:
        """Let ``fault`` strike at the ``at``-th operation from here on; 0 is never. ``rng`` is for
        what comes then."""
        self._fault, self._at, self._then = fault, at, rng
        self.operations, self.reads = [], []

    @contextmanager
    def looking_on(self) -> Iterator[None]:
        """The tests read what is there: no read counts, and none fails."""
        was_looking_on, self._looking_on = self._looking_on, True
        try:
            yield
        finally:
            self._looking_on = was_looking_on

    def kill(self) -> None:
        super().kill()
        self.misread = False

    # --- the operations that count ----------------------------------------------------------------

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

    def overwrite(self, handle: int, position: int, data: Buffer) -> None:
        whole = partial(super().overwrite, handle, position, data)
        half = partial(super().overwrite, handle, position, bytes(data)[: self.rng.randrange(len(data) + 1)])
        self._operate("overwrite", self._names[handle], whole, half)

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

    def pread(self, handle: int, position: int, size: int) -> bytes:
        if not self._looking_on:
            self._count_read(handle, position, size)
        return super().pread(handle, position, size)

    def _count_read(self, handle: int, position: int, size: int) -> None:
        file, operation = self._opened(handle), f"pread {self._names[handle].rsplit('/', 1)[-1]}"
        self.reads.append(operation)
        if len(self.reads) == self._at and applies(self._fault, operation):
            self._strike(operation)
            if self._fault == BAD_SECTOR and size:
                self._bad.append((file, self.rng.randrange(position, position + size)))
        elif not any(bad is file and position <= at < position + size for bad, at in self._bad):
            return
        self.misread = True
        raise CorruptRange(f"bytes from {position} on could not be read: input/output error")

    def mend(self) -> None:
        """All of it can be read again."""
        self._bad = []

    # --- what goes wrong --------------------------------------------------------------------------

    def _operate(self, kind: str, path: str, whole: Callable[[], T], half: Callable[[], object] | None = None) -> T:
        operation = f"{kind} {path.rsplit('/', 1)[-1]}"
        self.operations.append(operation)
        if len(self.operations) != self._at or not applies(self._fault, operation):
            return whole()
        self._strike(operation)
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
            case fault if fault == FLIP:
                self._flip()
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

    def _strike(self, operation: str) -> None:
        self.struck.append(operation)
        self.rng = self._then

    def _break(self, fault: str, whole: Callable[[], object], half: Callable[[], object] | None) -> None:
        """Nobody knows how much of it was done. A sync that fails has never done all."""
        outcomes: list[Callable[[], object]] = [lambda: None, half or whole]
        self.rng.choice(outcomes)()
        if fault == "eio, kill":
            return
        self.read_only = fault == "eio, read-only"
        self.fail("input/output error")

    def _flip(self) -> None:
        """Any bit of any file that counts, but for the leader epoch of a batch, which Kafka's
        checksum does not cover."""
        files = [
            (name, file)
            for name, file in self._named_files("/data")
            if file.dirty_from == len(file.content) > 0 and not file.overwritten and "/quarantine/" not in name
        ]
        if not files:
            return
        name, file = self.rng.choice(files)
        at = self.rng.randrange(len(file.content))
        if name.endswith(LOG_SUFFIX) and _is_epoch(file.content, at):
            at -= EPOCH_BYTES
        bit = 1 << self.rng.randrange(8)
        file.content[at] ^= bit
        file.durable[at] ^= bit
        self.flipped = name
        self.struck[-1] += f", bit {bit} at {at} of {name}"

    def _named_files(self, path: str) -> Iterator[tuple[str, File]]:
        for name, node in self._dir(path).entries.items():
            if isinstance(node, File):
                yield f"{path}/{name}", node
            else:
                yield from self._named_files(f"{path}/{name}")

    def _sync_some_changes(self) -> None:
        self._commit(self.rng.randint(0, len(self._changes)))

    def _named(self, handle: int, path: str) -> int:
        self._names[handle] = path
        return handle


def _is_epoch(log: bytearray, at: int) -> bool:
    """The byte at ``at`` is one of the leader epoch in the header of its batch."""
    position = 0
    while position + PREFIX_BYTES <= at:
        end = position + PREFIX_BYTES + int.from_bytes(log[position + 8 : position + PREFIX_BYTES], "big")
        if at < end:
            return at - position < PREFIX_BYTES + EPOCH_BYTES
        position = end
    return False
