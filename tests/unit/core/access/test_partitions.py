"""Produce and Fetch are decided by the partition, and answered for each, in the order asked."""

from __future__ import annotations

from minilog.core.access.partitions import divided, joined
from minilog.core.access.principal import OPEN
from minilog.security_file import parse_security
from minilog.wire.messages import (
    Fetch,
    FetchPartition,
    FetchReply,
    FetchResult,
    Problem,
    Produce,
    ProducePartition,
    ProduceReply,
    ProduceResult,
)

TOPICS = ("mine", "foreign", "mine.too", "secret")
PRINCIPAL = parse_security('[principals.a]\nallow = ["write mine*", "read mine*"]', "f").policy.principals["a"]


def produce() -> Produce:
    return Produce(-1, 1000, [ProducePartition(topic, 0, memoryview(b"")) for topic in TOPICS])


def test_what_is_refused_is_answered_in_its_place_and_never_seen_by_the_core() -> None:
    allowed, refused = divided(PRINCIPAL, PRINCIPAL, produce())
    assert [entry.topic for entry in allowed.partitions] == ["mine", "mine.too"]
    reply = joined(
        ProduceReply([ProduceResult(entry.topic, 0, base_offset=7) for entry in allowed.partitions]), refused
    )
    assert isinstance(reply, ProduceReply)
    assert [result.topic for result in reply.partitions] == list(TOPICS)
    assert [result.base_offset for result in reply.partitions] == [7, None, 7, None]
    assert [result.problem and result.problem.code for result in reply.partitions] == [None, "FORBIDDEN"] * 2


def test_so_are_reads() -> None:
    allowed, refused = divided(PRINCIPAL, PRINCIPAL, Fetch([FetchPartition(topic, 0, 0) for topic in TOPICS]))
    reply = joined(FetchReply([FetchResult(entry.topic, 0) for entry in allowed.partitions]), refused)
    assert isinstance(reply, FetchReply)
    assert [(result.topic, result.problem is None) for result in reply.partitions] == [
        ("mine", True),
        ("foreign", False),
        ("mine.too", True),
        ("secret", False),
    ]


def test_a_failure_of_the_whole_request_stays_one() -> None:
    _, refused = divided(PRINCIPAL, PRINCIPAL, produce())
    problem = Problem("OVERLOADED", "no room", True)
    assert joined(problem, refused) is problem


def test_where_nothing_is_secured_nothing_is_copied() -> None:
    message = produce()
    assert divided(OPEN, OPEN, message)[0] is message
