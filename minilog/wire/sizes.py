"""Sizes: how large a message of a kind may be, judged before it is decoded.

Decoding makes an object of each element and lets nothing else in between, neither the event loop nor another thread: 15 MB of
small lists cost seconds, which is longer than a broker session. So a large body is first skipped through, which makes
no objects and takes milliseconds, to see what it is. Only what carries record batches, or comes from the cluster's own
processes, has reason to be large.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any, Final, get_args

import msgspec
from msgspec import Raw

from minilog.config import KIB, MIB
from minilog.errors import RequestTooLarge
from minilog.wire.group_messages import ForwardedGroupRequest
from minilog.wire.messages import (
    AlterPartition,
    AnyMessage,
    CreateTopic,
    Heartbeat,
    Message,
    NotAMessage,
    Positions,
    Probe,
    Problem,
    Produce,
    Register,
    ReplicaFetch,
)

LOOKED_AT_BYTES_MIN: Final = 256 * KIB
"""Up to this size a body is decoded without a look: whatever it is, that takes no time worth mentioning."""
MESSAGE_BYTES_MAX: Final = 4 * MIB
"""Of a message that names things: 10,000 partitions with the longest names fit."""
SMALLER: Final[dict[type[Message], int]] = {CreateTopic: MIB, Problem: LOOKED_AT_BYTES_MIN}
"""They hold lists of lists, which cost the most. 100,000 assignments fit."""
ANY_SIZE: Final = (Produce, ForwardedGroupRequest, ReplicaFetch, Positions, AlterPartition, Heartbeat, Register, Probe)
"""Bounded by the body's own limit."""
ENTRIES_MAX: Final = 100_000
"""Partitions of a produce."""
BESIDES_BYTES_MAX: Final = KIB
"""What a produce holds besides its partitions: some numbers."""


def _outline(kind: type[Message]) -> Any:
    fields: list[Any] = [("partitions", Raw, Raw(b"\x90"))] if kind is Produce else []
    return msgspec.defstruct(f"_{kind.__name__}", fields, tag=kind.__name__)


_outlines: Final[dict[Any, type[Message]]] = {_outline(kind): kind for kind in get_args(AnyMessage)}
_decoder: Final = msgspec.msgpack.Decoder(reduce(or_, _outlines))


def check_size(body: bytes | memoryview) -> None:
    """Raises RequestTooLarge for a message that is too large for what it is, NotAMessage for a large body that is none."""
    if len(body) <= LOOKED_AT_BYTES_MIN:
        return
    try:
        outline: Any = _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NotAMessage(str(error).replace("`", "'") or "nested too deeply") from None
    kind = _outlines[type(outline)]
    if kind is Produce:
        _check_produce(len(body), bytes(outline.partitions))
    bytes_max = SMALLER.get(kind, MESSAGE_BYTES_MAX)
    if kind not in ANY_SIZE and len(body) > bytes_max:
        raise RequestTooLarge(
            f"a {kind.__name__} of {len(body)} bytes; allowed are {bytes_max}: ask in several requests"
        )


def _check_produce(size: int, partitions: bytes) -> None:
    """Of a member that is given twice only the last is seen here, while decoding makes objects of both."""
    if _entries(partitions[:5]) > ENTRIES_MAX:
        raise RequestTooLarge(f"a Produce names more than {ENTRIES_MAX} partitions; send it in several requests")
    if size - len(partitions) > BESIDES_BYTES_MAX:
        raise NotAMessage("a Produce that holds more than its partitions, or names them twice")


def _entries(head: bytes) -> int:
    """How many elements the msgpack array that begins so has; 0 when it is none."""
    if head[0] & 0xF0 == 0x90:
        return head[0] & 0x0F
    return int.from_bytes(head[1 : {0xDC: 3, 0xDD: 5}.get(head[0], 1)])
