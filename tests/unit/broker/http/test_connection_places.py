"""All connections are held (R45): who gives way, who is told, and who has a place all the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from minilog.config import Limits
from minilog.core import places
from minilog.server.inbound import accepted_connection
from minilog.wire.http import EVENTS, MSGPACK
from minilog.wire.messages import Metadata, Probe, encode
from tests.unit.broker.http.harness import Broker, Connection, orders, serving
from tests.unit.broker.http.test_connections import P0, refused
from tests.unit.broker.http.test_leaving import request, until

LIMITS = Limits(connections_max=4)
"""One of them is reserved."""
HALF_A_BODY = (
    b"POST /v1/produce HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/msgpack\r\nContent-Length: 90\r\n\r\nx"
)

POLLS = request("GET", P0 + "?offset=latest", accept=EVENTS)


@pytest.fixture
def rested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is idle has been so for long enough."""
    monkeypatch.setattr(places, "RESTED_MS", 0)


def crowded(sent: bytes, count: int, test: Callable[[Broker, list[Connection]], Awaitable[None]]) -> None:
    """Run ``test`` while ``count`` clients have sent this, and wait for what comes of it."""

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            broker = await stack.enter_async_context(serving(orders(), limits=LIMITS))
            crowd = [await stack.enter_async_context(broker.connect()) for _ in range(count)]
            for one in crowd:
                one.send(sent)
            if sent == POLLS:
                await until(lambda: broker.runtime.waiting == count)
            await test(broker, crowd)

    asyncio.run(main())


@pytest.mark.usefixtures("rested")
def test_who_rests_gives_way_to_who_comes() -> None:
    async def test(broker: Broker, crowd: list[Connection]) -> None:
        for one in crowd:
            assert (await one.answer()).status == 200
        async with broker.connect() as newcomer:
            assert (await newcomer.request("GET", "/v1/topics")).status == 200
            assert await crowd[0].closed()
            assert (await crowd[1].request("GET", "/healthz")).status == 200

    crowded(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 3, test)


@pytest.mark.usefixtures("rested")
@pytest.mark.parametrize("sent", [b"GET /healthz HT", HALF_A_BODY], ids=["half a head", "half a body"])
def test_who_does_not_send_on_gives_way_and_is_told_that_nothing_was_done(sent: bytes) -> None:
    async def test(broker: Broker, crowd: list[Connection]) -> None:
        async with broker.connect() as newcomer:
            assert (await newcomer.request("GET", "/v1/topics")).status == 200
            answer = await crowd[0].answer()
            refused(answer, 503, "OVERLOADED")
            assert answer.headers["retry-after"] == "1"

    crowded(sent, 3, test)


def test_with_all_places_at_work_strangers_hear_503_and_who_watches_is_answered() -> None:
    async def test(broker: Broker, crowd: list[Connection]) -> None:
        for _ in range(3):
            async with broker.connect() as stranger:
                refused(await stranger.request("GET", "/v1/topics"), 503, "OVERLOADED")
                assert await stranger.closed()
            async with broker.connect() as client:
                answer = await client.request("POST", "/internal/rpc", encode(Metadata()), MSGPACK)
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            async with broker.connect() as watcher:
                assert (await watcher.request("GET", "/healthz")).status == 200
                assert await watcher.closed()

    crowded(POLLS, 3, test)


def test_with_all_places_at_work_a_peer_keeps_a_reserved_one() -> None:
    async def test(broker: Broker, crowd: list[Connection]) -> None:
        async with broker.connect() as silent, broker.connect() as peer:
            probe = encode(Probe(1, "i"))
            for _ in range(3):
                assert (await peer.request("POST", "/internal/rpc", probe, MSGPACK)).status == 200
            refused(await silent.answer(), 503, "OVERLOADED")

    crowded(POLLS, 3, test)


def test_who_says_nothing_on_trial_is_told_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepted_connection, "TRIAL_MS", 20)

    async def test(broker: Broker, crowd: list[Connection]) -> None:
        async with broker.connect() as silent:
            refused(await silent.answer(), 503, "OVERLOADED")
            assert await silent.closed()

    crowded(POLLS, 3, test)


@pytest.mark.usefixtures("rested")
def test_who_has_had_a_last_answer_and_stays_gives_way_and_nothing_breaks() -> None:
    """Nothing can be written behind the end that was sent."""
    broken: list[object] = []

    async def test(broker: Broker, crowd: list[Connection]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context))
        for one in crowd:
            refused(await one.answer(), 400, "INVALID_REQUEST")
        async with broker.connect() as newcomer:
            assert (await newcomer.request("GET", "/v1/topics")).status == 200
            assert await crowd[0].closed()

    crowded(b"GET /healthz HTTP/1.1\r\nno header\r\n\r\n", 3, test)
    assert broken == []
