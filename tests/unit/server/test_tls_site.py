"""Connections that have not come to the end of their TLS handshake (R45): nobody can tell them from
strangers, so they hold places, and give way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop
from aiohttp import web

from minilog.config import Limits
from minilog.core import places
from minilog.server.inbound.listener import Listener
from minilog.server.inbound.tls_site import site
from minilog.server.security.tls import Tls, TlsFiles

LIMITS = Limits(connections_max=8, header_read_ms=400)
"""Two of them are reserved."""
PIECES, PIECE = 5, b"x" * 1000
ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder = tmp_path_factory.mktemp("tls")
    asked = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run([*asked, "-addext", "subjectAltName=DNS:localhost"], cwd=folder, check=True, capture_output=True)
    (folder / "key.pem").chmod(0o600)
    cert = str(folder / "cert.pem")
    return Tls(TlsFiles(cert, str(folder / "key.pem"), cert))


@pytest.fixture(params=["asyncio", "uvloop"])
def loops(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop


@pytest.fixture(autouse=True)
def rested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "RESTED_MS", 0)


class Served:
    def __init__(self, listener: Listener, port: int, tls: Tls) -> None:
        self.listener, self._port, self._tls = listener, port, tls
        self._stack = contextlib.AsyncExitStack()

    @property
    def held(self) -> int:
        return sum(self.listener.admissions.places.counts().values())

    async def silent(self) -> socket.socket:
        """Connects, and says nothing."""
        made = self._stack.enter_context(socket.socket())
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", self._port))
        return made

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._tls.client, server_hostname="localhost"
        )
        self._stack.callback(writer.close)
        return reader, writer

    async def ask(self) -> bytes:
        reader, writer = await self.client()
        writer.write(ASK)
        return (await reader.readline()).rstrip()

    def ask_and_stay(self) -> None:
        """In a thread. The last answer of a connection is read, and its end is not."""
        context = self._tls.client
        assert context is not None
        plain = socket.create_connection(("127.0.0.1", self._port))
        made = self._stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
        made.sendall(LAST)
        assert made.recv(12) == b"HTTP/1.1 200"

    async def close(self) -> None:
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def serving(tls: Tls) -> AsyncIterator[Served]:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/pieces":
            return web.Response(text="yes")
        stream = web.StreamResponse()
        await stream.prepare(request)
        for _ in range(PIECES):
            await stream.write(PIECE)
            await request.writer.drain()
        return stream

    listener = Listener(answer, LIMITS)
    runner = web.ServerRunner(listener, shutdown_timeout=0.1)
    await runner.setup()
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.listen(128)
    await site(runner, bound, tls.server).start()
    served = Served(listener, bound.getsockname()[1], tls)
    try:
        yield served
    finally:
        await served.close()
        await runner.cleanup()


def run(loops: Callable[[], asyncio.AbstractEventLoop], tls: Tls, test: Callable[[Served], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), serving(tls) as served:
            await test(served)

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(main())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def test_who_says_nothing_holds_a_place_and_gives_way(loops: Callable[[], asyncio.AbstractEventLoop], tls: Tls) -> None:
    async def test(served: Served) -> None:
        before, count = descriptors(), 100
        for _ in range(count):
            await served.silent()
        await until(lambda: served.listener.admissions.places.open.resting == 6)
        assert await served.ask() == b"HTTP/1.1 200 OK"
        await until(lambda: served.held <= LIMITS.connections_max)
        await until(lambda: descriptors() - before - count <= LIMITS.connections_max + 2)

    run(loops, tls, test)


def test_who_says_nothing_has_as_long_as_for_a_head(loops: Callable[[], asyncio.AbstractEventLoop], tls: Tls) -> None:
    async def test(served: Served) -> None:
        made = await served.silent()
        await until(lambda: served.held == 1)
        assert await asyncio.get_running_loop().sock_recv(made, 1) == b""
        await until(lambda: served.held == 0)

    run(loops, tls, test)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"], ids=["plain", "half"])
def test_who_says_something_else_is_gone_soon(
    loops: Callable[[], asyncio.AbstractEventLoop], tls: Tls, said: bytes
) -> None:
    async def test(served: Served) -> None:
        made = await served.silent()
        await asyncio.get_running_loop().sock_sendall(made, said)
        await until(lambda: served.held == 1)
        await until(lambda: served.held == 0)
        assert await served.ask() == b"HTTP/1.1 200 OK"

    run(loops, tls, test)


def test_who_does_not_confirm_the_end_gives_way_all_the_same(
    loops: Callable[[], asyncio.AbstractEventLoop], tls: Tls
) -> None:
    """A client of TLS has to say that it has seen the end. Who does not holds its place no
    longer."""

    async def test(served: Served) -> None:
        for _ in range(12):
            await asyncio.to_thread(served.ask_and_stay)
        assert served.held <= LIMITS.connections_max
        assert await served.ask() == b"HTTP/1.1 200 OK"
        await until(lambda: served.held <= 1)

    run(loops, tls, test)


def test_a_site_that_stops_waits_for_nobody(loops: Callable[[], asyncio.AbstractEventLoop], tls: Tls) -> None:
    async def test(served: Served) -> None:
        before = descriptors()
        made = await served.silent()
        await until(lambda: served.held == 1)
        assert descriptors() == before + 2
        made.close()

    run(loops, tls, test)


def test_an_answer_of_several_pieces_comes_to_its_end(loops: Callable[[], asyncio.AbstractEventLoop], tls: Tls) -> None:
    """Each piece waits until the one before it is on its way."""

    async def test(served: Served) -> None:
        reader, writer = await served.client()
        writer.write(LAST.replace(b"GET /", b"GET /pieces"))
        async with asyncio.timeout(5):
            assert (await reader.read()).count(b"x") == PIECES * len(PIECE)

    run(loops, tls, test)
