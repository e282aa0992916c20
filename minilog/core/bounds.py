"""Bounds: how much one message of a client may name, so that no message holds a turn for long.

A turn handles one message whole, and each entry of a list costs it something: a look at a map, or a
search of a log. So the entries of all lists of a message together are at most
limits.partitions_max. A produce and a fetch are bounded where they are looked at, by the same
limit. What a group message carries inside another is a message of its own here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from minilog.config import Limits
from minilog.errors import InvalidRequest
from minilog.wire.group_messages import (
    CommitOffsets,
    CommittedOffsets,
    DeleteGroup,
    GroupHeartbeat,
    TopicPartitions,
)
from minilog.wire.messages import Message, Metadata, Offsets


def check_bounds(request: Message, limits: Limits) -> None:
    """Raises InvalidRequest when ``request`` names more than it may."""
    count_entries = _ENTRIES.get(type(request))
    if count_entries is None:
        return
    count = count_entries(request)
    if count > limits.partitions_max:
        raise InvalidRequest(
            f"a {type(request).__name__} names at most {limits.partitions_max} topics and partitions in all "
            f"(limits.partitions_max), this one {count}; ask in several requests"
        )


def _entries_of(topics: Sequence[TopicPartitions] | None) -> int:
    """A topic without partitions counts as one that has one."""
    return sum(max(1, len(entry.partitions)) for entry in topics or ())


_ENTRIES: Final[Mapping[type[Message], Callable[[Any], int]]] = {
    Offsets: lambda request: len(request.partitions),
    Metadata: lambda request: len(request.topics or ()),
    GroupHeartbeat: lambda request: len(request.topics) + _entries_of(request.owned),
    CommitOffsets: lambda request: len(request.offsets),
    CommittedOffsets: lambda request: _entries_of(request.partitions),
    DeleteGroup: lambda request: _entries_of(request.partitions),
}
