"""A controller from its data directory to its exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Callable

from aiohttp import web

import minilog
from minilog.config import ControllerSettings
from minilog.controller.etcd.follower import Follower
from minilog.controller.etcd.journal import EtcdJournal
from minilog.controller.journal import FileJournal, GivenUp, Journal
from minilog.controller.ports import Core
from minilog.controller.runtime import Runtime
from minilog.controller.server import Server
from minilog.server import process
from minilog.server.background import first_of
from minilog.server.clock import Clock
from minilog.server.event_log import start_logging
from minilog.server.inbound.tls_site import site
from minilog.server.security.exposure import check_listener
from minilog.server.security.gate import Gate

log = logging.getLogger("minilog.controller")

SHUTDOWN_TIMEOUT_S = 1.0
START_STOP_S = 1.0
"""What reading the journal gets to come to its end when the controller is told to stop
meanwhile."""


class Controller:
    """``run`` once. ``url`` and ``listening`` are set when requests are taken."""

    def __init__(self, settings: ControllerSettings, make_core: Callable[[], Core], journal: Journal) -> None:
        self.settings = settings
        self.url = ""
        self.listening = asyncio.Event()
        self._make_core = make_core
        self._journal = journal
        self._gate = Gate(settings)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set. Raises RefusesToStart or FailStop, in an ExceptionGroup."""
        settings = self.settings
        bound = process.bind(settings.host, settings.port, "the controller")
        try:
            check_listener(settings, bound.getsockname()[0], "the controller")
        except BaseException:
            bound.close()
            self._journal.close()
            raise
        self.url = process.url_of(bound, settings.host, is_tls=self._gate.tls.server is not None)
        failure = process.Failure()
        failure.watch_loop()
        starting: asyncio.Task[None] | None = None
        close_journal = self._journal.close
        try:
            async with asyncio.TaskGroup() as tasks:
                runtime = Runtime(
                    self._make_core(), self._journal, settings, Clock(), failure, tasks, self._gate.as_peer
                )
                close_journal = runtime.close_journal
                if isinstance(self._journal, EtcdJournal):
                    await self._share(runtime, self._journal, tasks, bound, stop)
                else:
                    starting = asyncio.create_task(runtime.start(), name="replay")
                    if not await first_of(starting, stop):
                        await asyncio.wait([starting], timeout=START_STOP_S)
                    if not starting.done():
                        log.info("controller stopped while it read its journal")
                        return
                    starting.result()
                    await self._serve(runtime, tasks, bound, stop)
            failure.check()  # its watcher may have been cancelled before it could raise
        finally:
            bound.close()
            try:
                if starting is not None:
                    starting.cancel()
                    await asyncio.wait([starting])
            finally:
                close_journal()
        log.info("controller stopped")

    async def _share(
        self,
        runtime: Runtime,
        journal: EtcdJournal,
        tasks: asyncio.TaskGroup,
        bound: process.Socket,
        stop: asyncio.Event,
    ) -> None:
        """As one of several: it listens while it stands by, and decides once it has the term."""
        runner = Server(runtime, self._gate).runner(SHUTDOWN_TIMEOUT_S)
        url = self.settings.advertised_url or self.url
        follower = Follower(runtime, journal, self._make_core, url)
        failing = tasks.create_task(runtime.failure.wait(), name="watch for failure")
        watching = tasks.create_task(self._gate.watch(), name="watch credentials")
        leading = tasks.create_task(self._lead(follower, runtime), name="lead")
        try:
            await runner.setup()
            process.listen(bound, "the controller")
            await site(runner, bound, self._gate.tls.server).start()
            log.info("controller listening on %s, journal in %s; it stands by", url, journal.place)
            self.listening.set()
            await stop.wait()
        finally:
            runtime.close()
            await runner.cleanup()
            leading.cancel()
            await asyncio.wait([leading])
            failing.cancel()
            watching.cancel()

    async def _lead(self, follower: Follower, runtime: Runtime) -> None:
        ticking: asyncio.Task[None] | None = None
        try:
            await follower.lead()
            image = runtime.image
            log.info(
                "this controller decides, cluster %s, epoch %d, record %d",
                image.cluster_id,
                image.controller_epoch,
                image.metadata_offset,
            )
            ticking = asyncio.create_task(runtime.tick(), name="tick")
            await runtime.work()
        except GivenUp:
            log.debug("etcd is not waited for any more")
        finally:
            if ticking is not None:
                ticking.cancel()

    async def _serve(
        self, runtime: Runtime, tasks: asyncio.TaskGroup, bound: process.Socket, stop: asyncio.Event
    ) -> None:
        runner = Server(runtime, self._gate).runner(SHUTDOWN_TIMEOUT_S)
        loops: list[asyncio.Task[None]] = [
            tasks.create_task(runtime.failure.wait(), name="watch for failure"),
            tasks.create_task(runtime.tick(), name="tick"),
            tasks.create_task(self._gate.watch(), name="watch credentials"),
        ]
        tasks.create_task(runtime.work(), name="decide")  # ends by itself, when what it writes is written
        try:
            await self._listen(runner, bound, runtime)
            await stop.wait()
        finally:
            runtime.close()
            await runner.cleanup()
        for loop in loops:
            loop.cancel()

    async def _listen(self, runner: web.ServerRunner, bound: process.Socket, runtime: Runtime) -> None:
        await runner.setup()
        process.listen(bound, "the controller")
        await site(runner, bound, self._gate.tls.server).start()
        log.info(
            "controller listening on %s, data in %s, cluster %s, epoch %d, record %d",
            self.url,
            self.settings.data_dir,
            runtime.image.cluster_id,
            runtime.image.controller_epoch,
            runtime.core.metadata_offset,
        )
        self.listening.set()


def make_controller(settings: ControllerSettings) -> Controller:
    from minilog.core.controller.controller import ControllerCore

    def make_core() -> Core:
        return ControllerCore(settings, random.Random(), minilog.__version__)

    if settings.journal == "etcd":
        holder = f"{socket.gethostname()}, process {os.getpid()}"
        return Controller(settings, make_core, EtcdJournal(settings, holder))
    return Controller(settings, make_core, FileJournal(settings.data_dir))


async def _main(settings: ControllerSettings) -> int:
    start_logging(settings.log_level, settings.log_format)
    stop = asyncio.Event()
    with process.stop_on_signals(stop):
        await make_controller(settings).run(stop)
    return 0


def run_controller(settings: ControllerSettings) -> int:
    """Run a controller in this process until SIGTERM or SIGINT; returns the exit code."""
    return process.run(_main(settings), "the controller", settings.event_loop)
