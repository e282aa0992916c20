"""A controller that stands by: replays what is new all the time, asks the active one whether it is
there, and takes the term when ``core/controller/shared/standby.py`` says so.

Two loops: one looks into etcd, one holds a request at the active controller. Etcd is asked in
threads, so a standby answers brokers whatever etcd does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from minilog.controller.etcd.journal import EtcdJournal, records_of
from minilog.controller.ports import Core
from minilog.controller.runtime import Runtime
from minilog.core.controller.shared.reading import Look
from minilog.core.controller.shared.standby import Standby
from minilog.core.controller.shared.sureness import Sureness
from minilog.core.controller.shared.transaction import NotSent, Unsure
from minilog.core.controller.told.controller_moves import Move, moved
from minilog.errors import Deposed, NotController
from minilog.server.background import Stop
from minilog.wire.messages import Problem, StandBy, StandByReply
from minilog.wire.peer_messages import NoAnswer

log = logging.getLogger("minilog.controller")

LOOK_S: Final = 0.1
HOLD_MS: Final = 200
ANSWER_MS: Final = 600
AGAIN_S: Final = 0.02


class Follower:
    def __init__(self, runtime: Runtime, journal: EtcdJournal, make_core: Callable[[], Core], url: str) -> None:
        self._runtime, self._journal, self._make_core, self._url = runtime, journal, make_core, url
        self._standby = Standby(url, runtime.clock.now_ms())
        self._move: Move | None = None
        """How this controller has come to decide."""
        self._stop = Stop()
        self._proof = asyncio.Event()
        """The active one is dead: etcd is looked into at once."""
        runtime.standing_by = self.refusal
        runtime.sureness = Sureness()
        journal.now_ms, journal.on_held = runtime.clock.now_ms, runtime.sureness.on_held

    def refusal(self) -> NotController:
        look = self._standby.look
        active = None if look is None else look.active
        url, epoch = ("", 0) if active is None else (active.url, active.epoch)
        says = f"the one at {url} decides" if url else "nobody decides at the moment, as far as is known here"
        return NotController(f"this controller stands by: {says}", standby=True, url=url, epoch=epoch)

    async def lead(self) -> None:
        """Returns when this controller decides. Raises RefusesToStart and Deposed."""
        asking = asyncio.create_task(self._ask_active(), name="ask the active controller")
        try:
            await self._load()
            while not await self._has_taken():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._proof.wait(), LOOK_S)
                self._proof.clear()
        finally:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
        await self._begin()

    async def _load(self) -> None:
        replayed, _ = await self._stop.in_thread(self._journal.read_all)
        core = self._runtime.core = self._make_core()
        if replayed.snapshot_index:
            core.load(replayed.snapshot_index, replayed.snapshot)
        for record in replayed.tail:
            core.replay(core.metadata_offset + 1, record)

    async def _has_taken(self) -> bool:
        look = await self._look()
        if look is None:
            return False
        now_ms = self._runtime.clock.now_ms()
        self._standby.on_look(look, now_ms)
        if look.is_gap:
            log.info("this standby is behind the last snapshots, and reads all anew")
            await self._load()
            return False
        for record in records_of(look.frames, self._runtime.core.metadata_offset + 1):
            self._runtime.core.replay(self._runtime.core.metadata_offset + 1, record)
        self._runtime.end_index = look.end_index
        if not self._standby.takes(now_ms):
            return False
        term, self._move = self._standby.term, self._standby.move()
        taken = await self._stop.in_thread(lambda: self._journal.take(term, self._url))
        if taken:
            log.warning("this controller takes the term: %s", self._standby.why)
        return taken

    async def _look(self) -> Look | None:
        after = self._runtime.core.metadata_offset
        try:
            return await self._stop.in_thread(lambda: self._journal.look(after))
        except (NotSent, Unsure) as error:
            log.debug("etcd cannot be looked into: %s", error)
            return None

    async def _begin(self) -> None:
        after = self._runtime.core.metadata_offset
        records = await self._stop.in_thread(lambda: self._journal.resume(after))
        if records is None:
            core = self._runtime.core = self._make_core()
            replayed = await self._stop.in_thread(self._journal.open)
            if replayed.snapshot_index:
                core.load(replayed.snapshot_index, replayed.snapshot)
            records = replayed.tail
        for record in records:
            self._runtime.core.replay(self._runtime.core.metadata_offset + 1, record)
        await self._runtime.begin()
        self._tell_of_move()
        assert self._journal.term is not None
        self._runtime.nonce, self._runtime.url = self._journal.term.nonce, self._url
        self._runtime.standing_by = None
        loop = asyncio.get_running_loop()

        def on_deposed(why: Deposed) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._runtime.end, why)

        self._journal.tend(self._runtime.image.controller_epoch, on_deposed)

    def _tell_of_move(self) -> None:
        if self._move is not None:
            clock, epoch = self._runtime.clock, self._runtime.image.controller_epoch
            event = moved(self._move, self._url, epoch, clock.now_ms(), clock.wall_ms())
            self._runtime.core.own_events.add(event)

    async def _ask_active(self) -> None:
        """A connection that ends at once when the process does."""
        while True:
            url, nonce = self._standby.holder_url, self._standby.holder_nonce
            if not url:
                await asyncio.sleep(LOOK_S)
                continue
            looked_ms_ago = self._standby.looked_ms_ago(self._runtime.clock.now_ms())
            asked = StandBy(self._url, nonce, self._runtime.core.metadata_offset, HOLD_MS, looked_ms_ago)
            answer = await self._runtime.peers.call(url, asked, HOLD_MS + ANSWER_MS)
            match answer:
                case StandByReply():
                    self._standby.on_answer(answer.nonce, self._runtime.clock.now_ms())
                    continue
                case Problem():
                    self._hear_problem(answer, nonce)
            await asyncio.sleep(AGAIN_S)

    def _hear_problem(self, problem: Problem, nonce: str) -> None:
        knew = self._standby.why
        if problem.code == NotController.code:
            self._standby.on_replaced(nonce)
        elif problem.error().info.get("reason") == NoAnswer.REFUSED:
            self._standby.on_refused(nonce)
        if self._standby.why and not knew:
            self._proof.set()
