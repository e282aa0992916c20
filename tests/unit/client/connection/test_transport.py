"""The real transport against real sockets on the loopback: what each failure proves about the
request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from minilog.errors import BrokerUnavailable, ClientClosed, InvalidRequest, MinilogError, TimedOut
from minilog_client.connection.transport import HttpTransport

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-test\r\nContent-Length: 5\r\n\r\nhello"


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


def against(serve: Serve, body: Callable[[HttpTransport, str], Awaitable[None]]) -> None:
    """Run ``body`` with a transport and the URL of a server that treats each connection with
    ``serve``."""

    async def serve_to_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(serve_to_the_end, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport = HttpTransport(connect_timeout_ms=500)
        async with server:
            await body(transport, f"http://127.0.0.1:{port}/v1/produce")
            await transport.close()

    asyncio.run(main())


def failure(serve: Serve, error: type[MinilogError], timeout_ms: int = 2000) -> MinilogError:
    """The error a POST to ``serve`` ends with."""
    seen: list[MinilogError] = []

    async def body(transport: HttpTransport, url: str) -> None:
        with pytest.raises(error) as caught:
            await transport.request("POST", url, {}, b"x" * 100, timeout_ms)
        seen.append(caught.value)

    against(serve, body)
    return seen[0]


def test_a_request_and_its_response() -> None:
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            requests.append(await read_request(reader))
            writer.write(OK)
        writer.close()

    async def body(transport: HttpTransport, url: str) -> None:
        for content in (b"small", b"x" * 3_000_000):
            response = await transport.request("POST", url, {"Content-Type": "application/msgpack"}, content, 2000)
            assert (response.status, response.headers["content-type"], response.body) == (
                200,
                "application/x-test",
                b"hello",
            )
        assert b"content-type: application/msgpack" in requests[0].lower()
        assert requests[0].endswith(b"\r\n\r\nsmall")
        assert requests[1].endswith(b"\r\n\r\n" + b"x" * 3_000_000)

    against(serve, body)


def test_error_statuses_are_responses() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def body(transport: HttpTransport, url: str) -> None:
        response = await transport.request("POST", url, {}, b"x", 2000)
        assert (response.status, response.headers["location"]) == (307, "/elsewhere")

    against(serve, body)


def test_no_connection_is_definite() -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        transport = HttpTransport(connect_timeout_ms=500)
        with pytest.raises(BrokerUnavailable, match=f"no connection to http://127.0.0.1:{port}") as caught:
            await transport.request("POST", f"http://127.0.0.1:{port}", {}, b"x", 500)
        assert caught.value.definite is True
        with pytest.raises(InvalidRequest, match="not a URL"):
            await transport.request("GET", "http://[", {}, b"", 500)
        await transport.close()
        with pytest.raises(ClientClosed):
            await transport.request("GET", f"http://127.0.0.1:{port}", {}, b"", 500)

    asyncio.run(main())


def test_a_connection_broken_off_is_indefinite() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.close()

    async def close_midway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK[:-2])
        writer.close()

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.transport.abort()

    async def gibberish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"what?\r\n\r\n")
        writer.close()

    for serve in (close, close_midway, reset, gibberish):
        assert failure(serve, BrokerUnavailable).definite is False, serve.__name__


def test_silence_is_indefinite() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    error = failure(silent, TimedOut, timeout_ms=30)
    assert error.definite is False
    assert "30 ms" in error.detail


def test_a_request_is_sent_once_whatever_its_method() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                seen.append(head.split()[0])
                if len(seen) % 2 == 0:
                    return  # carried out, and the answer is lost
                writer.write(OK)

    async def body(transport: HttpTransport, url: str) -> None:
        for method in ("DELETE", "GET", "PUT"):
            await transport.request("GET", url, {}, b"", 1000)  # leaves a connection in the pool
            with pytest.raises(BrokerUnavailable) as caught:
                await transport.request(method, url, {}, b"", 1000)
            assert caught.value.definite is False

    against(serve, body)
    assert seen == [b"GET", b"DELETE", b"GET", b"GET", b"GET", b"PUT"]


def test_a_response_without_a_length_is_read_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await read_request(reader):
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in range(100):
                    writer.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
                    await writer.drain()
                writer.write(b"0\r\n\r\n")

    async def body(transport: HttpTransport, url: str) -> None:
        assert (await transport.request("POST", url, {}, b"", 1000)).body == b"x" * 100_000

    against(serve, body)
    monkeypatch.setattr("minilog_client.connection.transport.RESPONSE_BYTES_MAX", 50_000)
    assert "more than 50000 bytes" in failure(serve, BrokerUnavailable).detail


def test_a_response_too_large_to_hold_is_refused() -> None:
    async def huge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n")
        await reader.read()
        writer.close()

    assert "too many" in failure(huge, BrokerUnavailable).detail
