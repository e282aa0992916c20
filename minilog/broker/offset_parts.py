"""Offset parts: offsets of many partitions are looked for a few in each turn (R42).

To look for one may take a read of the log, and what is found of one says nothing of another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from minilog.wire.messages import Message, Offsets, OffsetsReply

AT_ONCE: Final = 64


async def find_in_parts(submit: Callable[[Message], Awaitable[Message]], request: Offsets) -> Message:
    found = []
    for first in range(0, len(request.partitions), AT_ONCE):
        reply = await submit(Offsets(request.partitions[first : first + AT_ONCE]))
        if not isinstance(reply, OffsetsReply):
            return reply
        found += reply.partitions
        await asyncio.sleep(0)  # also where nobody has to wait for a turn
    return OffsetsReply(found)
