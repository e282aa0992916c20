"""Sizes: a message that is too large for what it is, is refused before anything is made of it."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest

from minilog.errors import RequestTooLarge
from minilog.wire.group_messages import ForwardedGroupRequest, GroupHeartbeat
from minilog.wire.messages import (
    CreateTopic,
    Message,
    Metadata,
    NotAMessage,
    Offsets,
    OffsetsPartition,
    Problem,
    Produce,
    ProducePartition,
    ProduceReply,
    decode,
    encode,
)
from minilog.wire.sizes import ENTRIES_MAX, LOOKED_AT_BYTES_MIN, MESSAGE_BYTES_MAX, SMALLER, check_size

LARGE = 15_000_000
NAME = "n" * 240


def array(count: int, item: bytes) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + item * count


def with_list(message: Message, field: str, items: bytes) -> bytes:
    """``message`` with a list in it that nobody has to make in order to write it."""
    members = {**msgspec.to_builtins(message), field: None}
    return bytes([0x80 | len(members)]) + b"".join(
        msgspec.msgpack.encode(name) + (items if name == field else msgspec.msgpack.encode(value))
        for name, value in members.items()
    )


def entry() -> bytes:
    return msgspec.msgpack.encode({"topic": "t", "partition": 0, "batches": b""})


@pytest.mark.parametrize(
    "body",
    [
        with_list(CreateTopic("t"), "assignment", array(LARGE // 2, b"\x91\x01")),
        with_list(Metadata(), "topics", array(LARGE // 2, b"\xa1a")),
        with_list(GroupHeartbeat("g", "m", 0), "topics", array(LARGE // 2, b"\xa1a")),
        with_list(Problem("C", "", definite=True), "info", b"\x81\xa1a" + array(LARGE // 2, b"\x91\x01")),
        with_list(Produce(1, 1, []), "partitions", array(ENTRIES_MAX + 1, entry())),
    ],
    ids=["create topic", "metadata", "heartbeat", "problem", "produce"],
)
def test_a_list_that_takes_seconds_to_decode_is_refused_and_no_object_made_of_it(body: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(RequestTooLarge):
        check_size(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(body) * 1.1  # at most one copy


@pytest.mark.parametrize(
    "message",
    [
        Produce(1, 1, [ProducePartition("t", n, memoryview(bytes(1_000_000))) for n in range(15)]),
        ForwardedGroupRequest(memoryview(bytes(LARGE))),
        Offsets([OffsetsPartition(NAME, n, -1, n, "i" * 32) for n in range(10_000)]),
        GroupHeartbeat("g", "m", 0, topics=[NAME] * 10_000),
        CreateTopic("t", assignment=[[1, 2, 3]] * 100_000),
        Metadata([]),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_has_reason_to_be_large_may_be(message: Message) -> None:
    check_size(encode(message))


def test_a_list_that_is_given_twice_is_looked_at_twice() -> None:
    first = with_list(Produce(1, 1, []), "partitions", array(LARGE // len(entry()), entry()))
    twice = bytes([first[0] + 1]) + first[1:] + msgspec.msgpack.encode("partitions") + b"\x90"
    with pytest.raises(NotAMessage):
        check_size(twice)


def test_an_answer_is_no_request_and_holds_no_large_problem() -> None:
    problem = with_list(Problem("C", "", definite=True), "info", b"\x81\xa1a" + array(1_000_000, b"\x91\x01"))
    result = b"\x83\xa5topic\xa0\xa9partition\x00\xa7problem" + problem
    with pytest.raises(RequestTooLarge):
        check_size(with_list(ProduceReply([]), "partitions", b"\x91" + result))


def test_the_tag_that_counts_is_the_one_that_decoding_goes_by() -> None:
    first = with_list(CreateTopic("t"), "assignment", array(LARGE // 2, b"\x91\x01"))
    twice = bytes([first[0] + 1]) + first[1:] + msgspec.msgpack.encode("type") + msgspec.msgpack.encode("Produce")
    with pytest.raises((RequestTooLarge, NotAMessage)):
        check_size(twice)


@pytest.mark.parametrize("body", [b"\xc1", b"\x91" * 1000, b"\x80", b"\x81\xa4type\xa4Nope"])
def test_a_large_body_that_is_no_message_is_none(body: bytes) -> None:
    with pytest.raises(NotAMessage):
        check_size(body + bytes(LOOKED_AT_BYTES_MIN))


def test_the_bounds_hold_what_the_limits_allow() -> None:
    assert LOOKED_AT_BYTES_MIN <= min(SMALLER.values()) <= max(SMALLER.values()) <= MESSAGE_BYTES_MAX


def test_a_list_that_is_given_twice_is_refused_because_only_one_of_them_is_looked_at() -> None:
    """Decoding makes objects of both: a million entries took eleven seconds."""
    once = with_list(Produce(1, 1, []), "partitions", array(ENTRIES_MAX + 1, entry()))
    twice = bytes([once[0] + 1]) + once[1:] + msgspec.msgpack.encode("partitions") + b"\x90"
    assert decode(twice) == Produce(1, 1, [])
    with pytest.raises(NotAMessage, match="are not its partitions"):
        check_size(twice)
