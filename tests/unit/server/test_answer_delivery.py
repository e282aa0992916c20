"""Answers on their way out: who takes nothing is cut off, who takes something is not, and nobody's
unread answer stops other reads."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from minilog.config import Limits
from minilog.errors import Overloaded
from minilog.server.inbound.answer_delivery import PIECE_BYTES, Answers, Delivery, unacknowledged
from minilog.server.inbound.listener import Listener
from minilog.server.inbound.request_body import SMALL_BYTES, Budget
from minilog.wire.http import BATCH, EVENTS, JSON, MSGPACK
from minilog.wire.messages import Fetch, FetchPartition, Message, encode
from tests.unit.broker.http.fake_runtime import FakeCluster
from tests.unit.broker.http.harness import Broker, Connection, fill, open_tail, orders, serving

P0 = "/v1/topics/orders/partitions/0/records"
P2 = "/v1/topics/orders/partitions/2/records"
LARGE = 12 * 1024 * 1024
"""More than two kernels keep for a client that does not read, as long as its buffer is a small
one."""


def large() -> FakeCluster:
    cluster = orders()
    for _ in range(LARGE // 900_000):
        fill(cluster, 0, [b'"' + b"x" * 900_000 + b'"'])
    fill(cluster, 2, [b"1"])
    return cluster


@contextlib.asynccontextmanager
async def idle_reader(broker: Broker, media: str = JSON) -> AsyncIterator[socket.socket]:
    """Asks for everything; reads what the test makes it read."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", broker.port))
        head = f"GET {P0}?offset=0&max_bytes=16000000 HTTP/1.1\r\nHost: localhost\r\nAccept: {media}\r\n\r\n"
        await loop.sock_sendall(client, head.encode())
        yield client


async def open_connections(connection: Connection) -> int:
    text = (await connection.request("GET", "/metrics")).body.decode()
    (line,) = [line for line in text.split("\n") if line.startswith("minilog_http_connections ")]
    return int(float(line.split()[1]))


async def until_open(connection: Connection, count: int) -> None:
    async with asyncio.timeout(5):
        while await open_connections(connection) != count:
            pass


@pytest.mark.parametrize("media", [JSON, BATCH, EVENTS])
def test_who_takes_nothing_is_cut_off_however_large_the_answer(media: str) -> None:
    async def main() -> None:
        limits = Limits(response_write_ms=100, body_bytes_per_second_min=1)  # by size it would be months
        async with (
            serving(large(), limits=limits) as broker,
            broker.connect() as connection,
            idle_reader(broker, media),
        ):
            await until_open(connection, 2)
            await until_open(connection, 1)

    asyncio.run(main())


@pytest.mark.parametrize("media", [JSON, EVENTS])
def test_who_takes_a_little_all_the_time_keeps_the_connection(media: str) -> None:
    async def main() -> None:
        limits = Limits(response_write_ms=150, body_bytes_per_second_min=1)
        async with (
            serving(large(), limits=limits) as broker,
            broker.connect() as connection,
            idle_reader(broker, media) as client,
        ):
            loop = asyncio.get_running_loop()
            for _ in range(25):  # five times as long as response_write_ms
                assert await loop.sock_recv(client, 40_000), "cut off"
                await asyncio.sleep(0.03)
            assert await open_connections(connection) == 2

    asyncio.run(main())


def test_who_takes_less_than_the_least_rate_is_cut_off_too() -> None:
    async def main() -> None:
        limits = Limits(response_write_ms=100, body_bytes_per_second_min=60_000_000)
        async with (
            serving(large(), limits=limits) as broker,
            broker.connect() as connection,
            idle_reader(broker) as client,
        ):
            await until_open(connection, 2)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(5):
                while await open_connections(connection) == 2:
                    assert await loop.sock_recv(client, 1000)

    asyncio.run(main())


@pytest.mark.parametrize("media", [JSON, EVENTS, BATCH])
def test_unread_answers_leave_room_for_those_that_are_read(media: str) -> None:
    async def main() -> None:
        limits = Limits(inflight_bytes_max=64 * 1024 * 1024)
        async with serving(large(), limits=limits) as broker, broker.connect() as connection:
            async with contextlib.AsyncExitStack() as readers:
                for number in range(12):
                    await readers.enter_async_context(idle_reader(broker, media))
                    assert (await connection.request("GET", P2)).status == 200, number
                for _ in range(20):
                    assert (await connection.request("GET", P2)).status == 200
            await until_open(connection, 1)
            assert (await connection.request("GET", P0 + "?max_bytes=16000000")).status == 200

    asyncio.run(main())


MANY = 20_000
REFUSED = b'{"records":[' + b",".join([b'{"value":1,"partition":99}'] * MANY) + b"]}"
FAILING = b'{"records":[' + b",".join([b'{"value":1}'] * MANY) + b"]}"


def post(target: str, body: bytes) -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    "sent",
    [
        post("/v1/topics/orders/records", REFUSED),
        post(P0 + "?acks=3", FAILING),
        b"GET /v1/topics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["refused records", "failed records", "topics"],
)
def test_unread_answers_of_any_kind_leave_room_for_reads(sent: bytes) -> None:
    async def main() -> None:
        limits = Limits(inflight_bytes_max=16 * 1024 * 1024)
        cluster = large()
        cluster.create("wide", 2 * MANY)
        async with serving(cluster, limits=limits) as broker, broker.connect() as connection:
            async with contextlib.AsyncExitStack() as clients:
                for _ in range(5):
                    client = await clients.enter_async_context(silent_client(broker, sent))
                    await until_readable(client)
                    assert (await connection.request("GET", P2)).status == 200
            await until_open(connection, 1)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def silent_client(broker: Broker, sent: bytes) -> AsyncIterator[socket.socket]:
    """Asks, and reads nothing."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", broker.port))
        await loop.sock_sendall(client, sent)
        yield client


async def until_readable(client: socket.socket) -> None:
    """The answer has begun."""
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(client, readable.set)
    async with asyncio.timeout(10):
        await readable.wait()
    loop.remove_reader(client)


def test_an_answer_there_is_no_room_for_tells_what_became_of_all_records_together() -> None:
    async def main() -> None:
        limits = Limits(inflight_bytes_max=12 * 1024 * 1024, request_bytes_max=4 * 1024 * 1024)
        async with serving(orders(), limits=limits) as broker, broker.connect() as connection:
            async with silent_client(broker, post(P0 + "?acks=3", FAILING)) as client:
                await until_readable(client)
                answer = await connection.request("POST", P0 + "?acks=3", FAILING, JSON)
                assert (answer.status, answer.json()["code"], "results" in answer.json()) == (
                    422,
                    "INVALID_ACKS",
                    False,
                )
                answer = await connection.request("POST", "/v1/topics/orders/records", REFUSED, JSON)
                assert (answer.status, answer.json()["code"], answer.json()["definite"]) == (503, "OVERLOADED", True)
            answer = await connection.request("POST", P0 + "?acks=3", FAILING, JSON)
            assert len(answer.json()["results"]) == MANY

    asyncio.run(main())


def test_a_fault_in_the_middle_of_a_tail_ends_its_connection_and_begins_no_second_answer() -> None:
    async def main() -> None:
        cluster = orders()
        fill(cluster, 2, [b"1"])
        async with serving(cluster) as broker, broker.connect() as connection:
            events = await open_tail(connection, P2 + "?offset=0")
            await events.next()

            def fault(request: Message) -> Message | None:
                raise KeyError("a fault")

            broker.runtime.intercept = fault
            log = cluster.logs["orders", 2]
            fill(cluster, 2, [b"2"])
            log.grown.set()
            async with asyncio.timeout(5):
                assert b"HTTP/1.1" not in await connection.reader.read()

    asyncio.run(main())


def test_a_large_answer_comes_whole_and_its_connection_goes_on() -> None:
    async def main() -> None:
        async with serving(large()) as broker, broker.connect() as connection:
            whole = await connection.request("GET", P0 + "?max_bytes=16000000")
            assert [record["offset"] for record in whole.json()["records"]] == list(range(LARGE // 900_000))
            assert len(whole.body) == int(whole.headers["content-length"]) > PIECE_BYTES
            head = await connection.request("HEAD", P0 + "?max_bytes=16000000")
            assert head.headers["content-length"] == whole.headers["content-length"]
            assert (await connection.request("GET", P2)).status == 200
            raw = await connection.request("GET", P0 + "?max_bytes=16000000", Accept=BATCH)
            assert (raw.status, raw.headers["minilog-next-offset"]) == (200, str(LARGE // 900_000))

    asyncio.run(main())


def test_an_answer_gets_half_of_what_is_free_and_one_alone_all() -> None:
    answers = Answers(100 * SMALL_BYTES)
    answers.check("a", 100 * SMALL_BYTES)
    answers.hold("a", 50 * SMALL_BYTES)
    answers.check("a", 25 * SMALL_BYTES)
    answers.hold("a", 25 * SMALL_BYTES)
    with pytest.raises(Overloaded, match="half"):
        answers.check("a", 13 * SMALL_BYTES)
    answers.hold("a", 0, 75 * SMALL_BYTES)
    answers.check("a", 100 * SMALL_BYTES)
    answers.check("a", 1000 * SMALL_BYTES)
    assert isinstance(answers, Budget)


def test_answers_of_a_client_leave_room_for_those_of_others() -> None:
    """R45: it comes again and again, and takes nothing of what it is given."""
    answers = Answers(100 * SMALL_BYTES)
    piece = 2 * SMALL_BYTES
    answers.hold("little", piece)
    for _ in range(24):
        answers.check("much", piece)
        answers.hold("much", piece)
    with pytest.raises(Overloaded, match="this client holds"):
        answers.check("much", 2 * piece)
    assert answers.room_bytes("much") == piece
    assert answers.room_bytes("little") == 25 * SMALL_BYTES
    answers.check("little", 25 * SMALL_BYTES)
    answers.hold("little", 0, piece)
    assert answers.room_bytes("much") == 26 * SMALL_BYTES, "it is alone"


@pytest.mark.parametrize("media", [JSON, BATCH, MSGPACK])
def test_an_answer_larger_than_the_bound_is_given_when_there_is_no_other(media: str) -> None:
    """It is as large at any later time: who was told to come again could never go on reading."""

    async def ask(connection: Connection) -> int:
        if media == MSGPACK:
            message = Fetch([FetchPartition("orders", 0, 0, LARGE)], max_bytes=LARGE)
            return (await connection.request("POST", "/v1/fetch", encode(message), MSGPACK)).status
        return (await connection.request("GET", P0 + "?max_bytes=16000000", Accept=media)).status

    async def main() -> None:
        limits = Limits(inflight_bytes_max=4 * 1024 * 1024, request_bytes_max=1024 * 1024)
        async with serving(large(), limits=limits) as broker, broker.connect() as connection:
            assert await ask(connection) == 200
            request = f"GET {P0}?max_bytes=16000000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
            async with silent_client(broker, request.encode()) as client:
                await until_readable(client)
                assert await ask(connection) == 503
            await until_open(connection, 1)
            assert await ask(connection) == 200

    asyncio.run(main())


def test_of_a_connection_that_is_closed_nothing_is_unacknowledged() -> None:
    """The look may come in the very turn in which the connection is lost. What it raised would stop
    the process."""

    async def main() -> None:
        async with serving(orders()) as broker, broker.connect() as connection:
            transport = connection.writer.transport
            assert unacknowledged(transport) == 0
            transport.abort()
            for _ in range(3):
                await asyncio.sleep(0)
            assert unacknowledged(transport) == 0

    asyncio.run(main())


def test_what_is_charged_is_given_back_however_an_answer_ends() -> None:
    async def main() -> None:
        limits = Limits(response_write_ms=100, body_bytes_per_second_min=1, inflight_bytes_max=16 * 1024 * 1024)
        async with serving(large(), limits=limits) as broker, broker.connect() as connection:
            for media in (JSON, BATCH, EVENTS):
                async with idle_reader(broker, media):
                    await until_open(connection, 2)
                    await until_open(connection, 1)  # cut off
                async with idle_reader(broker, media) as client:
                    await asyncio.get_running_loop().sock_recv(client, 1000)
                await until_open(connection, 1)  # it has left
                assert (await connection.request("GET", P0 + "?max_bytes=12000000", Accept=BATCH)).status == 200, media

    asyncio.run(main())


def test_the_end_of_an_answer_has_a_deadline_too() -> None:
    """A client that takes nothing more: what was written last filled the kernel's buffers to the
    last byte."""
    ended = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        assert request.transport is not None
        request.transport.write(bytes(LARGE))
        await Delivery(request, Answers(LARGE), Limits(response_write_ms=50)).end(stream)
        assert request.transport is None, "the connection is cut"
        ended.set()
        return stream

    async def main() -> None:
        runner = web.ServerRunner(Listener(handler, Limits()), shutdown_timeout=0.02)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        with socket.create_connection(runner.addresses[0][:2]) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(3):
                await ended.wait()
        await runner.cleanup()

    asyncio.run(main())
