"""The controller's journal: every metadata record since the snapshot, durable before anybody acts
on it (R24).

Files in the data directory, of which one process at a time holds ``lock`` (R25):

    journal-<index of its first record>.log     appended to, one frame per decision
    snapshot-<index of the last record in it>.bin     replaces everything up to that index

A snapshot is written aside, and the journal that follows it is made, before a rename puts it in
force. The generation before it stays. So at any crash one whole chain "snapshot, then journals
without a gap" exists.

Invariants: indexes begin at 1 and have no gap. ``append`` returns only after fdatasync. A failed
write or fsync is never retried. Only a torn last frame is cut (and kept aside): one that a crash
has left too short or with a sector of zeros, and nobody was ever told of it. Any other damage
refuses the start: it may hide metadata that others rely on.
"""

from __future__ import annotations

import logging
import os
import shlex
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from minilog.controller.frames import (
    FILE_HEADER_BYTES,
    JOURNAL,
    JOURNAL_UNMARKED,
    SNAPSHOT,
    Damage,
    file_header,
    form_of,
    frame,
    scan,
)
from minilog.errors import CorruptRange, DiskFull, RefusesToStart, StorageFailed
from minilog.storage.checkpoint import TEMPORARY, read_file, write_synced
from minilog.storage.disk import Disk, OsDisk
from minilog.wire.journal.metadata_records import MetadataRecord

log = logging.getLogger("minilog.controller.journal")


class Replayed(NamedTuple):
    """The state at the start: ``snapshot`` stands for records 1..``snapshot_index``, ``tail``
    follows it."""

    snapshot_index: int
    snapshot: list[MetadataRecord]
    tail: list[MetadataRecord]


class GivenUp(Exception):
    """A write was not waited for any more (``Journal.give_up``). It may be there or not."""


class Journal(Protocol):
    """All calls block. ``append`` and ``snapshot`` raise ``StorageFailed``, after which the process
    must stop, and so must it after ``Deposed``, where several controllers share a journal."""

    @property
    def place(self) -> str:
        """Where it is, for people."""
        ...

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

    def give_up(self) -> None:
        """The process ends: what waits for other machines raises ``GivenUp`` now."""
        ...

    def close(self) -> None: ...


class InUse(RefusesToStart):
    """Another process has the journal open."""


class FileJournal:
    def __init__(self, data_dir: str, disk: Disk | None = None) -> None:
        """``disk`` is the operating system's unless a test has one of its own."""
        self._dir = os.path.abspath(data_dir)
        self._disk = disk or OsDisk()
        self._lock: int | None = None
        self._handle: int | None = None
        self._form = JOURNAL
        """Of the file that is appended to. One of before is continued as it is. The next snapshot
        begins a new one."""
        self._first_index = 0
        self._end = 0
        self._snapshot_index = 0
        self._last_index = 0
        self._failed = False
        self._busy = threading.Lock()
        """Calls come from worker threads. A close must not take the file from under an append still
        running."""

    @property
    def place(self) -> str:
        return self._dir

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
        assert self._handle is None, "opened twice"
        try:
            self._disk.mkdir(self._dir)
            self._lock = self._take_lock()
            for name in self._disk.list(self._dir):
                if name.endswith(TEMPORARY):
                    self._disk.remove(f"{self._dir}/{name}")
            return self._replay()
        except (StorageFailed, DiskFull, CorruptRange, OSError) as error:
            raise RefusesToStart(
                f"cannot use the journal in {self._dir}: {error}; check disk and permissions"
            ) from error

    def append(self, records: Sequence[MetadataRecord]) -> int:
        assert records, "nothing to append"
        with self._busy:
            assert self._handle is not None
            assert not self._failed, "a failed journal is never written again"
            data = frame(self._form, self._last_index + 1, records)
            try:
                self._disk.append(self._handle, self._end, [data])
                self._disk.fdatasync(self._handle)
            except (StorageFailed, DiskFull) as error:
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

    def begin_with(self, index: int, records: Sequence[MetadataRecord]) -> None:
        """Let an empty journal begin behind ``records``, which stand for everything up to
        ``index``."""
        with self._busy:
            assert self._last_index == 0, "only an empty journal can begin anew"
            self._last_index = index
            self._replace_by_snapshot(index, records)
            if self._snapshot_index != index:
                raise RefusesToStart(f"the disk of {self._dir} has no room for the journal; nothing was written")

    def give_up(self) -> None:
        """A disk is waited for."""

    def close(self) -> None:
        with self._busy:
            self._release()

    def _release(self) -> None:
        for handle in (self._handle, self._lock):
            if handle is not None:
                self._disk.close(handle)
        self._handle = self._lock = None

    def _replace_by_snapshot(self, index: int, records: Sequence[MetadataRecord]) -> None:
        path = self._snapshot_path(index)
        try:
            write_synced(self._disk, path + TEMPORARY, file_header(SNAPSHOT, index) + frame(SNAPSHOT, index, records))
            if self._first_index != index + 1:  # an earlier attempt may have left the journal made
                self._start_file(index + 1)
            self._disk.rename(path + TEMPORARY, path)
            self._disk.fsync_dir(self._dir)
            self._drop_before(self._snapshot_index)
        except DiskFull:
            log.warning("the disk has no room for a snapshot at record %d; the journal goes on without", index)
            self._remove_temporary(path)
            return
        except StorageFailed as error:
            self._failed = True
            raise StorageFailed(f"a snapshot in {self._dir} cannot be written: {error}") from error
        self._snapshot_index = index
        log.info("snapshot of %d metadata records at record %d", len(records), index)

    # --- reading ----------------------------------------------------------------------------------

    def _replay(self) -> Replayed:
        snapshots, journals = self._indexes("snapshot-", ".bin"), self._indexes("journal-", ".log")
        if not snapshots and not journals:
            self._start_file(1)
            self._disk.fsync_dir(os.path.dirname(self._dir))
            return Replayed(0, [], [])
        index, snapshot = self._newest_snapshot(snapshots)
        self._snapshot_index = self._last_index = index
        tail = self._read_chain([first for first in journals if first > index])
        return Replayed(index, snapshot, tail)

    def _newest_snapshot(self, indexes: list[int]) -> tuple[int, list[MetadataRecord]]:
        """A damaged snapshot is passed over: the journals since the one before it hold all that it
        held."""
        for index in reversed(indexes):
            data = read_file(self._disk, self._snapshot_path(index)) or b""
            if form_of(data, index, [SNAPSHOT]) and len(data) > FILE_HEADER_BYTES:
                records, _, damage = scan(SNAPSHOT, data, FILE_HEADER_BYTES, index)
                if damage is None:
                    return index, records
            log.warning("%s is damaged; going back to the snapshot before it", self._snapshot_path(index))
        return 0, []

    def _read_chain(self, firsts: list[int]) -> list[MetadataRecord]:
        tail: list[MetadataRecord] = []
        for first in firsts or [self._last_index + 1]:
            path = self._journal_path(first)
            data = read_file(self._disk, path)
            if first != self._last_index + 1 or data is None:
                raise RefusesToStart(
                    f"metadata records from {self._last_index + 1} on are missing: there is no "
                    f"{self._journal_path(self._last_index + 1)}. Nothing was changed. Restore the file from a copy"
                )
            records, self._end = self._read_journal(path, data, first, is_last=first == firsts[-1])
            tail.extend(records)
            self._last_index += len(records)
            self._first_index = first
        self._handle = self._disk.open(self._journal_path(self._first_index))
        return tail

    def _read_journal(self, path: str, data: bytes, first: int, *, is_last: bool) -> tuple[list[MetadataRecord], int]:
        form = form_of(data, first, [JOURNAL, JOURNAL_UNMARKED])
        if form is None:
            raise RefusesToStart(_damaged(path, Damage(0, "the file header is not that of this journal", None), first))
        self._form = form
        found = scan(form, data, FILE_HEADER_BYTES, first)
        if found.damage is not None:
            if not is_last or not found.damage.is_torn:
                raise RefusesToStart(_damaged(path, found.damage, first + len(found.records)))
            kept = f"{self._dir}/torn-journal-{first:020d}-{found.end}.bin"
            log.warning("%s ends in a torn write: cutting it at byte %d, the rest goes to %s", path, found.end, kept)
            self._write_file(kept, data[found.end :])
        if is_last and len(data) > FILE_HEADER_BYTES:
            self._write_file(path, data[: found.end])
        return found.records, found.end

    def _write_file(self, path: str, data: bytes) -> None:
        """Replace a file as a whole. Raises DiskFull, and then leaves it as it was.

        The last journal is written anew at each start because reading it proves nothing about the
        disk: after a failed fsync the kernel serves pages that it has given up writing.
        """
        try:
            write_synced(self._disk, path + TEMPORARY, data)
            self._disk.rename(path + TEMPORARY, path)
        except DiskFull:
            self._remove_temporary(path)
            raise
        self._disk.fsync_dir(self._dir)

    def _remove_temporary(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._disk.remove(path + TEMPORARY)

    # --- files ------------------------------------------------------------------------------------

    def _take_lock(self) -> int:
        path = f"{self._dir}/lock"
        handle = self._disk.lock(path)
        if handle is None:
            holder = (read_file(self._disk, path) or b"").decode("ascii", "replace").strip()
            raise InUse(
                f"another controller (process {holder or 'unknown'}) uses {self._dir}; stop it, or set data_dir to a "
                "directory of this controller's own"
            )
        return handle

    def _start_file(self, first: int) -> None:
        """Make and adopt an empty journal whose first record will be ``first``. It is whole or it
        is not there."""
        path = self._journal_path(first)
        header = file_header(JOURNAL, first)
        self._write_file(path, header)
        former, self._handle = self._handle, self._disk.open(path)
        if former is not None:
            self._disk.close(former)
        self._form, self._first_index = JOURNAL, first
        self._end = len(header)

    def _drop_before(self, index: int) -> None:
        """Keep the generation that begins with the snapshot at ``index``; older ones go."""
        old = [self._snapshot_path(at) for at in self._indexes("snapshot-", ".bin") if at < index]
        old += [self._journal_path(first) for first in self._indexes("journal-", ".log") if first <= index]
        for path in old:
            self._disk.remove(path)

    def _indexes(self, prefix: str, suffix: str) -> list[int]:
        names = [name for name in self._disk.list(self._dir) if name.startswith(prefix) and name.endswith(suffix)]
        numbers = (name[len(prefix) : -len(suffix)] for name in names)
        return sorted(int(number) for number in numbers if number.isdecimal())

    def _snapshot_path(self, index: int) -> str:
        return f"{self._dir}/snapshot-{index:020d}.bin"

    def _journal_path(self, first: int) -> str:
        return f"{self._dir}/journal-{first:020d}.log"


def _damaged(path: str, damage: Damage, index: int) -> str:
    follows = "" if damage.next_frame is None else f", and whole frames follow at byte {damage.next_frame}"
    return (
        f"{path} is damaged at byte {damage.position}: {damage.reason}{follows}. Nothing was changed. Options: restore "
        f"the file from a copy; or, giving up all metadata from record {index} on (topics, leaders and ISRs go back "
        f"in time), move later journal and snapshot files away and run: truncate -s {damage.position} {shlex.quote(path)}"
    )
