"""The only caller of BrokerCore. One turn = one event in, the core's effects out, performed in
order.

A turn never awaits, so no two turns interleave. Every exception that escapes one stops the process.
A request is one entry in ``_parked`` and one Future, resolved exactly once: by the core's Reply, by
its own time limit, by its client going away, or by the end of this process (R34).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn, Protocol

from minilog.broker.flusher import FlushableStore, Flusher
from minilog.broker.metadata_saver import MetadataSaver
from minilog.broker.offset_parts import AT_ONCE, find_in_parts
from minilog.broker.request_kinds import KINDS, UNLIMITED, crowded, kind_of
from minilog.broker.runtime_statistics import RuntimeStatistics
from minilog.config import BrokerSettings
from minilog.core.broker.requests.allowance import Inspected, inspect, inspect_briefly
from minilog.core.broker.statistics import BrokerStatistics, PartitionStatistics
from minilog.core.effects import CONTROLLER_ID, Effect, Flush, GoOn, Reply, SaveMetadata, Send
from minilog.core.image import ClusterImage
from minilog.core.shares import Shares
from minilog.errors import BrokerUnavailable, Overloaded, TimedOut
from minilog.server import event_log
from minilog.server.clock import Clock
from minilog.server.inbound.parked_requests import ParkedRequests
from minilog.server.inbound.request_gate import CLIENT, RequestGate
from minilog.server.loop_lag import LoopLag
from minilog.server.outbound.peer_credential import NOTHING_SHOWN, AsPeer
from minilog.server.outbound.peers import Peers, Response
from minilog.server.process import Failure
from minilog.server.turn_watch import TurnWatch
from minilog.storage.aside.lost_tails import LostTails
from minilog.storage.compaction.rewrite import CleaningFigures
from minilog.wire.journal.events import ERROR, INFO, WARNING, Event, EventKind
from minilog.wire.journal.metadata_copy import BrokerCopy, MetadataCopy
from minilog.wire.messages import Message, Offsets, Problem, Produce
from minilog.wire.topic_partition import TopicPartition

TICK_MS = 20
STOPPING = "this broker is stopping; ask another one"


class Core(Protocol):
    """What the runtime asks of a BrokerCore."""

    wall_ahead_ms: int
    flush_age_ms: int

    def is_disk_slow(self, now_ms: int) -> bool: ...

    @property
    def image(self) -> ClusterImage: ...

    @property
    def may_exit(self) -> bool: ...

    @property
    def ready(self) -> bool: ...

    @property
    def informed(self) -> bool: ...

    @property
    def admitted(self) -> bool: ...

    def statistics(self, now_ms: int) -> BrokerStatistics: ...

    def hosted(self) -> list[TopicPartition]: ...

    def replica_statistics(self, partitions: Sequence[TopicPartition], now_ms: int) -> list[PartitionStatistics]: ...

    def metadata_copy(self) -> BrokerCopy: ...

    def controller_heard_ms_ago(self, now_ms: int) -> int | None: ...

    def sure_wall_ms(self, now_ms: int) -> int | None: ...

    def note(self, event: Event) -> None: ...

    def take_events(self) -> list[Event]: ...

    @property
    def broker_epoch(self) -> int: ...

    @property
    def controller_url(self) -> str: ...

    def on_request(self, request_id: int, request: Message | Inspected, now_ms: int) -> list[Effect]: ...

    def on_response(self, node_id: int, request: Message, response: Response, now_ms: int) -> list[Effect]: ...

    def on_flushed(self, partition: TopicPartition, now_ms: int) -> list[Effect]: ...

    def on_disconnect(self, request_id: int, now_ms: int) -> list[Effect]: ...

    def on_metadata_saved(self, copy: MetadataCopy | None, now_ms: int) -> list[Effect]: ...

    def go_on(self, now_ms: int) -> list[Effect]: ...

    def tick(self, now_ms: int) -> list[Effect]: ...

    def begin_shutdown(self, now_ms: int) -> list[Effect]: ...


class Store(FlushableStore, Protocol):
    @property
    def tails(self) -> LostTails: ...

    def save_metadata(self, copy: MetadataCopy) -> None:
        """Raises DiskFull or StorageFailed."""
        ...


class Runtime:
    def __init__(
        self,
        core: Core,
        store: Store,
        settings: BrokerSettings,
        clock: Clock,
        failure: Failure,
        tasks: asyncio.TaskGroup,
        as_peer: AsPeer = NOTHING_SHOWN,
    ) -> None:
        self.core = core
        self.settings = settings
        self.clock = clock
        self.failure = failure
        self.tails = store.tails
        self.admitted = asyncio.Event()
        self.may_exit = asyncio.Event()
        self.metadata_changed = asyncio.Event()
        """Set, and another one from then on, when there is news in the image."""
        self.peers = Peers(
            tasks, settings.peer_timeout_ms, settings.heartbeat_interval_ms, settings.controller_patience_ms, as_peer
        )
        self.flusher = Flusher(store, failure, self._on_flushed)
        self.cleaning = CleaningFigures()
        self.saver = MetadataSaver(store.save_metadata, failure, self._on_metadata_saved)
        self._loop = asyncio.get_running_loop()
        self._parked = ParkedRequests()
        self._waiting = {kind: Shares(settings.limits.parked_requests_max) for kind in KINDS}
        self._gate = RequestGate(settings.limits.turn_wait_ms_max)
        self._looks = ThreadPoolExecutor(1, thread_name_prefix="looks")
        self._calls: set[asyncio.Task[Message]] = set()
        self._in_turn = False
        self.turn_watch = TurnWatch(self._on_long_turn)
        self._closed = False
        self._metadata_offset = 0
        self._turns = 0
        self._loop_lag = LoopLag()

    @property
    def image(self) -> ClusterImage:
        return self.core.image

    def metadata_copy(self) -> BrokerCopy:
        return self.core.metadata_copy()

    @property
    def ready(self) -> bool:
        """Registered, caught up with the metadata, and not stopping."""
        return self.core.ready and not self._closed and not self.failure.tripped

    async def submit(self, request: Message, timeout_ms: int | None = None) -> Message:
        """The answer to one request. A Problem when it failed. Never raises but for cancellation.

        Cancelling the caller (its client went away) tells the core to forget the request. A produce
        that takes long to look into is looked into in a thread before its turn (R41), one at a
        time.
        """
        if isinstance(request, Offsets) and AT_ONCE < len(request.partitions) <= self.settings.limits.partitions_max:
            return await find_in_parts(self.submit, request)
        kind = kind_of(request)
        refusal = self._refusal(request, kind) or await self._turn_of(request, kind)
        event: Message | Inspected = request
        if refusal is None and isinstance(request, Produce):
            looked = inspect_briefly(request)
            if looked is None:
                looked = await self._loop.run_in_executor(self._looks, inspect, request)
                refusal = self._refusal(request, kind)
            event = looked
        if refusal is not None:
            return Problem.of(refusal)
        request_id, answered = self._parked.park()
        self._turn(self.core.on_request, request_id, event)
        if answered.done():
            return answered.result()
        timer = None
        if timeout_ms is not None:
            timer = self._loop.call_later(timeout_ms / 1000, self._expire, request_id, timeout_ms)
        shares, client = self._waiting[kind], CLIENT.get()
        shares.take(client)
        try:
            return await self._parked.wait(request_id, answered, self._on_left)
        finally:
            shares.give_back(client)
            if timer is not None:
                timer.cancel()

    async def _turn_of(self, request: Message, kind: str) -> BrokerUnavailable | Overloaded | None:
        """Wait until this round of the loop, or a later one, has time for the request (R45). Why it
        is refused instead, or None. The coordinator hears whom it refuses, so groups have no gate
        (R87)."""
        if kind == "group" or isinstance(request, UNLIMITED):
            return None
        try:
            turn = self._gate.knock(kind)
        except Overloaded as error:
            return error
        if turn is None:
            return None
        await turn
        return self._refusal(request, kind)

    @property
    def controller_url(self) -> str:
        return self.core.controller_url

    async def call(self, url: str, request: Message, timeout_ms: int) -> Message:
        """Forward a request to the controller or another broker. A Problem when it failed there or
        on the way."""
        if self._closed:
            return Problem.of(BrokerUnavailable(STOPPING, definite=True))
        calling = self._loop.create_task(self.peers.call(url, request, timeout_ms))
        self._calls.add(calling)
        try:
            await asyncio.wait([calling])
        except asyncio.CancelledError:
            calling.cancel()
            raise
        finally:
            self._calls.discard(calling)
        return Problem.of(BrokerUnavailable(STOPPING)) if calling.cancelled() else calling.result()

    async def tick(self) -> NoReturn:
        """Turn the core's clock every TICK_MS. A late tick is measured and never made up for."""
        due = self._loop.time()
        while True:
            due += TICK_MS / 1000
            await asyncio.sleep(due - self._loop.time())
            now_s = self._loop.time()
            late_s = max(0.0, now_s - due)
            self._loop_lag.observe(late_s, now_s)
            self.turn_watch.ticks.observe(late_s)
            self.core.flush_age_ms = self.flusher.oldest_ms()
            self._turn(self.core.tick)
            due = max(due, self._loop.time() - TICK_MS / 1000)

    def sure_wall_ms(self) -> int | None:
        """The time, None while this clock is not the controller's (R40)."""
        now_ms = self.clock.now_ms()
        self.core.wall_ahead_ms = self.clock.wall_ms() - now_ms
        return self.core.sure_wall_ms(now_ms)

    def begin_shutdown(self) -> None:
        self._turn(self.core.begin_shutdown)

    def close(self) -> None:
        """No more turns. Whoever still waits hears that this process went away, which proves
        nothing about a write."""
        self._closed = True
        for calling in self._calls:
            calling.cancel()
        self.peers.close()
        self._looks.shutdown(wait=False)
        self._parked.resolve_all(Problem.of(BrokerUnavailable(STOPPING)))

    def statistics(self) -> RuntimeStatistics:
        return RuntimeStatistics(
            waiting={kind: shares.total for kind, shares in self._waiting.items()},
            turns=self._turns,
            requests=self._parked.total,
            replies_unclaimed=self._parked.unclaimed,
            disconnects=self._parked.disconnects,
            loop_lag_seconds=self._loop_lag.recent_s(self._loop.time()),
            loop_lag_seconds_max=self._loop_lag.worst_s,
            turn_watch=self.turn_watch,
            turns_awaited=self._gate.waiting,
            turns_refused=self._gate.refused,
            flush=self.flusher.statistics(),
            flush_oldest_ms=self.flusher.oldest_ms(),
            cleaning=self.cleaning,
        )

    # --- turns ------------------------------------------------------------------------------------

    def _turn(self, handler: Callable[..., list[Effect]], *event: Any) -> None:
        if self._closed or self.failure.tripped:
            return
        assert not self._in_turn, "a turn within a turn"
        self._in_turn = True
        self._turns += 1
        now_ms = self.clock.now_ms()
        self.core.wall_ahead_ms = self.clock.wall_ms() - now_ms
        began_s = time.monotonic()
        try:
            for effect in handler(*event, now_ms):
                self._perform(effect)
            if self.core.admitted:
                self.admitted.set()
            self._look_at_metadata()
            for seen in self.core.take_events():
                event_log.write(seen)
            if self.core.may_exit:
                self.may_exit.set()
        except Exception as error:
            self.failure.trip(error)
            self.close()
        finally:
            self._in_turn = False
            self.turn_watch.on_turn(handler, event, began_s, time.monotonic())

    def _look_at_metadata(self) -> None:
        """The brokers the metadata has told of since the last look will be connected to sooner or
        later."""
        image, seen = self.core.image, self._metadata_offset
        if image.metadata_offset != seen:
            self._metadata_offset = image.metadata_offset
            self.metadata_changed.set()
            self.metadata_changed = asyncio.Event()
            self._log_events(max(seen, self.core.broker_epoch))
            self.peers.expect(broker.url for broker in image.brokers.values() if broker.epoch > seen)

    def _log_events(self, after: int) -> None:
        """What the controller has noted of this broker while this process is registered."""
        for noted in reversed(self.core.image.events):
            if noted.number <= after:
                break
            if not noted.source and noted.event.broker_id == self.settings.broker_id:
                event_log.write(noted.event)

    def _on_long_turn(self, sentence: str) -> None:
        broker_id = self.settings.broker_id
        sentence = f"broker {broker_id} held up everybody: {sentence}"
        self.core.note(Event(self.clock.wall_ms(), EventKind.LONG_TURN, WARNING, sentence, broker_id))

    def note_dropped(self, partition: str, tail: str, records: int, unwritten: int) -> None:
        """Lost records have gone from quarantine because of its bounds."""
        broker_id = self.settings.broker_id
        what = "which had been written again"
        if unwritten:
            what = f"of which nobody had written {unwritten} again: they are gone for good"
        sentence = (
            f"broker {broker_id} has dropped {records} records of {partition} from its quarantine, {tail}, {what} "
            "(quarantine_bytes_max, quarantine_retention_ms)"
        )
        level = ERROR if unwritten else INFO
        self.core.note(Event(self.clock.wall_ms(), EventKind.LOST_DROPPED, level, sentence, broker_id, count=records))

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Reply(request_id, response):
                self._parked.resolve(request_id, response)
            case Send(node_id, request):
                self.peers.send(node_id, self._url_of(node_id), request, partial(self._on_response, node_id, request))
            case Flush(partition, end_offset):
                self.flusher.request(partition, end_offset)
            case SaveMetadata(copy):
                self.saver.save(copy)
            case GoOn():
                self._loop.call_soon(self._turn, self.core.go_on)

    def _on_response(self, node_id: int, request: Message, response: Response) -> None:
        self._turn(self.core.on_response, node_id, request, response)

    def _on_metadata_saved(self, copy: MetadataCopy | None) -> None:
        self._turn(self.core.on_metadata_saved, copy)

    def _on_flushed(self, partition: TopicPartition) -> None:
        self._turn(self.core.on_flushed, partition)

    def _expire(self, request_id: int, timeout_ms: int) -> None:
        """The caller's own limit, for requests that the core would park without one."""
        if self._parked.resolve(request_id, Problem.of(TimedOut(f"no answer within {timeout_ms} ms"))):
            self._on_left(request_id)

    def _on_left(self, request_id: int) -> None:
        self._turn(self.core.on_disconnect, request_id)

    def _refusal(self, request: Message, kind: str) -> BrokerUnavailable | Overloaded | None:
        if self._closed or self.failure.tripped:
            return BrokerUnavailable(STOPPING, definite=True)
        if kind == "group":  # the coordinator has this limit itself, and hears whom it refuses (R87)
            return None
        shares, client = self._waiting[kind], CLIENT.get()
        return None if isinstance(request, UNLIMITED) or shares.may_take(client) else crowded(kind, shares, client)

    def _url_of(self, node_id: int) -> str | None:
        if node_id == CONTROLLER_ID:
            return self.controller_url
        broker = self.image.brokers.get(node_id)
        return None if broker is None else broker.url
