"""Trash: directories of partitions whose topic was deleted, until their files are unlinked.

A directory comes here by one rename, so that deleting takes no longer than a turn may; unlinking
can take long and is done in a thread, in steps. What is here says whose it is, for as long as a
saved recovery point speaks of it.

Who needs room may remove what is here, and the folder itself: one that is missing is empty. What
people put here under names of their own is none of it, and stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from contextlib import suppress
from typing import Final

from crc32c import crc32c

from minilog.config import FILE_NAME_BYTES_MAX
from minilog.errors import NameRefused, StorageFailed
from minilog.storage import checkpoint
from minilog.storage.directories import PARTITION_FILE
from minilog.storage.disk import Disk

_STEM_MAX: Final = FILE_NAME_BYTES_MAX - len(".4294967295")
_TAKEN: Final = re.compile(r".+\.[1-9][0-9]*")


def stem(name: str) -> str:
    """The name of a partition's directory in the trash, without its number."""
    if len(name) <= _STEM_MAX:
        return name
    return f"{name[: _STEM_MAX - 9]}~{crc32c(name.encode()):08x}"


class Trash:
    def __init__(self, disk: Disk, path: str) -> None:
        self._disk, self.path = disk, path

    def held(self) -> set[tuple[str, str | None]]:
        """(stem, topic id) of everything here; None for what does not say whose it is."""
        held: set[tuple[str, str | None]] = set()
        for name in self.names():
            try:
                topic_id = self._topic_id(name)
            except StorageFailed:  # somebody's file that is named like a log
                topic_id = None
            held.add((name.rpartition(".")[0], topic_id))
        return held

    def _topic_id(self, name: str) -> str | None:
        return checkpoint.load_dispensable(self._disk, f"{self.path}/{name}/{PARTITION_FILE}").get("topic_id")

    def names(self) -> list[str]:
        """Of what was moved here."""
        try:
            return [name for name in self._disk.list(self.path) if _TAKEN.fullmatch(name)]
        except FileNotFoundError:
            return []

    def _made(self) -> list[str]:
        """All names here, and the folder is there afterwards. Raises DiskFull."""
        try:
            return self._disk.list(self.path)
        except FileNotFoundError:
            self._disk.mkdir(self.path)
            self._disk.fsync_dir(self.path.rpartition("/")[0])
            return []

    def take(self, directory: str, name: str) -> str:
        """Move a partition's directory here; returns where it is now. Raises DiskFull, and then it
        stays where it was."""
        taken = {taken.lower() for taken in self._made()}  # some file systems do not tell
        number = 1
        while f"{stem(name)}.{number}".lower() in taken:
            number += 1
        path = f"{self.path}/{stem(name)}.{number}"
        self._disk.rename(directory, path)
        return path

    def sync(self) -> None:
        with suppress(FileNotFoundError):
            self._disk.fsync_dir(self.path)

    def purge(self, spoken_of: Container[tuple[str, str | None]], is_stopped: Callable[[], bool]) -> int:
        """Unlink everything, but the name of what is spoken of, by (stem, topic id); returns the
        bytes freed."""
        freed = 0
        for name in self.names():
            path = f"{self.path}/{name}"
            try:
                found = self._disk.list(path)
            except (StorageFailed, FileNotFoundError):  # somebody else's file, or removed by somebody else
                continue
            is_spoken_of = (name.rpartition(".")[0], self._topic_id(name)) in spoken_of
            files = [file for file in found if file != PARTITION_FILE]
            for file in files if is_spoken_of else [*files, PARTITION_FILE]:
                if is_stopped():
                    return freed
                freed += self._unlink(f"{path}/{file}")
            if not is_spoken_of:
                self._remove_directory(path)
        return freed

    def _remove_directory(self, path: str) -> None:
        """What somebody else has put there stays, and the directory with it. It may be gone."""
        with suppress(NameRefused, FileNotFoundError):
            self._disk.remove(path)

    def _unlink(self, path: str) -> int:
        """Returns the bytes freed. The file may be gone already, when a purge before this one was
        interrupted."""
        try:
            size = self._disk.size(path)
        except FileNotFoundError:
            return 0
        self._remove_directory(path)
        return size
