"""HTTP as RFC 9110 and RFC 9112 say it, where aiohttp alone says something else: on raw sockets."""

from __future__ import annotations

import asyncio
import socket

import pytest

from minilog.wire.http import JSON, PROBLEM
from tests.unit.broker.http.harness import Broker, Connection, with_broker
from tests.unit.broker.http.test_connections import when

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
P0 = b"/v1/topics/orders/partitions/0/records"
POLL = b"GET " + P0 + b"?offset=latest&wait_ms=60000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b'{"records": [{"value": 1}]}'
POST = b"POST " + P0 + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + JSON.encode() + b"\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (GET + b"X: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"BREW /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (b"get /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"GET /healthz\r\n\r\n", 505),
        (b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: b\r\n\r\n", 400),
    ],
    ids=lambda value: repr(value[:60]) if isinstance(value, bytes) else str(value),
)
def test_what_must_not_be_served_gets_the_status_that_says_why(sent: bytes, status: int) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        behind = GET + b"\r\n" if status != 505 else b""  # else the parser refuses what does not end there
        connection.send(sent + behind)
        head = await connection.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status), head
        for line in (b"\r\nDate: ", b"\r\nServer: minilog\r\n", b"\r\nConnection: close\r\n", PROBLEM.encode()):
            assert line in head
        assert (b"Retry-After" in head) is False
        assert b"HTTP/1.1 200" not in await connection.reader.read(), "what follows is nobody's request"

    with_broker(test)


@pytest.mark.parametrize("host", ["", "a", "a:80", "a:", "[::1]:80", "[::1]", "127.0.0.1:8082", "a_b.example", "a%41"])
def test_a_host_may_be_any_that_a_url_can_have(host: str) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert (await connection.answer()).status == 200

    with_broker(test)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://a/healthz", 200),
        ("HTTP://other.example:1/healthz", 200),
        ("http://a", 200),
        ("http://a?x=1", 400),
        ("http://a/nothing", 404),
        ("ftp://a/healthz", 400),
    ],
)
def test_a_target_may_be_in_absolute_form(target: str, status: int) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        assert (await connection.request("GET", target)).status == status

    with_broker(test)


def test_options_of_the_whole_server_says_what_is_allowed() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("OPTIONS", "*")
        assert (answer.status, answer.headers["allow"]) == (405, "DELETE, GET, HEAD, PATCH, POST, PUT")

    with_broker(test)


@pytest.mark.parametrize("head", [GET, POST + LENGTH], ids=["get", "post"])
def test_an_upgrade_is_declined_and_the_connection_ends_with_the_answer(head: bytes) -> None:
    """What came behind it is for the other protocol, or nobody has read it. It is answered by no
    silence."""

    async def test(broker: Broker, connection: Connection) -> None:
        body = BODY if head is not GET else b""
        connection.send(head + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n" + body)
        answer = await connection.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await connection.closed()

    with_broker(test)


def test_a_client_of_http_1_0_is_told_to_continue_by_nobody() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(POST.replace(b"1.1", b"1.0") + LENGTH + b"Expect: 100-continue\r\n\r\n")
        await asyncio.sleep(0)
        connection.send(BODY)
        assert (await connection.answer()).status == 200

    with_broker(test)


@pytest.mark.parametrize("count", [1, 3])
def test_who_has_sent_its_last_byte_is_answered_and_the_connection_ends(count: int) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send((GET + b"\r\n") * count)
        connection.writer.write_eof()
        for _ in range(count):
            assert (await connection.answer()).status == 200
        assert await connection.closed()

    with_broker(test)


def test_a_write_of_who_has_sent_its_last_byte_is_answered() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(POST + LENGTH + b"\r\n" + BODY)
        connection.writer.write_eof()
        assert (await connection.answer()).status == 200
        assert await connection.closed()

    with_broker(test)


def test_a_body_that_ends_too_soon_ends_the_connection() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(POST + LENGTH + b"\r\n" + BODY[:5])
        connection.writer.write_eof()
        assert await connection.closed()

    with_broker(test)


def test_a_poll_of_who_may_have_left_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilog.server.inbound.accepted_connection.UNSEEN_S", 0.05)

    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(POLL)
        connection.writer.write_eof()
        assert await connection.closed()
        await when(lambda: not broker.runtime.waiting)

    with_broker(test)


def test_an_idle_connection_ends_with_its_client() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(GET + b"\r\n")
        assert (await connection.answer()).status == 200
        connection.writer.write_eof()
        assert await connection.closed()

    with_broker(test)


def test_an_early_refusal_reaches_who_is_still_sending() -> None:
    """Were the rest left unread, the kernel would take the answer back with a reset."""

    def ask(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.sendall(GET + b"X: " + b"a" * 4_000_000 + b"\r\n\r\n")
            answer = b""
            while some := client.recv(65536):
                answer += some
            return answer

    async def test(broker: Broker, connection: Connection) -> None:
        answer = await asyncio.to_thread(ask, broker.port)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert answer.endswith(b"}")

    with_broker(test)
