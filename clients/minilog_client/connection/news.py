"""Waiting for something that may have changed."""

from __future__ import annotations

import asyncio

from minilog_client.connection.cluster import now_ms


class News:
    """Whoever waits is told, and looks by himself what it is."""

    def __init__(self) -> None:
        self._told: asyncio.Future[None] | None = None

    def tell(self) -> None:
        if self._told is not None and not self._told.done():
            self._told.set_result(None)

    async def wait(self, deadline_ms: int) -> None:
        """Until then, or until something is told."""
        if self._told is None or self._told.done():
            self._told = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._told], timeout=max(0, deadline_ms - now_ms()) / 1000)
