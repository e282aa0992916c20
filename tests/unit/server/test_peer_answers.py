"""An answer of a peer that nobody can read is an answer all the same: no exception of a decoder
leaves a connection's callback, for one that does ends the process. And a controller refuses what is
no message."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from minilog.errors import MinilogError
from minilog.server.outbound.connection import BELIEVED_BYTES_MAX, Answer
from minilog.server.outbound.peers import ANSWER_BYTES_MAX, Peers, read
from minilog.server.process import Failure
from minilog.wire.http import MSGPACK, PROBLEM
from minilog.wire.messages import FetchReply, FetchResult, Heartbeat, Problem
from tests.unit.controller.test_server import Fixture, run
from tests.unit.server.peer_server import Exchange, PeerServer

NESTED = b"\x82\xa4type\xa2Ok\xa1x" + b"\x91" * 100_000 + b"\xc0"
NESTED_JSON = b'{"code": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(("media", "body"), [(MSGPACK, NESTED), (PROBLEM, NESTED_JSON)])
def test_a_nested_answer_is_garbage(media: str, body: bytes) -> None:
    assert isinstance(read(Answer(200, media, memoryview(body))), Exception)


@pytest.mark.parametrize(("media", "body"), [(MSGPACK, NESTED), (PROBLEM, NESTED_JSON)])
def test_a_nested_answer_does_not_end_the_process(media: str, body: bytes) -> None:
    async def handler(exchange: Exchange) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (media.encode(), len(body))
        exchange.write(head + body)

    async def main() -> None:
        failure = Failure()
        failure.watch_loop()
        async with PeerServer(handler) as peer, asyncio.TaskGroup() as tasks:
            peers = Peers(tasks, 2000)
            outcome: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            peers.send(2, peer.url, Heartbeat(1, 1, "p", 1, 0, 0), outcome.set_result)
            await asyncio.wait([outcome], timeout=3)
            peers.close()
        assert not failure.tripped, "the process would stop"
        assert isinstance(outcome.result(), MinilogError)

    asyncio.run(main())


@pytest.mark.parametrize("body", [NESTED, b"\x82\xa4type\xa2Ok\xa1x\xa2\xff\xfe"], ids=["nested", "no UTF-8"])
def test_a_controller_refuses_what_is_no_message(body: bytes) -> None:
    async def check(fixture: Fixture) -> None:
        assert await fixture.post(body) == (400, "INVALID_REQUEST")

    run(check)


def test_a_length_that_is_only_stated_costs_nothing() -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nx" % ANSWER_BYTES_MAX)

    async def main() -> int:
        async with PeerServer(handler) as peer, asyncio.TaskGroup() as tasks:
            peers = Peers(tasks, 2000)
            tracemalloc.start()
            answer = await peers.call(peer.url, Heartbeat(1, 1, "p", 1, 0, 0), 100)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            peers.close()
        assert isinstance(answer, Problem)
        assert not answer.definite
        return peak

    assert asyncio.run(main()) < 2 * BELIEVED_BYTES_MAX


@pytest.mark.parametrize("size", [BELIEVED_BYTES_MAX - 1, BELIEVED_BYTES_MAX, 9_000_001])
def test_an_answer_that_outgrows_the_first_room_for_it_comes_whole(size: int) -> None:
    batches = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

    async def handler(exchange: Exchange) -> None:
        exchange.reply(FetchReply([FetchResult("t", 0, None, memoryview(batches))]))

    async def main() -> None:
        async with PeerServer(handler) as peer, asyncio.TaskGroup() as tasks:
            peers = Peers(tasks, 2000)
            for _ in range(2):
                answer = await peers.call(peer.url, Heartbeat(1, 1, "p", 1, 0, 0), 5000)
                assert isinstance(answer, FetchReply)
                assert answer.partitions[0].batches == batches
            assert peer.connections == 1
            peers.close()

    asyncio.run(main())
