"""Somebody answers at an address, and it is no broker: another server, a proxy, TLS on one side
only.

Once a broker has answered a client, a stranger in its place is trouble that may pass. Before that
the address is wrong, and trying again does not help."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from minilog.errors import BrokerUnavailable, InvalidRequest, MinilogError

_PROBE_S: Final = 1.0
_MARK: Final = "no_broker"


def marked(error: MinilogError) -> MinilogError:
    """``error`` is the answer of a stranger."""
    error.info[_MARK] = True
    return error


def is_of_stranger(error: MinilogError) -> bool:
    return error.info.get(_MARK) is True


def nobody(failures: Mapping[str, MinilogError], is_heard: bool) -> MinilogError:
    """No broker has answered, at any address. ``is_heard``: one has before."""
    reasons = "; ".join(
        error.detail if url in error.detail else f"{url}: {error.detail}" for url, error in failures.items()
    )
    if failures and not is_heard and all(map(is_of_stranger, failures.values())):
        return InvalidRequest(f"no broker is at the address that this client was given ({reasons})", definite=True)
    return BrokerUnavailable(f"no broker answers ({reasons or 'none is known'})", definite=True)


async def speaks_tls(url: str) -> bool:
    """Whether TLS is spoken at an address that ends connections without an answer."""
    pieces = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(_PROBE_S):
            _, writer = await asyncio.open_connection(pieces.hostname, pieces.port or 80, ssl=context)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
