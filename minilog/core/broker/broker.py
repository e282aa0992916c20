"""BrokerCore: every decision of a broker, as a pure function of state, message and time.

Owns the replicas and their roles, and connects the parts: registration (standing with the
controller), fetchers (following others), sessions (being followed), proposals (ISR changes), parked
reads and writes.

One *turn* is one call: the event is handled, then ``_finish`` completes everything that became
possible: high watermarks advance, waiters are answered, parked fetches are woken, and the one
request each peer may have in flight is sent. So a turn leaves nothing behind that a later event
must remember to wake.

Invariants: one role per partition and leader epoch, never back to an older epoch (R4). A role
change fails every waiter of the old role (R10). The image only grows record by record (R29). Every
request is answered once (R34).
"""

from __future__ import annotations

from minilog.config import BrokerSettings
from minilog.core.bounds import check_bounds
from minilog.core.broker.controller_link import ControllerLink
from minilog.core.broker.coordinator.coordinator import Coordinator
from minilog.core.broker.fetch import FetchRequests
from minilog.core.broker.lookup import Lookup
from minilog.core.broker.produce import ProduceRequests
from minilog.core.broker.producer_ids import ProducerIds
from minilog.core.broker.registration import Registration
from minilog.core.broker.replicate import Replication
from minilog.core.broker.retention import Retention
from minilog.core.broker.roles import Roles
from minilog.core.broker.state import LocalState
from minilog.core.broker.statistics import BrokerStatistics, broker_statistics
from minilog.core.broker.turn import Turn
from minilog.core.effects import CONTROLLER_ID, Effect, Reply, Send
from minilog.core.metadata_view import metadata_reply
from minilog.core.ports import LogStore
from minilog.core.replication.follower_sessions import FollowerSessions
from minilog.core.replication.isr_proposals import IsrProposals
from minilog.core.replication.leader import LeaderState
from minilog.errors import (
    InvalidRequest,
    MinilogError,
)
from minilog.wire.group_messages import GroupRequest
from minilog.wire.messages import (
    AllocateProducerIds,
    AllocateProducerIdsReply,
    AlterPartition,
    AlterPartitionReply,
    CreateTopic,
    Fetch,
    Heartbeat,
    InitProducer,
    Message,
    Metadata,
    Offsets,
    Positions,
    Probe,
    ProbeReply,
    Problem,
    Produce,
    Register,
    ReplicaFetch,
)
from minilog.wire.topic_partition import TopicPartition

LAG_CHECK_MS = 500


class BrokerCore:
    def __init__(self, settings: BrokerSettings, store: LogStore, *, incarnation: str, clean: bool, url: str) -> None:
        broker_id = settings.broker_id
        self.registration = Registration(
            broker_id, incarnation, url, settings.rack, settings.heartbeat_interval_ms, clean=clean
        )
        self.state = state = LocalState(settings, store, self.registration)
        self.settings, self.broker_id, self.image, self.replicas = settings, broker_id, state.image, state.replicas
        self.turn = turn = Turn()
        self.sessions = FollowerSessions(self.replicas)
        self.proposals = IsrProposals(broker_id, incarnation, self.replicas)
        self.producer_ids = ProducerIds(broker_id, incarnation)
        self.lookup = Lookup(state)
        self.produces = ProduceRequests(state, self.lookup, turn, self.sessions)
        self.fetches = FetchRequests(state, self.lookup)
        self.coordinator = Coordinator(state, self.lookup, turn, self.sessions)
        self.replication = Replication(state, turn, self.sessions, self.proposals, self.fetches)
        self.roles = Roles(state, turn, self.fetches, self.coordinator, self.replication)
        self.link = ControllerLink(state, turn, self.roles)
        self.retention = Retention(state, turn, self.sessions, self.replication)
        self._lag_check_ms = 0

    # --- what the shell may ask -------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return self.state.ready

    @property
    def informed(self) -> bool:
        return self.state.informed

    @property
    def broker_epoch(self) -> int:
        return self.state.broker_epoch

    @property
    def wall_ahead_ms(self) -> int:
        """How far the wall clock is ahead of the time of turns. The shell says so before each
        turn."""
        return self.state.wall_ahead_ms

    @wall_ahead_ms.setter
    def wall_ahead_ms(self, ahead_ms: int) -> None:
        self.state.wall_ahead_ms = ahead_ms

    @property
    def may_exit(self) -> bool:
        return self.registration.may_exit

    def statistics(self, now_ms: int) -> BrokerStatistics:
        return broker_statistics(self.state, self.produces, self.fetches, self.coordinator, now_ms)

    # --- events -----------------------------------------------------------------------------------

    def on_request(self, request_id: int, request: Message, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        try:
            self._dispatch(request_id, request, now_ms, effects)
        except MinilogError as error:
            effects.append(Reply(request_id, Problem.of(error)))
        return self._finish(effects, now_ms)

    def _dispatch(self, request_id: int, request: Message, now_ms: int, effects: list[Effect]) -> None:
        check_bounds(request, self.settings.limits)
        match request:
            case Produce():
                effects += self.produces.on_produce(request_id, request, now_ms)
            case Fetch():
                effects += self.fetches.on_fetch(request_id, request, now_ms)
            case ReplicaFetch():
                effects += self.replication.on_fetch(request_id, request, now_ms)
            case Offsets():
                effects.append(Reply(request_id, self.fetches.on_offsets(request, now_ms)))
            case Metadata():
                self.lookup.check_informed()
                effects.append(Reply(request_id, metadata_reply(self.image, request.topics)))
            case InitProducer():
                effects += self.producer_ids.on_init(request_id, self.state.broker_epoch)
            case Positions():
                effects.append(Reply(request_id, self.link.on_positions(request, effects, now_ms)))
            case Probe():
                effects.append(Reply(request_id, ProbeReply(self.broker_id, self.registration.incarnation)))
            case _ if isinstance(request, GroupRequest):
                effects += self.coordinator.on_request(request_id, request, now_ms)
            case _:
                raise InvalidRequest(f"a broker does not answer {type(request).__name__}; send it to the controller")

    def on_response(
        self, node_id: int, request: Message, response: Message | MinilogError, now_ms: int
    ) -> list[Effect]:
        """The outcome of a Send. Errors and Problems both mean: no usable answer."""
        effects: list[Effect] = []
        error = response.error() if isinstance(response, Problem) else response
        match request:
            case ReplicaFetch():
                self.replication.on_fetched(node_id, request, error, effects, now_ms)
            case AlterPartition():
                if isinstance(error, AlterPartitionReply):
                    self.proposals.on_reply(request, error, now_ms)
                else:
                    self.proposals.on_failed(request, now_ms)
            case AllocateProducerIds():
                if isinstance(error, AllocateProducerIdsReply):
                    effects += self.producer_ids.on_reply(request, error)
                else:
                    effects += self.producer_ids.on_failed(request, "the controller gave no answer")
            case CreateTopic():
                self.coordinator.on_topic_answered(error)
            case Heartbeat() | Register():
                if self.registration.matches(request):
                    self.link.on_answer(error, effects, now_ms)
        return self._finish(effects, now_ms)

    def on_flushed(self, partition: TopicPartition, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        replica = self.replicas.get(partition)
        if replica is not None and isinstance(replica.role, LeaderState):
            self.turn.advance(partition)
        for fetcher in self.replication.fetchers.values():
            flush = fetcher.on_flushed(partition)
            if flush is not None:
                effects.append(flush)
        return self._finish(effects, now_ms)

    def on_disconnect(self, request_id: int, now_ms: int) -> list[Effect]:
        self.fetches.on_disconnect(request_id)
        self.producer_ids.on_disconnect(request_id)
        self.sessions.on_disconnect(request_id)
        return self._finish([], now_ms)

    def begin_shutdown(self, now_ms: int) -> list[Effect]:
        """R28: leave in order. ``may_exit`` becomes true when the controller has moved everything
        away."""
        self.registration.begin_shutdown(now_ms, self.settings.drain_timeout_ms)
        return self._finish([], now_ms)

    def tick(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        effects += self.produces.expire(now_ms)
        effects += self.fetches.expire(now_ms)
        effects += self.coordinator.tick(now_ms)
        effects += self.sessions.answer_late(now_ms, self.state.unsure_ms(now_ms))
        effects += self.turn.flush_due(self.replicas, now_ms)
        self.retention.tick(now_ms)
        if now_ms >= self._lag_check_ms:
            self._lag_check_ms = now_ms + LAG_CHECK_MS
            self.replication.check_lag(now_ms)
            effects += self.roles.open_again(now_ms)
        return self._finish(effects, now_ms)

    # --- the end of a turn ------------------------------------------------------------------------

    def _finish(self, effects: list[Effect], now_ms: int) -> list[Effect]:
        lag_max_ms = self.settings.replica_lag_max_ms
        while (partition := self.turn.next_advancing()) is not None:
            replica = self.replicas.get(partition)
            if replica is None or not isinstance(replica.role, LeaderState):
                continue
            before = replica.role.high_watermark
            self.turn.add_outcomes(replica.role.advance(now_ms, lag_max_ms))
            if replica.role.high_watermark != before:
                self.sessions.on_high_watermark(partition)
                self.fetches.wake(replica.partition)
                self.coordinator.replies.wake(partition)
            if replica.role.propose(now_ms, lag_max_ms, shrink=False):
                self.proposals.add(partition)
        effects += self.produces.resolve(self.turn.take_outcomes())
        effects += self.coordinator.replies.answer_woken()
        effects += self.fetches.answer_woken(now_ms)
        effects += self.sessions.answer_ready(now_ms, self.state.unsure_ms(now_ms))
        self._send(effects, now_ms)
        return effects

    def _send(self, effects: list[Effect], now_ms: int) -> None:
        for leader, fetcher in self.replication.fetchers.items():
            fetch = fetcher.next_request(self.state.broker_epoch, now_ms)
            if fetch is not None:
                effects.append(Send(leader, fetch))
        epoch = self.state.store.controller_epoch
        alter = self.proposals.next_request(self.state.broker_epoch, epoch, now_ms)
        if alter is not None:
            effects.append(Send(CONTROLLER_ID, alter))
        allocate = self.producer_ids.next_request(self.state.broker_epoch)
        if allocate is not None:
            effects.append(Send(CONTROLLER_ID, allocate))
        drained = self.registration.draining and self._drained()
        request = self.registration.next_request(
            self.state.store.cluster_id,
            epoch,
            self.image.metadata_offset,
            now_ms,
            drained=drained,
            unfit=self.roles.unfit_replicas,
        )
        if request is not None:
            effects.append(Send(CONTROLLER_ID, request))

    def _drained(self) -> bool:
        return all(r.role.drained for r in self.replicas.values() if isinstance(r.role, LeaderState))
