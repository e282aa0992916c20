"""The only caller of BrokerCore. One turn = one event in, the core's effects out, performed in
order.

A turn never awaits, so no two turns interleave. Every exception that escapes one stops the process.
A request is one entry in ``_parked`` and one Future, resolved exactly once: by the core's Reply, by
its own time limit, by its client going away, or by the end of this process (R34).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, Protocol

import msgspec

from minilog.broker.flusher import FlushableStore, Flusher, FlushStatistics
from minilog.config import BrokerSettings
from minilog.core.broker.statistics import BrokerStatistics
from minilog.core.effects import CONTROLLER_ID, Effect, Flush, Reply, Send
from minilog.core.image import ClusterImage
from minilog.errors import BrokerUnavailable, Overloaded, TimedOut
from minilog.server.clock import Clock
from minilog.server.parked_requests import ParkedRequests
from minilog.server.peers import Peers, Response
from minilog.server.process import Failure
from minilog.storage.compaction.rewrite import CleaningFigures
from minilog.wire.group_messages import GroupRequest
from minilog.wire.messages import Fetch, Message, Positions, Probe, Problem, Produce, ReplicaFetch
from minilog.wire.topic_partition import TopicPartition

TICK_MS = 20
STOPPING = "this broker is stopping; ask another one"
KINDS = ("produce", "fetch", "group", "other")
UNLIMITED = (ReplicaFetch, Positions, Probe)
"""Requests the cluster itself depends on. Each peer has at most one of a kind under way."""


class Core(Protocol):
    """What the runtime asks of a BrokerCore."""

    wall_ahead_ms: int

    @property
    def image(self) -> ClusterImage: ...

    @property
    def may_exit(self) -> bool: ...

    @property
    def ready(self) -> bool: ...

    @property
    def informed(self) -> bool: ...

    def statistics(self, now_ms: int) -> BrokerStatistics: ...

    @property
    def broker_epoch(self) -> int: ...

    def on_request(self, request_id: int, request: Message, now_ms: int) -> list[Effect]: ...

    def on_response(self, node_id: int, request: Message, response: Response, now_ms: int) -> list[Effect]: ...

    def on_flushed(self, partition: TopicPartition, now_ms: int) -> list[Effect]: ...

    def on_disconnect(self, request_id: int, now_ms: int) -> list[Effect]: ...

    def tick(self, now_ms: int) -> list[Effect]: ...

    def begin_shutdown(self, now_ms: int) -> list[Effect]: ...


class RuntimeStatistics(msgspec.Struct, frozen=True):
    """Counters grow for ever. ``loop_lag_seconds`` is how late the last tick was, ``_max`` the
    worst so far."""

    parked: int
    turns: int
    requests: int
    replies_unclaimed: int
    disconnects: int
    loop_lag_seconds: float
    loop_lag_seconds_max: float
    flush: FlushStatistics
    cleaning: CleaningFigures


class Runtime:
    def __init__(
        self,
        core: Core,
        store: FlushableStore,
        settings: BrokerSettings,
        clock: Clock,
        failure: Failure,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.core = core
        self.settings = settings
        self.clock = clock
        self.failure = failure
        self.registered = asyncio.Event()
        self.may_exit = asyncio.Event()
        self.peers = Peers(tasks, settings.peer_timeout_ms, settings.heartbeat_interval_ms)
        self.flusher = Flusher(store, failure, self._on_flushed)
        self.cleaning = CleaningFigures()
        self._loop = asyncio.get_running_loop()
        self._parked = ParkedRequests()
        self._waiting = dict.fromkeys(KINDS, 0)
        self._calls: set[asyncio.Task[Message]] = set()
        self._in_turn = False
        self._closed = False
        self._metadata_offset = 0
        self._turns = 0
        self._lag_seconds = 0.0
        self._lag_seconds_max = 0.0

    @property
    def image(self) -> ClusterImage:
        return self.core.image

    @property
    def ready(self) -> bool:
        """Registered, caught up with the metadata, and not stopping."""
        return self.core.ready and not self._closed and not self.failure.tripped

    async def submit(self, request: Message, timeout_ms: int | None = None) -> Message:
        """The answer to one request. A Problem when it failed. Never raises but for cancellation.

        Cancelling the caller (its client went away) tells the core to forget the request.
        """
        kind = _kind_of(request)
        refusal = self._refusal(request, kind)
        if refusal is not None:
            return Problem.of(refusal)
        request_id, answered = self._parked.park()
        self._turn(self.core.on_request, request_id, request)
        if answered.done():
            return answered.result()
        timer = None
        if timeout_ms is not None:
            timer = self._loop.call_later(timeout_ms / 1000, self._expire, request_id, timeout_ms)
        self._waiting[kind] += 1
        try:
            return await self._parked.wait(request_id, answered, self._on_left)
        finally:
            self._waiting[kind] -= 1
            if timer is not None:
                timer.cancel()

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
            self._lag_seconds = max(0.0, self._loop.time() - due)
            self._lag_seconds_max = max(self._lag_seconds_max, self._lag_seconds)
            self._turn(self.core.tick)
            due = max(due, self._loop.time() - TICK_MS / 1000)

    def begin_shutdown(self) -> None:
        self._turn(self.core.begin_shutdown)

    def close(self) -> None:
        """No more turns. Whoever still waits hears that this process went away, which proves
        nothing about a write."""
        self._closed = True
        for calling in self._calls:
            calling.cancel()
        self.peers.close()
        self._parked.resolve_all(Problem.of(BrokerUnavailable(STOPPING)))

    def statistics(self) -> RuntimeStatistics:
        return RuntimeStatistics(
            parked=len(self._parked),
            turns=self._turns,
            requests=self._parked.total,
            replies_unclaimed=self._parked.unclaimed,
            disconnects=self._parked.disconnects,
            loop_lag_seconds=self._lag_seconds,
            loop_lag_seconds_max=self._lag_seconds_max,
            flush=self.flusher.statistics(),
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
        try:
            for effect in handler(*event, now_ms):
                self._perform(effect)
            if self.core.broker_epoch >= 0:
                self.registered.set()
            self._look_at_metadata()
            if self.core.may_exit:
                self.may_exit.set()
        except Exception as error:
            self.failure.trip(error)
            self.close()
        finally:
            self._in_turn = False

    def _look_at_metadata(self) -> None:
        """The brokers the metadata has told of since the last look will be connected to sooner or
        later."""
        image, seen = self.core.image, self._metadata_offset
        if image.metadata_offset != seen:
            self._metadata_offset = image.metadata_offset
            self.peers.expect(broker.url for broker in image.brokers.values() if broker.epoch > seen)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Reply(request_id, response):
                self._parked.resolve(request_id, response)
            case Send(node_id, request):
                self.peers.send(node_id, self._url_of(node_id), request, partial(self._on_response, node_id, request))
            case Flush(partition, end_offset):
                self.flusher.request(partition, end_offset)

    def _on_response(self, node_id: int, request: Message, response: Response) -> None:
        self._turn(self.core.on_response, node_id, request, response)

    def _on_flushed(self, partition: TopicPartition) -> None:
        self._turn(self.core.on_flushed, partition)

    def _expire(self, request_id: int, timeout_ms: int) -> None:
        """The caller's own limit, for requests that the core would park without one."""
        late = TimedOut(f"no answer within {timeout_ms} ms")
        if self._parked.resolve(request_id, Problem.of(late)):
            self._on_left(request_id)

    def _on_left(self, request_id: int) -> None:
        self._turn(self.core.on_disconnect, request_id)

    def _refusal(self, request: Message, kind: str) -> BrokerUnavailable | Overloaded | None:
        if self._closed or self.failure.tripped:
            return BrokerUnavailable(STOPPING, definite=True)
        if kind == "group":  # the coordinator has this limit itself, and hears whom it refuses (R87)
            return None
        limit = self.settings.limits.parked_requests_max
        if self._waiting[kind] >= limit and not isinstance(request, UNLIMITED):
            return Overloaded(f"{limit} {kind} requests already wait here (limits.parked_requests_max); retry later")
        return None

    def _url_of(self, node_id: int) -> str | None:
        if node_id == CONTROLLER_ID:
            return self.settings.controller_url
        broker = self.image.brokers.get(node_id)
        return None if broker is None else broker.url


def _kind_of(request: Message) -> str:
    """Each kind has a limit of its own, so that those who wait for records, or for their groups,
    keep nobody from writing."""
    if isinstance(request, Produce):
        return "produce"
    if isinstance(request, Fetch):
        return "fetch"
    return "group" if isinstance(request, GroupRequest) else "other"
