"""BrokerCore: every decision of a broker, as a pure function of state, message and time.

Owns the replicas and their roles, and connects the parts: registration (standing with the controller),
fetchers (following others), sessions (being followed), proposals (ISR changes), parked reads and writes.

One *turn* is one call: the event is handled, then ``_finish`` completes everything that became possible: high
watermarks advance, waiters are answered, parked fetches are woken, and the one request each peer may have in
flight is sent. So a turn leaves nothing behind that a later event must remember to wake.

Invariants: one role per partition and leader epoch, never back to an older epoch (R4); a role change fails every
waiter of the old role (R10); the image only grows record by record (R29); every request is answered once (R34).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from random import Random
from typing import Any

from minilog.config import BrokerSettings
from minilog.core.broker.bounds import check_bounds
from minilog.core.broker.coordinator import Coordinator
from minilog.core.broker.fetch import Reading
from minilog.core.broker.produce import Writing
from minilog.core.broker.producer_ids import ProducerIds
from minilog.core.broker.registration import Registration
from minilog.core.broker.retention import Retention
from minilog.core.broker.roles import Roles
from minilog.core.broker.statistics import broker_statistics
from minilog.core.effects import CONTROLLER_ID, Effect, Flush, Reply, Send, TopicPartition
from minilog.core.image import ClusterImage
from minilog.core.metadata_view import metadata_reply
from minilog.core.ports import LogStore
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.follower_sessions import Sessions
from minilog.core.replication.isr_proposals import Proposals
from minilog.core.replication.leader import LeaderState, Outcome
from minilog.core.replication.log_start import end_epoch
from minilog.core.replication.replica import Replica, Replicas
from minilog.core.replication.replica_fetcher import Fetcher
from minilog.core.stamps import Stamps
from minilog.errors import (
    BrokerUnavailable,
    DiskFull,
    InvalidRequest,
    MinilogError,
    NotController,
    RefusesToStart,
    StaleBrokerEpoch,
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
    HeartbeatReply,
    InitProducer,
    Message,
    Metadata,
    Offsets,
    Position,
    PositionQuery,
    Positions,
    PositionsReply,
    Probe,
    ProbeReply,
    Problem,
    Produce,
    Register,
    RegisterReply,
    ReplicaFetch,
    ReplicaFetchReply,
)
from minilog.wire.metadata_records import BrokerRecord, TopicDeleted

LAG_CHECK_MS = 500


class BrokerCore:
    def __init__(
        self, settings: BrokerSettings, store: LogStore, rng: Random, *, incarnation: str, clean: bool, url: str
    ) -> None:
        self.settings = settings
        self.wall_ahead_ms = 0
        """How far the wall clock is ahead of the time of turns; the shell says so before each turn."""
        self.stamps = Stamps()
        self.store = store
        self.rng = rng
        self.broker_id = settings.broker_id
        self.image = ClusterImage()
        self.replicas: Replicas = {}
        self.registration = Registration(self.broker_id, incarnation, url, settings.rack, clean=clean)
        self.fetchers: dict[int, Fetcher] = {}
        self.sessions = Sessions(self.replicas)
        self.proposals = Proposals(self.broker_id, incarnation, self.replicas)
        self.producer_ids = ProducerIds(self.broker_id, incarnation)
        self.writing = Writing(self)
        self.reading = Reading(self)
        self.roles = Roles(self)
        self.coordinator = Coordinator(self)
        self.retention = Retention(self)
        self._lag_check_ms = 0
        self._unsynced: dict[TopicPartition, int] = {}
        self._outcomes: list[Outcome] = []
        self._advancing: dict[TopicPartition, None] = {}

    # --- what the shell may ask ------------------------------------------------------------------------------

    @property
    def broker_epoch(self) -> int:
        return self.registration.broker_epoch

    @property
    def may_exit(self) -> bool:
        return self.registration.may_exit

    @property
    def ready(self) -> bool:
        """Registered, caught up with its own registration, unfenced, not leaving."""
        me = self.image.brokers.get(self.broker_id)
        return me is not None and me.epoch == self.broker_epoch and me.eligible and not self.registration.draining

    @property
    def informed(self) -> bool:
        """Knows the metadata as of its own registration; before that, not knowing a topic means nothing."""
        return 0 < self.broker_epoch <= self.image.metadata_offset

    @property
    def accepts_writes(self) -> bool:
        return not self.registration.draining

    def session_over_ms(self, now_ms: int) -> int:
        """For how long the session with the controller may have been over."""
        return self.registration.session_over_ms(now_ms, self.settings.session_timeout_ms)

    def unsure_ms(self, now_ms: int) -> int:
        """For how long another broker may already lead what this one leads: the session may be over, or this broker has
        asked for it, leaving or leading with a damaged log, and has not heard what came of that."""
        return max(self.session_over_ms(now_ms), self.roles.asked_away_ms(now_ms))

    def wall_ms(self, now_ms: int) -> int:
        """The time of this turn as people know it, 1970 at the earliest: what is noted, and what ages are measured by."""
        return max(0, now_ms + self.wall_ahead_ms)

    def is_isolated(self, now_ms: int) -> bool:
        """R30, when it is switched on: another broker may lead by now what this one led."""
        left_ms = self.registration.asked_away_ms(now_ms) if self.registration.draining else 0
        return self.settings.self_fencing and max(self.session_over_ms(now_ms), left_ms) > 0

    def is_current(self, broker_id: int, broker_epoch: int) -> bool:
        """R17: registered with that very epoch, unfenced, not shutting down."""
        broker = self.image.brokers.get(broker_id)
        return broker is not None and broker.eligible and broker.epoch == broker_epoch

    def statistics(self, now_ms: int) -> dict[str, Any]:
        return broker_statistics(self, now_ms)

    # --- events --------------------------------------------------------------------------------------------

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
                effects += self.writing.on_produce(request_id, request, now_ms)
            case Fetch():
                effects += self.reading.on_fetch(request_id, request, now_ms)
            case ReplicaFetch():
                effects += self._on_replica_fetch(request_id, request, now_ms)
            case Offsets():
                effects.append(Reply(request_id, self.reading.on_offsets(request, now_ms)))
            case Metadata():
                self.reading.check_informed()
                effects.append(Reply(request_id, metadata_reply(self.image, request.topics)))
            case InitProducer():
                effects += self.producer_ids.on_init(request_id, self.broker_epoch)
            case Positions():
                effects.append(Reply(request_id, self._on_positions(request, effects, now_ms)))
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
                self._on_replica_fetched(node_id, request, error, effects, now_ms)
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
                    self._on_controller(error, effects, now_ms)
        return self._finish(effects, now_ms)

    def on_flushed(self, partition: TopicPartition, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        replica = self.replicas.get(partition)
        if replica is not None and isinstance(replica.role, LeaderState):
            self.advance(partition)
        for fetcher in self.fetchers.values():
            flush = fetcher.on_flushed(partition)
            if flush is not None:
                effects.append(flush)
        return self._finish(effects, now_ms)

    def on_disconnect(self, request_id: int, now_ms: int) -> list[Effect]:
        self.reading.on_disconnect(request_id)
        self.producer_ids.on_disconnect(request_id)
        self.sessions.on_disconnect(request_id)
        return self._finish([], now_ms)

    def begin_shutdown(self, now_ms: int) -> list[Effect]:
        """R28: leave in order; ``may_exit`` becomes true when the controller has moved everything away."""
        self.registration.begin_shutdown(now_ms, self.settings.drain_timeout_ms)
        return self._finish([], now_ms)

    def tick(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        effects += self.writing.expire(now_ms)
        effects += self.reading.expire(now_ms)
        effects += self.coordinator.tick(now_ms)
        effects += self.sessions.answer_late(now_ms, self.unsure_ms(now_ms))
        effects += self._flush_due(now_ms)
        self.retention.tick(now_ms)
        if now_ms >= self._lag_check_ms:
            self._lag_check_ms = now_ms + LAG_CHECK_MS
            self._check_lag(now_ms)
            effects += self.roles.open_again(now_ms)
        return self._finish(effects, now_ms)

    def _flush_due(self, now_ms: int) -> list[Effect]:
        """flush.policy interval: what was appended at least flush.ms ago."""
        due = [p for p, due_ms in self._unsynced.items() if due_ms <= now_ms]
        for partition in due:
            del self._unsynced[partition]
        return [Flush(p, self.replicas[p].log.end_offset) for p in due if p in self.replicas]

    def appended(self, replica: Replica, now_ms: int) -> list[Effect]:
        """Something was written here: flush it now or later, as the topic's policy says."""
        policy, log = replica.settings.flush_policy, replica.log
        if log.durable_end >= log.end_offset or policy == "never":
            return []
        if policy == "commit":
            return [Flush(replica.partition, log.end_offset)]
        self._unsynced.setdefault(replica.partition, now_ms + replica.settings.flush_ms)
        return []

    def _check_lag(self, now_ms: int) -> None:
        for partition, replica in self.replicas.items():
            leader = replica.role
            if replica.is_damaged:
                self.roles.on_damaged(replica)
            if isinstance(leader, LeaderState):
                for broker_id in leader.followers:
                    session = self.sessions.of(broker_id)
                    if session is not None and partition in session.partitions:
                        leader.seen_idle(broker_id, session.last_fetch_ms)
                if leader.propose(now_ms, self.settings.replica_lag_max_ms, shrink=True):
                    self.proposals.add(partition)
                if leader.high_watermark < leader.log.end_offset:
                    self.advance(partition)  # it may have waited for a follower that lags by now

    # --- the end of a turn -----------------------------------------------------------------------------------

    def advance(self, partition: TopicPartition) -> None:
        """Positions of this partition moved: its high watermark is looked at when the turn ends."""
        self._advancing[partition] = None

    def decided(self, outcomes: Iterable[Outcome]) -> None:
        self._outcomes += outcomes

    def _finish(self, effects: list[Effect], now_ms: int) -> list[Effect]:
        lag_max_ms = self.settings.replica_lag_max_ms
        while self._advancing:
            partition, _ = self._advancing.popitem()
            replica = self.replicas.get(partition)
            if replica is None or not isinstance(replica.role, LeaderState):
                continue
            before = replica.role.high_watermark
            self._outcomes += replica.role.advance(now_ms, lag_max_ms)
            if replica.role.high_watermark != before:
                self.sessions.on_high_watermark(partition)
                self.reading.wake(replica.partition)
                self.coordinator.wake(partition)
            if replica.role.propose(now_ms, lag_max_ms, shrink=False):
                self.proposals.add(partition)
        effects += self.writing.resolve(self._outcomes)
        self._outcomes = []
        effects += self.coordinator.answer_woken()
        effects += self.reading.answer_woken(now_ms)
        effects += self.sessions.answer_ready(now_ms, self.unsure_ms(now_ms))
        self._send(effects, now_ms)
        return effects

    def _send(self, effects: list[Effect], now_ms: int) -> None:
        for leader, fetcher in self.fetchers.items():
            fetch = fetcher.next_request(self.broker_epoch, now_ms)
            if fetch is not None:
                effects.append(Send(leader, fetch))
        epoch = self.store.controller_epoch
        alter = self.proposals.next_request(self.broker_epoch, epoch, now_ms)
        if alter is not None:
            effects.append(Send(CONTROLLER_ID, alter))
        allocate = self.producer_ids.next_request(self.broker_epoch)
        if allocate is not None:
            effects.append(Send(CONTROLLER_ID, allocate))
        drained = self.registration.draining and self._drained()
        request = self.registration.next_request(
            self.store.cluster_id,
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

    # --- being followed, following -----------------------------------------------------------------------------

    def _on_replica_fetch(self, request_id: int, request: ReplicaFetch, now_ms: int) -> list[Effect]:
        if request.leader != self.broker_id:
            raise BrokerUnavailable(f"the request is for broker {request.leader}, this is broker {self.broker_id}")
        known = self.image.brokers.get(request.broker_id)
        if known is not None and request.broker_epoch < known.epoch:
            raise StaleBrokerEpoch(
                f"broker {request.broker_id}: epoch {request.broker_epoch} is over, the current one is {known.epoch}"
            )
        deadline_ms = now_ms + min(request.max_wait_ms, self.settings.limits.wait_ms_max)
        session, effects = self.sessions.on_request(request_id, request, deadline_ms, now_ms)
        if session is not None:
            for leader in self.sessions.count(session, now_ms):
                self.advance(leader.partition)
        return effects

    def count_waiting(self, partition: TopicPartition, now_ms: int) -> None:
        """A role began: positions that arrived for its epoch before the metadata did count now."""
        self.sessions.on_role_changed(partition)
        for broker_id in self.image.brokers:
            session = self.sessions.of(broker_id)
            if session is not None:
                for leader in self.sessions.count(session, now_ms, partition):
                    self.advance(leader.partition)

    def _on_replica_fetched(
        self, node_id: int, request: ReplicaFetch, response: Message | MinilogError, effects: list[Effect], now_ms: int
    ) -> None:
        fetcher = self.fetchers.get(node_id)
        if fetcher is None:
            return
        if not isinstance(response, ReplicaFetchReply):
            fetcher.on_failed(request, now_ms)
            return
        effects += fetcher.on_reply(request, response, now_ms)
        for result in response.partitions:
            replica = self.replicas.get(TopicPartition(result.topic, result.partition))
            if replica is None or replica.topic_id != result.topic_id or not isinstance(replica.role, FollowerState):
                continue
            if replica.settings.flush_policy == "interval":
                effects += self.appended(replica, now_ms)
            self.reading.wake(replica.partition)

    def fetcher(self, leader: int) -> Fetcher:
        if leader not in self.fetchers:
            settings = self.settings
            self.fetchers[leader] = Fetcher(
                self.broker_id, leader, settings.replica_fetch_wait_ms, settings.replica_fetch_bytes_max
            )
        return self.fetchers[leader]

    # --- the controller ----------------------------------------------------------------------------------------

    def _on_controller(self, response: Message | MinilogError, effects: list[Effect], now_ms: int) -> None:
        match response:
            case RegisterReply() | HeartbeatReply() if not self.registration.is_answer(response):
                self.registration.on_failed("the answer is for another process or another request", now_ms)
            case RegisterReply() if self._obeys(response.controller_epoch) and self._belongs_to(response.cluster_id):
                self.image.load(0, [])
                self.registration.on_registered(response)
            case HeartbeatReply() if self._obeys(response.controller_epoch):
                self._on_metadata(response, effects, now_ms)
                me = self.image.brokers.get(self.broker_id)
                leaves = me is not None and me.epoch == self.broker_epoch and me.shutting_down
                self.registration.on_heartbeat(response, now_ms, is_shutting_down=leaves)
            case MinilogError() if not self._is_of_my_controller(response):
                self.registration.on_failed(
                    f"somebody else answers at the controller's address: {response.detail}", now_ms
                )
            case StaleBrokerEpoch():
                effects += self.roles.drop_all(now_ms)
                self.registration.on_stale(now_ms)
            case MinilogError() if (
                self.registration.is_first and not response.retriable and response.code != "INTERNAL"
            ):
                raise RefusesToStart(f"the controller refuses broker {self.broker_id}: {response.detail}")
            case MinilogError():
                self.registration.on_failed(response.detail, now_ms)
            case _:
                self.registration.on_failed(f"unexpected answer {type(response).__name__}", now_ms)

    def _is_of_my_controller(self, error: MinilogError) -> bool:
        """An error that would end something says which cluster it comes from; whoever has the controller's address for a
        moment, or by mistake, does not end a broker that has a cluster. The first registration may be told anything."""
        is_grave = isinstance(error, StaleBrokerEpoch)
        return not is_grave or error.info.get("cluster_id") == self.store.cluster_id

    def _obeys(self, controller_epoch: int) -> bool:
        """R25: remember the highest controller epoch, durably, before acting on it; with a full disk it cannot yet."""
        if controller_epoch > self.store.controller_epoch:
            with suppress(DiskFull):
                self.store.save_controller_epoch(controller_epoch)
        return controller_epoch == self.store.controller_epoch

    def _belongs_to(self, cluster_id: str) -> bool:
        """Remember the cluster, durably; with a full disk it cannot yet."""
        with suppress(DiskFull):
            self.store.bind_cluster(cluster_id)
        return self.store.cluster_id == cluster_id

    def _on_metadata(self, reply: HeartbeatReply, effects: list[Effect], now_ms: int) -> None:
        """Apply in order, then react to the net change (R29)."""
        if reply.snapshot and reply.metadata_offset >= self.image.metadata_offset:
            self.image.load(reply.metadata_offset, reply.records)
        elif reply.base_offset == self.image.metadata_offset:
            for index, record in enumerate(reply.records, reply.base_offset + 1):
                self.image.apply(index, record)
        else:
            return
        for record in reply.records:
            if isinstance(record, TopicDeleted):
                effects += self.roles.delete_topic(record.topic, record.topic_id, now_ms)
        effects += self.roles.apply(reply.records, now_ms, everything=reply.snapshot)
        if any(isinstance(record, BrokerRecord) for record in reply.records):
            self._advance_all()

    def _advance_all(self) -> None:
        """A broker came or went: leaders that waited for it to join need not any more, others may propose it."""
        for partition, replica in self.replicas.items():
            if isinstance(replica.role, LeaderState):
                self.advance(partition)

    def _on_positions(self, request: Positions, effects: list[Effect], now_ms: int) -> Message:
        if (request.broker_id, request.broker_epoch) != (self.broker_id, self.broker_epoch):
            raise StaleBrokerEpoch(
                f"the question is for broker {request.broker_id} in epoch {request.broker_epoch}, "
                f"this is broker {self.broker_id} in epoch {self.broker_epoch}"
            )
        if not self._obeys(request.controller_epoch):
            raise NotController(
                f"controller epoch {request.controller_epoch} is not the one this broker obeys, {self.store.controller_epoch}"
            )
        answers = [self._position(query, effects, now_ms) for query in request.partitions]
        return PositionsReply(self.broker_id, self.broker_epoch, request.sequence, answers)

    def _position(self, query: PositionQuery, effects: list[Effect], now_ms: int) -> Position:
        partition = TopicPartition(query.topic, query.partition)
        asked = query.topic, query.topic_id, query.partition, query.leader_epoch
        replica = self.replicas.get(partition)
        if replica is None or replica.topic_id != query.topic_id or replica.leader_epoch > query.leader_epoch:
            error = BrokerUnavailable(
                f"broker {self.broker_id} cannot answer for {partition} in epoch {query.leader_epoch}"
            )
            return Position(*asked, problem=Problem.of(error))
        effects += self.roles.fence(replica, query.leader_epoch, now_ms)
        if replica.is_damaged:
            error = BrokerUnavailable(f"broker {self.broker_id} has a damaged log of {partition} and must not lead it")
            return Position(*asked, problem=Problem.of(error))
        return Position(*asked, end_epoch(replica.log), replica.log.end_offset)
