"""Performs SaveMetadata: writes the copy of the metadata in a thread, because it takes syncs and is
as large as the metadata."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from minilog.errors import DiskFull
from minilog.server.process import Failure
from minilog.wire.journal.metadata_copy import MetadataCopy


class MetadataSaver:
    def __init__(
        self,
        write: Callable[[MetadataCopy], None],
        failure: Failure,
        on_saved: Callable[[MetadataCopy | None], None],
    ) -> None:
        """``write`` is called in a thread, and raises DiskFull or StorageFailed. ``on_saved`` runs
        on the loop after each write, with None when the disk was full."""
        self._write, self._failure, self._on_saved = write, failure, on_saved
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "metadata")
        self._running: asyncio.Future[None] | None = None
        self._closed = False

    def save(self, copy: MetadataCopy) -> None:
        """The core has one under way at a time."""
        assert self._running is None
        if self._closed or self._failure.tripped:
            return
        self._running = self._loop.run_in_executor(self._thread, self._write, copy)
        self._running.add_done_callback(lambda done: self._finish(copy, done))

    async def drain(self) -> None:
        """Start none any more, and return when none runs."""
        self._closed = True
        if self._running is not None:
            await asyncio.wait([self._running])

    def close(self) -> None:
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _finish(self, copy: MetadataCopy, done: asyncio.Future[None]) -> None:
        self._running = None
        saved: MetadataCopy | None = copy
        try:
            done.result()
        except asyncio.CancelledError:
            return
        except DiskFull:
            saved = None
        except Exception as error:
            self._failure.trip(error)
        if not self._failure.tripped:
            self._on_saved(saved)
