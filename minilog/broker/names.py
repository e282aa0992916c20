"""Names: where hosts are. Each name is looked up once at a time, in a thread of its own, and its last addresses are kept.

A resolver may hang for many seconds, and nothing can stop it: so no look-up shares a thread with anything else, a
daemon's, for which no exit waits. While a look-up gives no answer, or fails, what the last one said is used: a broker does not move
because DNS is silent. A look-up begins with every question, so that a broker that did move is found.

Owns: the look-ups under way, the last known addresses. Invariant: one look-up per name at a time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from contextlib import suppress
from typing import Final, NamedTuple

LOOKUPS_MAX: Final = 64
"""Names looked up at a time, each in a thread."""
KNOWN_MAX: Final = 1024
PATIENCE_S: Final = 0.1
"""How long a look-up may take before the addresses known from the last one are used."""


class Target(NamedTuple):
    """One address to connect to. ``address`` is what the socket module takes: (host, port), for IPv6 with two more."""

    family: int
    address: tuple[str, int] | tuple[str, int, int, int]


class _Lookup(NamedTuple):
    began_s: float
    outcome: asyncio.Future[list[Target] | Exception]


class Names:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[str, _Lookup] = {}
        self._known: dict[str, list[Target]] = {}

    async def find(self, host: str, port: int) -> list[Target]:
        """Every address of ``host``, best first. Raises what the resolver raised when none is known; may take as long as it does."""
        if _is_numeric(host):
            return _resolve(host, port, socket.AI_NUMERICHOST)
        targets = await self._ask(host)
        return [Target(family, (address[0], port, *address[2:])) for family, address in targets]

    def expect(self, host: str) -> None:
        """Somebody will want to connect to ``host``, maybe at a moment when DNS is silent: look it up now."""
        if not _is_numeric(host) and host not in self._under_way:
            self._begin(host)

    async def _ask(self, host: str) -> list[Target]:
        lookup = self._under_way.get(host) or self._begin(host)
        known = self._known.get(host)
        patience_s = None if known is None else max(0.0, lookup.began_s + PATIENCE_S - self._loop.time())
        await asyncio.wait([lookup.outcome], timeout=patience_s)
        if known is None or (lookup.outcome.done() and not isinstance(lookup.outcome.result(), Exception)):
            outcome = lookup.outcome.result()
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        return known

    def _begin(self, host: str) -> _Lookup:
        lookup = _Lookup(self._loop.time(), self._loop.create_future())
        if len(self._under_way) >= LOOKUPS_MAX:
            lookup.outcome.set_result(OSError(f"{LOOKUPS_MAX} other names wait for the resolver"))
            return lookup
        try:
            threading.Thread(target=self._look_up, args=(host,), name=f"look up {host}", daemon=True).start()
        except RuntimeError as error:  # this machine, or this process's limits, have no thread left
            lookup.outcome.set_result(OSError(f"no thread to look its name up in: {error}"))
        else:
            self._under_way[host] = lookup
        return lookup

    def _look_up(self, host: str) -> None:
        """In a thread."""
        outcome: list[Target] | Exception
        try:
            outcome = _resolve(host, 0)
        except Exception as error:
            outcome = error
        with suppress(RuntimeError):  # the loop has been closed meanwhile: nobody wants to know
            self._loop.call_soon_threadsafe(self._learn, host, outcome)

    def _learn(self, host: str, outcome: list[Target] | Exception) -> None:
        if isinstance(outcome, list):
            self._known.pop(host, None)
            self._known[host] = outcome
            if len(self._known) > KNOWN_MAX:
                del self._known[next(iter(self._known))]
        self._under_way.pop(host).outcome.set_result(outcome)


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _resolve(host: str, port: int, flags: int = 0) -> list[Target]:
    """Each address once, in the order of the system's preference."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys(Target(family, address) for family, _, _, _, address in found))  # type: ignore[arg-type]
