"""The only caller of ControllerCore: one event at a time (R24), in the order of ``EventQueue``.

    event -> decide -> journal append + fdatasync -> replay each record -> perform effects ->
    on_committed, until it wants no more records

Nothing is told to anybody before it is durable, and nothing is decided on a state older than the
last record. What the cluster says has the time of its receipt, so a slow disk makes no heartbeat
late, and what clients ask that of its turn. After a slice of time the loop goes on, so that what
comes meanwhile is read (R45).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, NoReturn, TypeVar

from minilog.config import ControllerSettings
from minilog.controller import latencies
from minilog.controller.journal import GivenUp, Journal
from minilog.controller.ports import Core, Decision
from minilog.controller.runtime_statistics import RuntimeStatistics
from minilog.core.controller.event_queue import EventQueue
from minilog.core.controller.shared.standbys import Standbys, controllers_of
from minilog.core.controller.shared.sureness import Sureness
from minilog.core.controller.told.failovers import phases
from minilog.core.effects import Effect, Flush, Reply, Send
from minilog.core.gate import SLICE_MS
from minilog.core.image import ClusterImage
from minilog.errors import BrokerUnavailable, MinilogError, NotController, Overloaded, RefusesToStart
from minilog.server import event_log
from minilog.server.background import Shared, Stop, in_daemon_thread
from minilog.server.clock import Clock
from minilog.server.inbound.parked_requests import ParkedRequests
from minilog.server.inbound.request_gate import CLIENT, no_turn
from minilog.server.loop_lag import LoopLag
from minilog.server.outbound.peer_credential import NOTHING_SHOWN, AsPeer
from minilog.server.outbound.peers import Peers, Response
from minilog.server.process import Failure
from minilog.server.turn_watch import TurnWatch
from minilog.wire.journal.events import WARNING, Event, EventKind, Facts
from minilog.wire.journal.metadata_records import BrokerRegistered, EventNoted, FailoverNoted, MetadataRecord
from minilog.wire.messages import (
    AlterPartition,
    DescribeCluster,
    DescribeClusterReply,
    Heartbeat,
    Message,
    Problem,
    Register,
    StandBy,
    StandByReply,
)

log = logging.getLogger("minilog.controller")
T = TypeVar("T")

TICK_MS = 20
SLOW_MS = 1000
"""So long an append may take before people are told of it."""
SLOW_TOLD_EVERY_S = 10.0
LATE_TICK_MS = 100
"""After a pause this long, requests that arrived meanwhile are read before time is seen to have
passed."""
TURNS_TO_READ = 10
HOLD_MS_MAX = 1000
QUEUED_MAX = 10_000
"""How many may wait beyond the limit of requests for those below: more than there are brokers."""
UNSURE = "this controller hears nothing of etcd, so another one may decide by now; look at its connection to etcd"
UNLIMITED = (Register, Heartbeat, AlterPartition)
"""Requests the cluster itself depends on. Each broker has at most one of a kind under way. All
others are clients', for whom brokers ask, or who ask themselves."""


class _Event(NamedTuple):
    handler: Callable[..., Decision]
    arguments: tuple[Any, ...]
    received_ms: int | None
    """None: a client's."""


class Runtime:
    def __init__(
        self,
        core: Core,
        journal: Journal,
        settings: ControllerSettings,
        clock: Clock,
        failure: Failure,
        tasks: asyncio.TaskGroup,
        as_peer: AsPeer = NOTHING_SHOWN,
    ) -> None:
        self.core = core
        self.settings = settings
        self.clock = clock
        self.failure = failure
        self.peers = Peers(tasks, settings.peer_timeout_ms, as_peer=as_peer)
        self.started = False
        self.standing_by: Callable[[], NotController] | None = None
        """What is answered while another controller decides."""
        self.sureness: Sureness | None = None
        """Where there are several: whether this one still decides."""
        self.nonce = ""
        """Of the term under which this one of several decides."""
        self.url = ""
        self.standbys = Standbys()
        self.end_index = 0
        """Where the shared journal ends, as this standby has last seen."""
        self.append_latency = latencies.of_appends()
        self.failover_duration = latencies.of_failovers()
        self._journal = journal
        self._use = Shared(journal.close)
        self._journal_thread = ThreadPoolExecutor(1, "journal")
        """Its own, so that no append ever waits for something else to leave a shared one."""
        self._loop = asyncio.get_running_loop()
        self._events: EventQueue[_Event] = EventQueue(settings.limits.turn_wait_ms_max)
        self._refused = 0
        self._wake = asyncio.Event()
        self._writing = Stop()
        self._parked = ParkedRequests()
        self._tick_queued = False
        self.turn_watch = TurnWatch(self._on_long_turn)
        self._slow_told_s = 0.0
        self._tail_records_max = settings.snapshot_records
        """A longer journal is replaced by a snapshot. One that found no room is tried again when
        there are as many records more: an attempt takes all the room there is while it lasts."""
        self._closed = False
        self._decisions = 0
        self._loop_lag = LoopLag()

    @property
    def image(self) -> ClusterImage:
        return self.core.image

    @property
    def decides(self) -> bool:
        """As far as it knows. Where another one may decide by now, nobody is told anything
        (R124)."""
        return self.standing_by is None and (self.sureness is None or self.sureness.is_sure(self.clock.now_ms()))

    async def start(self) -> None:
        """Replay the journal and open a new term. Raises RefusesToStart and StorageFailed.

        Must return before requests come in."""
        replayed = await in_daemon_thread(self._journal.open, "replay", self._use)
        if replayed.snapshot_index:
            self.core.load(replayed.snapshot_index, replayed.snapshot)
        for index, record in enumerate(replayed.tail, replayed.snapshot_index + 1):
            self.core.replay(index, record)
        await self.begin()

    async def begin(self) -> None:
        """Open a new term, with all of the journal replayed."""
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
        queued = self._put_request(request_id, request)

        def on_left(request_id: int) -> None:
            left = _Event(self.core.on_disconnect, (request_id,), self.clock.now_ms())
            if isinstance(request, Heartbeat) or not self._events.replace(queued, left):
                self._put(left.handler, *left.arguments)

        reply = await self._parked.wait(request_id, answered, on_left)
        if isinstance(reply, DescribeClusterReply) and self.nonce:
            reply.controllers = controllers_of(self.url, reply.metadata_offset, self.standbys, self.clock.now_ms())
        return reply

    async def hold(self, standby: StandBy) -> Message:
        """For as long as it asks for: the end of this process shows as the end of the
        connection."""
        if self.standing_by is not None:
            return Problem.of(self.standing_by())
        now_ms = self.clock.now_ms()
        self.standbys.hear(standby, now_ms)
        if self.sureness is not None and standby.nonce == self.nonce:
            self.sureness.on_standby(standby.looked_ms_ago, now_ms)
        await asyncio.sleep(min(standby.wait_ms, HOLD_MS_MAX) / 1000)
        return StandByReply(self.nonce, self.image.controller_epoch, self.core.metadata_offset)

    def own_view(self) -> Message:
        """What this process knows by itself: of a standby what it has replayed."""
        effects = self.core.handle(0, DescribeCluster(), self.clock.now_ms()).effects
        return next(effect.response for effect in effects if isinstance(effect, Reply))

    def end(self, why: Exception) -> None:
        """Another controller decides, or the process cannot go on."""
        self.failure.trip(why)
        self.close()

    async def work(self) -> None:
        """Carry out events, one after the other, until ``close``: then what is being carried out is
        finished first."""
        while not self._closed:
            ends_s = self._loop.time() + SLICE_MS / 1000
            while self._events:
                event = self._events.pop()
                if event.handler == self.core.tick:
                    self._tick_queued = False
                await self._decide(event)
                if self._loop.time() >= ends_s:
                    await asyncio.sleep(0)
                    ends_s = self._loop.time() + SLICE_MS / 1000
            self._wake.clear()
            if not self._closed:
                await self._wake.wait()

    async def tick(self) -> NoReturn:
        """Queue a tick every TICK_MS unless one is queued."""
        due = self._loop.time()
        while True:
            due += TICK_MS / 1000
            await asyncio.sleep(due - self._loop.time())
            now_s = self._loop.time()
            late_s = max(0.0, now_s - due)
            self._loop_lag.observe(late_s, now_s)
            self.turn_watch.ticks.observe(late_s)
            if late_s > LATE_TICK_MS / 1000:
                log.warning("the event loop stood still for %d ms", late_s * 1000)
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
        self._journal.give_up()
        self.peers.close()
        self._parked.resolve_all(Problem.of(BrokerUnavailable("this controller is stopping")))

    def close_journal(self) -> None:
        """After the last event: a write that is under way ends first, in this thread's time. A
        replay that is under way closes the journal at its end."""
        self._journal_thread.shutdown()
        self._use.done()

    def statistics(self) -> RuntimeStatistics:
        return RuntimeStatistics(
            parked=len(self._parked),
            queued=len(self._events),
            refused=self._refused,
            decisions=self._decisions,
            journal_index=self._journal.last_index,
            journal_tail_records=self._journal.tail_records,
            disconnects=self._parked.disconnects,
            loop_lag_seconds=self._loop_lag.recent_s(self._loop.time()),
            loop_lag_seconds_max=self._loop_lag.worst_s,
        )

    # --- events -----------------------------------------------------------------------------------

    def _put(self, handler: Callable[..., Decision], *arguments: Any) -> int:
        """Queue an event of the cluster's. The number it is known by for as long as it waits."""
        if self._closed or self.failure.tripped:
            return 0
        self._wake.set()
        return self._events.put(_Event(handler, arguments, self.clock.now_ms()))

    def _put_request(self, request_id: int, request: Message) -> int:
        """As ``_put``. A client's may be refused."""
        if isinstance(request, UNLIMITED):
            return self._put(self.core.handle, request_id, request)
        now_ms, kind = self.clock.now_ms(), type(request).__name__
        event = _Event(self.core.handle, (request_id, request), None)
        queued = self._events.put_client(event, (CLIENT.get(), kind), now_ms)
        if queued is None:
            self._refused += 1
            refusal = no_turn(kind, self.settings.limits.turn_wait_ms_max)
            self._parked.resolve(request_id, Problem.of(refusal))
            return 0
        self._wake.set()
        return queued

    async def _decide(self, event: _Event) -> None:
        try:
            self._decisions += 1
            self.core.wall_ahead_ms = self.clock.offset_ms
            began_s = time.monotonic()
            decision = event.handler(*event.arguments, event.received_ms or self.clock.now_ms())
            self.turn_watch.on_turn(event.handler, event.arguments, began_s, time.monotonic())
            await self._carry_out(decision)
        except GivenUp:
            assert self._closed, "a write is given up because the process ends"
        except Exception as error:
            self.end(error)

    async def _carry_out(self, decision: Decision) -> None:
        """What follows a decision happens, and has its time, from when that one is durable on."""
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
        started = time.monotonic()
        first = self.core.metadata_offset + 1
        last = await self._writing.in_thread(lambda: self._journal.append(records), self._journal_thread)
        self._on_appended(time.monotonic() - started)
        assert last == first + len(records) - 1, f"the journal ends at {last}, not at {first + len(records) - 1}"
        for index, record in enumerate(records, first):
            self._tell(record)
            self.core.replay(index, record)
        self.peers.expect(record.url for record in records if isinstance(record, BrokerRegistered))

    def _on_appended(self, took_s: float) -> None:
        """A slow journal is told of, at most now and then: what tells of it is written there,
        too."""
        self.append_latency.observe(took_s)
        if took_s * 1000 >= SLOW_MS and self._loop.time() >= self._slow_told_s:
            self._slow_told_s = self._loop.time() + SLOW_TOLD_EVERY_S
            sentence = (
                f"the controller's journal took {took_s * 1000:.0f} ms to be written: elections and other decisions wait "
                f"for it; look at {self._journal.place}"
            )
            facts: Facts = {"took_ms": int(took_s * 1000)}
            self.core.own_events.add(
                Event(self.clock.wall_ms(), EventKind.JOURNAL_SLOW, WARNING, sentence, facts=facts)
            )

    def _on_long_turn(self, sentence: str) -> None:
        sentence = f"the controller held up everybody: {sentence}"
        self.core.own_events.add(Event(self.clock.wall_ms(), EventKind.LONG_TURN, WARNING, sentence))

    def _tell(self, record: MetadataRecord) -> None:
        """What is noted for people, before the image knows."""
        if isinstance(record, EventNoted):
            event_log.write(record.event)
        elif isinstance(record, FailoverNoted):
            known = (info for info in self.image.failovers if info.number == record.info.number)
            for phase, seconds in phases(next(known, None), record.info):
                self.failover_duration.labels(phase).observe(seconds)

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

    def _refusal(self, request: Message) -> BrokerUnavailable | NotController | Overloaded | None:
        if self._closed or self.failure.tripped:
            return BrokerUnavailable("this controller is stopping", definite=True)
        if self.standing_by is not None:
            return self.standing_by()
        if not self.decides:
            log.warning(UNSURE)
            return NotController(UNSURE, standby=True)
        limit = self.settings.limits.parked_requests_max
        waiting = max(len(self._parked), len(self._events))
        if waiting >= (limit + QUEUED_MAX if isinstance(request, UNLIMITED) else limit):
            return Overloaded(f"{waiting} requests already wait here (limits.parked_requests_max); retry later")
        return None

    def _url_of(self, node_id: int) -> str | None:
        broker = self.image.brokers.get(node_id)
        return None if broker is None else broker.url
