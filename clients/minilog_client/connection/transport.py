"""One method between the client and the network: a request goes in, a response or a typed error
comes out.

Whatever else a transport raises ends at ``Border``. So who waits for an answer has one kind of
exception to think of.

The errors tell whether the request may have been carried out (``definite``): a connection that was
never made proves that nothing was written. Anything that goes wrong afterwards proves nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.resolver import DefaultResolver, ThreadedResolver

from minilog.errors import BrokerUnavailable, ClientClosed, InvalidRequest, MinilogError, TimedOut
from minilog.wire.http import shown
from minilog_client.connection.strangers import marked, speaks_tls
from minilog_client.credential import Credential, Files

RESPONSE_BYTES_MAX: Final = 128 * 1024 * 1024
_READ_BUFFER_BYTES: Final = 1024 * 1024


class Response(NamedTuple):
    """Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> Response:
        """Send one request, at most once, and wait for the whole response.

        Raises BrokerUnavailable or TimedOut, with ``definite`` as above. Never retries."""
        ...

    async def close(self) -> None: ...


class Border:
    """Any transport, out of which only errors of the tree come. What it raises besides, such as a
    resolver that finds no thread to run in, proves nothing about the request."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> Response:
        try:
            return await self._transport.request(method, url, headers, body, timeout_ms)
        except MinilogError:
            raise
        except Exception as fault:
            raise BrokerUnavailable(f"the request to {url} failed: {fault!r}", definite=False) from fault

    async def close(self) -> None:
        await self._transport.close()


class _Body(aiohttp.Payload):
    """Bytes sent as they are; aiohttp's own bytes payload copies them once and warns above 1
    MiB."""

    _value: bytes

    def __init__(self, value: bytes) -> None:
        super().__init__(value)
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await writer.write(self._value)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        await writer.write(self._value)


class HttpTransport:
    """HTTP/1.1 with keep-alive over aiohttp; connections to one broker are made as needed."""

    def __init__(self, connect_timeout_ms: int, shown: Files | None = None) -> None:
        """Raises InvalidRequest when a file of ``shown`` cannot be used."""
        self._credential = Credential(shown or Files())
        self._connect_timeout_ms = connect_timeout_ms
        self._session: aiohttp.ClientSession | None = None
        self._has_answered = False
        """Some server has answered in HTTP."""
        self._closed = False

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int
    ) -> Response:
        timeout = aiohttp.ClientTimeout(
            total=timeout_ms / 1000,
            sock_connect=min(self._connect_timeout_ms, timeout_ms) / 1000,
            ceil_threshold=float("inf"),
        )
        data = _Body(body) if body else None
        try:
            async with self._open().request(
                method,
                url,
                headers={**headers, **self._credential.headers(url)},
                data=data,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                content = await _bounded(response, url)
                self._has_answered = True
                names = {name.lower(): value for name, value in response.headers.items()}
                return Response(response.status, names, content)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            refused = BrokerUnavailable(f"no connection to {url}: {_say(error)}", definite=True)
            raise (marked(refused) if _is_no_tls(error) else refused) from error
        except TimeoutError as error:
            raise TimedOut(f"{url} did not answer within {timeout_ms} ms", definite=False) from error
        except aiohttp.InvalidURL as error:
            raise InvalidRequest(f"{url!r} is not a URL a broker can have, such as http://127.0.0.1:8082") from error
        except aiohttp.ClientResponseError as error:
            said = error.message.rpartition("b'")[2].partition("'")[0]
            raise marked(
                BrokerUnavailable(f"{url} is answered by a server that speaks no HTTP: {shown(said)}", definite=False)
            ) from error
        except aiohttp.ServerDisconnectedError as error:
            if not self._has_answered and url.startswith("http:") and await speaks_tls(url):
                tls = f"{url} speaks TLS, and http:// does not; write https://, or the address of a broker"
                raise marked(BrokerUnavailable(tls, definite=False)) from error
            raise BrokerUnavailable(f"the connection to {url} broke off: {_say(error)}", definite=False) from error
        except (aiohttp.ClientError, OSError) as error:
            raise BrokerUnavailable(f"the connection to {url} broke off: {_say(error)}", definite=False) from error

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ClientClosed("the client is closed; make a new one")
        if self._session is None:
            context = self._credential.context()
            connector = aiohttp.TCPConnector(
                limit=0, keepalive_timeout=30, ssl=True if context is None else context, resolver=_resolver()
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                read_bufsize=_READ_BUFFER_BYTES,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
            self._session._retry_connection = False  # it would send a DELETE, or a GET, twice
        return self._session


class _Names:
    """The names of hosts as ``loop`` looks them up, in its threads. Where no thread is to be had,
    because the process ends or has as many as it may, everything waits for the answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    async def getaddrinfo(self, host: str, port: int, **options: Any) -> Any:
        try:
            return await self._loop.getaddrinfo(host, port, **options)
        except RuntimeError:
            return socket.getaddrinfo(host, port, **options)

    async def getnameinfo(self, address: Any, flags: int = 0) -> Any:
        try:
            return await self._loop.getnameinfo(address, flags)
        except RuntimeError:
            return socket.getnameinfo(address, flags)


def _resolver() -> ThreadedResolver | None:
    """None: aiohttp has one that takes no threads."""
    if DefaultResolver is not ThreadedResolver:
        return None
    return ThreadedResolver(_Names(asyncio.get_running_loop()))  # type: ignore[arg-type]  # all that it asks of a loop


async def _bounded(response: aiohttp.ClientResponse, url: str) -> bytes:
    """The body, as long as it can be held, also when nobody said before how long it is."""
    if (response.content_length or 0) > RESPONSE_BYTES_MAX:
        raise BrokerUnavailable(f"{url} answers with {response.content_length} bytes, too many to hold")
    if response.content_length is not None:
        return await response.read()
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > RESPONSE_BYTES_MAX:
            raise BrokerUnavailable(f"{url} answers with more than {RESPONSE_BYTES_MAX} bytes, too many to hold")
    return b"".join(pieces)


def _is_no_tls(error: aiohttp.ClientError) -> bool:
    """Somebody is there, who does not speak TLS."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError) or not isinstance(
        error, aiohttp.ClientConnectorError
    ):
        return False
    cause = error.os_error
    return isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLCertVerificationError)


def _say(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        refused = error.certificate_error
        return f"TLS failed: {getattr(refused, 'verify_message', refused)}"
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS failed: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({cause.reason or cause}); does this broker speak http:// without TLS?"
        if isinstance(cause, socket.gaierror):
            return f"its host cannot be resolved: {cause.strerror}"
        if cause.errno:
            return os.strerror(cause.errno)
    return str(error) or type(error).__name__
