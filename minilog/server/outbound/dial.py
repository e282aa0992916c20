"""Dialling: one connection to a host of several addresses, and what each address said when none
could be made.

The addresses are tried in order, the next one as soon as one has failed or has kept silent for a
moment (Happy Eyeballs, RFC 8305), and all of them within the time there is. By our own hand,
because asyncio and aiohappyeyeballs make one sentence of several failures. Here "refused" is what a
failover rests on, and it is true only if every address refused.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from minilog.server.outbound.host_names import Names, Target, Targets

STAGGER_MAX_S: Final = 0.1
SILENCE_SHARE: Final = 0.8
"""Of the time there is, how long DNS may take to say that a host has moved, once its addresses of
before have refused."""
NOT_HERE: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""This machine has no such kind of address (IPv6 is switched off). Nobody can listen on its
loopback address then."""


class Unreached(OSError):
    """No address could be connected to. ``failures`` has what each of them said, in words that name
    it."""

    def __init__(self, failures: Sequence[tuple[Target, OSError]]) -> None:
        said = [f"{target.address[0]}: {error.strerror or error}" for target, error in failures]
        super().__init__("; ".join(said) or "its name has no address")
        numbers = [error.errno for target, error in failures if not _cannot_be(target, error)]
        self.refused = bool(numbers) and all(number == errno.ECONNREFUSED for number in numbers)
        """Nobody listens, on whatever address."""


def _cannot_be(target: Target, error: OSError) -> bool:
    """``localhost`` names ::1 on many a machine that has no IPv6."""
    return error.errno in NOT_HERE and ipaddress.ip_address(target.address[0]).is_loopback


async def dial(names: Names, host: str, port: int, timeout_s: float) -> socket.socket:
    """A connected socket. Raises Unreached, TimeoutError, or what the resolver raised."""
    async with asyncio.timeout(timeout_s):
        targets = await names.find(host, port)
        try:
            connected = await _connect_to(targets, timeout_s)
        except Unreached as error:
            if not (targets.is_stale and error.refused):
                raise
            connected = await _where_it_is_now(names, host, port, timeout_s, targets, error)
        with suppress(OSError):
            names.note_reached(host, port, connected.getpeername())
        return connected


async def _where_it_is_now(
    names: Names, host: str, port: int, timeout_s: float, stale: Targets, error: Unreached
) -> socket.socket:
    """A refusal by addresses of before says nothing of a host that has moved. So DNS is waited for.
    While it is silent, the refusal is believed only of an address at which this very host was
    reached."""
    targets = await names.find_again(host, port, stale, timeout_s * SILENCE_SHARE)
    if targets is None:
        error.refused = names.reached_at(host, port) in [target.address for target in stale]
        raise error
    if targets == stale:
        raise error
    return await _connect_to(targets, timeout_s)


async def _connect_to(targets: Targets, timeout_s: float) -> socket.socket:
    if len(targets) == 1:
        return await _only(targets[0])
    return await _race(targets, min(STAGGER_MAX_S, timeout_s / (2 * len(targets) + 1)))


async def _only(target: Target) -> socket.socket:
    try:
        return await _connect(target)
    except OSError as error:
        raise Unreached([(target, error)]) from error


async def _race(targets: Sequence[Target], stagger_s: float) -> socket.socket:
    waiting = deque(targets)
    attempts: dict[asyncio.Task[socket.socket], Target] = {}
    failures: list[tuple[Target, OSError]] = []
    try:
        while waiting or attempts:
            if waiting:
                target = waiting.popleft()
                attempts[asyncio.create_task(_connect(target), name=f"connect {target.address[0]}")] = target
            timeout_s = stagger_s if waiting else None
            done, _ = await asyncio.wait(attempts, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                error = attempt.exception()
                if error is None:
                    del attempts[attempt]
                    return attempt.result()
                if not isinstance(error, OSError):
                    raise error
                failures.append((attempts.pop(attempt), error))
    finally:
        for attempt in attempts:
            _forget(attempt)
    raise Unreached(failures)


def _forget(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancel() and not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _connect(target: Target) -> socket.socket:
    connecting = socket.socket(target.family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connecting, target.address)
    except BaseException:
        connecting.close()
        raise
    return connecting
