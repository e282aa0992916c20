"""Starts the HTTP face on loopback and speaks to it in raw HTTP/1.1, so that tests can send what no
client would."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

from aiohttp import web

from minilog.broker.http.server import make_app, make_runner
from minilog.config import Limits
from minilog.wire.batch import ACKS_ONE, split, stamp
from minilog.wire.http import EVENTS
from minilog.wire.records import Record
from tests.unit.broker.http.fake_runtime import EPOCH, FakeCluster, FakeRuntime
from tests.unit.wire.batches import encode_batch, unreadable

PATIENCE_S = 5


class Answer(NamedTuple):
    """``headers`` by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def media(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]


class Connection:
    """One keep-alive connection. ``request`` one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(
        self, method: str, target: str, body: bytes = b"", content_type: str | None = None, **headers: str
    ) -> Answer:
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        if content_type is not None:
            lines.append(f"Content-Type: {content_type}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        return await self.answer(head_only=method == "HEAD")

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, head_only: bool = False) -> Answer:
        """The next answer; raises IncompleteReadError when the server closed instead."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status_line, *lines = head.decode("latin-1").rstrip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = 0 if head_only else int(headers.get("content-length", 0))
            return Answer(int(status_line.split()[1]), headers, await self.reader.readexactly(length))

    async def closed(self) -> bool:
        """Whether the server ends the connection, without another byte."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionResetError:
                return True


class Broker:
    """One running broker and a way to open connections to it."""

    def __init__(self, runtime: FakeRuntime, port: int) -> None:
        self.runtime = runtime
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        try:
            yield Connection(reader, writer)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serving(cluster: FakeCluster, broker_id: int = 1, limits: Limits | None = None) -> AsyncIterator[Broker]:
    runtime = FakeRuntime(cluster, broker_id, limits)
    async with _listening(make_runner(runtime, shutdown_timeout_s=0.02)) as port:
        broker = Broker(runtime, port)
        known = cluster.image.brokers[broker_id]
        cluster.register(broker_id, broker.url)
        assert known.url != broker.url
        yield broker


@contextlib.asynccontextmanager
async def serving_app(cluster: FakeCluster) -> AsyncIterator[Broker]:
    """The same behind aiohttp's Application."""
    runtime = FakeRuntime(cluster)
    async with _listening(web.AppRunner(make_app(runtime), access_log=None, shutdown_timeout=0.02)) as port:
        yield Broker(runtime, port)


@contextlib.asynccontextmanager
async def _listening(runner: web.BaseRunner) -> AsyncIterator[int]:
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        port: int = runner.addresses[0][1]
        yield port
    finally:
        await runner.cleanup()


def with_broker(
    test: Callable[[Broker, Connection], Awaitable[None]],
    cluster: FakeCluster | None = None,
    limits: Limits | None = None,
) -> None:
    """Run ``test`` against broker 1 of a cluster that has topic ``orders`` with 4 partitions."""

    async def main() -> None:
        used = cluster or orders()
        async with serving(used, limits=limits) as broker, broker.connect() as connection:
            await test(broker, connection)

    asyncio.run(main())


def orders() -> FakeCluster:
    cluster = FakeCluster()
    cluster.create("orders", 4)
    cluster.brokers[2] = FakeRuntime(cluster, 2)
    return cluster


def fill(
    cluster: FakeCluster,
    partition: int,
    *batches: list[bytes],
    epochs: list[int] | None = None,
    compression: str = "none",
    key: bytes = b'"k"',
) -> None:
    log = cluster.logs["orders", partition]
    for number, values in enumerate(batches):
        records = [Record(0, 1000 + n, key, value, (("h", b"x"),)) for n, value in enumerate(values)]
        (batch,) = split(encode_batch(records, compression=compression), 10**6)
        log.batches.append(stamp(batch, log.end_offset, epochs[number] if epochs else EPOCH, ACKS_ONE))


def fill_unreadable(cluster: FakeCluster, partition: int, count: int, compression: str = "none") -> None:
    log = cluster.logs["orders", partition]
    (batch,) = split(unreadable(count, compression), 10**6)
    log.batches.append(stamp(batch, log.end_offset, EPOCH, ACKS_ONE))


class Events:
    """Reads server-sent events from a chunked response."""

    def __init__(self, connection: Connection) -> None:
        self._reader = connection.reader
        self._text = ""

    async def next(self) -> dict[str, str]:
        async with asyncio.timeout(5):
            while "\n\n" not in self._text:
                size = int(await self._reader.readline(), 16)
                self._text += (await self._reader.readexactly(size)).decode()
                await self._reader.readexactly(2)
                assert size, "the stream has ended"
        event, _, self._text = self._text.partition("\n\n")
        return {name: value for name, _, value in (line.partition(": ") for line in event.split("\n"))}


async def open_tail(connection: Connection, target: str, *headers: str) -> Events:
    lines = [f"GET {target} HTTP/1.1", "Host: localhost", f"Accept: {EVENTS}", *headers]
    connection.send("\r\n".join(lines).encode() + b"\r\n\r\n")
    head = await connection.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    assert b"text/event-stream" in head
    return Events(connection)
