"""What an outsider once did to a cluster, kind by kind. Each is tried as nobody, with a wrong token,
and as somebody who may do little: all are refused, and nothing is written."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import pytest

from minilog.wire.group_messages import CommitOffsets, ForwardedGroupRequest, ListGroups
from minilog.wire.messages import (
    AllocateProducerIds,
    AlterPartition,
    CreateTopic,
    Fetch,
    FetchPartition,
    FetchReply,
    Heartbeat,
    IsrMember,
    IsrProposal,
    Message,
    Metadata,
    MetadataReply,
    PositionQuery,
    Positions,
    Probe,
    Produce,
    ProducePartition,
    ProduceReply,
    Register,
    ReplicaFetch,
    ReplicaFetchPartition,
    StandBy,
    decode,
    encode,
)
from minilog.wire.records import encode_values
from tests.process.security.secured import Secured, secured, until

MSGPACK: Final = "application/msgpack"
FAR: Final = 2**62
EVIL: Final = {"Host": "evil.example", "Origin": "http://evil.example"}


class Request(NamedTuple):
    process: str
    path: str
    body: bytes | None = None
    media: str = "application/json"
    method: str = "POST"
    headers: dict[str, str] = {}


Seen = MetadataReply


def rpc(process: str, message: Message) -> Request:
    return Request(process, "/internal/rpc", encode(message), MSGPACK)


def sent(process: str, path: str, body: Any = None, method: str = "POST", **headers: str) -> Request:
    return Request(process, path, None if body is None else json.dumps(body).encode(), method=method, headers=headers)


def everywhere(*messages: Message) -> list[Request]:
    return [rpc(process, message) for process in ("controller", "broker-1", "broker-2") for message in messages]


def orders(seen: Seen) -> tuple[str, int, int, int]:
    """Id, leader, leader epoch and partition epoch of what is attacked."""
    topic = next(topic for topic in seen.topics if topic.topic == "orders")
    state = topic.partitions[0]
    return topic.topic_id, state.leader, state.leader_epoch, state.partition_epoch


def phantom(seen: Seen) -> list[Request]:
    """A broker that is the attacker's registers, and would be given partitions."""
    return everywhere(
        Register(77, "evil", seen.cluster_id, "https://127.0.0.1:24999", "", True, seen.controller_epoch),
        Heartbeat(77, 1, "evil", 1, 0, seen.controller_epoch),
    )


def deposed_leader(seen: Seen) -> list[Request]:
    topic_id, leader, _, _ = orders(seen)
    query = PositionQuery("orders", topic_id, 0, 2**40)
    return everywhere(Positions(leader, 1, seen.controller_epoch, 1, [query]))


def poisoned_epoch(seen: Seen) -> list[Request]:
    """It would obey no controller any more."""
    return everywhere(Positions(1, 1, FAR, 1, []), StandBy("https://127.0.0.1:1", "evil", FAR, 0))


def faked_acknowledgement(seen: Seen) -> list[Request]:
    topic_id, leader, epoch, _ = orders(seen)
    part = ReplicaFetchPartition("orders", topic_id, 0, epoch, 1, epoch)
    return everywhere(*(ReplicaFetch(broker, 1, leader, FAR, 0, 1000, 1, [part]) for broker in (1, 2)))


def shrunk_isr(seen: Seen) -> list[Request]:
    topic_id, leader, epoch, partition_epoch = orders(seen)
    proposal = IsrProposal("orders", topic_id, 0, epoch, partition_epoch, [IsrMember(leader, 1)])
    return everywhere(AlterPartition(leader, 1, "evil", seen.controller_epoch, FAR, [proposal]))


def shutdown_in_anothers_name(seen: Seen) -> list[Request]:
    return everywhere(Heartbeat(1, 1, "evil", FAR, seen.metadata_offset, seen.controller_epoch, True, True))


def reconnaissance(seen: Seen) -> list[Request]:
    return everywhere(Probe(0, ""), AllocateProducerIds(1, 1, "evil"))


def groups(seen: Seen) -> list[Request]:
    group, member = "/v1/groups/billing", "/v1/groups/billing/members/victim"
    offsets = {"offsets": [{"topic": "orders", "partition": 0, "offset": 9_999_999}]}
    hidden = ForwardedGroupRequest(memoryview(encode(CommitOffsets("billing", []))))
    return [
        sent("broker-1", member, {"member_epoch": 0, "topics": ["orders"]}, "PUT"),
        sent("broker-1", f"{group}/offsets", offsets, "PUT"),
        sent("broker-1", f"{group}/offsets", {**offsets, "member_id": "victim", "member_epoch": 1}, "PUT"),
        sent("broker-1", member, method="DELETE"),
        sent("broker-1", group, method="GET"),
        sent("broker-1", group, method="DELETE"),
        *(sent("broker-1", f"/v1/groups/junk{n}/offsets", offsets, "PUT") for n in range(5)),
        *everywhere(hidden, ForwardedGroupRequest(memoryview(encode(ListGroups())))),
    ]


def rebinding(seen: Seen) -> list[Request]:
    """A page of a stranger whose name is made to resolve to this machine."""
    return [
        sent("broker-1", "/v1/topics", {"topic": "victim", "partitions": 1}, **EVIL),
        sent("broker-1", "/v1/topics/orders", method="DELETE", **EVIL),
        sent("broker-1", "/v1/producers", **EVIL),
        sent("broker-1", "/v1/topics/orders", method="DELETE", Origin="http://evil.example"),
    ]


def floods(seen: Seen) -> list[Request]:
    """Large settings, addresses and topics, and names no resolver can bear."""
    return [
        sent("broker-1", "/v1/topics", {"topic": "zeros", "config": {"retention.ms": "0" * 10_000 + "7"}}),
        sent("broker-1", "/v1/topics", {"topic": "wide", "partitions": 9_000, "replication_factor": 2}),
        *everywhere(
            CreateTopic("wide"),
            Register(900, "x", seen.cluster_id, "https://" + "a" * 2000, "", True, 0),
            Register(55, "typo", seen.cluster_id, "https://broker-4..internal:8082", "", True, 0),
        ),
    ]


def deeds(seen: Seen) -> list[Request]:
    """What only an administrator, or nobody but Prometheus, may ask for."""
    return [
        sent("broker-1", "/v1/topics/orders", method="DELETE"),
        sent("broker-1", "/v1/topics/orders", {"config": {"retention.ms": "1"}}, "PATCH"),
        sent("broker-1", "/v1/topics/orders/partitions/0/election", {"unclean": True}),
        sent("broker-1", "/v1/loglevel", {"level": "DEBUG"}, "PUT"),
        sent("controller", "/v1/loglevel", {"level": "DEBUG"}, "PUT"),
        sent("broker-1", "/v1/lost", method="GET"),
        sent("broker-1", "/metrics", method="GET"),
        sent("controller", "/metrics/kafka", method="GET"),
        sent("broker-1", "/v1/topics/orders/partitions/0/records?offset=latest&wait_ms=60000", method="GET"),
        sent("broker-1", "/v1/topics/orders/partitions/0/records", {"records": [{"value": "x"}]}),
        sent("broker-1", "/v1/topics/__groups/partitions/0/records?offset=0", method="GET"),
    ]


KINDS: Final[dict[str, Callable[[Seen], list[Request]]]] = {
    kind.__name__: kind
    for kind in (
        phantom, deposed_leader, poisoned_epoch, faked_acknowledgement, shrunk_isr, shutdown_in_anothers_name,
        reconnaissance, groups, rebinding, floods, deeds,
    )
}  # fmt: skip
WHO: Final = {"nobody": 401, "a wrong token": 401, "few rights": 403}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(tmp_path_factory.mktemp("hostile")) as made:
        assert made.dev.keyring is not None
        made.dev.keyring.make_principal("guest", allow=["write guest.*", "group guest"])
        for name in made.members:
            until(partial(made.knows, name, "guest"), f"guest to be known by {name}")
        done = made.command("ann", "topic", "create", "orders", "-p", "1", "-r", "2")
        assert done.returncode == 0, done.stderr
        with made.client("ann") as ann:
            ann.producer().send("orders", b"tea").result()
            with ann.consumer("orders", group="billing") as consumer:
                consumer.batch(max_wait_ms=5000)
                consumer.commit()
        yield made
        for name in made.members:
            assert "this is a bug" not in made.log(name)
            assert "Traceback" not in made.log(name)


@pytest.fixture
def seen(cluster: Secured) -> Seen:
    status, body = cluster.ask(cluster.url() + "/internal/rpc", cluster.token_of("ann"), encode(Metadata()), MSGPACK)
    assert status == 200
    told = decode(body)
    assert isinstance(told, MetadataReply)
    return told


def written(cluster: Secured) -> dict[str, bytes]:
    """The journal of the controller and the logs of the brokers, those of groups among them."""
    return {
        str(path.relative_to(cluster.dev.folder)): path.read_bytes()
        for pattern in ("controller/journal-*", "broker-*/*/*.log")
        for path in sorted(cluster.dev.folder.glob(pattern))
    }


def token_for(cluster: Secured, who: str) -> str:
    return {"nobody": "", "a wrong token": "mlt_" + "x" * 43, "few rights": cluster.token_of("guest")}[who]


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_refused_and_nothing_is_written(cluster: Secured, seen: Seen, kind: str, who: str) -> None:
    before = written(cluster)
    for request in KINDS[kind](seen):
        url = cluster.url(request.process) + request.path
        token = token_for(cluster, who)
        status, body = cluster.ask(url, token, request.body, request.media, request.method, request.headers)
        wanted = 403 if kind == "rebinding" else WHO[who]
        assert status == wanted, (request, body)
        assert b"mlt_" not in body
    assert written(cluster) == before


@pytest.mark.parametrize("who", WHO)
def test_records_of_others_are_neither_written_nor_read(cluster: Secured, who: str) -> None:
    """Partition by partition, so that who asks for several topics gets those that they may have."""
    before = written(cluster)
    for path in ("/internal/rpc", "/v1/produce"):
        batches = memoryview(encode_values([b"never"] * 3, 1_700_000_000_000))
        message = Produce(-1, 2000, [ProducePartition("orders", 0, batches)])
        status, body = cluster.ask(cluster.url() + path, token_for(cluster, who), encode(message), MSGPACK)
        if WHO[who] == 401:
            assert status == 401
        else:
            reply = decode(body)
            assert isinstance(reply, ProduceReply), reply
            assert [one.problem and one.problem.code for one in reply.partitions] == ["FORBIDDEN"]
    for path in ("/internal/rpc", "/v1/fetch"):
        asked = Fetch([FetchPartition("orders", 0, 0)])
        status, body = cluster.ask(cluster.url() + path, token_for(cluster, who), encode(asked), MSGPACK)
        if WHO[who] == 401:
            assert status == 401
        else:
            told = decode(body)
            assert isinstance(told, FetchReply), told
            assert [one.problem and one.problem.code for one in told.partitions] == ["FORBIDDEN"]
    assert written(cluster) == before


SMUGGLED: Final = b'{"topic":"smuggled","partitions":1,"replication_factor":1}'
INNER: Final = (
    b"POST /v1/topics HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    % (len(SMUGGLED), SMUGGLED)
)
OUTER: Final = b"POST /v1/topics/guest.x/records HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
FRAMINGS: Final = [
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"Content-Length: +2\r\n\r\n{}",
    b"Connection: upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}",
    b"Content-Length: 2\r\n\r\n{}",
]


@pytest.mark.parametrize("framing", FRAMINGS, ids=lambda framing: repr(framing[:40]))
@pytest.mark.parametrize("who", WHO)
def test_a_request_hidden_behind_another_is_asked_who_it_is(cluster: Secured, who: str, framing: bytes) -> None:
    """The one before it says nothing for it, on the same connection."""
    before = written(cluster)
    token = token_for(cluster, who)
    shown = f"Authorization: Bearer {token}\r\n".encode() if token else b""
    with (
        socket.create_connection(("127.0.0.1", cluster.port()), timeout=5) as plain,
        cluster.trust().wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(OUTER + shown + framing + INNER)
        secure.settimeout(1.0)
        answered = b""
        try:
            while got := secure.recv(65536):
                answered += got
        except (TimeoutError, OSError):
            pass
    statuses = re.findall(rb"HTTP/1\.[01] (\d{3})", answered)
    assert all(status.startswith(b"4") for status in statuses), answered[:400]
    assert written(cluster) == before
    assert cluster.ask(cluster.url() + "/v1/topics/smuggled", cluster.token_of("ann"))[0] == 404
