"""A broker from its data directory to its exit code."""

from __future__ import annotations

import asyncio
import logging
import uuid
from functools import partial

import minilog
from minilog import machine
from minilog.broker.cleaner import Cleaner
from minilog.broker.http.server import Runner, Server
from minilog.broker.recovering import Recovering
from minilog.broker.runtime import Runtime
from minilog.config import BrokerSettings
from minilog.core.broker.broker import BrokerCore
from minilog.core.broker.standing.ailment import SLUGGISH_MS
from minilog.errors import DiskFull, RefusesToStart
from minilog.server import process
from minilog.server.background import Shared, Stop, Stopped, first_of, in_daemon_thread
from minilog.server.clock import Clock
from minilog.server.event_log import start_logging
from minilog.server.inbound.tls_site import site
from minilog.server.security.exposure import check_listener
from minilog.server.security.gate import Gate
from minilog.storage.disk import OsDisk
from minilog.storage.store import Store

log = logging.getLogger("minilog.broker")

SHUTDOWN_TIMEOUT_S = 1.0
RECOVERY_STOP_S = 1.0
"""What recovery gets to come to the end of a segment. Then the process ends without it, as in a
crash."""

NOTE_RETRY_S = 5.0


class Broker:
    """``run`` once. A clean marker is written when ``run`` has served and closed everything:
    whenever it returns without raising, and when it is cancelled while it closes."""

    def __init__(self, settings: BrokerSettings) -> None:
        self.settings = settings
        self.url = settings.advertised_url
        self.listening = asyncio.Event()
        self.registered = asyncio.Event()
        self._gate = Gate(settings)
        self._clock = Clock()
        self._store = Store(OsDisk(), settings.data_dir, settings.broker_id, self._clock.wall_ms)
        self._incarnation = uuid.uuid4().hex
        self._use = Shared(self._store.abandon)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set. Raises RefusesToStart, FailStop or StorageFailed, alone or
        in a group."""
        bound = self._bind()
        settings = self.settings
        recovering = Recovering(
            settings.broker_id, self._incarnation, settings.limits, lambda: self._store.checked, self._gate
        )
        runner = Runner(settings.limits, SHUTDOWN_TIMEOUT_S, recovering.handle)
        watching = asyncio.create_task(self._gate.watch(), name="watch credentials")
        try:
            await self._listen(runner, bound)
            clean = await self._recover(stop)
            if clean is not None:
                await self._run(runner, stop, clean=clean)
        except BaseException as error:
            if process.is_disk_failure(error):
                self._store.distrust()
            raise
        finally:
            watching.cancel()
            self._use.done()
            await runner.cleanup()
            bound.close()

    async def _listen(self, runner: Runner, bound: process.Socket) -> None:
        await runner.setup()
        process.listen(bound, "the broker")
        await site(runner, bound, self._gate.tls.server).start()

    async def _recover(self, stop: asyncio.Event) -> bool | None:
        """Start the store and check its logs. Whether the start is clean; None when told to stop
        before that was done.

        What was done then counts as after a crash, and the next start goes on from there. Only a
        start that has found a clean marker leaves it again: nobody has written anything since.
        """
        halt = Stop()

        def work() -> bool:
            clean = self._store.start(machine.boot_id())
            self._store.recover(lambda: halt.hold(0))
            return clean

        recovery = in_daemon_thread(work, "recovery", self._use)
        try:
            if await first_of(recovery, stop):
                return recovery.result()
        finally:
            halt.set()
        await asyncio.wait([recovery], timeout=RECOVERY_STOP_S)
        if recovery.done():
            if not isinstance(recovery.exception(), Stopped):
                recovery.result()
            await self._close_unused()
        checked = self._store.checked
        log.info(
            "broker %d stopped while it recovered, %d of %d logs checked; the next start goes on",
            self.settings.broker_id,
            *checked,
        )
        return None

    async def _close_unused(self) -> None:
        if self._store.was_clean and self._store.last_broker_epoch >= 0:
            await self._close_cleanly(self._store.last_broker_epoch)

    async def _run(self, runner: Runner, stop: asyncio.Event, *, clean: bool) -> None:
        async with asyncio.TaskGroup() as tasks:
            runtime = self._runtime(tasks, clean=clean)
            try:
                await self._serve(runtime, tasks, runner, stop)
            finally:
                runtime.close()
                runtime.flusher.close()
                runtime.saver.close()
        runtime.failure.check()  # its watcher may have been cancelled before it could raise
        await self._close_cleanly(runtime.core.broker_epoch)
        log.info("broker %d stopped cleanly", self.settings.broker_id)

    def _bind(self) -> process.Socket:
        settings = self.settings
        if not self.url and process.is_wildcard(settings.host):
            raise RefusesToStart(
                f"host {settings.host!r} means every address, which tells clients and peers none; "
                "set advertised_url to the http://host:port they can reach"
            )
        bound = process.bind(settings.host, settings.port, "the broker")
        try:
            check_listener(settings, bound.getsockname()[0], "the broker")
        except BaseException:
            bound.close()
            raise
        is_tls = self._gate.tls.server is not None
        self.url = self.url or process.url_of(bound, settings.host, is_tls=is_tls)
        return bound

    def _runtime(self, tasks: asyncio.TaskGroup, *, clean: bool) -> Runtime:
        core = BrokerCore(
            self.settings,
            self._store,
            incarnation=self._incarnation,
            clean=clean,
            url=self.url,
            version=minilog.__version__,
        )
        self._gate.on_conditions = core.ailment.see_credentials
        failure = process.Failure()
        failure.watch_loop()
        return Runtime(core, self._store, self.settings, self._clock, failure, tasks, self._gate.as_peer)

    async def _serve(self, runtime: Runtime, tasks: asyncio.TaskGroup, runner: Runner, stop: asyncio.Event) -> None:
        """Listen first and tick second: the controller probes this address before it takes the
        registration."""
        background = Stop()
        cleaner = Cleaner(
            self._store, self.settings, runtime.sure_wall_ms, runtime.failure, runtime.cleaning, background
        )
        loops: list[asyncio.Task[None]] = [tasks.create_task(runtime.failure.wait(), name="watch for failure")]
        try:
            runner.serve(Server(runtime, self._gate))
            log.info("broker %d listening on %s, data in %s", self.settings.broker_id, self.url, self.settings.data_dir)
            self.listening.set()
            loops.append(tasks.create_task(runtime.tick(), name="tick"))
            loops.append(tasks.create_task(self._on_registered(runtime, background), name="registration"))
            tasks.create_task(self._keep_checkpoints(runtime, background), name="checkpoint")
            tasks.create_task(self._keep_quarantine(runtime, background), name="quarantine")
            tasks.create_task(cleaner.run(), name="compaction")
            await stop.wait()
            await self._leave(runtime)
        finally:
            background.set()
            runtime.close()
            await runner.cleanup()
        await runtime.flusher.drain()
        await runtime.saver.drain()
        for loop in loops:
            loop.cancel()

    async def _leave(self, runtime: Runtime) -> None:
        runtime.begin_shutdown()
        try:
            async with asyncio.timeout(self.settings.shutdown_timeout_ms / 1000):
                await runtime.may_exit.wait()
        except TimeoutError:
            log.warning(
                "the controller did not move this broker's leaderships within %d ms (shutdown_timeout_ms); leaving",
                self.settings.shutdown_timeout_ms,
            )

    async def _close_cleanly(self, broker_epoch: int) -> None:
        try:
            await Stop().in_thread(lambda: self._store.close_cleanly(broker_epoch))
        except DiskFull as error:
            log.error("the disk is full: %s", error)
            raise process.FailStop(disk_failed=False) from error

    async def _on_registered(self, runtime: Runtime, stop: Stop) -> None:
        await runtime.admitted.wait()
        self.registered.set()
        log.info("broker %d registered, epoch %d", self.settings.broker_id, runtime.core.broker_epoch)
        while not self._note_registered():
            if await stop.pause(NOTE_RETRY_S):
                return

    def _note_registered(self) -> bool:
        """With a full disk it cannot be noted yet. The broker serves all the same. The next start
        may be unclean again."""
        try:
            self._store.registered()
        except DiskFull as error:
            log.warning("it cannot be noted that the controller knows of this start: %s", error)
            return False
        return True

    async def _keep_checkpoints(self, runtime: Runtime, stop: Stop) -> None:
        """Not while the disk is stuck: the loop would wait for its syncs, and the broker be taken
        for dead. An older checkpoint costs a restart time, and nothing else."""
        while not await stop.pause(self.settings.checkpoint_interval_ms / 1000):
            try:
                if not _is_disk_slow(runtime):
                    self._store.checkpoint()
            except DiskFull as error:
                log.warning("no checkpoint: %s", error)
            freed = await stop.in_thread(lambda: self._store.purge_trash(lambda: stop.is_set))
            if freed:
                log.info("%d bytes of deleted topics removed", freed)

    async def _keep_quarantine(self, runtime: Runtime, stop: Stop) -> None:
        """What is in there is looked at now and then, and what goes beyond its bounds goes for
        good, never by a clock that is off (R40)."""
        settings, tails = self.settings, self._store.tails
        while True:
            now_ms = runtime.sure_wall_ms()
            is_old = now_ms is not None and settings.quarantine_retention_ms >= 0
            before_ms = now_ms - settings.quarantine_retention_ms if now_ms is not None and is_old else 0
            try:
                claims = runtime.image.open_claims()
                gone = await stop.in_thread(partial(tails.prune, settings.quarantine_bytes_max, before_ms, claims))
            except DiskFull as error:
                log.warning("the quarantine cannot be looked at: %s", error)
                gone = []
            for tail in gone:
                runtime.note_dropped(tail.cut.partition, tail.name, tail.cut.records, tail.unwritten)
            if await stop.pause(settings.checkpoint_interval_ms / 1000):
                return


def _is_disk_slow(runtime: Runtime) -> bool:
    """A sync takes long just now, or one was stuck a moment ago."""
    return runtime.flusher.oldest_ms() >= SLUGGISH_MS or runtime.core.is_disk_slow(runtime.clock.now_ms())


async def _main(settings: BrokerSettings) -> int:
    start_logging(settings.log_level, settings.log_format)
    stop = asyncio.Event()
    with process.stop_on_signals(stop):
        await Broker(settings).run(stop)
    return 0


def run_broker(settings: BrokerSettings) -> int:
    """Run a broker in this process until SIGTERM or SIGINT; returns the exit code."""
    return process.run(_main(settings), f"broker {settings.broker_id}", settings.event_loop)
