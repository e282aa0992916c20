"""Cursors: how far a reader is with each partition of a topic, as one word. Pure.

``<topic id>.<offset>.<offset>...``: the next offset of partition 0, of partition 1, and so on. What
a partition is not named for begins where it begins, so a cursor outlives partitions that are
added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from minilog.broker.http.exchange import HttpContext
from minilog.errors import InvalidRequest
from minilog.wire.group_messages import OffsetCommit
from minilog.wire.http import INT64_MAX, integer, shown, topic_id

PARTITIONS_MAX: Final = 64
"""Of a topic that is read as one: each event carries a cursor."""


class Cursor(NamedTuple):
    topic_id: str
    offsets: Sequence[int]


def cursor_of(name: str, text: str) -> Cursor:
    """Raises InvalidRequest."""
    meant, *offsets = text.split(".")
    if not 0 < len(offsets) <= PARTITIONS_MAX:
        raise InvalidRequest(
            f"{name} is {shown(text)}; it must be a cursor as the records of a whole topic have it: "
            f"<topic id>.<offset>.<offset>..., at most {PARTITIONS_MAX} offsets"
        )
    identity = topic_id(f"the topic id in {name}", meant.encode())
    return Cursor(identity, [integer(f"an offset in {name}", each.encode(), 0, INT64_MAX) for each in offsets])


def commits_of(context: HttpContext, topic: str, cursor: Cursor) -> list[OffsetCommit]:
    """What a group commits that has finished all before ``cursor``. Raises UnknownTopic,
    InconsistentTopicId."""
    known = context.topic(topic, cursor.topic_id).partitions
    return [
        OffsetCommit(topic, number, offset, topic_id=cursor.topic_id)
        for number, offset in enumerate(cursor.offsets)
        if number in known
    ]
