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
from minilog.core.controller.brokers.broker_registrations import BrokerRegistrations
from minilog.core.controller.brokers.broker_sessions import BrokerSession, BrokerSessions, ParkedHeartbeat
from minilog.core.controller.brokers.fencing import Fencing
from minilog.core.controller.brokers.metadata_feed import MetadataFeed
from minilog.core.controller.brokers.probes import Probes
from minilog.core.controller.decision import Decision
from minilog.core.controller.elections.election import Elections
from minilog.core.controller.elections.isr_check import decide_proposals
from minilog.core.controller.elections.leader_balance import LeaderBalance
from minilog.core.controller.elections.partition_change import with_leader, without_lost
from minilog.core.controller.elections.unclean_election import UncleanElections
from minilog.core.controller.journal.changes import ChangeRequest, change
from minilog.core.controller.journal.foreign_values import check_heartbeat, check_register
from minilog.core.controller.journal.journal_check import JournalCheck
from minilog.core.controller.journal.metadata_draft import MetadataDraft
from minilog.core.controller.moves.moves import Moves
from minilog.core.controller.told.description import describe_cluster
from minilog.core.controller.told.events import lost_by_all, restored, untold, with_events
from minilog.core.controller.told.failovers import FailoverKind, Failovers
from minilog.core.controller.told.own_events import OwnEvents
from minilog.core.effects import Effect, Reply
from minilog.core.image import BrokerState, ClusterImage
from minilog.core.metadata_view import metadata_reply
from minilog.errors import InvalidRequest, InvalidUpdateVersion, MinilogError, NotController
from minilog.wire.admin_messages import BalanceLeaders, PlanReplicas
from minilog.wire.journal.metadata_records import (
    BrokerFenced,
    BrokerRegistered,
    ControllerStarted,
    EventNoted,
    MetadataRecord,
    PartitionChanged,
    ProducerIdsAllocated,
    TopicDeleted,
)
from minilog.wire.messages import (
    AllocateProducerIds,
    AllocateProducerIdsReply,
    AlterPartition,
    AlterPartitionReply,
    ClaimLost,
    DescribeCluster,
    ElectLeader,
    Heartbeat,
    Message,
    Metadata,
    Positions,
    PositionsReply,
    Probe,
    Problem,
    Register,
)

PRODUCER_IDS_BLOCK = 1000


class ControllerCore:
    def __init__(self, settings: ControllerSettings, rng: Random, version: str = "") -> None:
        self.settings, self.rng, self._version = settings, rng, version
        self.image = ClusterImage()
        self.sessions = BrokerSessions(settings.session_timeout_ms, is_one_of_several=settings.journal == "etcd")
        self.elections = Elections(self.image, settings.election_timeout_ms, self.sessions.is_fit)
        self.unclean_elections = UncleanElections(self.image, self.elections)
        self.failovers = Failovers(self.image)
        self.fencing = Fencing(self.image, self.sessions, self.failovers)
        self.balance = LeaderBalance(settings, self.image, self.sessions)
        self.moves = Moves(self.image, self.sessions)
        self.registrations = BrokerRegistrations(settings, self.image, self.sessions)
        self.feed = MetadataFeed(settings, self.image, self.sessions)
        self.journal_check = JournalCheck(self.image)
        self.probes = Probes(self.image, settings.probe_after_ms)
        self.own_events = OwnEvents()
        self._sequences: dict[int, tuple[int, int]] = {}

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
            case BrokerFenced():
                self.journal_check.on_gone(record.broker_id)
                self.balance.on_fenced(record.broker_id)
            case PartitionChanged():
                self.fencing.on_changed(record, index)
                self.elections.on_changed(record)
            case TopicDeleted():
                self.fencing.on_deleted(record.topic)
                self.elections.on_deleted(record.topic)
                self.elections.lone_ends.on_deleted(record.topic_id)

    def snapshot(self) -> list[MetadataRecord]:
        return self.image.snapshot()

    def start(self, now_ms: int) -> Decision:
        """A new controller term (R25). Every broker that was alive gets a full session timeout to
        be heard: until then it goes by what an earlier term has told it."""
        cluster_id = self.image.cluster_id or self.settings.cluster_id or f"{self.rng.getrandbits(88):022x}"
        if self.settings.cluster_id not in ("", cluster_id):
            raise InvalidRequest(
                f"cluster_id={self.settings.cluster_id} is set, but this journal belongs to cluster {cluster_id}"
            )
        self.elections.forget_counts()
        self.journal_check.begin()
        for broker in self.image.brokers.values():
            if not broker.fenced:
                self.sessions.expect(broker.broker_id, broker.epoch, now_ms, self.image.told_ms(broker.epoch))
        term_id = f"{self.rng.getrandbits(64):016x}"
        started = ControllerStarted(
            cluster_id,
            self.image.controller_epoch + 1,
            term_id,
            self.metadata_offset + 1,
            self.settings.session_timeout_ms,
            self._version,
        )
        return self._noting(Decision([started], []), now_ms)

    def _noting(self, decision: Decision, now_ms: int) -> Decision:
        """The same step of the journal, and behind it what it means for people."""
        if not decision.records:
            return decision
        wall_ms = max(0, now_ms + self.wall_ahead_ms)
        step = with_events(self.image, decision, wall_ms)
        step += self.failovers.in_step(step, now_ms)
        return decision._replace(records=step + restored(self.image, step, wall_ms))

    # --- events -----------------------------------------------------------------------------------

    def handle(self, request_id: int, request: Message, now_ms: int) -> Decision:
        try:
            return self._noting(self._dispatch(request_id, request, now_ms), now_ms)
        except MinilogError as error:
            return Decision([], [Reply(request_id, Problem.of(error))])

    def _dispatch(self, request_id: int, request: Message, now_ms: int) -> Decision:
        match request:
            case Heartbeat():
                return self._on_heartbeat(request_id, request, now_ms)
            case Register():
                return self._on_register(request_id, request, now_ms)
            case DescribeCluster():
                reply = describe_cluster(self.image, self.sessions, self.elections.counts(), now_ms)
                return Decision([], [Reply(request_id, reply)])
            case Metadata():
                check_bounds(request, self.settings.limits)
                return Decision([], [Reply(request_id, metadata_reply(self.image, request.topics))])
        self.journal_check.check()
        match request:
            case AlterPartition():
                return self._on_alter(request_id, request)
            case AllocateProducerIds():
                return self._on_allocate(request_id, request)
            case ElectLeader():
                return Decision([], self.unclean_elections.request(request_id, request, now_ms))
            case BalanceLeaders():
                return self.balance.on_request(request_id, request)
            case _ if isinstance(request, ChangeRequest):
                return self._on_change(request_id, request, now_ms)
        raise InvalidRequest(f"the controller does not answer {type(request).__name__}; send it to a broker")

    def on_response(self, node_id: int, request: Message, response: Message | MinilogError, now_ms: int) -> Decision:
        return self._noting(self._on_response(node_id, request, response, now_ms), now_ms)

    def _on_response(self, node_id: int, request: Message, response: Message | MinilogError, now_ms: int) -> Decision:
        match request, response:
            case Positions(), _:
                for elections in (self.elections, self.unclean_elections):
                    if isinstance(response, PositionsReply):
                        elections.on_reply(node_id, response)
                    elections.on_ended(request)
                return self._decide_elections(now_ms)
            case Probe(), _:
                return self._on_probed(request, response, now_ms)
        return Decision([], [])

    def on_disconnect(self, request_id: int, now_ms: int) -> Decision:
        """A parked heartbeat's connection dropped: ask the listener if the process lives."""
        session = self.sessions.parked_as(request_id)
        if session is None:
            return Decision([], [])
        session.parked = None
        session.expected_ms = now_ms
        return Decision([], self.probes.send(session, now_ms))

    def tick(self, now_ms: int) -> Decision:
        decision = self._tick(now_ms)
        own = self.own_events.take() if self.journal_check.is_done else []
        return self._noting(decision._replace(records=decision.records + own), now_ms)

    def _tick(self, now_ms: int) -> Decision:
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
            effects += self.probes.send(session, now_ms)
        effects += self._tell(now_ms)
        if not self.journal_check.is_done:
            return Decision([], effects)
        decision = self._decide_elections(now_ms)
        effects += self.elections.ask(now_ms)
        effects += self.unclean_elections.look(now_ms)
        if not decision.records:
            self.moves.tick(draft, now_ms)
            self.balance.tick(draft, now_ms)
        return Decision(decision.records + draft.records(), effects + decision.effects)

    def on_committed(self, now_ms: int) -> Decision:
        """After the records of a decision are durable and replayed: tell everybody, and go on."""
        asked: list[Effect] = [*self.elections.ask(now_ms)] if self.journal_check.is_done else []
        return Decision([], asked + self._tell(now_ms))

    def _tell(self, now_ms: int) -> list[Effect]:
        """R38: until it is known that this journal is the newest one nobody hears what it says."""
        if not self.journal_check.is_done:
            return []
        return self.feed.answer_heartbeats(now_ms) + self.feed.answer_waiting(now_ms)

    # --- registration -----------------------------------------------------------------------------

    def _on_register(self, request_id: int, request: Register, now_ms: int) -> Decision:
        check_register(request)
        self.registrations.check_cluster(request)
        self.journal_check.hear(request)
        self.journal_check.check()
        known = self.image.brokers.get(request.broker_id)
        if known is not None and known.incarnation == request.incarnation:
            return Decision([], [Reply(request_id, self.registrations.registered(known.incarnation, known.epoch))])
        if known is not None and not known.fenced:
            return self._challenge(request_id, request, known, now_ms)
        draft = MetadataDraft(self.image)
        effects = self.registrations.register(request_id, request, draft, now_ms)
        return Decision(draft.records(), effects)

    def _challenge(self, request_id: int, request: Register, known: BrokerState, now_ms: int) -> Decision:
        """R26: a live registration blocks another process, unless a probe shows that it is gone."""
        effects = self.registrations.wait(request_id, request)
        session = self.sessions.by_broker[known.broker_id]
        return Decision([], effects + self.probes.send(session, now_ms))

    # --- heartbeats -------------------------------------------------------------------------------

    def _on_heartbeat(self, request_id: int, request: Heartbeat, now_ms: int) -> Decision:
        check_heartbeat(request)
        self.journal_check.hear(request)
        broker = self.registrations.check_process(request.broker_id, request.broker_epoch, request.incarnation)
        session = self.sessions.by_broker.get(request.broker_id)
        if session is None or session.broker_epoch != broker.epoch:
            session = self.sessions.open(request.broker_id, broker.epoch, now_ms)
        if request.sequence <= session.sequence:
            raise InvalidUpdateVersion(f"broker {request.broker_id}: heartbeat {request.sequence} is a late copy")
        effects = self._park(session, request_id, request, now_ms)
        draft = MetadataDraft(self.image)
        self.fencing.take_unfit(draft, session, request)
        self.elections.lone_ends.note(request.lone_ends)
        if request.shutting_down and session.shutdown_offset is None and self.fencing.has_heard_all(request):
            self.fencing.shut_down(draft, session, drained=request.drained, now_ms=now_ms)
            session.shutdown_offset = self.metadata_offset + len(draft.records())
        elif broker.fenced and not request.shutting_down and request.metadata_offset >= broker.epoch:
            self.registrations.unfence(draft, broker)
        elif request.ails:
            leads = not request.drained or not self.fencing.has_heard_all(request)
            self.fencing.relieve(draft, session, leads=leads)
        records = draft.records() + self.failovers.on_heard(self.feed.applied(), request.first_writes, now_ms)
        records += untold(self.image, request) if self.journal_check.is_done else []
        return Decision(records, effects if records else effects + self._tell(now_ms))

    def _park(self, session: BrokerSession, request_id: int, request: Heartbeat, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        if session.parked is not None:
            error = InvalidUpdateVersion(f"broker {session.broker_id}: a newer heartbeat has replaced this one")
            effects.append(Reply(session.parked.request_id, Problem.of(error)))
        self.sessions.heard(session, now_ms, request.session_timeout_ms)
        session.sequence = request.sequence
        session.metadata_offset = request.metadata_offset
        session.conditions, session.ails = tuple(request.conditions), request.ails
        session.clock_skew_ms = request.wall_ms - (now_ms + self.wall_ahead_ms) if request.wall_ms >= 0 else None
        session.parked = ParkedHeartbeat(request_id, request, now_ms + self._hold_ms(request))
        return effects

    def _hold_ms(self, request: Heartbeat) -> int:
        """No longer than the broker waits for an answer: its interval may be another one."""
        if not request.waits:
            return 0
        interval_ms = self.settings.heartbeat_interval_ms
        return interval_ms if request.wait_ms < 0 else min(interval_ms, request.wait_ms)

    # --- probes -----------------------------------------------------------------------------------

    def _on_probed(self, request: Probe, response: Message | MinilogError, now_ms: int) -> Decision:
        session = self.sessions.by_broker.get(request.broker_id)
        if session is None or not self.probes.is_awaited(session, request):
            return Decision([], [])
        kind = self.probes.judge(session, request, response, now_ms)
        if kind is None:
            return Decision([], self.registrations.give_up(request.broker_id))
        draft = MetadataDraft(self.image)
        effects = self.fencing.fence(draft, session, kind, now_ms, now_ms)
        effects += self.registrations.register_waiting(draft, request.broker_id, now_ms)
        return Decision(draft.records(), effects)

    # --- partitions -------------------------------------------------------------------------------

    def _decide_elections(self, now_ms: int) -> Decision:
        draft = MetadataDraft(self.image)
        minimum = {(s.topic, s.partition): m for s, m in draft.partitions()} if self.elections.open_count else {}
        wall_ms = max(0, now_ms + self.wall_ahead_ms)
        for state, winner, _, lacking, missing in self.elections.decide(now_ms):
            least = minimum[state.topic, state.partition]
            draft.change(without_lost(state, *lacking) if winner is None else with_leader(state, winner, least))
            if missing:
                draft.add(EventNoted(0, lost_by_all(self.image, state, missing, wall_ms)))
        effects = self.unclean_elections.decide(draft, wall_ms, now_ms)
        return Decision(draft.records(), effects)

    def _on_alter(self, request_id: int, request: AlterPartition) -> Decision:
        self.registrations.check_process(request.broker_id, request.broker_epoch, request.incarnation)
        if request.controller_epoch != self.image.controller_epoch:
            raise NotController(
                f"addressed to controller epoch {request.controller_epoch}, this one is {self.image.controller_epoch}"
            )
        place = (request.broker_epoch, request.sequence)
        if place <= self._sequences.get(request.broker_id, (0, 0)):
            raise InvalidUpdateVersion(f"broker {request.broker_id}: request {request.sequence} is a late copy (R15)")
        self._sequences[request.broker_id] = place
        draft = MetadataDraft(self.image)
        decisions = decide_proposals(self.image, draft, request, self.sessions.may_join)
        reply = AlterPartitionReply(request.broker_epoch, request.sequence, decisions)
        leaving = {(p.topic, p.partition, one.broker_id): one for p in request.partitions for one in p.leaving}
        return Decision(draft.records(), [Reply(request_id, reply)], leaving=leaving)

    # --- admin ------------------------------------------------------------------------------------

    def _on_change(self, request_id: int, request: ChangeRequest, now_ms: int) -> Decision:
        asked = change(request, self.image, self.settings, self.rng, self.sessions.by_broker)
        if not asked.until_known:
            return Decision(asked.records, [Reply(request_id, asked.reply)])
        self.feed.wait(request_id, asked.reply, self.metadata_offset + len(asked.records), now_ms)
        return Decision(asked.records, [], "" if isinstance(request, ClaimLost | PlanReplicas) else request.asked_by)

    def _on_allocate(self, request_id: int, request: AllocateProducerIds) -> Decision:
        self.registrations.check_process(request.broker_id, request.broker_epoch, request.incarnation)
        first = self.image.next_producer_id
        end = first + PRODUCER_IDS_BLOCK
        reply = Reply(request_id, AllocateProducerIdsReply(first, end))
        return Decision([ProducerIdsAllocated(request.broker_id, end)], [reply])
