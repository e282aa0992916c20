"""A peer that a test scripts: a real socket on loopback whose handler sees raw requests and writes
raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from minilog.wire.messages import Message, decode, encode

Handler = Callable[["Exchange"], Awaitable[None]]


async def until(condition: Callable[[], object]) -> None:
    """Give the event loop turns until ``condition`` is true. The caller sets the deadline."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event to wait on
        await asyncio.sleep(0)


def answer(message: Message) -> bytes:
    body = encode(message)
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/msgpack\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class Exchange:
    """One request as it came in, and the ways to answer it."""

    def __init__(self, peer: PeerServer, connection: int, head: str, message: Message, writer: asyncio.StreamWriter):
        self.peer = peer
        self.connection = connection
        self.head = head
        self.message = message
        self.writer = writer

    def reply(self, message: Message) -> None:
        self.writer.write(answer(message))

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def reset(self) -> None:
        self.writer.transport.abort()


class PeerServer:
    """``async with PeerServer(handler) as peer``: counts connections, records requests in order of
    arrival."""

    def __init__(self, handler: Handler, port: int = 0) -> None:
        self._handler = handler
        self._port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.open_connections = 0
        self.requests: list[Message] = []
        self.url = ""

    async def __aenter__(self) -> PeerServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, backlog=1024)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        number = self.connections
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().partition("content-length:")[2].split()[0])
                message = decode(await reader.readexactly(length))
                self.requests.append(message)
                await self._handler(Exchange(self, number, head, message, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            writer.close()
