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

from collections.abc import Sequence

from minilog.config import BrokerSettings
from minilog.core.bounds import check_bounds
from minilog.core.broker.coordinator.coordinator import Coordinator
from minilog.core.broker.lookup import Lookup
from minilog.core.broker.replicate import Replication
from minilog.core.broker.requests.allowance import Inspected
from minilog.core.broker.requests.fetch import FetchRequests
from minilog.core.broker.requests.produce import ProduceRequests
from minilog.core.broker.requests.producer_ids import ProducerIds
from minilog.core.broker.retention import Retention
from minilog.core.broker.roles import Roles
from minilog.core.broker.standing.controller_link import ControllerLink
from minilog.core.broker.standing.first_writes import FirstWrites
from minilog.core.broker.standing.lone_ends import LoneEnds
from minilog.core.broker.standing.metadata_saving import MetadataSaving
from minilog.core.broker.standing.registration import Registration
from minilog.core.broker.state import LocalState
from minilog.core.broker.statistics import (
    BrokerStatistics,
    PartitionStatistics,
    broker_statistics,
    replica_statistics,
)
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
from minilog.wire.journal.events import Event
from minilog.wire.journal.metadata_copy import BrokerCopy, MetadataCopy
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import (
    AllocateProducerIds,
    AllocateProducerIdsReply,
    AlterPartition,
    AlterPartitionReply,
    CreateTopic,
    Fetch,
    Heartbeat,
    HeartbeatReply,
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

RETRY_MS = 500
"""How often what found no room is tried again."""


class BrokerCore:
    def __init__(
        self,
        settings: BrokerSettings,
        store: LogStore,
        *,
        incarnation: str,
        clean: bool,
        url: str,
        version: str = "",
    ) -> None:
        """``version``: of the program, for people."""
        broker_id = settings.broker_id
        self.registration = Registration(
            broker_id,
            incarnation,
            url,
            settings.rack,
            settings.heartbeat_interval_ms,
            clean=clean,
            directory=store,
            version=version,
        )
        self.state = state = LocalState(settings, store, self.registration)
        self.settings, self.broker_id, self.image, self.replicas = settings, broker_id, state.image, state.replicas
        self.turn = turn = Turn()
        self.sessions = FollowerSessions(self.replicas)
        self.proposals = IsrProposals(broker_id, incarnation, self.replicas)
        self.producer_ids = ProducerIds(broker_id, incarnation)
        self.lookup = Lookup(state)
        self.produces = ProduceRequests(state, self.lookup, turn, self.sessions)
        self.fetches = FetchRequests(state, self.lookup, turn)
        self.coordinator = Coordinator(state, self.lookup, turn, self.sessions)
        self.replication = Replication(state, turn, self.sessions, self.proposals, self.fetches)
        self.roles = Roles(state, turn, self.fetches, self.coordinator, self.replication)
        self.link = ControllerLink(state, turn, self.roles)
        self.retention = Retention(state, turn, self.sessions, self.replication)
        self.lone_ends = LoneEnds()
        self.first_writes = FirstWrites()
        self.ailment = state.ailment
        self.events = state.events
        self.metadata_saving = MetadataSaving(state)
        self._retry_ms = 0

    # --- what the shell may ask -------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return self.state.ready

    @property
    def informed(self) -> bool:
        return self.state.informed

    @property
    def admitted(self) -> bool:
        return self.state.admitted

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
    def flush_age_ms(self) -> int:
        """How long the oldest sync under way has taken. The shell says so before each tick."""
        return self.ailment.flush_age_ms

    @flush_age_ms.setter
    def flush_age_ms(self, age_ms: int) -> None:
        self.ailment.flush_age_ms = age_ms

    def is_disk_slow(self, now_ms: int) -> bool:
        return self.ailment.is_slow(now_ms)

    @property
    def may_exit(self) -> bool:
        return self.registration.may_exit

    def controller_heard_ms_ago(self, now_ms: int) -> int | None:
        """None: never."""
        heard_ms = self.registration.heard_ms
        return None if heard_ms is None else max(0, now_ms - heard_ms)

    def sure_wall_ms(self, now_ms: int) -> int | None:
        """As ``LocalState``."""
        return self.state.sure_wall_ms(now_ms)

    def metadata_copy(self) -> BrokerCopy:
        return self.metadata_saving.newest()

    def note(self, event: Event) -> None:
        """What the shell has seen."""
        self.events.add(event)

    def take_events(self) -> list[Event]:
        """For this process's log, each once."""
        return self.events.take_for_log()

    def statistics(self, now_ms: int) -> BrokerStatistics:
        return broker_statistics(self.state, self.produces, self.fetches, self.coordinator, self.replication, now_ms)

    def hosted(self) -> list[TopicPartition]:
        return list(self.replicas)

    def replica_statistics(self, partitions: Sequence[TopicPartition], now_ms: int) -> list[PartitionStatistics]:
        return replica_statistics(self.state, partitions, now_ms)

    # --- events -----------------------------------------------------------------------------------

    @property
    def controller_url(self) -> str:
        """Of several the one that is asked now."""
        return self.link.controllers.url

    def on_request(self, request_id: int, request: Message | Inspected, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        try:
            self._dispatch(request_id, request, now_ms, effects)
        except MinilogError as error:
            effects.append(Reply(request_id, Problem.of(error)))
        return self._finish(effects, now_ms)

    def _dispatch(self, request_id: int, request: Message | Inspected, now_ms: int, effects: list[Effect]) -> None:
        if isinstance(request, Inspected):
            effects += self.produces.on_produce(request_id, request, now_ms)
            return
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
                    for partition in self.proposals.on_reply(request, error, now_ms):
                        self.turn.advance(partition)
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
                    if isinstance(error, HeartbeatReply):
                        self.lone_ends.on_answered()
                        self.first_writes.on_answered()
                        self.events.on_noted(error.events_noted)
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

    def on_metadata_saved(self, copy: MetadataCopy | None, now_ms: int) -> list[Effect]:
        """The outcome of a SaveMetadata; None when the disk had no room."""
        self.metadata_saving.on_saved(copy)
        return self._finish([], now_ms)

    def go_on(self, now_ms: int) -> list[Effect]:
        """The answer to a GoOn."""
        return self._finish(self.turn.go_on(now_ms), now_ms)

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
        self.fetches.wake_patient(now_ms)
        effects += self.coordinator.tick(now_ms)
        effects += self.sessions.answer_late(now_ms, self.state.unsure_ms(now_ms))
        effects += self.turn.flush_due(self.replicas, now_ms)
        self.retention.tick(now_ms)
        self.ailment.look(now_ms)
        self._see(now_ms)
        effects += self.metadata_saving.due(now_ms)
        self.replication.check_lag(now_ms)
        if now_ms >= self._retry_ms:
            self._retry_ms = now_ms + RETRY_MS
            self.roles.open_again()
        return self._finish(effects, now_ms)

    def _see(self, now_ms: int) -> None:
        """What there is to tell of."""
        state, wall_ms = self.state, self.state.wall_ms(now_ms)
        self.events.see_cuts(state.store.take_cuts(), wall_ms)
        self.events.see_strays(state.store.strays, now_ms, wall_ms)
        self.events.see_conditions(self.ailment.conditions(now_ms), wall_ms)
        self.events.see_controller(self.controller_heard_ms_ago(now_ms), state.session_timeout_ms, now_ms, wall_ms)
        self.events.see_clock(state.clock_skew_ms(now_ms), self.settings.clock_skew_max_ms, wall_ms)

    # --- the end of a turn ------------------------------------------------------------------------

    def _finish(self, effects: list[Effect], now_ms: int) -> list[Effect]:
        lag_max_ms = self.settings.replica_lag_max_ms
        while (partition := self.turn.next_advancing()) is not None:
            replica = self.replicas.get(partition)
            if replica is None or not isinstance(replica.role, LeaderState):
                continue
            before = replica.role.high_watermark
            acknowledged = replica.role.advance(now_ms, lag_max_ms)
            if acknowledged:
                self.first_writes.see(replica.role, now_ms)
                self.turn.add_outcomes(acknowledged)
            self.lone_ends.note(partition, replica.role)
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
        return effects + self.turn.call()

    def _send(self, effects: list[Effect], now_ms: int) -> None:
        for leader, fetcher in self.replication.fetchers.items():
            fetch = fetcher.next_request(self.state.broker_epoch, now_ms)
            if fetch is not None:
                effects.append(Send(leader, fetch))
        epoch = self.state.store.controller_epoch
        alter = self.proposals.next_request(self.state.broker_epoch, epoch, now_ms)
        if alter is not None:
            effects.append(Send(CONTROLLER_ID, alter))
            for proposal in alter.partitions:
                if proposal.leader != NO_LEADER:
                    self.state.successions.setdefault(TopicPartition(proposal.topic, proposal.partition), now_ms)
        allocate = self.producer_ids.next_request(self.state.broker_epoch)
        if allocate is not None:
            effects.append(Send(CONTROLLER_ID, allocate))
        ails = self.ailment.ails(now_ms)
        drained = self._drained() if self.registration.draining else ails and self._others_hold_all()
        request = self.registration.next_request(
            epoch,
            self.image,
            now_ms,
            drained=drained,
            unfit=self.roles.unfit_replicas,
            lone_ends=lambda: self.lone_ends.tell(epoch, self.replicas),
            ails=ails,
            conditions=self.ailment.conditions(now_ms),
            wall_ms=self.state.wall_ms(now_ms),
            events=self.events.tell,
            first_writes=self.first_writes.tell,
        )
        if request is not None:
            effects.append(Send(CONTROLLER_ID, request))

    def _others_hold_all(self) -> bool:
        return all(r.role.others_hold_all for r in self.replicas.values() if isinstance(r.role, LeaderState))

    def _drained(self) -> bool:
        return all(r.role.drained for r in self.replicas.values() if isinstance(r.role, LeaderState))
