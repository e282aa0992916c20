"""Live: the state of the cluster for everybody who watches it here.

Owns: the task that asks and looks while somebody watches, and each section as it was last encoded.
Nobody watches: nothing is asked, looked at or encoded. However many watch, it is done once. A
watcher gets the sections that have changed since the last ones it was given, so a slow one skips
what is in between, and nothing piles up.

The metadata is looked at often, which costs the comparison of a number. The controller and the
brokers are asked every second, and when the metadata has changed. What the looks and questions
cost goes into the pauses between them, so that they never take more than a twentieth of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from minilog.console import sections
from minilog.console.sections import Told
from minilog.core.health import Knowledge
from minilog.core.image import BrokerState, ClusterImage
from minilog.errors import Overloaded
from minilog.wire.figure_messages import DescribeBrokerReply

WATCHERS_MAX: Final = 100
LOOK_S: Final = 0.2
ASK_S: Final = 1.0
ANSWER_TIMEOUT_MS: Final = 900
SHARE_MAX: Final = 1 / 20
KEEP_ALIVE_S: Final = 5.0


class Source(Protocol):
    """Who tells: a broker or the controller."""

    @property
    def role(self) -> str: ...

    @property
    def broker_id(self) -> int | None: ...

    @property
    def image(self) -> ClusterImage: ...

    def wall_ms(self) -> int: ...

    async def knowledge(self) -> Knowledge:
        """Asks the controller, for at most ANSWER_TIMEOUT_MS."""
        ...

    async def figures(self, broker: BrokerState) -> DescribeBrokerReply | None:
        """Asks the broker, for at most ANSWER_TIMEOUT_MS."""
        ...


class _Section(NamedTuple):
    version: int
    data: bytes


class Live:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._sections: dict[str, _Section] = {}
        self._version = 0
        self._metadata_offset = -1
        self._told: Told | None = None
        self._changed = asyncio.Event()
        """Set, and another one from then on, when there is a new version."""
        self._news = asyncio.Event()
        """The metadata has changed: what was answered before is asked for again."""
        self._watchers = 0
        self._work: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Watcher]:
        """Raises Overloaded."""
        if self._watchers >= WATCHERS_MAX:
            raise Overloaded(f"{WATCHERS_MAX} watch the cluster here already; watch it at another broker")
        self._watchers += 1
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._keep_up(), name="live")
        try:
            yield Watcher(self, self._work)
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._forget()

    async def once(self) -> bytes:
        """All of it as JSON, as it is now."""
        async with self.watching() as watcher:
            return await watcher.next()

    def _forget(self) -> None:
        """Whoever watches next is told nothing old."""
        if self._work is not None:
            self._work.cancel()
            self._work = None
        self._sections.clear()
        self._told, self._metadata_offset = None, -1

    # --- while somebody watches -------------------------------------------------------------------

    async def _keep_up(self) -> None:
        tasks = [asyncio.create_task(self._ask(), name="ask"), asyncio.create_task(self._look(), name="look")]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()  # the other one goes on where one has ended

    async def _ask(self) -> None:
        """Answers that are older than the metadata beside which they would be shown contradict it:
        they are asked for again, unless nothing was told for long."""
        loop = asyncio.get_running_loop()
        told_s = -ASK_S
        while True:
            self._news.clear()
            began_s, offset = loop.time(), self._source.image.metadata_offset
            knowledge, figures = await asyncio.gather(self._source.knowledge(), self._figures())
            answered_s = loop.time()
            if offset == self._source.image.metadata_offset or answered_s - told_s >= ASK_S:
                self._publish_answers(
                    Told(self._source.role, self._source.broker_id, self._source.wall_ms(), knowledge, figures)
                )
                told_s = answered_s
            cost_s = loop.time() - answered_s
            await asyncio.sleep(max(LOOK_S, cost_s / SHARE_MAX))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), max(0.0, began_s + ASK_S - loop.time()))

    async def _figures(self) -> dict[int, DescribeBrokerReply]:
        brokers = list(self._source.image.brokers.values())
        answers = await asyncio.gather(*map(self._source.figures, brokers))
        return {told.broker_id: told for told in answers if told is not None}

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            if self._told is not None and self._source.image.metadata_offset != self._metadata_offset:
                self._told = self._told._replace(at_ms=self._source.wall_ms())
                self._publish_metadata(self._told)
                self._news.set()
            await asyncio.sleep(max(LOOK_S, (loop.time() - began_s) / SHARE_MAX))

    def _publish_answers(self, told: Told) -> None:
        image, self._told = self._source.image, told
        self._version += 1
        self._put("health", sections.health(image, told))
        self._put("brokers", sections.brokers(image, told))
        self._put("behind", sections.behind(told))
        self._put("lost", sections.lost(image, told))
        self._publish_metadata(told)

    def _publish_metadata(self, told: Told) -> None:
        image = self._source.image
        self._version += 1
        self._put("about", sections.about(image, told))
        if image.metadata_offset != self._metadata_offset:
            self._metadata_offset = image.metadata_offset
            self._put("topics", sections.topics(image))
            self._put("failovers", sections.failovers(image))
            self._put("events", sections.events(image))
        self._changed.set()
        self._changed = asyncio.Event()

    def _put(self, name: str, value: Any) -> None:
        data = b'"%b":%b' % (name.encode(), msgspec.json.encode(value))
        old = self._sections.get(name)
        if old is None or old.data != data:
            self._sections[name] = _Section(self._version, data)

    # --- for a watcher ----------------------------------------------------------------------------

    async def behind(self, version: int, work: asyncio.Task[None]) -> int:
        """Wait until there is a later version; returns it. Raises what has ended the work."""
        while self._version <= version or not self._sections:
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait((changed, work), return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
            if work.done():
                work.result()
        return self._version

    def changed_since(self, version: int) -> bytes:
        found = [section.data for section in self._sections.values() if section.version > version]
        return b"{" + b",".join(found) + b"}"


class Watcher:
    """``next`` gives what has changed since the last time: everything at first."""

    def __init__(self, live: Live, work: asyncio.Task[None]) -> None:
        self._live = live
        self._work = work
        self._version = -1

    async def next(self) -> bytes:
        seen, self._version = self._version, await self._live.behind(self._version, self._work)
        return self._live.changed_since(seen)
