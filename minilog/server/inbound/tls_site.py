"""Where a process listens with TLS: who has not come to the end of its handshake holds a place as
well (R45).

asyncio tells nobody of a connection before its handshake is over, and gives that a minute. So
strangers that say nothing would hold descriptors and memory in any number. Here each has a place
from the moment on in which it is accepted. It gives way like any other that waits for its client,
has as long as for the head of a request, and none where there is no place: nothing can be told
before the handshake.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from functools import partial
from typing import Final

from aiohttp import web

from minilog.core.places import Entry, client_of
from minilog.server.inbound.accepted_connection import TRIAL_MS, Connection
from minilog.server.inbound.listener import Listener
from minilog.server.process import LISTEN_BACKLOG

log = logging.getLogger("minilog.http")

AT_ONCE: Final = 16
"""Connections that are accepted in one round of the loop."""
RETRY_S: Final = 1.0
"""As asyncio's own servers, after an accept that failed because something is used up."""
FAREWELL_S: Final = 1.0
"""How long a client may take to confirm the end of a connection."""


class Handshake:
    """Who is about to be a connection."""

    is_waited_for: Final = True

    def __init__(self, accepted: socket.socket) -> None:
        self.accepted = accepted
        self.connection: Connection | None = None
        self.task: asyncio.Task[None] | None = None

    def give_way(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def end(self) -> None:
        """A socket that a transport has is the transport's to close."""
        made = None if self.connection is None else self.connection.transport
        if made is None:
            self.accepted.close()
        else:
            made.abort()

    def forget(self) -> None:
        """What is in no circle is freed at once: each holds 300 KiB with asyncio's own loop."""
        if self.connection is not None:
            self.connection.follows = None
        self.connection = self.task = None


class TlsSite(web.BaseSite):
    """Begins and ends as the sites of aiohttp do."""

    __slots__ = ("_accepting", "_bound", "_context", "_handshakes", "_listener", "_loop")

    def __init__(self, runner: web.BaseRunner, bound: socket.socket, context: ssl.SSLContext) -> None:
        """``bound`` listens already."""
        super().__init__(runner)
        assert isinstance(runner.server, Listener)
        self._listener = runner.server
        self._bound, self._context = bound, context
        self._loop = asyncio.get_running_loop()
        self._accepting: asyncio.Task[None] | None = None
        self._handshakes: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        host, port = self._bound.getsockname()[:2]
        return f"https://{host}:{port}"

    async def start(self) -> None:
        await super().start()
        self._bound.setblocking(False)
        self._accepting = self._loop.create_task(self._accept(), name="accept")
        self._accepting.add_done_callback(self._on_deaf)

    async def stop(self) -> None:
        ending = {*self._handshakes} | ({self._accepting} if self._accepting is not None else set())
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending)
        self._bound.close()
        await super().stop()

    def _on_deaf(self, accepting: asyncio.Task[None]) -> None:
        """A process that takes nobody any more must not seem to live."""
        if not accepting.cancelled():
            self._loop.call_exception_handler(
                {"message": "no connection is accepted any more", "exception": accepting.exception()}
            )

    async def _accept(self) -> None:
        taken = 0
        while True:
            try:
                accepted, address = await self._loop.sock_accept(self._bound)
            except OSError as error:
                if error.errno != errno.ECONNABORTED:  # it has left before it was taken
                    self._loop.call_exception_handler(
                        {"message": "a connection cannot be accepted", "exception": error}
                    )
                    await asyncio.sleep(RETRY_S)
                continue
            self._admit(accepted, address)
            taken += 1
            if taken % AT_ONCE == 0:
                await asyncio.sleep(0)

    def _admit(self, accepted: socket.socket, address: object) -> None:
        admissions, handshake = self._listener.admissions, Handshake(accepted)
        entry, leaver = admissions.places.enter(handshake, client_of(address), int(self._loop.time() * 1000))
        if leaver is not None:
            leaver.give_way()
        if entry is Entry.REFUSED:
            admissions.refused += 1
            accepted.close()
            return
        handshake.task = self._loop.create_task(self._shake_hands(handshake), name="handshake")
        self._handshakes.add(handshake.task)
        handshake.task.add_done_callback(partial(self._on_over, handshake))

    async def _shake_hands(self, handshake: Handshake) -> None:
        limit_ms = self._listener.limits.header_read_ms
        if self._listener.admissions.places.is_on_trial(handshake):
            limit_ms = min(limit_ms, TRIAL_MS)

        def make() -> Connection:
            handshake.connection = self._listener()
            handshake.connection.follows = handshake
            return handshake.connection

        await self._loop.connect_accepted_socket(
            make,
            handshake.accepted,
            ssl=self._context,
            ssl_handshake_timeout=limit_ms / 1000,
            ssl_shutdown_timeout=FAREWELL_S,
        )

    def _on_over(self, handshake: Handshake, task: asyncio.Task[None]) -> None:
        """However it has ended, and also when it had not begun."""
        self._handshakes.discard(task)
        self._listener.admissions.places.leave(handshake)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
            log.log(level, "a TLS handshake has failed: %s", error)
        if error is not None or task.cancelled():
            handshake.end()
        handshake.forget()


def site(runner: web.BaseRunner, bound: socket.socket, context: ssl.SSLContext | None) -> web.BaseSite:
    """Where a process listens, on a socket that does so already."""
    if context is None:
        return web.SockSite(runner, bound, backlog=LISTEN_BACKLOG)
    return TlsSite(runner, bound, context)
