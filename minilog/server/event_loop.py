"""The event loop of a process: asyncio's own, or uvloop's where that is installed.

What differs under uvloop is little, and the rest of ``server`` bears it. Its transports are no
``asyncio.Transport`` by class, only by what they do. Its ``time()`` counts whole milliseconds. So
deadlines are the loop's, and what is measured is measured by ``time.monotonic``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from importlib.metadata import version

from minilog.config import EventLoop
from minilog.errors import RefusesToStart

log = logging.getLogger("minilog")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def loop_factory(wanted: EventLoop) -> LoopFactory | None:
    """None: asyncio's own loop. Raises RefusesToStart when the loop that is wanted is not there."""
    if wanted == "asyncio":
        return None
    try:
        import uvloop
    except ImportError as error:
        if wanted == "auto":
            return None
        raise RefusesToStart(
            f'event_loop is "uvloop", and uvloop cannot be imported ({error}); '
            'install it (pip install "minilog-broker[fast]"), or set event_loop to auto or asyncio'
        ) from None
    log.info("the event loop is that of uvloop %s", version("uvloop"))
    make: LoopFactory = uvloop.new_event_loop
    return make
