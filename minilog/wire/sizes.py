"""Sizes: how large a message of a kind may be, judged before it is decoded.

Decoding makes an object of each element and lets nothing else in between, neither the event loop
nor another thread: 15 MB of small lists cost seconds, which is longer than a broker session. So a
large body is first skipped through, which makes no objects and takes milliseconds, to see what it
is. Only what carries record batches, or comes from the cluster's own processes, has reason to be
large.
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
"""Up to this size a body is decoded without a look: whatever it is, that takes no time worth
mentioning."""
MESSAGE_BYTES_MAX: Final = 4 * MIB
"""Of a message that names things: 10,000 partitions with the longest names fit."""
_ANSWERS: Final = [kind for kind in get_args(AnyMessage) if kind.__name__.endswith("Reply")]
SMALLER: Final[dict[type[Message], int]] = {
    CreateTopic: MIB,
    **dict.fromkeys((Problem, *_ANSWERS), LOOKED_AT_BYTES_MIN),
}
"""They hold lists of lists, which cost the most. 100,000 assignments fit. Answers are nobody's
request."""
ANY_SIZE: Final = (Produce, ForwardedGroupRequest, ReplicaFetch, Positions, AlterPartition, Heartbeat, Register, Probe)
"""Bounded by the body's own limit."""
ENTRIES_MAX: Final = 100_000
"""Partitions of a produce."""


def _outline(kind: type[Message]) -> Any:
    fields: list[Any] = [("partitions", Raw, Raw(b"\x90"))] if kind is Produce else []
    return msgspec.defstruct(f"_{kind.__name__}", fields, tag=kind.__name__)


_outlines: Final[dict[Any, type[Message]]] = {_outline(kind): kind for kind in get_args(AnyMessage)}
_decoder: Final = msgspec.msgpack.Decoder(reduce(or_, _outlines))


def check_size(body: bytes | memoryview) -> None:
    """Raises RequestTooLarge for a message that is too large for what it is, NotAMessage for a
    large body that is none."""
    if len(body) <= LOOKED_AT_BYTES_MIN:
        return
    try:
        outline: Any = _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NotAMessage(str(error).replace("`", "'") or "nested too deeply") from None
    kind = _outlines[type(outline)]
    if kind is Produce:
        _check_partitions(len(body), memoryview(outline.partitions))
    bytes_max = SMALLER.get(kind, MESSAGE_BYTES_MAX)
    if kind not in ANY_SIZE and len(body) > bytes_max:
        raise RequestTooLarge(
            f"a {kind.__name__} of {len(body)} bytes; allowed are {bytes_max}: ask in several requests"
        )


def _check_partitions(body_bytes: int, partitions: memoryview) -> None:
    """What is seen of a field that is given more than once is the last one, and decoding makes
    objects of them all."""
    if _entries(bytes(partitions[:5])) > ENTRIES_MAX:
        raise RequestTooLarge(f"a Produce names more than {ENTRIES_MAX} partitions; send it in several requests")
    if body_bytes - len(partitions) > LOOKED_AT_BYTES_MIN:
        raise NotAMessage(f"{body_bytes - len(partitions)} bytes of a Produce are not its partitions")


def _entries(head: bytes) -> int:
    """How many elements the msgpack array that begins so has; 0 when it is none."""
    if head[0] & 0xF0 == 0x90:
        return head[0] & 0x0F
    return int.from_bytes(head[1 : {0xDC: 3, 0xDD: 5}.get(head[0], 1)])
