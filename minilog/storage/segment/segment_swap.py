"""A cleaned segment takes the place of those it was made from, in one step that a crash cannot
halve.

Files, in the log's directory, for the stretch from ``base`` to ``end``:

    <base>-<end>.cleaned            being written, or complete: a crash throws it away
        | rename, sync the directory: the decision
    <base>-<end>.swap               decided: a crash is followed by doing the rest again
        | the segments in between are taken away; sync the directory
        | rename
    <base>.log                      done: the old first segment is gone with the same rename

The name carries the stretch, so recovery needs nothing else to know which segments a ``.swap`` file
stands for. The directory is synced between taking away and the last rename because a file system
may make renames durable in any order. A log with one segment too many is worse than one to be
finished. Indexes are derived data: those of the old segments go first, the new ones
(``<base>-<end>.index``) follow the last rename, and without them they are made anew.

Source: Kafka's ``.cleaned``/``.swap`` files (KAFKA-2163); naming the end as well is what spares
reading the file.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import NamedTuple

from minilog.errors import DiskFull, StorageFailed
from minilog.storage.disk import Disk
from minilog.storage.segment.segment import DELETED_SUFFIX, LOG_SUFFIX
from minilog.storage.segment.segment_index import INDEX_SUFFIX, TIME_SUFFIX

CLEANED_SUFFIX, SWAP_SUFFIX = ".cleaned", ".swap"
_STRETCH = re.compile(r"(\d{20})-(\d{20})(\.cleaned|\.swap|\.index|\.timeindex)")
_LOG = re.compile(r"(\d{20})\.log")


class Swap(NamedTuple):
    directory: str
    base_offset: int
    end_offset: int

    @property
    def stem(self) -> str:
        """Path without suffix of everything that is not in place yet."""
        return f"{self.directory}/{self.base_offset:020d}-{self.end_offset:020d}"

    @property
    def cleaned(self) -> str:
        return self.stem + CLEANED_SUFFIX

    def perform(self, disk: Disk) -> list[str]:
        """Put the complete and synced ``.cleaned`` file in place; returns the files that wait to be
        removed.

        Raises DiskFull (nothing has changed) or StorageFailed."""
        disk.rename(self.cleaned, self.stem + SWAP_SUFFIX)
        try:
            disk.fsync_dir(self.directory)
            return self._finish(disk)
        except DiskFull as error:  # the decision stands: a restart completes it
            raise StorageFailed(f"a cleaned segment of {self.directory} could not be put in place: {error}") from error

    def _finish(self, disk: Disk) -> list[str]:
        """Everything behind the decision; may be done again from any point."""
        garbage: list[str] = []
        is_changed = False
        for name in disk.list(self.directory):
            match = _LOG.fullmatch(name)
            if match is None or not self.base_offset <= int(match[1]) < self.end_offset:
                continue
            stem = f"{self.directory}/{match[1]}"
            _remove_index(disk, stem)
            if int(match[1]) > self.base_offset:
                garbage += _take_away(disk, stem + LOG_SUFFIX)
                is_changed = True
        if is_changed:
            disk.fsync_dir(self.directory)
        target = f"{self.directory}/{self.base_offset:020d}"
        disk.rename(self.stem + SWAP_SUFFIX, target + LOG_SUFFIX)
        for suffix in (INDEX_SUFFIX, TIME_SUFFIX):
            with suppress(FileNotFoundError, DiskFull):  # it can be made anew
                disk.rename(self.stem + suffix, target + suffix)
        return garbage

    def discard(self, disk: Disk) -> None:
        """Forget a cleaned segment that is not wanted any more."""
        with suppress(FileNotFoundError):
            disk.remove(self.cleaned)
        _remove_index(disk, self.stem)


def settle(disk: Disk, directory: str) -> None:
    """After a start: finish the swaps that were decided, remove everything that is no part of the
    log."""
    names = disk.list(directory)
    for name in names:
        match = _STRETCH.fullmatch(name)
        if match is not None and match[3] == SWAP_SUFFIX:
            swap = Swap(directory, int(match[1]), int(match[2]))
            _remove_index(disk, swap.stem)  # not synced: after a power cut they may lie
            swap._finish(disk)
            disk.fsync_dir(directory)
    for name in disk.list(directory):
        if name.endswith(DELETED_SUFFIX) or _STRETCH.fullmatch(name):
            with suppress(FileNotFoundError):  # whoever had time for it was faster: the log was open a moment ago
                disk.remove(f"{directory}/{name}")


def _take_away(disk: Disk, path: str) -> list[str]:
    """Take the file out of the log; returns where it waits to be removed. With no room for that it
    goes now, however long that takes: a full disk is no reason to stop half-way."""
    try:
        disk.rename(path, path + DELETED_SUFFIX)
    except DiskFull:
        disk.remove(path)
        return []
    return [path + DELETED_SUFFIX]


def _remove_index(disk: Disk, stem: str) -> None:
    for suffix in (INDEX_SUFFIX, TIME_SUFFIX):
        with suppress(FileNotFoundError):
            disk.remove(stem + suffix)
