"""Whatever bytes come, decoding them gives a message or NotAMessage, and raises nothing else."""

from __future__ import annotations

import contextlib
import random

import pytest

from minilog.wire.messages import Fetch, FetchPartition, NotAMessage, decode, encode

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
