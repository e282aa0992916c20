"""Clients that leave before their answer: what they asked to read is dropped at once, what they
asked to write is carried out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from minilog.wire.http import EVENTS, JSON, MSGPACK
from minilog.wire.messages import Fetch, FetchPartition, Offsets, OffsetsPartition, Produce, encode
from tests.unit.broker.http.harness import Broker, Connection, orders, serving, with_broker

P0 = "/v1/topics/orders/partitions/0/records"
FETCH = encode(Fetch([FetchPartition("orders", 0, 0, 1000, -1, -1)], 60_000, 1, 1000))
HEARTBEAT = b'{"topics": ["orders"]}'
GOOD = b'{"records": [{"value": 1}]}'


def request(method: str, target: str, body: bytes = b"", media: str = JSON, accept: str = "*/*") -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nContent-Type: {media}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(2):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to wait on
            await asyncio.sleep(0)


async def ask_and_leave(broker: Broker, sent: bytes) -> None:
    """Not before the request waits inside."""
    async with broker.connect() as connection:
        count = len(broker.runtime.submitted)
        connection.send(sent)
        await until(lambda: len(broker.runtime.submitted) > count and broker.runtime.waiting > 0)


@pytest.mark.parametrize(
    "sent",
    [
        request("GET", P0 + "?offset=latest&wait_ms=60000"),
        request("GET", P0 + "?offset=latest", accept=EVENTS),
        request("POST", "/v1/fetch", FETCH, MSGPACK),
        request("POST", "/internal/rpc", FETCH, MSGPACK),
    ],
    ids=["poll", "tail", "native fetch", "rpc"],
)
def test_a_long_poll_ends_with_its_client(sent: bytes) -> None:
    async def main() -> None:
        async with serving(orders()) as broker:
            for _ in range(20):
                await ask_and_leave(broker, sent)
            await until(lambda: broker.runtime.waiting == 0)

    asyncio.run(main())


@pytest.mark.parametrize(
    "sent",
    [
        request("GET", "/v1/topics/orders/partitions/0/offsets"),
        request("GET", "/v1/groups/g"),
        request("GET", "/v1/groups/g/lag"),
        request("PUT", "/v1/groups/g/members/m", HEARTBEAT),
        request("POST", "/internal/rpc", encode(Offsets([OffsetsPartition("orders", 0, -1)])), MSGPACK),
    ],
    ids=["offsets", "group", "lag", "heartbeat", "rpc"],
)
def test_so_does_every_other_wait_for_what_nobody_will_hear(sent: bytes) -> None:
    async def main() -> None:
        async with serving(orders()) as broker:
            broker.runtime.gate = asyncio.Event()
            await ask_and_leave(broker, sent)
            await until(lambda: broker.runtime.waiting == 0)

    asyncio.run(main())


@pytest.mark.parametrize("target", [P0, "/v1/topics/orders/records?key=x"])
def test_a_produce_is_carried_out_all_the_same(target: str) -> None:
    async def main() -> None:
        async with serving(orders()) as broker:
            broker.runtime.gate = asyncio.Event()
            media = "application/octet-stream" if "key" in target else JSON
            await ask_and_leave(broker, request("POST", target, GOOD, media))
            async with broker.connect() as other:
                for _ in range(3):
                    assert (await other.request("GET", "/healthz")).status == 200
            assert broker.runtime.waiting == 1
            broker.runtime.gate.set()
            await until(lambda: broker.runtime.waiting == 0)
            assert [type(message) for message in broker.runtime.submitted] == [Produce]

    asyncio.run(main())


def test_a_connection_whose_poll_was_answered_goes_on_with_a_produce() -> None:
    """What ends with the client is the request at hand, not whatever comes later on its
    connection."""

    async def main() -> None:
        async with serving(orders()) as broker:
            async with broker.connect() as connection:
                assert (await connection.request("GET", P0 + "?offset=latest&wait_ms=1")).status == 200
                broker.runtime.gate = asyncio.Event()
                connection.send(request("POST", P0, GOOD))
                await until(lambda: broker.runtime.waiting == 1)
            for _ in range(100):
                await asyncio.sleep(0)
            assert broker.runtime.waiting == 1
            broker.runtime.gate.set()
            await until(lambda: broker.runtime.cluster.logs["orders", 0].end_offset == 1)

    asyncio.run(main())


@pytest.mark.parametrize("sudden", [True, False])
@pytest.mark.parametrize("pause_s", [0, 0.1])
def test_a_client_that_leaves_in_the_middle_of_a_body_is_no_error_of_ours(
    sudden: bool, pause_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(broker: Broker, connection: Connection) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        head = b"POST /v1/topics/orders/records HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        writer.write(head + b'{"rec')
        await writer.drain()
        await asyncio.sleep(pause_s)
        writer.transport.abort() if sudden else writer.close()
        async with asyncio.timeout(3):
            while b"minilog_http_connections 1\n" not in (await connection.request("GET", "/metrics")).body:
                pass
        assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []

    with_broker(check)
