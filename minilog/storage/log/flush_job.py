"""FlushJob: one sync of a log's active segment, to be run in a thread."""

from __future__ import annotations

from contextlib import suppress

from minilog.storage.disk import Disk


class FlushJob:
    """One sync to come. ``run`` may be called in a thread. ``PartitionLog.complete`` takes it back
    on the loop.

    It holds a file handle of its own, so rolling, truncating or deleting the log meanwhile cannot
    make it sync, or close, a file that is not its own.
    """

    __slots__ = ("_directories", "_disk", "_handle", "end_offset", "generation")

    def __init__(
        self, disk: Disk, handle: int | None, generation: int, end_offset: int, directories: tuple[str, ...] = ()
    ) -> None:
        """``handle`` None: everything was durable already. ``directories`` are synced with the
        file."""
        self._disk = disk
        self._handle = handle
        self._directories = directories
        self.generation = generation
        self.end_offset = end_offset

    def run(self) -> None:
        """Blocks. Raises StorageFailed: the process must stop."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        try:
            self._disk.fdatasync(handle)
        finally:
            self._disk.close(handle)
        for path in self._directories:
            with suppress(FileNotFoundError):  # moved to trash meanwhile: nobody waits for it any more
                self._disk.fsync_dir(path)
