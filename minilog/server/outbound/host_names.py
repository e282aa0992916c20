"""Names: where hosts are. Each name is looked up once at a time, in a thread of its own, and its
last addresses are kept.

A resolver may hang for many seconds, and nothing can stop it: so no look-up shares a thread with
anything else, a daemon's, for which no exit waits. While a look-up gives no answer, or fails, what
the last one said is used: a broker does not move because DNS is silent. A look-up begins with every
question, so that a broker that did move is found.

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
    """One address to connect to. ``address`` is what the socket module takes: (host, port), for
    IPv6 with two more."""

    family: int
    address: tuple[str, int] | tuple[str, int, int, int]


class Targets(list[Target]):
    """The addresses of a host. ``is_stale``: they are of an earlier look-up, and the host may have
    moved since."""

    def __init__(self, source: list[Target], port: int, *, is_stale: bool) -> None:
        super().__init__(Target(family, (address[0], port, *address[2:])) for family, address in source)
        self.source = source
        self.is_stale = is_stale


class _Lookup(NamedTuple):
    began_s: float
    outcome: asyncio.Future[list[Target] | Exception]


class Names:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[str, _Lookup] = {}
        self._known: dict[str, list[Target]] = {}
        self._reached: dict[tuple[str, int], tuple[object, ...]] = {}
        """By host and port, where a connection was made last since somebody was expected there."""

    async def find(self, host: str, port: int) -> Targets:
        """Every address of ``host``, best first. Raises what the resolver raised when none is
        known; may take as long as it does."""
        if is_numeric(host):
            return Targets(_resolve(host, port, socket.AI_NUMERICHOST), port, is_stale=False)
        source, is_stale = await self._ask(host)
        return Targets(source, port, is_stale=is_stale)

    async def find_again(self, host: str, port: int, stale: Targets, silence_s: float) -> Targets | None:
        """What DNS says after all, once the addresses of before have proved wrong; None when it
        fails, or says nothing for ``silence_s``."""
        lookup = self._under_way.get(host)
        if lookup is not None:
            await asyncio.wait([lookup.outcome], timeout=max(0.0, lookup.began_s + silence_s - self._loop.time()))
        source = self._known.get(host, stale.source)
        return None if source is stale.source else Targets(source, port, is_stale=False)

    def note_reached(self, host: str, port: int, address: tuple[object, ...]) -> None:
        if not is_numeric(host):
            self._reached.pop((host, port), None)
            self._reached[host, port] = address
            if len(self._reached) > KNOWN_MAX:
                del self._reached[next(iter(self._reached))]

    def reached_at(self, host: str, port: int) -> tuple[object, ...] | None:
        """Where the last connection to ``host`` was made: what that address says is said of the
        very peer."""
        return self._reached.get((host, port))

    def forget_reached(self, host: str, port: int) -> None:
        """Who has come back may have moved: where ``host`` was reached before proves nothing any
        more."""
        self._reached.pop((host, port), None)

    def expect(self, host: str) -> None:
        """Somebody will want to connect to ``host``, maybe at a moment when DNS is silent: look it
        up now."""
        if not is_numeric(host) and host not in self._under_way:
            self._begin(host)

    async def _ask(self, host: str) -> tuple[list[Target], bool]:
        """The addresses, and whether they are those of an earlier look-up."""
        lookup = self._under_way.get(host) or self._begin(host)
        known = self._known.get(host)
        patience_s = None if known is None else max(0.0, lookup.began_s + PATIENCE_S - self._loop.time())
        await asyncio.wait([lookup.outcome], timeout=patience_s)
        if known is None or (lookup.outcome.done() and not isinstance(lookup.outcome.result(), Exception)):
            outcome = lookup.outcome.result()
            if isinstance(outcome, Exception):
                raise outcome
            return outcome, False
        return known, True

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


def is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _resolve(host: str, port: int, flags: int = 0) -> list[Target]:
    """Each address once, in the order of the system's preference."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys(Target(family, address) for family, _, _, _, address in found))  # type: ignore[arg-type]
