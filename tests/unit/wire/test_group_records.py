"""The records of consumer groups: what goes into the log comes out of it, and damage is said to be
damage."""

from __future__ import annotations

import msgspec
import pytest

from minilog.errors import CorruptBatch
from minilog.wire.journal.group_records import (
    GroupKey,
    GroupRecord,
    GroupValue,
    Held,
    MemberValue,
    OffsetKey,
    OffsetValue,
    TopicShape,
    decode_record,
    encode_record,
)

MEMBER = MemberValue(
    3, ["t"], "", "sticky", "i", "c", 10_000, 300_000, {"t": [0, 1]}, {"t": {0: Held(2), 5: Held(1, 3)}}, True
)
RECORDS = [
    GroupRecord(GroupKey("g"), GroupValue(7, "range", {"m": MEMBER}, {"t": TopicShape("id", 6)}, 5)),
    GroupRecord(OffsetKey("g", "t", 3), OffsetValue(2**62, 4, "a note", 1_700_000_000_000, "id")),
    GroupRecord(GroupKey("g"), None),
    GroupRecord(OffsetKey("g", "t", 3), None),
]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_comes_back_as_it_was(record: GroupRecord) -> None:
    assert decode_record(*encode_record(record)) == record


def test_keys_are_what_the_design_says() -> None:
    assert msgspec.msgpack.decode(encode_record(RECORDS[0])[0]) == ["group", "g"]
    assert msgspec.msgpack.decode(encode_record(RECORDS[1])[0]) == ["offset", "g", "t", 3]


def test_a_later_version_may_add_fields_at_the_end() -> None:
    key, value = encode_record(RECORDS[1])
    longer = msgspec.msgpack.encode([*msgspec.msgpack.decode(value or b""), "new"])
    assert decode_record(key, longer) == RECORDS[1]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"x"),
        (b"", None),
        (msgspec.msgpack.encode(["topic", "t"]), None),
        (msgspec.msgpack.encode(["group", 1]), None),
        (encode_record(RECORDS[0])[0], b""),
        (encode_record(RECORDS[0])[0], encode_record(RECORDS[1])[1]),
        (encode_record(RECORDS[1])[0], msgspec.msgpack.encode([1, 2])),
        (encode_record(RECORDS[1])[0], b"\xa1\xff"),
        (b"\x93\xa5group\xa1g" + b"\x91" * 100_000, None),
        (encode_record(RECORDS[0])[0], b"\x91" * 100_000),
        (encode_record(RECORDS[0])[0], b"\x97\x01\xa0\x80\x80\x00\x80" + b"\x91" * 100_000 + b"\xc0"),
    ],
    ids=lambda part: repr(part)[:24],
)
def test_anything_else_is_damage(key: bytes | None, value: bytes | None) -> None:
    with pytest.raises(CorruptBatch, match="no group and no offset"):
        decode_record(key, value)
