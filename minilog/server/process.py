"""What a minilog process does around its event loop: log lines, listening socket, signals,
fail-stop, exit code."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NoReturn

from minilog import machine
from minilog.config import EventLoop
from minilog.errors import Deposed, DiskFull, RefusesToStart, StorageFailed
from minilog.server.event_log import start_logging, turn_level
from minilog.server.event_loop import loop_factory

log = logging.getLogger("minilog")

LISTEN_BACKLOG = 1024
DEPOSED_EXIT_CODE = 3
"""Another controller has taken over. Whoever supervises starts this one again, as a standby."""
ECHO_S = 0.5
"""A second signal this soon is the first one's echo: a terminal signals the whole group, and a
parent passes it on."""
OTHER_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""A process that nobody told what to do about them would end, without a clean marker."""
Socket = socket.socket
on_hangup: set[Callable[[], None]] = set()
"""Called at SIGHUP: what looks at its files again."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE_BLOCK_BYTES = 16 * 1024 * 1024
"""Above what a usual fetch or produce takes: a block of its own costs a page fault for every page
of it."""
SPARE_BYTES = 32 * 1024 * 1024
"""What stays at the end of the heap when it is freed. glibc's own 128 KiB would give back and fault
in every answer's memory."""


class FailStop(Exception):
    """The process must exit with code 1 and without a clean marker. The reason has been logged."""

    def __init__(self, *, disk_failed: bool) -> None:
        super().__init__("the disk failed" if disk_failed else "a bug")
        self.disk_failed = disk_failed


def is_disk_failure(error: BaseException) -> bool:
    """What was written may be missing although the page cache says otherwise."""
    return any(
        isinstance(leaf, StorageFailed) or (isinstance(leaf, FailStop) and leaf.disk_failed) for leaf in leaves(error)
    )


LACKING_EVERY_S = 10.0


class Failure:
    """The first reason why this process must stop. Nothing may act on its state once it is
    tripped."""

    def __init__(self) -> None:
        self.tripped = False
        self._untaken, self._tell_s = 0, 0.0
        self._reason: asyncio.Future[RefusesToStart | FailStop | Deposed] = asyncio.get_running_loop().create_future()

    def trip(self, error: BaseException) -> None:
        """Log why, once, and wake ``wait``: a failed disk in one sentence, a bug with its
        traceback."""
        if self.tripped:
            return
        self.tripped = True
        reason: RefusesToStart | FailStop | Deposed = FailStop(disk_failed=isinstance(error, StorageFailed))
        if isinstance(error, RefusesToStart | Deposed):
            reason = error  # run() prints the sentence
        elif isinstance(error, StorageFailed):
            log.critical("stopping: the disk failed: %s", error)
        elif isinstance(error, DiskFull):
            log.critical("stopping: the disk is full: %s", error.detail)
        else:
            log.critical("stopping, this is a bug: %r", error, exc_info=error)
        if not self._reason.done():
            self._reason.set_result(reason)

    def watch_loop(self) -> None:
        """Let no exception of our own be swallowed by the event loop: a callback that broke never
        runs again.

        What aiohttp's connections report is a client's doing and is only logged.
        """
        asyncio.get_running_loop().set_exception_handler(self._on_loop_exception)

    def _on_loop_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            self._on_lacking(loop.time())
            return
        protocol = context.get("protocol")
        foreign = protocol is not None and not type(protocol).__module__.startswith(
            "minilog.server.outbound.connection"
        )
        if foreign or not isinstance(error, Exception) or isinstance(error, OSError):
            log.warning("%s: %r", context.get("message"), error)
        else:
            self.trip(error)

    def _on_lacking(self, now_s: float) -> None:
        """A connection that cannot be taken is tried again and again: it is told of now and
        then."""
        self._untaken += 1
        if now_s >= self._tell_s:
            soft = machine.descriptors_max()
            log.warning(
                "connections wait because this process may open no more than %d files (%d tries since it was last said): "
                "raise the limit (ulimit -n, LimitNOFILE), or lower limits.connections_max",
                soft,
                self._untaken,
            )
            self._untaken, self._tell_s = 0, now_s + LACKING_EVERY_S

    def check(self) -> None:
        """Raise the reason if there is one."""
        if self.tripped:
            raise self._reason.result()

    async def wait(self) -> NoReturn:
        """Return never; raise the reason when there is one."""
        raise await asyncio.shield(self._reason)


def run(main: Coroutine[Any, Any, int], name: str, event_loop: EventLoop = "asyncio") -> int:
    """Run ``main`` in a fresh event loop to its exit code. A refusal or failure becomes one logged
    line and 1."""
    start_logging()
    code = 1
    try:
        _refuse_optimized()
        _outlive_signals()
        _tune_gc()
        _tune_malloc()
        machine.raise_descriptors()
        with asyncio.Runner(loop_factory=loop_factory(event_loop)) as runner:
            return runner.run(main)
    except* RefusesToStart as refusals:
        for refusal in leaves(refusals):
            log.error("%s refuses to start: %s", name, refusal)
    except* Deposed as ends:
        for end in leaves(ends):
            log.warning("%s is deposed and ends: %s", name, end)
        code = DEPOSED_EXIT_CODE
    except* FailStop:
        log.error("%s stopped without a clean marker; the next start will check its data", name)
    except* StorageFailed as failures:
        for failure in leaves(failures):
            log.critical("%s stopped: the disk failed: %s", name, failure)
    except* DiskFull as failures:
        for failure in leaves(failures):
            log.critical("%s stopped: %s", name, failure)
    except* Exception as bugs:
        log.critical("%s stopped, this is a bug", name, exc_info=bugs)
    except* KeyboardInterrupt:
        log.error("%s interrupted", name)
    finally:
        main.close()
    return code


def _outlive_signals() -> None:
    """Before ``stop_on_signals`` and after it."""
    for number in OTHER_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group and in its groups. Of anything else, itself."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from leaves(member)
    else:
        yield error


def _refuse_optimized() -> None:
    if sys.flags.optimize:
        raise RefusesToStart(
            "Python runs with -O (or PYTHONOPTIMIZE), which removes the assertions that guard the data; "
            "start it without"
        )


def bind(host: str, port: int, setting: str) -> Socket:
    """A bound socket that does not listen yet: until it does, a probe of this address is
    refused."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise RefusesToStart(f"cannot resolve host {host!r}: {error.strerror}; set {setting}'s host") from error
    try:
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:  # this machine has no such kind of address
        raise RefusesToStart(_cannot_listen(error, host, port, setting)) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise RefusesToStart(_cannot_listen(error, host, port, setting)) from error
    return bound


def listen(bound: socket.socket, setting: str) -> None:
    host, port = bound.getsockname()[:2]
    try:
        bound.listen(LISTEN_BACKLOG)
    except OSError as error:
        bound.close()
        raise RefusesToStart(_cannot_listen(error, host, port, setting)) from error


def _cannot_listen(error: OSError, host: str, port: int, setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host!r} is in use by another process; stop that process (ss -ltnp shows it) "
            f"or set {setting}'s port to a free one (0 picks any)"
        )
    return f"cannot listen on {host!r} port {port}: {error.strerror}; set {setting}'s host and port"


def url_of(bound: socket.socket, host: str, *, is_tls: bool = False) -> str:
    """The URL of a bound socket, under the host name that was configured. Without one under the
    address it has."""
    scheme = "https" if is_tls else "http"
    address, port = bound.getsockname()[:2]
    host = host or address
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def is_wildcard(host: str) -> bool:
    return host in ("", "0.0.0.0", "::")


@contextlib.contextmanager
def stop_on_signals(stop: asyncio.Event) -> Iterator[None]:
    """The first SIGTERM or SIGINT sets ``stop``. A later one exits at once, without a clean
    marker. Signals that mean nothing here end nothing."""
    loop = asyncio.get_running_loop()
    first: list[float] = []

    def on_signal(name: str) -> None:
        if not first:
            first.append(loop.time())
            log.info("%s: shutting down", name)
            stop.set()
        elif loop.time() >= first[0] + ECHO_S:
            log.error("second signal (%s): exiting at once", name)
            os._exit(1)

    def on_other(name: str) -> None:
        if name == "SIGUSR2":
            turn_level()
            return
        if name == "SIGHUP" and on_hangup:
            log.info("SIGHUP: credentials and certificates are looked at again")
            for look in list(on_hangup):
                look()
            return
        log.info("%s: nothing is done; settings are read at the start, and SIGTERM stops this process", name)

    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, on_signal, number.name)
    before = {number: signal.getsignal(number) for number in OTHER_SIGNALS}
    for number in OTHER_SIGNALS:
        loop.add_signal_handler(number, on_other, number.name)
    try:
        yield
    finally:
        for number in (*signals, *OTHER_SIGNALS):
            loop.remove_signal_handler(number)
        for number, handler in before.items():
            signal.signal(number, handler)


def _tune_gc() -> None:
    """What is loaded at the start lives for ever: keep the collector off it, and let it run
    rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _tune_malloc() -> None:
    """Give the largest blocks back to the system as soon as they are freed, and keep what is used
    again and again (glibc only).

    glibc raises the first bound by itself when a large block is freed. Then the holes that answers
    of different sizes leave make a process twice as large as what it holds. Once one bound is set,
    glibc adapts neither.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, SPARE_BYTES)
