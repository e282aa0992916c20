"""Malformed HTTP, slow and greedy clients, limits: on raw sockets. The server answers a sentence or
closes, and goes on."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable

import pytest

from minilog.config import Limits
from minilog.wire.http import JSON, PROBLEM
from tests.unit.broker.http.harness import Answer, Broker, Connection, orders, serving, with_broker

P0 = "/v1/topics/orders/partitions/0/records"
HEAD = f"POST {P0} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\n"
BODY = b'{"records": [{"value": 1}]}'
QUICK = Limits(header_read_ms=40, body_read_ms=40, response_write_ms=40, connections_max=3, request_bytes_max=1_000_000)


async def alive(broker: Broker) -> None:
    async with broker.connect() as connection:
        assert (await connection.request("GET", "/healthz")).status == 200


def refused(answer: Answer, status: int, code: str) -> str:
    assert (answer.status, answer.media) == (status, PROBLEM), answer
    problem = answer.json()
    assert (problem["code"], problem["definite"], problem["status"]) == (code, True, status)
    assert "Traceback" not in problem["detail"]
    detail: str = problem["detail"]
    return detail


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: \x00\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(200_000)) + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1e3\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[:30]),
)
def test_malformed_http_gets_a_problem_document_and_the_server_goes_on(sent: bytes) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(sent)
        answer = await connection.answer()
        assert answer.status in (400, 414, 431, 501)  # which one: test_http_rules.py
        assert "HTTP/1.1" in refused(answer, answer.status, "INVALID_REQUEST")
        assert await connection.closed()
        await alive(broker)

    with_broker(test)


def test_a_head_that_trickles_in_gets_408() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(b"GET / HTTP/1.1\r\nHo")
        assert "40 ms" in refused(await connection.answer(), 408, "REQUEST_TIMED_OUT")
        assert await connection.closed()
        await alive(broker)

    with_broker(test, limits=QUICK)


def test_a_head_that_trickles_in_on_a_used_connection_gets_408_but_an_idle_one_stays() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        assert (await connection.request("GET", "/healthz")).status == 200
        async with broker.connect() as other:
            other.send(b"GET")
            refused(await other.answer(), 408, "REQUEST_TIMED_OUT")
        assert (await connection.request("GET", "/healthz")).status == 200
        connection.send(b"GET / HT")
        refused(await connection.answer(), 408, "REQUEST_TIMED_OUT")

    with_broker(test, limits=QUICK)


def test_half_a_head_that_comes_while_a_request_is_answered_gets_408_after_that_answer() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        broker.runtime.gate = asyncio.Event()
        connection.send((HEAD + f"Content-Length: {len(BODY)}\r\n\r\n").encode() + BODY)
        while not broker.runtime.submitted:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        connection.send(b"GET / HT")
        await asyncio.sleep(2 * QUICK.header_read_ms / 1000)  # an answer under way is never cut off for it
        broker.runtime.gate.set()
        assert (await connection.answer()).status == 200
        refused(await connection.answer(), 408, "REQUEST_TIMED_OUT")
        assert await connection.closed()

    with_broker(test, limits=QUICK)


def test_requests_one_behind_the_other_are_all_answered_and_the_connection_stays() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for _ in range(3):
            connection.send(3 * one)
            assert [(await connection.answer()).status for _ in range(3)] == [200] * 3
            await asyncio.sleep(2 * QUICK.header_read_ms / 1000)  # longer than a head may take: nobody owes one

    with_broker(test, limits=QUICK)


def test_a_connection_that_never_says_a_word_is_closed_without_an_answer() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        assert await connection.closed()

    with_broker(test, limits=QUICK)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_trickles_in_gets_408(chunked: bool) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        framing = 'Transfer-Encoding: chunked\r\n\r\n5\r\n{"rec' if chunked else 'Content-Length: 100\r\n\r\n{"rec'
        connection.send((HEAD + framing).encode())
        assert "5 of " in refused(await connection.answer(), 408, "REQUEST_TIMED_OUT")
        assert broker.runtime.submitted == []
        await alive(broker)

    with_broker(test, limits=QUICK)


def test_a_body_that_never_ends_stops_at_the_limit() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send((HEAD + "Transfer-Encoding: chunked\r\n\r\n").encode())
        for _ in range(20):
            connection.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
        assert "1000000" in refused(await connection.answer(), 413, "REQUEST_TOO_LARGE")
        await alive(broker)

    with_broker(test, limits=QUICK)


def test_a_length_beyond_the_limit_is_refused_before_the_body() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(f"{HEAD}Content-Length: 99999999999\r\n\r\n".encode())
        assert "99999999999" in refused(await connection.answer(), 413, "REQUEST_TOO_LARGE")

    with_broker(test)


def test_a_malformed_chunk_is_an_invalid_request() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send((HEAD + "Transfer-Encoding: chunked\r\n\r\nzz\r\n").encode())
        refused(await connection.answer(), 400, "INVALID_REQUEST")
        await alive(broker)

    with_broker(test)


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing_behind() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        async with broker.connect() as other:
            other.send(f"{HEAD}Content-Length: 900\r\n\r\n".encode() + BODY)
            await other.writer.drain()
            while b"minilog_http_connections 2\n" not in (await connection.request("GET", "/metrics")).body:
                pass
        while b"minilog_http_connections 1\n" not in (await connection.request("GET", "/metrics")).body:
            pass
        assert (await connection.request("POST", P0, BODY + b" " * 900, JSON)).status == 200

    with_broker(test, limits=Limits(inflight_bytes_max=1000))


def test_expect_continue_is_granted_after_admission() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(f"{HEAD}Content-Length: {len(BODY)}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert (await connection.answer()).status == 100
        connection.send(BODY)
        assert (await connection.answer()).status == 200
        assert (await connection.request("GET", "/healthz")).status == 200

    with_broker(test)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"{HEAD}Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n", 413),
        (f"{HEAD}Content-Length: 10\r\nExpect: the-unexpected\r\n\r\n", 400),
        ("POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n", 404),
    ],
)
def test_expect_continue_is_refused_before_the_body_and_the_connection_closed(head: str, status: int) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(head.encode())
        answer = await connection.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")

    with_broker(test)


def test_chunked_bodies_work() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send((HEAD + "Transfer-Encoding: chunked\r\n\r\n").encode())
        for byte in BODY:
            connection.send(b"1\r\n%c\r\n" % byte)
        connection.send(b"0\r\n\r\n")
        assert (await connection.answer()).status == 200

    with_broker(test)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        one = f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
        connection.send(one + b"GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n" + one)
        answers = [await connection.answer() for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 404, 200]
        assert [answers[n].json()["results"][0]["offset"] for n in (0, 2)] == [0, 1]

    with_broker(test)


def test_http_1_0_is_answered() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (await connection.answer()).status == 200
        assert await connection.closed()

    with_broker(test)


def test_connections_beyond_the_limit_get_a_definite_503_and_room_comes_back() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        async with broker.connect() as second, broker.connect() as third:
            for used in (connection, second, third):
                assert (await used.request("GET", "/healthz")).status == 200
            async with broker.connect() as fourth:
                answer = await fourth.answer()
                assert "3 connections" in refused(answer, 503, "OVERLOADED")
                assert answer.headers["retry-after"] == "1"
                assert await fourth.closed()
            assert (await second.request("GET", "/healthz")).status == 200
        async with asyncio.timeout(5):
            while b"minilog_http_connections 1\n" not in (await connection.request("GET", "/metrics")).body:
                pass
        await alive(broker)

    with_broker(test, limits=Limits(connections_max=3))


def test_an_answer_that_is_not_taken_in_time_costs_the_connection() -> None:
    cluster = orders()
    value = b'{"records": [{"value": "' + b"x" * 900_000 + b'"}]}'

    async def main() -> None:
        limits = Limits(response_write_ms=50, body_bytes_per_second_min=10**9)
        async with serving(cluster, limits=limits) as broker, broker.connect() as connection:
            for _ in range(12):
                assert (await connection.request("POST", P0, value, JSON)).status == 200
            lazy = socket.create_connection(("127.0.0.1", broker.port))
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.sendall(f"GET {P0}?max_bytes=16000000 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await _until(connection, b"minilog_http_connections 2\n")
            await _until(connection, b"minilog_http_connections 1\n")
            lazy.close()

    asyncio.run(main())


async def _until(connection: Connection, text: bytes) -> None:
    async with asyncio.timeout(5):
        while text not in (await connection.request("GET", "/metrics")).body:
            pass


def test_errors_in_handlers_leave_the_connection_usable() -> None:
    """The listener's own handler of last resort, too, answers a problem document."""

    async def main() -> None:
        async with serving(orders()) as broker, broker.connect() as connection:
            broker.runtime.intercept = _fail
            answer = await connection.request("POST", P0, BODY, JSON)
            assert (answer.status, answer.json()["code"]) == (500, "INTERNAL")
            broker.runtime.intercept = lambda request: None
            assert (await connection.request("POST", P0, BODY, JSON)).status == 200

    asyncio.run(main())


def _fail(request: object) -> None:
    raise RuntimeError("boom")


def test_problem_documents_are_json_even_for_bytes_nobody_can_read() -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(b"GET /\xff\xfe%ff HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await connection.answer()
        assert answer.status in (400, 404)
        assert json.loads(answer.body)["definite"] is True

    with_broker(test)


# --- what comes ahead -----------------------------------------------------------------------------

POLL = f"GET {P0}?offset=latest&wait_ms=60000 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
AHEAD = 40
AHEAD_BODY = b'{"records": [{"value": "' + b"x" * 900_000 + b'"}]}'
AHEAD_REQUEST = f"{HEAD}Content-Length: {len(AHEAD_BODY)}\r\n\r\n".encode() + AHEAD_BODY


async def when(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to wait on
            await asyncio.sleep(0.001)


async def until_stuck(connection: Connection) -> int:
    """What the broker has not taken, once it takes no more."""
    transport = connection.writer.transport
    left, same = -1, 0
    async with asyncio.timeout(5):
        while same < 20:
            await asyncio.sleep(0.01)
            now = transport.get_write_buffer_size()
            left, same = now, same + 1 if now == left else 0
    return left


def test_bodies_that_come_ahead_are_not_taken_until_it_is_their_turn() -> None:
    """They would be charged to nobody: the one whose turn it is waits."""

    async def test(broker: Broker, connection: Connection) -> None:
        broker.runtime.gate = asyncio.Event()
        connection.send((HEAD + f"Content-Length: {len(BODY)}\r\n\r\n").encode() + BODY)
        await when(lambda: broker.runtime.submitted)
        sent = memoryview(AHEAD_REQUEST * AHEAD)
        connection.writer.transport.write(sent)
        left = await until_stuck(connection)
        assert left > len(sent) // 2, "the kernels hold some megabytes, this process next to nothing"
        broker.runtime.gate.set()
        assert [(await connection.answer()).status for _ in range(AHEAD + 1)] == [200] * (AHEAD + 1)
        assert (await connection.request("GET", "/healthz")).status == 200

    with_broker(test)


def test_many_small_requests_one_behind_the_other_are_all_answered() -> None:
    """More than is taken ahead at a time."""

    async def test(broker: Broker, connection: Connection) -> None:
        one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n" % (b"x" * 1000)
        post = f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
        connection.send((post + one) * 300)
        assert {(await connection.answer()).status for _ in range(600)} == {200}
        await asyncio.sleep(2 * QUICK.header_read_ms / 1000)
        assert (await connection.request("GET", "/healthz")).status == 200

    with_broker(test, limits=QUICK)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minilog.server.inbound.accepted_connection.UNSEEN_S", 0.05)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("ahead", [AHEAD_REQUEST, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3000])
def test_a_poll_is_ended_when_so_much_comes_behind_it_that_its_client_could_leave_unseen(ahead: bytes) -> None:
    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(POLL)
        await when(lambda: broker.runtime.waiting)
        connection.send(ahead)
        answer = (await connection.answer()).json()
        assert "behind this request" in answer["detail"]
        assert (answer["code"], answer["definite"]) == ("INVALID_REQUEST", False), "its handler had begun"
        await when(lambda: not broker.runtime.waiting)
        await alive(broker)

    with_broker(test)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("count", [3, 40])
def test_a_poll_with_small_requests_behind_it_ends_with_its_client(count: int) -> None:
    """A few wait behind it; as many as stop aiohttp's reading end it."""

    async def test(broker: Broker, connection: Connection) -> None:
        async with broker.connect() as other:
            other.send(POLL)
            await when(lambda: broker.runtime.waiting)
            for _ in range(count):
                other.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await when(lambda: not broker.runtime.waiting)
        await alive(broker)

    with_broker(test)


@pytest.mark.parametrize("framing", ["Content-Length: 8000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("target", [f"{P0}?offset=latest&wait_ms=60000", "/healthz"])
def test_what_is_asked_for_with_a_body_is_refused(target: str, framing: str) -> None:
    """Nobody would read it, and behind it nobody would see the client leave."""

    async def test(broker: Broker, connection: Connection) -> None:
        connection.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode())
        assert "has no body" in refused(await connection.answer(), 400, "INVALID_REQUEST")
        assert not broker.runtime.waiting
        await alive(broker)

    with_broker(test)
