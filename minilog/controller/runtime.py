"""The only caller of ControllerCore: one event at a time, in the order of receipt (R24).

    event -> decide -> journal append + fdatasync -> replay each record -> perform effects ->
    on_committed, until it wants no more records

Nothing is told to anybody before it is durable, and nothing is decided on a state older than the
last record. Each event carries the time it was received, so that a slow disk makes no heartbeat
late.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar

import msgspec
from prometheus_client import Histogram

from minilog.config import ControllerSettings
from minilog.controller.journal import Journal
from minilog.core.effects import Effect, Flush, Reply, Send
from minilog.core.image import ClusterImage
from minilog.errors import BrokerUnavailable, MinilogError, Overloaded, RefusesToStart
from minilog.server.background import Stop, in_daemon_thread
from minilog.server.clock import Clock
from minilog.server.latency import DISK_BUCKETS_S
from minilog.server.parked_requests import ParkedRequests
from minilog.server.peers import Peers, Response
from minilog.server.process import Failure
from minilog.wire.messages import AlterPartition, Heartbeat, Message, Problem, Register
from minilog.wire.metadata_records import BrokerRegistered, MetadataRecord

log = logging.getLogger("minilog.controller")
T = TypeVar("T")

TICK_MS = 20
LATE_TICK_MS = 100
"""After a pause this long, requests that arrived meanwhile are read before time is seen to have
passed."""
TURNS_TO_READ = 10
QUEUED_MAX = 10_000
"""How many may wait beyond the limit of requests for those below: more than there are brokers."""
UNLIMITED = (Register, Heartbeat, AlterPartition)
"""Requests the cluster itself depends on. Each broker has at most one of a kind under way."""


class Decision(Protocol):
    @property
    def records(self) -> Sequence[MetadataRecord]: ...

    @property
    def effects(self) -> Sequence[Effect]: ...


class Core(Protocol):
    """What the runtime asks of a ControllerCore."""

    wall_ahead_ms: int

    @property
    def image(self) -> ClusterImage: ...

    @property
    def metadata_offset(self) -> int: ...

    def load(self, metadata_offset: int, records: Iterable[MetadataRecord]) -> None: ...

    def replay(self, index: int, record: MetadataRecord) -> None: ...

    def start(self, now_ms: int) -> Decision: ...

    def handle(self, request_id: int, request: Message, now_ms: int) -> Decision: ...

    def on_response(self, node_id: int, request: Message, response: Response, now_ms: int) -> Decision: ...

    def on_disconnect(self, request_id: int, now_ms: int) -> Decision: ...

    def tick(self, now_ms: int) -> Decision: ...

    def on_committed(self, now_ms: int) -> Decision: ...

    def snapshot(self) -> list[MetadataRecord]: ...


class _Event(NamedTuple):
    handler: Callable[..., Decision]
    arguments: tuple[Any, ...]
    received_ms: int


class RuntimeStatistics(msgspec.Struct, frozen=True):
    parked: int
    queued: int
    decisions: int
    journal_index: int
    journal_tail_records: int
    disconnects: int
    loop_lag_seconds: float


class Runtime:
    def __init__(
        self,
        core: Core,
        journal: Journal,
        settings: ControllerSettings,
        clock: Clock,
        failure: Failure,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.core = core
        self.settings = settings
        self.clock = clock
        self.failure = failure
        self.peers = Peers(tasks, settings.peer_timeout_ms)
        self.started = False
        self.append_latency = Histogram(
            "minilog_journal_append_seconds",
            "Time to append to the journal and make it durable, thread hand-over included.",
            buckets=DISK_BUCKETS_S,
            registry=None,
        )
        self._journal = journal
        self._journal_thread = ThreadPoolExecutor(1, "journal")
        """Its own, so that no append ever waits for something else to leave a shared one."""
        self._loop = asyncio.get_running_loop()
        self._events: OrderedDict[int, _Event] = OrderedDict()
        """By a number of their own, in the order of receipt."""
        self._next_event = 0
        self._wake = asyncio.Event()
        self._writing = Stop()
        self._parked = ParkedRequests()
        self._tick_queued = False
        self._tail_records_max = settings.snapshot_records
        """A longer journal is replaced by a snapshot. One that found no room is tried again when
        there are as many records more: an attempt takes all the room there is while it lasts."""
        self._closed = False
        self._decisions = 0
        self._lag_seconds = 0.0

    @property
    def image(self) -> ClusterImage:
        return self.core.image

    async def start(self) -> None:
        """Replay the journal and open a new term. Raises RefusesToStart and StorageFailed.

        Must return before requests come in."""
        replayed = await in_daemon_thread(self._journal.open, "replay")
        if replayed.snapshot_index:
            self.core.load(replayed.snapshot_index, replayed.snapshot)
        for index, record in enumerate(replayed.tail, replayed.snapshot_index + 1):
            self.core.replay(index, record)
        assert self.core.metadata_offset == self._journal.last_index, "replaying must reach the end of the journal"
        self.peers.expect(broker.url for broker in self.image.brokers.values())
        now_ms = self.clock.now_ms()
        try:
            decision = self.core.start(now_ms)
        except MinilogError as error:
            raise RefusesToStart(error.detail) from error
        await self._carry_out(decision)
        self.started = True

    async def submit(self, request: Message) -> Message:
        """The answer to one request. A Problem when it failed. Never raises but for cancellation.

        Cancelling the caller (its connection dropped) is an event of its own: for a heartbeat it is
        news. Another request that was not begun goes, with all it holds: with a slow journal such
        ones would pile up, to be written down for nobody.
        """
        refusal = self._refusal(request)
        if refusal is not None:
            return Problem.of(refusal)
        request_id, answered = self._parked.park()
        queued = self._put(self.core.handle, request_id, request)

        def on_left(request_id: int) -> None:
            if queued in self._events and not isinstance(request, Heartbeat):
                self._events[queued] = _Event(self.core.on_disconnect, (request_id,), self.clock.now_ms())
            else:
                self._put(self.core.on_disconnect, request_id)

        return await self._parked.wait(request_id, answered, on_left)

    async def work(self) -> None:
        """Carry out events, one after the other, until ``close``: then what is being carried out is
        finished first."""
        while not self._closed:
            while self._events:
                _, event = self._events.popitem(last=False)
                if event.handler == self.core.tick:
                    self._tick_queued = False
                await self._decide(event)
            self._wake.clear()
            if not self._closed:
                await self._wake.wait()

    async def tick(self) -> NoReturn:
        """Queue a tick every TICK_MS unless one is queued."""
        due = self._loop.time()
        while True:
            due += TICK_MS / 1000
            await asyncio.sleep(due - self._loop.time())
            self._lag_seconds = max(0.0, self._loop.time() - due)
            if self._lag_seconds > LATE_TICK_MS / 1000:
                log.warning("the event loop stood still for %d ms", self._lag_seconds * 1000)
                for _ in range(TURNS_TO_READ):
                    await asyncio.sleep(0)
            if not self._tick_queued:
                self._tick_queued = True
                self._put(self.core.tick)
            due = max(due, self._loop.time() - TICK_MS / 1000)

    def close(self) -> None:
        """No more events. Whoever still waits hears that this process went away."""
        self._closed = True
        self._events.clear()
        self._wake.set()
        self.peers.close()
        self._parked.resolve_all(Problem.of(BrokerUnavailable("this controller is stopping")))

    def close_journal(self) -> None:
        """After the last event: a write that is under way ends first, in this thread's time."""
        self._journal_thread.shutdown()
        self._journal.close()

    def statistics(self) -> RuntimeStatistics:
        return RuntimeStatistics(
            parked=len(self._parked),
            queued=len(self._events),
            decisions=self._decisions,
            journal_index=self._journal.last_index,
            journal_tail_records=self._journal.tail_records,
            disconnects=self._parked.disconnects,
            loop_lag_seconds=self._lag_seconds,
        )

    # --- events -----------------------------------------------------------------------------------

    def _put(self, handler: Callable[..., Decision], *arguments: Any) -> int:
        """Queue an event. The number it is known by for as long as it waits."""
        self._next_event += 1
        if not (self._closed or self.failure.tripped):
            self._events[self._next_event] = _Event(handler, arguments, self.clock.now_ms())
            self._wake.set()
        return self._next_event

    async def _decide(self, event: _Event) -> None:
        try:
            self._decisions += 1
            self.core.wall_ahead_ms = self.clock.offset_ms
            await self._carry_out(event.handler(*event.arguments, event.received_ms))
        except Exception as error:
            self.failure.trip(error)
            self.close()

    async def _carry_out(self, decision: Decision) -> None:
        """What follows a decision happens when that one is durable: what begins then has its time
        from then on."""
        while decision.records:
            await self._commit(decision.records)
            self._perform(decision.effects)
            decision = self.core.on_committed(self.clock.now_ms())
        self._perform(decision.effects)
        if self._journal.tail_records > self._tail_records_max:
            await self._snapshot()

    async def _snapshot(self) -> None:
        index = self.core.metadata_offset
        records = self.core.snapshot()
        await self._writing.in_thread(lambda: self._journal.snapshot(index, records), self._journal_thread)
        self._tail_records_max = self._journal.tail_records + self.settings.snapshot_records

    async def _commit(self, records: Sequence[MetadataRecord]) -> None:
        started = self._loop.time()
        first = self.core.metadata_offset + 1
        last = await self._writing.in_thread(lambda: self._journal.append(records), self._journal_thread)
        self.append_latency.observe(self._loop.time() - started)
        assert last == first + len(records) - 1, f"the journal ends at {last}, not at {first + len(records) - 1}"
        for index, record in enumerate(records, first):
            self.core.replay(index, record)
        self.peers.expect(record.url for record in records if isinstance(record, BrokerRegistered))

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Reply(request_id, response):
                    self._parked.resolve(request_id, response)
                case Send(node_id, request):
                    self.peers.send(
                        node_id, self._url_of(node_id), request, partial(self._on_response, node_id, request)
                    )
                case Flush():
                    raise AssertionError("a controller has no partitions to flush")

    def _on_response(self, node_id: int, request: Message, response: Response) -> None:
        self._put(self.core.on_response, node_id, request, response)

    def _refusal(self, request: Message) -> BrokerUnavailable | Overloaded | None:
        if self._closed or self.failure.tripped:
            return BrokerUnavailable("this controller is stopping", definite=True)
        limit = self.settings.limits.parked_requests_max
        waiting = max(len(self._parked), len(self._events))
        if waiting >= (limit + QUEUED_MAX if isinstance(request, UNLIMITED) else limit):
            return Overloaded(f"{waiting} requests already wait here (limits.parked_requests_max); retry later")
        return None

    def _url_of(self, node_id: int) -> str | None:
        broker = self.image.brokers.get(node_id)
        return None if broker is None else broker.url
