"""Pages of other origins: read, tail and write where they may, and are told nothing where not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from minilog.broker.http.server import make_runner
from minilog.config import BrokerSettings
from minilog.settings import BadSettings, load_broker
from minilog.wire.http import EVENTS
from tests.unit.broker.http.fake_runtime import FakeCluster, FakeRuntime
from tests.unit.broker.http.harness import Broker, Connection, _listening

PAGE = "https://app.example.org"
ELSEWHERE = "/v1/topics/orders/partitions/1/records?offset=0"


@contextlib.asynccontextmanager
async def allowing(origins: str) -> AsyncIterator[tuple[Broker, Connection]]:
    """Broker 1 of two. Broker 2 leads orders-1, which holds one record."""
    cluster = FakeCluster()
    cluster.create("orders", 4)
    runtime, other = FakeRuntime(cluster, 1), FakeRuntime(cluster, 2)
    runtime.settings = replace(runtime.settings, cors_origins=origins)
    async with _listening(make_runner(runtime)) as port, _listening(make_runner(other)) as other_port:
        broker, there = Broker(runtime, port), Broker(other, other_port)
        cluster.register(1, broker.url)
        cluster.register(2, there.url)
        async with there.connect() as connection:
            path = "/v1/topics/orders/partitions/1/records"
            written = await connection.request("POST", path, b'{"records": [{"value": 7}]}', "application/json")
            assert written.status == 200
        async with broker.connect() as connection:
            yield broker, connection


@pytest.mark.parametrize("origins", [PAGE, "*", f"https://a.test:8443, {PAGE}"])
def test_a_page_that_may_asks_first_and_reads_also_what_another_broker_leads(origins: str) -> None:
    async def main() -> None:
        async with allowing(origins) as (broker, connection):
            allowed = "*" if origins == "*" else PAGE
            asked = await connection.request(
                "OPTIONS",
                ELSEWHERE,
                Origin=PAGE,
                Access_Control_Request_Method="POST",
                Access_Control_Request_Headers="content-type",
            )
            assert (asked.status, asked.headers["access-control-allow-origin"]) == (204, allowed)
            assert "POST" in asked.headers["access-control-allow-methods"]
            assert "Content-Type" in asked.headers["access-control-allow-headers"]
            answer = await connection.request("GET", ELSEWHERE, Origin=PAGE)
            assert (answer.status, answer.json()["records"][0]["value"]) == (200, 7)
            assert answer.headers["access-control-allow-origin"] == allowed
            assert "Minilog-Next-Offset" in answer.headers["access-control-expose-headers"]
            at = await connection.request("GET", "/v1/topics/orders/partitions/1/offsets", Origin=PAGE)
            assert at.json()["offset"] == 1
            wrong = await connection.request("GET", "/v1/nothing", Origin=PAGE)
            assert (wrong.status, wrong.headers["access-control-allow-origin"]) == (404, allowed)
            assert await first_event(broker, PAGE) == (allowed, True)

    asyncio.run(main())


async def first_event(broker: Broker, origin: str) -> tuple[str, bool]:
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    writer.write(
        f"GET {ELSEWHERE} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nAccept: {EVENTS}\r\n\r\n".encode()
    )
    async with asyncio.timeout(5):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        event = await reader.readuntil(b'"value":7')
    writer.close()
    allowed = next(line for line in head.splitlines() if line.lower().startswith("access-control-allow-origin"))
    return allowed.partition(": ")[2], bool(event)


@pytest.mark.parametrize(
    ("origins", "origin"), [("", PAGE), ("https://other.test", PAGE), (PAGE, "null"), (PAGE, f"{PAGE}.evil")]
)
def test_a_page_that_may_not_is_told_nothing(origins: str, origin: str) -> None:
    async def main() -> None:
        async with allowing(origins) as (_, connection):
            asked = await connection.request("OPTIONS", ELSEWHERE, Origin=origin, Access_Control_Request_Method="POST")
            answer = await connection.request("GET", ELSEWHERE, Origin=origin)
            assert (asked.status, answer.status) == (405, 403)
            for told in (asked, answer):
                assert not [name for name in told.headers if name.startswith("access-control")]
                assert told.headers.get("vary", "") == ("Origin" if origins else "")

    asyncio.run(main())


@pytest.mark.parametrize("origins", ["app.example.org", "https://a.test/", "https://a.test/x", "ftp://a.test", "*,x"])
def test_what_is_no_origin_is_refused_at_the_start(origins: str) -> None:
    with pytest.raises(BadSettings, match=r"cors_origins.*is no origin; write"):
        load_broker(flags=["broker_id=1", "data_dir=x", f"cors_origins={origins}"])
    assert BrokerSettings(broker_id=1, data_dir="x").cors_origins == ""
