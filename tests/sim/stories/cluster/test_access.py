"""Who speaks for whom: a stolen credential of one broker is that broker's, and no more."""

from __future__ import annotations

import pytest

from minilog.core.access.partitions import divided
from minilog.core.access.principal import Principal
from minilog.errors import Forbidden
from minilog.security_file import parse_security
from minilog.wire.group_messages import CommitOffsets, ForwardedGroupRequest
from minilog.wire.messages import (
    AllocateProducerIds,
    AlterPartition,
    CreateTopic,
    Fetch,
    FetchPartition,
    Heartbeat,
    Message,
    PositionQuery,
    Positions,
    Probe,
    Produce,
    ProducePartition,
    Register,
    ReplicaFetch,
)

POLICY = parse_security(
    """
    [principals]
    broker-1 = { roles = ["peer:1"] }
    broker-2 = { roles = ["peer:2"] }
    controller = { roles = ["controller"] }
    ann = { roles = ["admin"] }
    shop = { allow = ["write orders", "group billing"] }
    """,
    "security.toml",
).policy


def taken(who: str, message: Message) -> bool:
    try:
        POLICY.permit(POLICY.principals[who], message)
    except Forbidden:
        return False
    return True


def in_the_name_of(broker: int) -> list[Message]:
    return [
        Register(broker, "i", "c", "https://b:1", "", True, 0),
        Heartbeat(broker, 1, "i", 1, 0, 1, True, True),
        AlterPartition(broker, 1, "i", 1, 1, []),
        ReplicaFetch(broker, 1, 3, 1, 0, 0, 1, []),
        AllocateProducerIds(broker, 1, "i"),
    ]


def test_a_broker_is_heard_in_its_own_name_only() -> None:
    """R126: broker 1 says that broker 2 is there, leaves, holds a log, or has lost its place in an
    ISR. So does an administrator, and the controller."""
    for mine, others in zip(in_the_name_of(1), in_the_name_of(2), strict=True):
        assert taken("broker-1", mine), mine
        assert not taken("broker-1", others), others
        assert [who for who in ("ann", "shop", "controller") if taken(who, mine)] == []


def test_what_controllers_ask_is_answered_to_controllers_only() -> None:
    """R126: a broker asks another one for its positions, which would fence what it leads."""
    for message in (Positions(2, 1, 1, 1, [PositionQuery("orders", "id", 0, 5)]), Probe(2, "")):
        assert taken("controller", message)
        assert [who for who in ("broker-1", "broker-2", "ann", "shop") if taken(who, message)] == []


def written(who: str, message: Produce) -> list[str]:
    sender = POLICY.principals[who]
    POLICY.permit(sender, message)
    return [entry.topic for entry in divided(sender, POLICY.asker(sender, message), message)[0].partitions]


def test_a_broker_does_nothing_with_topics_by_itself() -> None:
    """R127: with the token of a broker alone nobody reads, writes, commits, or makes topics. What it
    passes on is done as far as who has asked may."""
    entries = [ProducePartition(topic, 0, memoryview(b"")) for topic in ("orders", "payroll")]
    assert written("broker-1", Produce(-1, 0, entries)) == []
    assert written("broker-1", Produce(-1, 0, entries, principal="shop")) == ["orders"]
    assert written("shop", Produce(-1, 0, entries)) == ["orders"]
    sender: Principal = POLICY.principals["broker-1"]
    for fetch, seen in (
        (Fetch([FetchPartition("orders", 0, 0)]), 0),
        (Fetch([FetchPartition("orders", 0, 0)], of_receipt=True), 0),
        (Fetch([FetchPartition("orders", 0, 0)], principal="shop"), 0),
        (Fetch([FetchPartition("orders", 0, 0)], principal="ann"), 1),
        (Fetch([FetchPartition("orders", 0, 0)], principal="shop", of_receipt=True), 1),
    ):
        assert len(divided(sender, POLICY.asker(sender, fetch), fetch)[0].partitions) == seen, fetch
    commit = CommitOffsets("billing", [])
    assert not taken("broker-1", commit)
    envelope = ForwardedGroupRequest(memoryview(b""), principal="shop")
    assert taken("broker-1", envelope)
    assert POLICY.asker(sender, envelope).name == "shop"
    assert not taken("broker-1", CreateTopic("payroll"))


def test_only_brokers_say_for_whom_they_ask() -> None:
    """R127: a client asks in the name of an administrator, and so does a controller."""
    for who in ("shop", "controller", "ann"):
        for message in (Produce(-1, 0, [], principal="ann"), CreateTopic("t", principal="ann")):
            assert not taken(who, message)
    with pytest.raises(Forbidden, match="not in this process's security file"):
        POLICY.asker(POLICY.principals["broker-1"], Produce(-1, 0, [], principal="nobody-known"))
