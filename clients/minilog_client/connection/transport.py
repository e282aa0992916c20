"""One method between the client and the network: a request goes in, a response or a typed error
comes out.

The errors tell whether the request may have been carried out (``definite``): a connection that was
never made proves that nothing was written. Anything that goes wrong afterwards proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from minilog.errors import BrokerUnavailable, ClientClosed, InvalidRequest, TimedOut

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

    def __init__(self, connect_timeout_ms: int) -> None:
        self._connect_timeout_ms = connect_timeout_ms
        self._session: aiohttp.ClientSession | None = None
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
                method, url, headers=headers, data=data, timeout=timeout, allow_redirects=False
            ) as response:
                if (response.content_length or 0) > RESPONSE_BYTES_MAX:
                    raise BrokerUnavailable(f"{url} answers with {response.content_length} bytes, too many to hold")
                content = await response.read()
                names = {name.lower(): value for name, value in response.headers.items()}
                return Response(response.status, names, content)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise BrokerUnavailable(f"no connection to {url}: {_say(error)}", definite=True) from error
        except TimeoutError as error:
            raise TimedOut(f"{url} did not answer within {timeout_ms} ms", definite=False) from error
        except aiohttp.InvalidURL as error:
            raise InvalidRequest(f"{url!r} is not a URL a broker can have, such as http://127.0.0.1:8082") from error
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
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                read_bufsize=_READ_BUFFER_BYTES,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session


def _say(error: BaseException) -> str:
    return str(error) or type(error).__name__
