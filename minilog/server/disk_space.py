"""DiskSpace: how much room the data directory has, asked without ever waiting for it.

A disk that hangs does not answer. So a thread asks, one at a time, and what it said last is told
until it says more.
"""

from __future__ import annotations

import asyncio
from typing import Final

from minilog import machine
from minilog.server.background import Shared, in_daemon_thread
from minilog.server.exposition import Exposition

PATIENCE_S: Final = 0.05


class DiskSpace:
    def __init__(self, path: str) -> None:
        self._path = path
        self._known: machine.Space | None = None
        self._asking: asyncio.Future[machine.Space | None] | None = None

    async def look(self) -> None:
        """Ask, and wait a moment for the answer."""
        if self._asking is None:
            used = Shared(lambda: None)
            self._asking = in_daemon_thread(lambda: machine.space(self._path), "disk space", used)
        asking = self._asking
        done, _ = await asyncio.wait([asking], timeout=PATIENCE_S)
        if done and self._asking is asking:  # several look at a time, and one may have asked again
            self._known, self._asking = asking.result(), None

    def write(self, page: Exposition) -> None:
        known = self._known
        if known is None:
            return
        page.gauge("minilog_disk_bytes", "Size of the disk that the data directory lies on", known.bytes_total)
        page.gauge("minilog_disk_free_bytes", "Bytes of it that this process may still write", known.bytes_free)
        page.gauge("minilog_disk_inodes", "Files that it can hold; 0 where there is no such limit", known.inodes_total)
        page.gauge("minilog_disk_free_inodes", "Files that can still be made on it", known.inodes_free)
