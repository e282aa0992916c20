"""The event loop that a client belongs to: the one its first call came from."""

from __future__ import annotations

import asyncio

from minilog.errors import InvalidRequest


def running_loop() -> asyncio.AbstractEventLoop:
    """Raises InvalidRequest where none runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise InvalidRequest(
            "no event loop of asyncio runs here; AsyncClient is for code that asyncio runs (trio is not supported), "
            "and Client for all other code"
        ) from None


def check_loop(own: asyncio.AbstractEventLoop) -> None:
    """Raises InvalidRequest for a call out of another event loop than the one that is used."""
    if running_loop() is not own:
        raise InvalidRequest(
            "this client is used in another event loop already; make a client in each loop that uses one "
            "(each asyncio.run() has a loop of its own), or use Client"
        )


def is_cancelled() -> bool:
    """Somebody wants the current task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
