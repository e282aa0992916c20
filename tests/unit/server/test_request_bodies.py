"""Request bodies that do not come: who announces much and sends nothing keeps nobody out, is
noticed soon, and a small body is never refused because of others."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from minilog.config import Limits
from minilog.errors import Overloaded
from minilog.server.inbound.request_body import SMALL_BYTES, Pieces, Requests
from minilog.wire.group_messages import ForwardedGroupRequest
from minilog.wire.http import JSON, MSGPACK
from minilog.wire.messages import HeartbeatReply, Probe, decode, encode
from minilog.wire.records import decode_batch
from tests.unit.broker.http.harness import Broker, Connection, with_broker
from tests.unit.controller.test_server import PARKED, Fixture, run

MIB = 1024 * 1024


def announce(target: str, size: int, media: str) -> bytes:
    return (
        f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}\r\nContent-Length: {size}\r\n\r\n".encode()
    )


async def idle(port: int, count: int, head: bytes) -> list[asyncio.StreamWriter]:
    writers = []
    for _ in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        writers.append(writer)
    await asyncio.sleep(0.2)
    return writers


def test_a_produce_beside_bodies_that_never_come() -> None:
    async def check(broker: Broker, connection: Connection) -> None:
        writers = await idle(broker.port, 16, announce("/v1/topics/orders/records", 16 * MIB, JSON))
        answer = await connection.request("POST", "/v1/topics/orders/records", b'{"records": [{"value": 1}]}', JSON)
        for writer in writers:
            writer.close()
        assert answer.status == 200, answer.body

    with_broker(check)


def test_a_peer_beside_bodies_that_never_come() -> None:
    async def check(broker: Broker, connection: Connection) -> None:
        writers = await idle(broker.port, 8, announce("/internal/rpc", 32 * MIB, MSGPACK))
        answer = await connection.request("POST", "/internal/rpc", encode(Probe(1, "x")), MSGPACK)
        for writer in writers:
            writer.close()
        assert answer.status == 200, answer.body

    with_broker(check)


def test_a_heartbeat_beside_bodies_that_never_come() -> None:
    async def check(fixture: Fixture) -> None:
        writers = await idle(fixture.port, 16, announce("/internal/rpc", 16 * MIB, MSGPACK))
        asking = asyncio.create_task(fixture.rpc(PARKED))
        done, _ = await asyncio.wait([asking], timeout=1)
        for writer in writers:
            writer.close()
        asking.cancel()
        assert not done or isinstance(asking.result(), HeartbeatReply), "it is answered or parked, not refused"

    run(check)


def test_a_body_that_stops_coming_is_given_up_however_much_was_announced() -> None:
    async def check(broker: Broker, connection: Connection) -> None:
        connection.send(announce("/v1/topics/orders/records", 16 * MIB, JSON) + b"x" * MIB)
        answer = await asyncio.wait_for(connection.answer(), 3)  # by size alone it would have 256 s, by what came 16
        assert answer.status == 408, answer.body

    with_broker(check, limits=Limits(body_read_ms=100))


def test_a_body_that_comes_a_byte_at_a_time_is_given_up() -> None:
    async def check(broker: Broker, connection: Connection) -> None:
        connection.send(announce("/v1/topics/orders/records", 16 * MIB, JSON))
        answering = asyncio.create_task(connection.answer())
        async with asyncio.timeout(3):
            while not answering.done():
                connection.send(b"x")
                await asyncio.sleep(0.01)
        assert answering.result().status == 408

    with_broker(check, limits=Limits(body_read_ms=100))


def test_a_body_that_comes_slowly_but_surely_is_taken() -> None:
    body = b'{"records": [{"value": 1}]}'

    async def check(broker: Broker, connection: Connection) -> None:
        connection.send(announce("/v1/topics/orders/records", len(body), JSON))
        for byte in body:
            connection.send(bytes([byte]))
            await asyncio.sleep(0.02)  # 540 ms in all
        assert (await connection.answer()).status == 200

    with_broker(check, limits=Limits(body_read_ms=200, body_bytes_per_second_min=10))


def test_the_loop_goes_on_while_a_body_of_tiny_chunks_is_taken() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        content = StreamReader(BaseProtocol(loop), 2**20, loop=loop)
        for _ in range(2000):
            content.begin_http_chunk_receiving()
            content.feed_data(b"x")
            content.end_http_chunk_receiving()
        content.feed_eof()
        pieces = Pieces(content)

        async def take() -> None:
            while await pieces.read():
                pass

        taking, rounds = asyncio.create_task(take()), 0
        while not taking.done():
            await asyncio.sleep(0)
            rounds += 1
        assert pieces.all() == b"x" * 2000
        assert rounds >= 100

    asyncio.run(main())


def test_a_body_in_chunks_of_all_sizes_is_taken_whole() -> None:
    async def check(broker: Broker, connection: Connection) -> None:
        record = b'{"records": [{"value": "' + b"x" * 100_000 + b'"}]}'
        connection.send(
            b"POST /v1/topics/orders/records HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        at = 0
        for size in (1, 2, 3, 1023, 1024, 1025, 5, 40_000, 7, len(record)):
            part = record[at : at + size]
            connection.send(b"%x\r\n%b\r\n" % (len(part), part))
            at += len(part)
            await asyncio.sleep(0.001)
        connection.send(b"0\r\n\r\n")
        assert (await connection.answer()).status == 200
        batches = [batch for log in broker.runtime.cluster.logs.values() for batch in log.batches]
        (taken,) = (record.value for batch in batches for record in decode_batch(batch))
        assert taken == b'"' + b"x" * 100_000 + b'"'

    with_broker(check)


def test_what_is_charged_is_what_has_come_and_all_of_it_is_given_back() -> None:
    async def check(broker: Broker, connection: Connection) -> None:
        writers = await idle(broker.port, 8, announce("/v1/topics/orders/records", 16 * MIB, JSON) + b"x" * MIB)
        text = (await connection.request("GET", "/healthz")).status
        assert text == 200
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.2)
        body = b'{"records": [{"value": "' + b"x" * 900_000 + b'"}]}'
        assert (await connection.request("POST", "/v1/topics/orders/records", body, JSON)).status == 200

    with_broker(check, limits=Limits(inflight_bytes_max=16 * MIB))


def test_a_body_gets_half_of_what_others_leave_and_a_small_one_always_gets_in() -> None:
    requests = Requests("request bodies", 10 * MIB)
    requests.check_body("a", 10 * MIB)
    requests.hold("a", 6 * MIB)
    requests.check_body("b", 2 * MIB)
    with pytest.raises(Overloaded, match="half"):
        requests.check_body("b", 2 * MIB + 1)
    requests.check_body("a", 5 * MIB, held=6 * MIB)  # nobody else holds anything
    requests.hold("a", 11 * MIB, 6 * MIB)
    requests.check_body("b", SMALL_BYTES)
    with pytest.raises(Overloaded):
        requests.check_body("b", SMALL_BYTES + 1)


def test_bodies_of_a_client_leave_room_for_those_of_others() -> None:
    """R45: as many at once as may be, and one more that grows."""
    requests = Requests("request bodies", 10 * MIB)
    for _ in range(6):
        requests.check_body("much", MIB)
        requests.hold("much", MIB)
    requests.hold("little", 1)
    with pytest.raises(Overloaded, match="this client holds"):
        requests.check_body("much", MIB)
    with pytest.raises(Overloaded, match="this client holds"):
        requests.check_body("much", 2 * MIB, held=MIB)
    requests.check_body("little", MIB)
    requests.hold("much", 3 * MIB, 6 * MIB)
    requests.check_body("much", MIB)


LISTS = b'{"topic":"t","assignment":[' + b"[1]," * 300_000 + b"[1]]}"
NAMES = b'{"topics":[' + b'"a",' * (2 * MIB) + b'"a"]}'


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/v1/topics", LISTS),
        ("PATCH", "/v1/topics/orders", LISTS),
        ("PUT", "/v1/groups/g/members/m", NAMES),
        ("PUT", "/v1/groups/g/offsets", NAMES),
    ],
)
def test_json_that_holds_no_records_has_a_bound_of_its_own(method: str, target: str, body: bytes) -> None:
    """No thread helps: nothing else of the process goes on while it is decoded."""

    async def check(broker: Broker, connection: Connection) -> None:
        answer = await connection.request(method, target, body, JSON)
        assert (answer.status, answer.json()["code"], answer.json()["definite"]) == (413, "REQUEST_TOO_LARGE", True)
        assert "request_bytes_max" not in answer.json()["detail"]
        assert not broker.runtime.submitted + [message for _, message in broker.runtime.calls]

    with_broker(check)


BOXES = msgspec.msgpack.encode({"type": "CreateTopic", "topic": "t", "assignment": [[1]] * 600_000})


@pytest.mark.parametrize("target", ["/internal/rpc", "/v1/fetch", "/v1/produce"])
def test_a_message_too_large_for_what_it_is_is_refused(target: str) -> None:
    async def check(broker: Broker, connection: Connection) -> None:
        answer = await connection.request("POST", target, BOXES, MSGPACK)
        assert (answer.status, decode(answer.body).code) == (413, "REQUEST_TOO_LARGE")  # type: ignore[union-attr]
        forwarded = encode(ForwardedGroupRequest(memoryview(BOXES)))
        answer = await connection.request("POST", "/internal/rpc", forwarded, MSGPACK)
        assert (answer.status, decode(answer.body).code) == (413, "REQUEST_TOO_LARGE")  # type: ignore[union-attr]

    with_broker(check)


def test_a_controller_refuses_one_too() -> None:
    async def check(fixture: Fixture) -> None:
        assert await fixture.post(BOXES) == (413, "REQUEST_TOO_LARGE")

    run(check)
