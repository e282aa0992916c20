"""The controller's journal: every metadata record since the snapshot, durable before anybody acts on it (R24).

Files in the data directory, of which one process at a time holds ``lock`` (R25):

    journal-<index of its first record>.log     appended to, one frame per decision
    snapshot-<index of the last record in it>.bin     replaces everything up to that index

A snapshot is written aside, and the journal that follows it is made, before a rename puts it in force; the
generation before it stays. So at any crash one whole chain "snapshot, then journals without a gap" exists.

Invariants: indexes begin at 1 and have no gap; ``append`` returns only after fdatasync; a failed write or fsync is
never retried. Only a torn last frame with no whole frame after it is cut (and kept aside): a crash can cause that
and nobody was ever told of it. Any other damage refuses the start: it may hide metadata that others rely on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from minilog.controller.frames import (
    FILE_HEADER_BYTES,
    JOURNAL_MAGIC,
    SNAPSHOT_MAGIC,
    Damage,
    file_header,
    frame,
    is_file_header,
    scan,
)
from minilog.errors import RefusesToStart, StorageFailed
from minilog.wire.metadata import MetadataRecord

log = logging.getLogger("minilog.controller.journal")


class Replayed(NamedTuple):
    """The state at the start: ``snapshot`` stands for records 1..``snapshot_index``, ``tail`` follows it."""

    snapshot_index: int
    snapshot: list[MetadataRecord]
    tail: list[MetadataRecord]


class Journal(Protocol):
    """All calls block; ``append`` and ``snapshot`` raise ``StorageFailed``, after which the process must stop."""

    @property
    def last_index(self) -> int: ...

    @property
    def tail_records(self) -> int:
        """Records since the snapshot in force."""
        ...

    def open(self) -> Replayed:
        """Take possession and read everything. Raises ``RefusesToStart``."""
        ...

    def append(self, records: Sequence[MetadataRecord]) -> int:
        """Make ``records`` durable, all or none; returns the index of the last one."""
        ...

    def snapshot(self, index: int, records: Sequence[MetadataRecord]) -> None:
        """Let ``records`` stand for everything up to ``index``, which is ``last_index``."""
        ...

    def close(self) -> None: ...


class FileJournal:
    def __init__(self, data_dir: str) -> None:
        self._dir = Path(data_dir)
        self._lock_fd = -1
        self._fd = -1
        self._first_index = 0
        self._end = 0
        self._snapshot_index = 0
        self._last_index = 0
        self._failed = False
        self._busy = threading.Lock()
        """Calls come from worker threads; a close must not take the file from under an append still running."""

    @property
    def last_index(self) -> int:
        return self._last_index

    @property
    def tail_records(self) -> int:
        return self._last_index - self._snapshot_index

    def open(self) -> Replayed:
        with self._busy:
            return self._open()

    def _open(self) -> Replayed:
        assert self._fd < 0, "opened twice"
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            self._lock()
            for leftover in self._dir.glob("*.tmp"):
                leftover.unlink()
            return self._replay()
        except OSError as error:
            raise RefusesToStart(
                f"cannot use the journal in {self._dir}: {error}; check disk and permissions"
            ) from error

    def append(self, records: Sequence[MetadataRecord]) -> int:
        assert records, "nothing to append"
        with self._busy:
            assert self._fd >= 0
            assert not self._failed, "a failed journal is never written again"
            data = frame(self._last_index + 1, records)
            try:
                _write_all(self._fd, data, self._end)
                os.fdatasync(self._fd)
            except OSError as error:
                self._failed = True
                raise StorageFailed(f"the journal in {self._dir} cannot be written: {error}") from error
            self._end += len(data)
            self._last_index += len(records)
            return self._last_index

    def snapshot(self, index: int, records: Sequence[MetadataRecord]) -> None:
        with self._busy:
            assert index == self._last_index, f"a snapshot at {index} of a journal that ends at {self._last_index}"
            assert index > self._snapshot_index
            assert not self._failed, "a failed journal is never written again"
            self._replace_by_snapshot(index, records)

    def close(self) -> None:
        with self._busy:
            self._release()

    def _release(self) -> None:
        for fd in (self._fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock_fd = -1

    def _replace_by_snapshot(self, index: int, records: Sequence[MetadataRecord]) -> None:
        path = self._snapshot_path(index)
        try:
            aside = self._write_aside(path, file_header(SNAPSHOT_MAGIC, index) + frame(index, records))
            if aside is None:
                log.warning("the disk has no room for a snapshot at record %d; the journal goes on without", index)
                return
            if self._first_index != index + 1:  # a crash in an earlier attempt may have left the journal made
                self._start_file(index + 1)
            aside.rename(path)
            _sync_dir(self._dir)
            self._drop_before(self._snapshot_index)
        except OSError as error:
            self._failed = True
            raise StorageFailed(f"a snapshot in {self._dir} cannot be written: {error}") from error
        self._snapshot_index = index
        log.info("snapshot of %d metadata records at record %d", len(records), index)

    # --- reading -----------------------------------------------------------------------------------------

    def _replay(self) -> Replayed:
        snapshots, journals = self._indexes("snapshot-*.bin"), self._indexes("journal-*.log")
        if not snapshots and not journals:
            self._start_file(1)
            return Replayed(0, [], [])
        index, snapshot = self._newest_snapshot(snapshots)
        self._snapshot_index = self._last_index = index
        tail = self._read_chain([first for first in journals if first > index])
        return Replayed(index, snapshot, tail)

    def _newest_snapshot(self, indexes: list[int]) -> tuple[int, list[MetadataRecord]]:
        """A damaged snapshot is passed over: the journals since the one before it hold all that it held."""
        for index in reversed(indexes):
            data = self._snapshot_path(index).read_bytes()
            if is_file_header(data, SNAPSHOT_MAGIC, index) and len(data) > FILE_HEADER_BYTES:
                records, _, damage = scan(data, FILE_HEADER_BYTES, index)
                if damage is None:
                    return index, records
            log.warning("%s is damaged; going back to the snapshot before it", self._snapshot_path(index))
        return 0, []

    def _read_chain(self, firsts: list[int]) -> list[MetadataRecord]:
        tail: list[MetadataRecord] = []
        for first in firsts or [self._last_index + 1]:
            path = self._journal_path(first)
            if first != self._last_index + 1 or not path.exists():
                raise RefusesToStart(
                    f"metadata records from {self._last_index + 1} on are missing: there is no "
                    f"{self._journal_path(self._last_index + 1)}. Nothing was changed. Restore the file from a copy"
                )
            records, self._end = self._read_journal(path, first, is_last=first == firsts[-1])
            tail.extend(records)
            self._last_index += len(records)
            self._first_index = first
        self._fd = os.open(self._journal_path(self._first_index), os.O_RDWR | os.O_CLOEXEC)
        return tail

    def _read_journal(self, path: Path, first: int, *, is_last: bool) -> tuple[list[MetadataRecord], int]:
        data = path.read_bytes()
        if not is_file_header(data, JOURNAL_MAGIC, first):
            raise RefusesToStart(_damaged(path, Damage(0, "the file header is not that of this journal", None), first))
        found = scan(data, FILE_HEADER_BYTES, first)
        if found.damage is not None:
            if not is_last or found.damage.next_frame is not None:
                raise RefusesToStart(_damaged(path, found.damage, first + len(found.records)))
            kept = self._dir / f"torn-{path.stem}-{found.end}.bin"
            log.warning("%s ends in a torn write: cutting it at byte %d, the rest goes to %s", path, found.end, kept)
            self._write_file(kept, data[found.end :])
        if is_last and found.end > FILE_HEADER_BYTES:
            self._write_file(path, data[: found.end])
        return found.records, found.end

    def _write_file(self, path: Path, data: bytes) -> None:
        """Replace a file as a whole.

        The last journal is written anew at each start because reading it proves nothing about the disk: after a
        failed fsync the kernel serves pages that it has given up writing.
        """
        aside = self._write_aside(path, data)
        if aside is None:
            raise OSError(errno.ENOSPC, f"no room to write {path}")
        aside.rename(path)
        _sync_dir(self._dir)

    # --- files -------------------------------------------------------------------------------------------

    def _lock(self) -> None:
        self._lock_fd = os.open(self._dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock_fd, 20, 0).decode("ascii", "replace").strip()
            self._release()
            raise RefusesToStart(
                f"another controller (process {holder or 'unknown'}) uses {self._dir}; stop it, or set data_dir to a "
                "directory of this controller's own"
            ) from None
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, f"{os.getpid()}\n".encode(), 0)

    def _start_file(self, first: int) -> None:
        """Make and adopt an empty journal whose first record will be ``first``; it is whole or it is not there."""
        path = self._journal_path(first)
        header = file_header(JOURNAL_MAGIC, first)
        self._write_file(path, header)
        former, self._fd = self._fd, os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if former >= 0:
            os.close(former)
        self._first_index = first
        self._end = len(header)

    def _write_aside(self, path: Path, data: bytes) -> Path | None:
        """The durable, not yet named copy of a file to come; None when the disk is full."""
        aside = path.with_name(path.name + ".tmp")
        try:
            with _opened(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
                _write_all(fd, data, 0)
                os.fsync(fd)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            aside.unlink(missing_ok=True)
            return None
        return aside

    def _drop_before(self, index: int) -> None:
        """Keep the generation that begins with the snapshot at ``index``; older ones go."""
        old = [self._snapshot_path(at) for at in self._indexes("snapshot-*.bin") if at < index]
        old += [self._journal_path(first) for first in self._indexes("journal-*.log") if first <= index]
        for path in old:
            path.unlink()

    def _indexes(self, pattern: str) -> list[int]:
        names = (path.stem.partition("-")[2] for path in self._dir.glob(pattern))
        return sorted(int(name) for name in names if name.isdecimal())

    def _snapshot_path(self, index: int) -> Path:
        return self._dir / f"snapshot-{index:020d}.bin"

    def _journal_path(self, first: int) -> Path:
        return self._dir / f"journal-{first:020d}.log"


def _damaged(path: Path, damage: Damage, index: int) -> str:
    follows = "" if damage.next_frame is None else f", and whole frames follow at byte {damage.next_frame}"
    return (
        f"{path} is damaged at byte {damage.position}: {damage.reason}{follows}. Nothing was changed. Options: restore "
        f"the file from a copy; or, giving up all metadata from record {index} on (topics, leaders and ISRs go back "
        f"in time), move later journal and snapshot files away and run: truncate -s {damage.position} {path}"
    )


def _write_all(fd: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, position)
        view = view[written:]
        position += written


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


def _sync_dir(path: Path) -> None:
    with _opened(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)
