"""The records of ``__groups``: what a coordinator must still know after it has moved to another
broker.

Key and value are msgpack. A key is ("group", group) or ("offset", group, topic, partition). A
record states the whole new value of its key, never a difference, so compaction may keep the last
one only. No value means: gone. Structs are arrays on disk: a later version may add fields at their
ends, which older ones skip.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from minilog.errors import CorruptBatch
from minilog.wire.message_base import UNDECODABLE, why_undecodable

NOT_REVOKED: Final = 0


class GroupKey(msgspec.Struct, array_like=True, tag="group", frozen=True):
    group: str


class OffsetKey(msgspec.Struct, array_like=True, tag="offset", frozen=True):
    group: str
    topic: str
    partition: int


class Held(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A partition that is a member's. ``epoch``: the group epoch in which it was given to it.
    ``revoked``: the one in which it was told to give it back, 0 for none."""

    epoch: int
    revoked: int = NOT_REVOKED


class TopicShape(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A topic as an assignment was made for it."""

    topic_id: str
    partitions: int


class MemberValue(msgspec.Struct, array_like=True, frozen=True):
    """``joined_epoch``: the group epoch its joining made. ``target``: partitions by topic it is to
    own in the end. ``held``: those it was given and has not given back. A partition is in one
    member's ``held`` at most. ``away``: a static member that is gone for the moment. Its partitions
    wait for its successor."""

    joined_epoch: int
    topics: list[str]
    pattern: str
    assignor: str
    instance_id: str
    client_id: str
    session_timeout_ms: int
    poll_timeout_ms: int
    target: dict[str, list[int]] = {}
    held: dict[str, dict[int, Held]] = {}
    away: bool = False


class GroupValue(msgspec.Struct, array_like=True, frozen=True):
    """A group without its offsets. ``topics``: what the targets were computed for. ``emptied_ms``:
    when its last member went, 0 while there are some. ``held_ids``: topic id by name, of every
    topic that members hold partitions of. ``unused_ms``: for how long coordinators have watched the
    group while it had no members and nothing was committed."""

    epoch: int
    assignor: str
    members: dict[str, MemberValue] = {}
    topics: dict[str, TopicShape] = {}
    emptied_ms: int = 0
    held_ids: dict[str, str] = {}
    unused_ms: int = 0


class OffsetValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """``topic_id``: of the topic as it was then. The offset means nothing for a later one of the
    same name. ``member_id``, ``sequence``: who committed it, and which of its commits that was; -1:
    it did not count them."""

    offset: int
    leader_epoch: int
    metadata: str
    committed_ms: int
    topic_id: str
    member_id: str = ""
    sequence: int = -1


Key = GroupKey | OffsetKey
Value = GroupValue | OffsetValue


class GroupRecord(NamedTuple):
    """``value`` None: the key is gone."""

    key: Key
    value: Value | None


_encode = msgspec.msgpack.Encoder().encode
_decode_key = msgspec.msgpack.Decoder(GroupKey | OffsetKey).decode
_decode_group = msgspec.msgpack.Decoder(GroupValue).decode
_decode_offset = msgspec.msgpack.Decoder(OffsetValue).decode


def encode_record(record: GroupRecord) -> tuple[bytes, bytes | None]:
    """(key, value) of the record in the log."""
    return _encode(record.key), None if record.value is None else _encode(record.value)


def decode_record(key: bytes | None, value: bytes | None) -> GroupRecord:
    """Raises CorruptBatch: nobody but a coordinator writes here, so what it cannot read is
    damage."""
    try:
        decoded = _decode_key(key or b"")
        if value is None:
            return GroupRecord(decoded, None)
        if isinstance(decoded, GroupKey):
            return GroupRecord(decoded, _decode_group(value))
        return GroupRecord(decoded, _decode_offset(value))
    except UNDECODABLE as error:
        why = why_undecodable(error)
        raise CorruptBatch(f"a record of the groups' topic is no group and no offset: {why}") from None
