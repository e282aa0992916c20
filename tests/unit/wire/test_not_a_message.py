"""Whatever bytes come, decoding them gives a message or NotAMessage, and raises nothing else."""

from __future__ import annotations

import contextlib
import random
import re
from typing import Any

import msgspec
import pytest

from minilog.wire.http import problem_body
from minilog.wire.messages import Fetch, FetchPartition, Message, NotAMessage, Problem, decode, encode

GOOD = encode(Fetch([FetchPartition("orders", 0, 7)], 100))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        b"\x82\xa4type\xa2Ok\xa1x" + b"\x81\xa1k" * 100_000 + b"\xc0",
        b"\x82\xa4type\xa2Ok\xa1x\xa2\xff\xfe",
        b"\x81\xa4type\xa6Nobody",
        b"\x82\xa4type\xa2Ok\xafmetadata_offset\xcf" + b"\xff" * 8,
        b"\x82\xa4type\xa2Ok\xa1x\xdd\xff\xff\xff\xff",
        b"\x82\xa4type\xa2Ok\xa1x\xc6\xff\xff\xff\xff",
        b"\x82\xa4type\xa2Ok\xa1x\xc7\x0c\xff" + b"\xff" * 12,
        b"\x82\xa4type\xa2Ok\xa1x\x81\x91\x90\xc0",
        GOOD + GOOD,
        GOOD[:-1],
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_no_message_is_not_one(body: bytes) -> None:
    with contextlib.suppress(NotAMessage):  # some of these are messages with a member that nobody reads
        decode(body)


def test_damaged_messages_raise_nothing_else() -> None:
    rng = random.Random(7)
    refused = 0
    for _ in range(5000):
        body = bytearray(GOOD)
        for _ in range(rng.randint(1, 4)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        try:
            decode(bytes(body))
        except NotAMessage:
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize("body", [b"\x91" * 100_000, GOOD[:-1], b"\x81\xa4type\xa6Nobody", b""])
def test_these_are_refused(body: bytes) -> None:
    with pytest.raises(NotAMessage):
        decode(body)


@pytest.mark.parametrize(
    "message",
    [
        Fetch([], max_wait_ms=2**64),
        Fetch([FetchPartition("orders", 0, -(2**63) - 1)]),
        Fetch([FetchPartition("\ud800", 0, 7)]),
        Problem("X", "", definite=True, info={"a": {"b": 2**70}}),
        Problem("X", "", definite=True, info={"a": object()}),
    ],
    ids=lambda m: re.sub(" at 0x[0-9a-f]+", "", repr(m)),
)
def test_what_no_bytes_can_be_is_no_message_either(message: Message) -> None:
    with pytest.raises(NotAMessage, match="it cannot be written"):
        encode(message)


@pytest.mark.parametrize("info", [{"a": msgspec.msgpack.Ext(5, b"x")}, {"a": {None: 1}}, {"a": {"b": [{(1, 2): 3}]}}])
def test_a_problem_is_told_whatever_a_peer_has_put_into_it(info: dict[str, Any]) -> None:
    message = decode(encode(Problem("NOT_LEADER", "ask another", definite=True, info=info)))
    assert isinstance(message, Problem)
    told = msgspec.json.decode(problem_body(message.error()))
    assert (told["code"], told["detail"], told["definite"]) == ("NOT_LEADER", "ask another", True)
