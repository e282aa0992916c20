"""ControllerCore: the one serial state machine that owns the metadata (R24).

Every handler decides on the image as it is and returns ``Decision(records, effects)``. The shell
journals the records, makes them durable, gives each to ``replay`` (the only mutator of the image,
and the restart path), then performs the effects, then calls ``on_committed``, which pushes the news
and may decide further. Nothing is said to anybody before it is durable.

Owns, as soft state relearnt after a restart: broker sessions, elections under way, request
sequences, who waits for a new topic to be known everywhere.

Invariants: broker epoch = journal index of its registration (R26). A fenced broker is in no ISR and
leads nothing (R26, R27, one step); ISR changes obey R15-R17. Leaders come from ISR, else ELR (R20).
Source: KIP-500, KIP-631, KIP-966.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from minilog.config import ControllerSettings
from minilog.core.bounds import check_bounds
from minilog.core.controller.broker_registrations import BrokerRegistrations
from minilog.core.controller.broker_sessions import BrokerSession, BrokerSessions, ParkedHeartbeat
from minilog.core.controller.decision import Decision
from minilog.core.controller.description import describe_cluster
from minilog.core.controller.election import Elections
from minilog.core.controller.failovers import FailoverKind, Failovers
from minilog.core.controller.fencing import Fencing
from minilog.core.controller.isr_check import check_proposal
from minilog.core.controller.metadata_draft import MetadataDraft
from minilog.core.controller.metadata_feed import MetadataFeed
from minilog.core.controller.partition_change import (
    with_isr,
    with_leader,
)
from minilog.core.controller.topics import add_partitions, create_topic, created_info, delete_topic
from minilog.core.effects import Effect, Reply, Send
from minilog.core.image import BrokerState, ClusterImage, min_isr
from minilog.core.metadata_view import metadata_reply
from minilog.errors import (
    BrokerUnavailable,
    InvalidRequest,
    InvalidUpdateVersion,
    MinilogError,
    NotController,
)
from minilog.wire.messages import (
    AddPartitions,
    AllocateProducerIds,
    AllocateProducerIdsReply,
    AlterPartition,
    AlterPartitionReply,
    CreateTopic,
    CreateTopicReply,
    DeleteTopic,
    DescribeCluster,
    Heartbeat,
    IsrDecision,
    Message,
    Metadata,
    Ok,
    Positions,
    PositionsReply,
    Probe,
    ProbeReply,
    Problem,
    Register,
)
from minilog.wire.metadata_records import (
    NO_LEADER,
    BrokerRegistered,
    BrokerUnfenced,
    ControllerStarted,
    MetadataRecord,
    PartitionChanged,
    ProducerIdsAllocated,
    TopicDeleted,
)
from minilog.wire.peer_messages import NoAnswer
from minilog.wire.topic_partition import TopicPartition

PRODUCER_IDS_BLOCK = 1000


class ControllerCore:
    def __init__(self, settings: ControllerSettings, rng: Random) -> None:
        self.settings = settings
        self.rng = rng
        self.image = ClusterImage()
        self.sessions = BrokerSessions(settings.session_timeout_ms)
        self.elections = Elections(self.image, settings.election_timeout_ms, self.sessions.is_fit)
        self.failovers = Failovers()
        self.fencing = Fencing(self.image, self.sessions, self.failovers)
        self.registrations = BrokerRegistrations(settings, self.image, self.sessions)
        self.feed = MetadataFeed(settings, self.image, self.sessions)
        self._sequences: dict[tuple[int, int], int] = {}

    @property
    def wall_ahead_ms(self) -> int:
        """How far the wall clock is ahead of the time of turns. The shell says so before each
        event."""
        return self.failovers.wall_ahead_ms

    @wall_ahead_ms.setter
    def wall_ahead_ms(self, ahead_ms: int) -> None:
        self.failovers.wall_ahead_ms = ahead_ms

    @property
    def metadata_offset(self) -> int:
        return self.image.metadata_offset

    # --- replay -----------------------------------------------------------------------------------

    def load(self, metadata_offset: int, records: Iterable[MetadataRecord]) -> None:
        """Begin from a snapshot."""
        self.image.load(metadata_offset, records)
        self.feed.load()
        self.fencing.load(metadata_offset)
        for _, state in self.image.partitions():
            self.elections.on_changed(state)

    def replay(self, index: int, record: MetadataRecord) -> None:
        if isinstance(record, PartitionChanged):
            self.elections.count(self.image.partition(record.topic, record.partition), record)
        self.image.apply(index, record)
        self.feed.replay(record)
        match record:
            case BrokerRegistered():
                self.elections.on_registered(record.broker_id)
            case PartitionChanged():
                self.fencing.on_changed(record, index)
                self.elections.on_changed(record)
                if record.leader != NO_LEADER:
                    self.failovers.on_elected(TopicPartition(record.topic, record.partition))
            case TopicDeleted():
                self.fencing.on_deleted(record.topic)
                self.elections.on_deleted(record.topic)
                self.failovers.on_deleted(record.topic)

    def snapshot(self) -> list[MetadataRecord]:
        return self.image.snapshot()

    def start(self, now_ms: int) -> Decision:
        """A new controller term (R25). Every broker that was alive gets a full session timeout to
        be heard."""
        cluster_id = self.image.cluster_id or self.settings.cluster_id or f"{self.rng.getrandbits(88):022x}"
        if self.settings.cluster_id not in ("", cluster_id):
            raise InvalidRequest(
                f"cluster_id={self.settings.cluster_id} is set, but this journal belongs to cluster {cluster_id}"
            )
        self.elections.forget_counts()
        for broker in self.image.brokers.values():
            if not broker.fenced:
                self.sessions.open(broker.broker_id, broker.epoch, now_ms)
        return Decision([ControllerStarted(cluster_id, self.image.controller_epoch + 1)], [])

    # --- events -----------------------------------------------------------------------------------

    def handle(self, request_id: int, request: Message, now_ms: int) -> Decision:
        try:
            return self._dispatch(request_id, request, now_ms)
        except MinilogError as error:
            return Decision([], [Reply(request_id, Problem.of(error))])

    def _dispatch(self, request_id: int, request: Message, now_ms: int) -> Decision:
        match request:
            case Heartbeat():
                return self._on_heartbeat(request_id, request, now_ms)
            case AlterPartition():
                return self._on_alter(request_id, request)
            case Register():
                return self._on_register(request_id, request, now_ms)
            case CreateTopic():
                records = create_topic(request, self.image, self.settings, self.rng)
                end = self.metadata_offset + len(records)
                return self._when_known(request_id, records, CreateTopicReply(created_info(records), end), now_ms)
            case DeleteTopic():
                records = delete_topic(request, self.image)
                return self._when_known(request_id, records, Ok(self.metadata_offset + len(records)), now_ms)
            case AddPartitions():
                records = add_partitions(request, self.image, self.settings)
                return self._when_known(request_id, records, Ok(self.metadata_offset + len(records)), now_ms)
            case AllocateProducerIds():
                return self._on_allocate(request_id, request)
            case DescribeCluster():
                return Decision(
                    [],
                    [
                        Reply(
                            request_id,
                            describe_cluster(
                                self.image, self.sessions, self.failovers, self.elections.counts(), now_ms
                            ),
                        )
                    ],
                )
            case Metadata():
                check_bounds(request, self.settings.limits)
                return Decision([], [Reply(request_id, metadata_reply(self.image, request.topics))])
        raise InvalidRequest(f"the controller does not answer {type(request).__name__}; send it to a broker")

    def on_response(self, node_id: int, request: Message, response: Message | MinilogError, now_ms: int) -> Decision:
        match request, response:
            case Positions(), PositionsReply():
                self.elections.on_reply(node_id, response)
                self.elections.on_ended(request)
                return self._decide_elections(now_ms)
            case Positions(), _:
                self.elections.on_ended(request)
                return self._decide_elections(now_ms)
            case Probe(), _:
                return self._on_probed(request, response, now_ms)
        return Decision([], [])

    def on_disconnect(self, request_id: int, now_ms: int) -> Decision:
        """The connection of a parked heartbeat dropped: ask the broker's listener whether the
        process is still there."""
        session = self.sessions.parked_as(request_id)
        if session is None:
            return Decision([], [])
        session.parked = None
        session.expected_ms = now_ms
        return Decision([], self._probe(session, now_ms))

    def tick(self, now_ms: int) -> Decision:
        self.sessions.on_tick(now_ms)
        draft = MetadataDraft(self.image)
        effects: list[Effect] = []
        for session in self.sessions.expired(now_ms):
            detected_ms = session.heard_ms + self.settings.session_timeout_ms
            effects += self.fencing.fence(draft, session, FailoverKind.TIMEOUT, detected_ms, now_ms)
            effects += self.registrations.register_waiting(draft, session.broker_id, now_ms)
        if records := draft.records():
            return Decision(records, effects)
        for session in list(self.sessions.overdue(now_ms, self.settings.probe_after_ms)):
            effects += self._probe(session, now_ms)
        effects += self.feed.answer_heartbeats(now_ms)
        effects += self.feed.answer_waiting(now_ms)
        decision = self._decide_elections(now_ms)
        effects += self.elections.ask(now_ms)
        return Decision(decision.records, effects + decision.effects)

    def on_committed(self, now_ms: int) -> Decision:
        """After the records of a decision are durable and replayed: tell everybody, and go on where
        it leads."""
        self.failovers.on_committed(self.metadata_offset, now_ms)
        effects: list[Effect] = [*self.feed.answer_heartbeats(now_ms), *self.elections.ask(now_ms)]
        return Decision([], effects + self.feed.answer_waiting(now_ms))

    # --- registration -----------------------------------------------------------------------------

    def _on_register(self, request_id: int, request: Register, now_ms: int) -> Decision:
        self.registrations.check_cluster(request)
        known = self.image.brokers.get(request.broker_id)
        if known is not None and known.incarnation == request.incarnation:
            return Decision([], [Reply(request_id, self.registrations.registered(known.incarnation, known.epoch))])
        if known is not None and not known.fenced:
            return self._challenge(request_id, request, known, now_ms)
        draft = MetadataDraft(self.image)
        effects = self.registrations.register(request_id, request, draft, now_ms)
        return Decision(draft.records(), effects)

    def _challenge(self, request_id: int, request: Register, known: BrokerState, now_ms: int) -> Decision:
        """R26: a live registration blocks another process with its id, unless a probe shows that it
        is gone."""
        effects = self.registrations.wait(request_id, request)
        session = self.sessions.by_broker[known.broker_id]
        return Decision([], effects + self._probe(session, now_ms))

    # --- heartbeats -------------------------------------------------------------------------------

    def _on_heartbeat(self, request_id: int, request: Heartbeat, now_ms: int) -> Decision:
        broker = self.registrations.check_process(request.broker_id, request.broker_epoch, request.incarnation)
        if request.controller_epoch > self.image.controller_epoch:
            raise NotController(f"controller epoch {request.controller_epoch} is newer than this controller's")
        session = self.sessions.by_broker.get(request.broker_id)
        if session is None or session.broker_epoch != broker.epoch:
            session = self.sessions.open(request.broker_id, broker.epoch, now_ms)
        if request.sequence <= session.sequence:
            raise InvalidUpdateVersion(f"broker {request.broker_id}: heartbeat {request.sequence} is a late copy")
        effects = self._park(session, request_id, request, now_ms)
        draft = MetadataDraft(self.image)
        self.fencing.take_unfit(draft, session, request)
        if request.shutting_down and session.shutdown_offset is None and self.fencing.has_heard_all(request):
            self.fencing.shut_down(draft, session, drained=request.drained, now_ms=now_ms)
            session.shutdown_offset = self.metadata_offset + len(draft.records())
        elif broker.fenced and not request.shutting_down and request.metadata_offset >= broker.epoch:
            draft.add(BrokerUnfenced(broker.broker_id, broker.epoch))
        records = draft.records()
        if not records:
            effects += self.feed.answer_heartbeats(now_ms)
            effects += self.feed.answer_waiting(now_ms)
        return Decision(records, effects)

    def _park(self, session: BrokerSession, request_id: int, request: Heartbeat, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        if session.parked is not None:
            error = InvalidUpdateVersion(f"broker {session.broker_id}: a newer heartbeat has replaced this one")
            effects.append(Reply(session.parked.request_id, Problem.of(error)))
        self.sessions.heard(session, now_ms)
        session.sequence = request.sequence
        session.metadata_offset = request.metadata_offset
        session.parked = ParkedHeartbeat(request_id, request, now_ms + self._hold_ms(request))
        self.failovers.on_applied(self.feed.known_everywhere(), now_ms)
        return effects

    def _hold_ms(self, request: Heartbeat) -> int:
        """No longer than the broker waits for an answer: its interval may be another one."""
        if not request.waits:
            return 0
        interval_ms = self.settings.heartbeat_interval_ms
        return interval_ms if request.wait_ms < 0 else min(interval_ms, request.wait_ms)

    # --- probes -----------------------------------------------------------------------------------

    def _probe(self, session: BrokerSession, now_ms: int) -> list[Effect]:
        if session.probe_ms is not None:
            return []
        session.probe_ms = now_ms
        broker = self.image.brokers[session.broker_id]
        return [Send(broker.broker_id, Probe(broker.broker_id, broker.incarnation))]

    def _on_probed(self, request: Probe, response: Message | MinilogError, now_ms: int) -> Decision:
        """Refused, or another process answers at its address: dead. No answer proves nothing. The
        session timeout decides."""
        session = self.sessions.by_broker.get(request.broker_id)
        broker = self.image.brokers.get(request.broker_id)
        if session is None or broker is None or broker.incarnation != request.incarnation or session.probe_ms is None:
            return Decision([], [])
        session.probe_ms = None
        reason = response.info.get("reason") if isinstance(response, BrokerUnavailable) else None
        # A dying process closes its sockets one by one: a reset means look again at the next tick.
        session.expected_ms = (
            now_ms - self.settings.probe_after_ms if reason in (NoAnswer.RESET, NoAnswer.UNREACHABLE) else now_ms
        )
        # Another broker at this address proves nothing about this one.
        answers = isinstance(response, ProbeReply) and response.broker_id == request.broker_id
        replaced = answers and response.incarnation != request.incarnation  # type: ignore[union-attr]
        if reason != NoAnswer.REFUSED and not replaced:
            return Decision([], self.registrations.give_up(request.broker_id))
        draft = MetadataDraft(self.image)
        effects = self.fencing.fence(
            draft, session, FailoverKind.REPLACED if replaced else FailoverKind.REFUSED, now_ms, now_ms
        )
        effects += self.registrations.register_waiting(draft, request.broker_id, now_ms)
        return Decision(draft.records(), effects)

    # --- partitions -------------------------------------------------------------------------------

    def _decide_elections(self, now_ms: int) -> Decision:
        draft = MetadataDraft(self.image)
        minimum = {(s.topic, s.partition): m for s, m in draft.partitions()} if self.elections.open_count else {}
        for state, winner, _ in self.elections.decide(now_ms):
            draft.change(with_leader(state, winner, minimum[state.topic, state.partition]))
        return Decision(draft.records(), [])

    def _on_alter(self, request_id: int, request: AlterPartition) -> Decision:
        self.registrations.check_process(request.broker_id, request.broker_epoch, request.incarnation)
        if request.controller_epoch != self.image.controller_epoch:
            raise NotController(
                f"addressed to controller epoch {request.controller_epoch}, this one is {self.image.controller_epoch}"
            )
        key = (request.broker_id, request.broker_epoch)
        if request.sequence <= self._sequences.get(key, 0):
            raise InvalidUpdateVersion(f"broker {request.broker_id}: request {request.sequence} is a late copy (R15)")
        self._sequences[key] = request.sequence
        draft = MetadataDraft(self.image)
        decisions = []
        for proposal in request.partitions:
            decision = IsrDecision(proposal.topic, proposal.topic_id, proposal.partition)
            try:
                state = check_proposal(self.image, draft, request.broker_id, proposal, self.sessions.is_fit)
            except MinilogError as error:
                decision.problem = Problem.of(error)
            else:
                minimum = min_isr(self.image.topics[state.topic], state)
                draft.change(with_isr(state, [m.broker_id for m in proposal.isr], minimum))
            decisions.append(decision)
        reply = AlterPartitionReply(request.broker_epoch, request.sequence, decisions)
        return Decision(draft.records(), [Reply(request_id, reply)])

    # --- admin ------------------------------------------------------------------------------------

    def _when_known(self, request_id: int, records: list[MetadataRecord], reply: Message, now_ms: int) -> Decision:
        self.feed.wait(request_id, reply, self.metadata_offset + len(records), now_ms)
        return Decision(records, [])

    def _on_allocate(self, request_id: int, request: AllocateProducerIds) -> Decision:
        self.registrations.check_process(request.broker_id, request.broker_epoch, request.incarnation)
        first = self.image.next_producer_id
        end = first + PRODUCER_IDS_BLOCK
        records: list[MetadataRecord] = [ProducerIdsAllocated(request.broker_id, end)]
        return Decision(records, [Reply(request_id, AllocateProducerIdsReply(first, end))])
