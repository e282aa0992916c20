"""Peers against real sockets: order, connections, and what each way to fail proves."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from minilog.errors import BrokerUnavailable, MinilogError, NotController, Overloaded, TimedOut
from minilog.server.inbound import accepted_connection
from minilog.server.outbound import peer_lane
from minilog.server.outbound.connection import content_length, parse_head
from minilog.server.outbound.peer_lane import Address
from minilog.server.outbound.peers import Peers, Response
from minilog.wire.http import problem_body
from minilog.wire.messages import (
    AllocateProducerIds,
    AlterPartition,
    CreateTopic,
    Heartbeat,
    HeartbeatReply,
    Message,
    Ok,
    Positions,
    Probe,
    ProbeReply,
    Problem,
    Register,
    ReplicaFetch,
    ReplicaFetchReply,
    ReplicaFetchResult,
)
from tests.unit.server.peer_server import Exchange, PeerServer, answer, until

Handler = Callable[[Exchange], Awaitable[None]]
OK = Ok(7)


def fetch(sequence: int = 1, max_wait_ms: int = 0) -> ReplicaFetch:
    return ReplicaFetch(1, 1, 2, 1, sequence, max_wait_ms, 1000, [])


class Client:
    """Peers with a queue of outcomes."""

    def __init__(self, peers: Peers, url: str) -> None:
        self.peers = peers
        self.url = url
        self.responses: asyncio.Queue[Response] = asyncio.Queue()

    def send(self, request: Message, node_id: int = 2) -> None:
        self.peers.send(node_id, self.url, request, self.responses.put_nowait)

    async def ask(self, request: Message, node_id: int = 2) -> Response:
        self.send(request, node_id)
        return await self.responses.get()

    async def error(self, request: Message) -> MinilogError:
        response = await self.ask(request)
        assert isinstance(response, MinilogError)
        return response


def with_peer(
    handler: Handler, check: Callable[[Client, PeerServer], Coroutine[Any, Any, None]], timeout_ms: int = 2000
) -> None:
    async def main() -> None:
        async with PeerServer(handler) as peer, asyncio.TaskGroup() as tasks:
            client = Client(Peers(tasks, timeout_ms), peer.url)
            async with asyncio.timeout(5):
                await check(client, peer)
            client.peers.close()

    asyncio.run(main())


async def ok(exchange: Exchange) -> None:
    exchange.reply(OK)


async def silent(exchange: Exchange) -> None:
    """Never answer. The connection stays open."""


def test_a_connection_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server closes what is idle, too, and a request in that moment would be lost: the client
    gives it up long before."""
    assert 2 * peer_lane.IDLE_S <= accepted_connection.IDLE_S

    async def check(client: Client, peer: PeerServer) -> None:
        for _ in range(2):
            assert await client.ask(fetch()) == OK
        assert peer.connections == 1
        monkeypatch.setattr(peer_lane, "IDLE_S", 0)
        assert await client.ask(fetch()) == OK
        assert peer.connections == 2
        await until(lambda: peer.open_connections == 1)

    with_peer(ok, check)


def test_nor_is_one_that_was_idle_while_this_process_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slept: the request comes before the timer that would have closed the
    connection."""
    monkeypatch.setattr(peer_lane, "IDLE_S", 0.05)

    async def check(client: Client, peer: PeerServer) -> None:
        assert await client.ask(fetch()) == OK
        time.sleep(0.2)  # noqa: ASYNC251
        assert await client.ask(fetch()) == OK
        assert peer.connections == 2

    with_peer(ok, check)


def test_one_connection_per_peer_and_purpose_is_reused() -> None:
    async def check(client: Client, peer: PeerServer) -> None:
        for sequence in range(3):
            assert await client.ask(fetch(sequence)) == OK
        assert peer.connections == 1
        assert await client.ask(AlterPartition(1, 1, "i", 1, 1, [])) == OK
        assert await client.ask(fetch(), node_id=3) == OK
        assert peer.connections == 3

    with_peer(ok, check)


def test_a_producer_id_does_not_wait_until_everybody_knows_of_a_topic() -> None:
    """The controller answers CreateTopic when every live broker has applied it."""

    async def controller(exchange: Exchange) -> None:
        if not isinstance(exchange.message, CreateTopic):
            exchange.reply(OK)

    async def check(client: Client, peer: PeerServer) -> None:
        client.send(CreateTopic("__groups"))
        assert await client.ask(AllocateProducerIds(1, 2, "process")) == OK
        assert peer.connections == 2

    with_peer(controller, check)


def test_requests_of_one_purpose_leave_in_order_and_one_at_a_time() -> None:
    open_requests: list[Exchange] = []

    async def hold(exchange: Exchange) -> None:
        open_requests.append(exchange)

    async def check(client: Client, peer: PeerServer) -> None:
        for sequence in range(5):
            client.send(fetch(sequence))
        for sequence in range(5):
            await until(lambda: len(open_requests) == sequence + 1)  # noqa: B023
            assert len(peer.requests) == sequence + 1, "the next one waits for the answer to this one"
            open_requests[sequence].reply(Ok(sequence))
            assert await client.responses.get() == Ok(sequence)
        assert [request.sequence for request in peer.requests if isinstance(request, ReplicaFetch)] == list(range(5))

    with_peer(hold, check)


def test_a_large_answer_arrives_whole_in_however_many_pieces() -> None:
    batches = bytes(range(256)) * 8192
    reply = ReplicaFetchReply(1, 1, [ReplicaFetchResult("t", "id", 0, 1, 0, 0, 0, batches=memoryview(batches))])

    async def pieces(exchange: Exchange) -> None:
        data = answer(reply)
        for start, end in ((0, 10), (10, 120), (120, 70_000), (70_000, len(data))):
            exchange.write(data[start:end])
            await exchange.writer.drain()
            await asyncio.sleep(0)

    async def check(client: Client, peer: PeerServer) -> None:
        for _ in range(2):
            response = await client.ask(fetch())
            assert isinstance(response, ReplicaFetchReply)
            assert response.partitions[0].batches == batches

    with_peer(pieces, check)


def test_a_large_request_arrives_whole() -> None:
    async def check(client: Client, peer: PeerServer) -> None:
        request = HeartbeatReply(1, 1, 1, 0, 0, [], True)
        assert await client.ask(request) == OK
        big = Problem("X", "y" * 300_000, False)
        assert await client.ask(big) == OK
        assert peer.requests == [request, big]

    with_peer(ok, check)


def test_refused_is_definite_and_says_so() -> None:
    async def main() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            async with asyncio.TaskGroup() as tasks:
                client = Client(Peers(tasks, 1000), f"http://127.0.0.1:{unused.getsockname()[1]}")
                error = await client.error(Probe(1, "x"))
                client.peers.close()
        assert isinstance(error, BrokerUnavailable)
        assert error.definite
        assert error.info["reason"] == "refused"

    asyncio.run(main())


def test_a_timeout_is_not_definite_and_closes_the_connection() -> None:
    async def late(exchange: Exchange) -> None:
        if len(exchange.peer.requests) > 1:
            exchange.reply(OK)

    async def check(client: Client, peer: PeerServer) -> None:
        error = await client.error(fetch(1))
        assert isinstance(error, TimedOut)
        assert not error.definite
        assert await client.ask(fetch(2, max_wait_ms=3000)) == OK
        assert peer.connections == 2, "a late answer must not meet the next request"

    with_peer(late, check, timeout_ms=150)


def test_what_never_left_the_queue_is_definite() -> None:
    async def check(client: Client, peer: PeerServer) -> None:
        client.send(fetch(1))
        client.send(fetch(2))
        outcomes = [await client.responses.get(), await client.responses.get()]
        assert [isinstance(outcome, TimedOut) and outcome.definite for outcome in outcomes] == [False, True]
        assert len(peer.requests) == 1

    with_peer(silent, check, timeout_ms=600)


def test_a_timeout_waits_as_long_as_the_request_itself_asks() -> None:
    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.06)  # longer than the peers' own timeout
        exchange.reply(OK)

    async def check(client: Client, peer: PeerServer) -> None:
        assert await client.ask(fetch(1, max_wait_ms=3000)) == OK

    with_peer(slow, check, timeout_ms=30)


SLOW_PARTS, SLOW_PART_BYTES = 10, 64 * 1024
LARGE = Problem("X", "y" * SLOW_PARTS * SLOW_PART_BYTES, False)
"""As a replica fetch far behind is answered, or a heartbeat with a snapshot of the metadata."""


async def in_parts(exchange: Exchange) -> None:
    """Altogether several times as long as any silence, and as the peers' patience."""
    if isinstance(exchange.message, AlterPartition):
        exchange.reply(OK)
        return
    data = answer(LARGE)
    for start in range(0, len(data), SLOW_PART_BYTES):
        exchange.write(data[start : start + SLOW_PART_BYTES])
        await asyncio.sleep(0.06)


@pytest.mark.parametrize("request_", [fetch(), Heartbeat(1, 1, "process", 1, 0, 0)], ids=["fetch", "heartbeat"])
def test_an_answer_that_keeps_coming_has_all_the_time_it_needs(request_: Message) -> None:
    async def check(client: Client, peer: PeerServer) -> None:
        client.send(request_)
        await until(lambda: peer.requests)
        assert await client.ask(AlterPartition(1, 1, "i", 1, 1, [])) == OK, "nothing else waits for it"
        assert await client.responses.get() == LARGE
        assert await client.ask(request_) == LARGE
        assert peer.connections == 2, "the slow connection is as good as ever"

    with_peer(in_parts, check, timeout_ms=200)


def test_an_answer_that_stops_half_way_is_given_up_as_soon_as_one_that_does_not_begin() -> None:
    async def half(exchange: Exchange) -> None:
        exchange.write(answer(LARGE)[:SLOW_PART_BYTES])

    async def check(client: Client, peer: PeerServer) -> None:
        began = time.monotonic()
        error = await client.error(fetch())
        assert isinstance(error, TimedOut)
        assert not error.definite
        assert f"{SLOW_PART_BYTES} bytes" in error.detail
        assert time.monotonic() - began < 1.5
        await until(lambda: not peer.open_connections)

    with_peer(half, check, timeout_ms=200)


def test_so_is_one_that_comes_too_slowly_on_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_lane, "BYTES_PER_SECOND_MIN", 10**9)

    async def check(client: Client, peer: PeerServer) -> None:
        assert isinstance(await client.error(fetch()), TimedOut)

    with_peer(in_parts, check, timeout_ms=200)


def test_a_probe_is_given_up_before_the_registration_that_waits_for_it() -> None:
    register = Register(1, "i", "", "http://h:1", "", True, 0)

    async def check(client: Client, peer: PeerServer) -> None:
        ended: list[str] = []
        for request in (register, Probe(1, "i")):
            name = type(request).__name__
            client.peers.send(2, peer.url, request, lambda _, name=name: ended.append(name))  # type: ignore[misc]
        await until(lambda: len(ended) == 2)
        assert ended == ["Probe", "Register"]

    with_peer(silent, check, timeout_ms=600)


def test_an_answer_that_is_refused_is_logged_once_until_the_next_good_one(caplog: pytest.LogCaptureFixture) -> None:
    async def too_large(exchange: Exchange) -> None:
        if len(exchange.peer.requests) == 4:
            exchange.reply(OK)
        else:
            exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n")

    async def check(client: Client, peer: PeerServer) -> None:
        for _ in range(5):
            await client.ask(fetch())

    with_peer(too_large, check)
    said = [record.getMessage() for record in caplog.records if "at most" in record.getMessage()]
    assert len(said) == 2
    assert "fetch to node 2" in said[0]
    assert "999999999999" in said[0]


def test_a_reset_is_not_definite_and_nothing_is_sent_twice() -> None:
    async def reset(exchange: Exchange) -> None:
        exchange.reset()

    async def check(client: Client, peer: PeerServer) -> None:
        error = await client.error(fetch())
        assert isinstance(error, BrokerUnavailable)
        assert not error.definite
        assert error.info["reason"] == "reset"
        assert peer.requests == [fetch()]

    with_peer(reset, check)


def test_a_connection_the_peer_closed_while_idle_is_replaced() -> None:
    async def once(exchange: Exchange) -> None:
        exchange.reply(OK)
        exchange.writer.close()

    async def check(client: Client, peer: PeerServer) -> None:
        assert await client.ask(fetch(1)) == OK
        await until(lambda: not peer.open_connections)
        for _ in range(5):  # let the end of the connection reach the client
            await asyncio.sleep(0)
        assert await client.ask(fetch(2)) == OK
        assert peer.connections == 2

    with_peer(once, check)


def test_connection_close_is_honoured() -> None:
    async def closing(exchange: Exchange) -> None:
        exchange.write(answer(OK).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))

    async def check(client: Client, peer: PeerServer) -> None:
        assert await client.ask(fetch(1)) == OK
        assert await client.ask(fetch(2)) == OK
        assert peer.connections == 2

    with_peer(closing, check)


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/msgpack\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/msgpack\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 500 Oops\r\nContent-Type: application/problem+json\r\nContent-Length: 3\r\n\r\nabc",
        answer(OK) + b"more",
        b"x" * 20_000,
    ],
)
def test_garbage_is_not_definite_and_does_not_stay(garbage: bytes) -> None:
    async def write(exchange: Exchange) -> None:
        exchange.write(garbage if len(exchange.peer.requests) == 1 else answer(OK))

    async def check(client: Client, peer: PeerServer) -> None:
        error = await client.error(fetch(1))
        assert not error.definite
        assert await client.ask(fetch(2)) == OK

    with_peer(write, check)


def test_a_problem_document_becomes_its_error() -> None:
    async def problem(exchange: Exchange) -> None:
        body = problem_body(NotController("not me", definite=True))
        head = b"HTTP/1.1 409 Conflict\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n"
        exchange.write(head % len(body) + body)

    async def check(client: Client, peer: PeerServer) -> None:
        error = await client.error(fetch())
        assert isinstance(error, NotController)
        assert error.definite

    with_peer(problem, check)


def test_a_probe_opens_a_connection_of_its_own_each_time() -> None:
    async def probe(exchange: Exchange) -> None:
        exchange.reply(ProbeReply(1, "x"))

    async def check(client: Client, peer: PeerServer) -> None:
        for _ in range(2):
            assert await client.ask(Probe(1, "x")) == ProbeReply(1, "x")
        assert peer.connections == 2

    with_peer(probe, check)


def test_a_probe_does_not_wait_behind_positions() -> None:
    async def only_probes(exchange: Exchange) -> None:
        if isinstance(exchange.message, Probe):
            exchange.reply(OK)

    async def check(client: Client, peer: PeerServer) -> None:
        client.send(Positions(2, 1, 1, 1, []))
        assert await client.ask(Probe(1, "x")) == OK

    with_peer(only_probes, check)


def test_a_moved_node_is_followed_to_its_new_address() -> None:
    async def check(client: Client, peer: PeerServer) -> None:
        assert await client.ask(fetch(1)) == OK
        async with PeerServer(ok) as other:
            client.url = other.url
            assert await client.ask(fetch(2)) == OK
            assert other.requests == [fetch(2)]

    with_peer(ok, check)


@pytest.mark.parametrize("url", [None, "", "ftp://h:1", "http://h:x", "h:1"])
def test_no_usable_address_is_definite_and_told_later(url: str | None) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            peers = Peers(tasks, 1000)
            responses: list[Response] = []
            peers.send(2, url, fetch(), responses.append)
            assert not responses, "an outcome must not come back inside the turn that sends"
            await asyncio.sleep(0)
            (error,) = responses
            assert isinstance(error, BrokerUnavailable)
            assert error.definite

    asyncio.run(main())


def test_a_full_queue_refuses_definitely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilog.server.outbound.peer_lane.QUEUE_MAX", 2)

    async def check(client: Client, peer: PeerServer) -> None:
        for sequence in range(4):
            client.send(fetch(sequence))
        error = await client.responses.get()
        assert isinstance(error, Overloaded)
        assert error.definite

    with_peer(silent, check)


def test_forwarded_calls_do_not_wait_for_each_other() -> None:
    async def not_heartbeats(exchange: Exchange) -> None:
        if not isinstance(exchange.message, Heartbeat):
            exchange.reply(OK)

    async def check(client: Client, peer: PeerServer) -> None:
        stuck = asyncio.create_task(client.peers.call(peer.url, Heartbeat(1, 1, "process", 1, 0, 0), 1000))
        await until(lambda: peer.requests)
        assert await client.peers.call(peer.url, OK, 1000) == OK
        stuck.cancel()
        await until(lambda: peer.open_connections == 1)
        assert await client.peers.call(peer.url, OK, 1000) == OK

    with_peer(not_heartbeats, check)


def test_a_forwarded_call_that_fails_is_a_problem() -> None:
    async def check(client: Client, peer: PeerServer) -> None:
        late = await client.peers.call(peer.url, OK, 150)
        assert isinstance(late, Problem)
        assert (late.code, late.definite) == ("REQUEST_TIMED_OUT", False)
        nowhere = await client.peers.call("http://", OK, 20)
        assert isinstance(nowhere, Problem)
        assert nowhere.definite

    with_peer(silent, check)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://h:1", Address("h", 1)),
        ("http://[::1]:2", Address("::1", 2)),
        ("http://h", Address("h", 80)),
        ("https://h", Address("h", 443, True)),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert Address.of(url) == address


def test_heads() -> None:
    assert parse_head(b"HTTP/1.1 204 No Content\r\nA: b\r\nContent-LENGTH: 0") == (
        204,
        {"a": "b", "content-length": "0"},
    )
    assert content_length({"content-length": "12"}) == 12
    for bad in (b"HTTP/1.0 200 OK", b"HTTP/1.1 2x0 OK", b"HTTP/1.1 200 OK\r\nnocolon", b""):
        with pytest.raises(ValueError):
            parse_head(bad)
