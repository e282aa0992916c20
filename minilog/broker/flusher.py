"""Performs Flush: fdatasync in a thread, one job in flight per log, requests meanwhile merged into
the next one.

Merging is group commit: however many appends arrive while a job runs, one more job makes them all
durable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import msgspec
from prometheus_client import Histogram

from minilog.server.latency import DISK_BUCKETS_S
from minilog.server.process import Failure
from minilog.wire.topic_partition import TopicPartition

THREADS = 4


class FlushableLog(Protocol):
    @property
    def durable_end(self) -> int: ...

    def flush_job(self) -> Any:
        """An object whose ``run()`` may be called in a thread and raises ``StorageFailed``."""
        ...

    def complete(self, job: Any) -> bool: ...


class FlushableStore(Protocol):
    def get(self, topic: str, partition: int) -> FlushableLog | None: ...


class FlushStatistics(msgspec.Struct, frozen=True):
    requests: int
    flushes: int
    in_flight: int


class _Flight(msgspec.Struct):
    """``wanted_end`` is the furthest end asked for since ``job`` was made."""

    log: FlushableLog
    job: Any
    started: float
    wanted_end: int = 0


class Flusher:
    def __init__(self, store: FlushableStore, failure: Failure, on_flushed: Callable[[TopicPartition], None]) -> None:
        """``on_flushed`` runs on the loop after every job, never from inside ``request``."""
        self._store = store
        self._failure = failure
        self._on_flushed = on_flushed
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="flush")
        self._flights: dict[TopicPartition, _Flight] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._requests = 0
        self._flushes = 0
        self.latency = Histogram(
            "minilog_flush_latency_seconds",
            "Time from starting a flush to knowing its outcome, thread hand-over included.",
            buckets=DISK_BUCKETS_S,
            registry=None,
        )

    def request(self, partition: TopicPartition, end_offset: int) -> None:
        """Start a flush, or let the flush that follows the one in flight cover ``end_offset``."""
        self._requests += 1
        flight = self._flights.get(partition)
        if flight is None:
            self._start(partition)
        else:
            flight.wanted_end = max(flight.wanted_end, end_offset)

    def oldest_ms(self) -> int:
        """For how long the oldest job under way has run; 0 for none."""
        if not self._flights:
            return 0
        return int((time.monotonic() - min(flight.started for flight in self._flights.values())) * 1000)

    def statistics(self) -> FlushStatistics:
        return FlushStatistics(self._requests, self._flushes, len(self._flights))

    async def drain(self) -> None:
        """Return once no job is in flight."""
        await self._idle.wait()

    def close(self) -> None:
        """Start no more jobs. One that runs is not waited for: ``drain`` before, unless the process
        fails."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self, partition: TopicPartition) -> None:
        log = self._store.get(*partition)
        if log is None or self._closed or self._failure.tripped:  # deleted after the core asked: nothing is left to do
            self._forget(partition)
            return
        flight = _Flight(log, log.flush_job(), time.monotonic())
        self._flights[partition] = flight
        self._idle.clear()
        running = self._loop.run_in_executor(self._threads, flight.job.run)
        running.add_done_callback(lambda done: self._finish(partition, flight, done))

    def _finish(self, partition: TopicPartition, flight: _Flight, done: asyncio.Future[None]) -> None:
        self._flushes += 1
        self.latency.observe(time.monotonic() - flight.started)
        try:
            done.result()
            if not self._failure.tripped:
                flight.log.complete(flight.job)
        except asyncio.CancelledError:
            self._forget(partition)
            return
        except Exception as error:
            self._failure.trip(error)
        log = self._store.get(*partition)  # asked anew: the topic may have been deleted and made again meanwhile
        if log is not None and flight.wanted_end > log.durable_end:
            self._start(partition)  # before the turn, so that the disk works while the core does
        else:
            self._forget(partition)
        if not self._failure.tripped:
            self._on_flushed(partition)

    def _forget(self, partition: TopicPartition) -> None:
        self._flights.pop(partition, None)
        if not self._flights:
            self._idle.set()
