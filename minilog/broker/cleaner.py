"""Runs compaction: one round at a time per broker, its reading and writing in a thread, at a
bounded pace.

Every ``retention_check_ms`` the logs are looked at on the loop (arithmetic over segments). Those
that are due are cleaned, the dirtiest first. Only the swap of a finished segment happens on the
loop: a few renames and one or two syncs of a directory. The files that retention and compaction
have taken out of a log are removed here as well, because freeing hundreds of megabytes can take a
file system a while.

A damaged segment ends the cleaning of its log until the log is opened anew, and the log is told of
it. A full disk ends the round.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from minilog.config import BrokerSettings
from minilog.errors import CorruptRange, DiskFull
from minilog.server.background import Stop, Stopped
from minilog.server.process import Failure
from minilog.storage.compaction.cleaning_round import Dirt, Round, is_due, survey
from minilog.storage.compaction.rewrite import CleaningFigures
from minilog.storage.directories import StoredPartition
from minilog.storage.disk import Disk
from minilog.storage.log.log import PartitionLog

log = logging.getLogger("minilog.broker")
PAUSE_SECONDS = 0.004
"""Pauses shorter than this are saved up: a thread that computes for longer would be felt by the
loop."""
T = TypeVar("T")


class CleanableStore(Protocol):
    def get(self, topic: str, partition: int) -> PartitionLog | None: ...

    def logs(self) -> Iterator[tuple[StoredPartition, PartitionLog]]: ...


class Pace:
    """Bytes a second, kept by sleeping; ends early, with Stopped, when told to."""

    def __init__(self, bytes_per_second: int, stop: Stop) -> None:
        self._bytes_per_second = bytes_per_second
        self._stop = stop
        self._due = 0.0

    def __call__(self, bytes_total: int) -> None:
        now = time.monotonic()
        self._due = max(self._due, now) + bytes_total / self._bytes_per_second
        pause = self._due - now
        self._stop.hold(pause if pause >= PAUSE_SECONDS else 0)


class Cleaner:
    def __init__(
        self,
        store: CleanableStore,
        settings: BrokerSettings,
        wall_ms: Callable[[], int | None],
        failure: Failure,
        figures: CleaningFigures,
        stop: Stop,
    ) -> None:
        """``wall_ms``: the time, None while it is not known for sure (R40). ``stop``: ``run``
        returns soon. A round under way is given up, and files not removed yet go at the next
        start."""
        self.figures = figures
        self._store = store
        self._settings = settings
        self._wall_ms = wall_ms
        self._failure = failure
        self._stop = stop
        self._pace = Pace(settings.cleaner_bytes_per_second, self._stop)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clean")
        self._damaged: dict[str, PartitionLog] = {}

    async def run(self) -> None:
        """Until the stop. The process stops when the disk fails."""
        try:
            while not await self._stop.pause(self._settings.retention_check_ms / 1000):
                await self.look()
        except Stopped:
            return
        except Exception as error:
            self._failure.trip(error)
        finally:
            self._stop.set()
            self._thread.shutdown(wait=False)  # nothing runs there any more

    async def look(self) -> int:
        """Clean what is due; returns how many logs were. Raises StorageFailed or Stopped."""
        cleaned = 0
        await self._remove_garbage()
        for name, due in sorted(self._due(), key=lambda found: -found[1][1].ratio):
            if not self._stop.is_set and self._is_present(name, due[0]):
                cleaned += await self._clean(name, due[0])
        if cleaned:
            await self._remove_garbage()
        return cleaned

    def _due(self) -> Iterator[tuple[tuple[str, int], tuple[PartitionLog, Dirt]]]:
        now_ms = self._wall_ms()
        for stored, found in self._store.logs():
            if found.settings.is_compacted and self._damaged.get(found.name) is not found:
                dirt = self._survey(found, now_ms)
                if dirt is not None and is_due(found, dirt, now_ms):
                    yield (stored.topic, stored.partition), (found, dirt)

    def _survey(self, found: PartitionLog, now_ms: int | None) -> Dirt | None:
        try:
            return survey(found, now_ms)
        except CorruptRange as error:
            self._on_damaged(found, error)
            return None

    def _on_damaged(self, found: PartitionLog, error: CorruptRange) -> None:
        """On the loop. The log knows it from here on, so the controller hears of it, and the next
        start does (R53)."""
        log.error("%s is not compacted any more: %s", found.name, error.detail)
        self._damaged[found.name] = found
        offset = int(error.info.get("start_offset", found.start_offset))
        if offset >= found.start_offset and not found.is_closed:
            found.note_damage_at(offset)

    def _is_present(self, name: tuple[str, int], found: PartitionLog) -> bool:
        """The log is still open: not deleted, nor closed and opened anew."""
        return self._store.get(*name) is found and not self._failure.tripped

    async def _clean(self, name: tuple[str, int], found: PartitionLog) -> bool:
        now_ms, started = self._wall_ms(), time.monotonic()
        dirt = self._survey(found, now_ms)
        if dirt is None:
            return False
        round_ = Round(found, dirt.end_offset, now_ms, self.figures, self._pace, self._settings.cleaner_map_bytes)
        try:
            for group in await self._in_thread(round_.prepare):
                written = await self._in_thread(partial(round_.clean, group))
                if round_.is_cancelled or not self._is_present(name, found):
                    return False
                if written and not round_.install(group):
                    return False
            return round_.complete()
        except DiskFull as error:
            log.warning("no room to compact %s-%d: %s", *name, error.detail)
        except CorruptRange as error:
            self._on_damaged(found, error)
        finally:
            self.figures.seconds += time.monotonic() - started
            await self._in_thread(round_.close)
        return False

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._stop.in_thread(work, self._thread)

    async def _remove_garbage(self) -> None:
        for _, found in list(self._store.logs()):
            if found.garbage and not self._stop.is_set:
                paths, found.garbage = found.garbage, []
                await self._in_thread(partial(self._remove, found.place.disk, paths))

    def _remove(self, disk: Disk, paths: Iterable[str]) -> None:
        for path in paths:
            if self._stop.is_set:
                return
            with suppress(FileNotFoundError):  # its topic has been deleted, or opened anew, meanwhile
                disk.remove(path)
