"""Fencing: who is taken out of ISRs and leaderships, each time in one step of the journal.

A process that is dead or silent is fenced (R27). One that stops hands over (R28). A replica that is
damaged leaves, while others can lead (R53).

Owns the journal index of each partition's last record, by which it knows what a leaving broker has
heard of. Source: KIP-631, KIP-966.
"""

from __future__ import annotations

from minilog.core.controller.brokers.broker_sessions import BrokerSession, BrokerSessions
from minilog.core.controller.elections.partition_change import (
    IsEligible,
    Move,
    handed_over,
    without_replica,
    without_unfit,
)
from minilog.core.controller.journal.metadata_draft import MetadataDraft
from minilog.core.controller.told.failovers import FailoverKind, Failovers
from minilog.core.effects import Effect, Reply
from minilog.core.image import ClusterImage, PartitionState, min_isr
from minilog.errors import InvalidUpdateVersion
from minilog.wire.journal.metadata_records import NO_LEADER, BrokerFenced, BrokerShuttingDown
from minilog.wire.messages import FailoverInfo, Heartbeat, Problem
from minilog.wire.topic_partition import TopicPartition


class Fencing:
    def __init__(self, image: ClusterImage, sessions: BrokerSessions, failovers: Failovers) -> None:
        self._image, self._sessions, self._failovers = image, sessions, failovers
        self._changed_at: dict[tuple[str, int], int] = {}
        """Journal index of each partition's last record, of those this controller has replayed one
        by one."""
        self._loaded_at = 0

    def load(self, metadata_offset: int) -> None:
        """Begin from a snapshot."""
        self._changed_at, self._loaded_at = {}, metadata_offset

    def on_changed(self, state: PartitionState, index: int) -> None:
        self._changed_at[state.topic, state.partition] = index

    def on_deleted(self, topic: str) -> None:
        self._changed_at = {key: at for key, at in self._changed_at.items() if key[0] != topic}

    def take_unfit(self, draft: MetadataDraft, session: BrokerSession, request: Heartbeat) -> None:
        """Replicas that their broker knows to be damaged, or could not open, leave ISR and
        leadership while others can lead."""
        session.unfit = frozenset((r.topic_id, r.partition) for r in request.unfit)
        for unfit in request.unfit:
            state = self._image.partition(unfit.topic, unfit.partition)
            if state is not None and state.topic_id == unfit.topic_id:
                topic = self._image.topics[state.topic]
                changed = without_unfit(state, session.broker_id, min_isr(topic, state), self._fit(draft, state))
                draft.change(changed)

    def _fit(self, draft: MetadataDraft, state: PartitionState) -> IsEligible:
        return lambda broker_id: draft.is_eligible(broker_id) and self._sessions.is_fit(broker_id, state)

    def has_heard_all(self, request: Heartbeat) -> bool:
        """R28: "drained" is said of the leaderships and ISRs that the broker knows. One that was
        changed behind its back, or given to it a moment ago, is another: then it hears of that
        first, and says so again."""
        led = (state for _, state in self._image.partitions() if state.leader == request.broker_id)
        return not request.drained or all(self._last_change(state) <= request.metadata_offset for state in led)

    def shut_down(self, draft: MetadataDraft, session: BrokerSession, *, drained: bool, now_ms: int) -> None:
        """R28: no new ISR joins, every leadership moved, in one step. If it could not drain, by an
        election."""
        draft.add(BrokerShuttingDown(session.broker_id, session.broker_epoch))
        self._take_out(
            draft, session, handed_over if drained else without_replica, FailoverKind.SHUTDOWN, now_ms, now_ms
        )

    def relieve(self, draft: MetadataDraft, session: BrokerSession, *, leads: bool) -> None:
        """R43: a broker cannot write, or only slowly. It leaves the ISRs that do without it, and
        unless it still ``leads``, because others do not hold all yet, one that is well leads."""
        broker_id = session.broker_id
        for state, minimum in list(draft.partitions()):
            fit = self._fit(draft, state)

            def well(other: int, fit: IsEligible = fit) -> bool:
                return fit(other) and not self._sessions.ails(other)

            if broker_id not in state.isr or len(state.isr) <= minimum:
                continue
            if state.leader != broker_id:
                draft.change(without_replica(state, broker_id, minimum, fit))
            elif not leads and any(r != broker_id and well(r) for r in state.isr):
                draft.change(handed_over(state, broker_id, minimum, well))

    def _last_change(self, state: PartitionState) -> int:
        return self._changed_at.get((state.topic, state.partition), self._loaded_at)

    def _take_out(
        self,
        draft: MetadataDraft,
        session: BrokerSession,
        move: Move,
        kind: FailoverKind | None,
        detected_ms: int,
        now_ms: int,
    ) -> None:
        """Out of every ISR and from every leadership, in one step. ``kind`` None: of this failover
        people were told already."""
        broker_id, leaderless = session.broker_id, set[TopicPartition]()
        led: dict[TopicPartition, int] = {}
        draft.ineligible.add(broker_id)
        for state, minimum in list(draft.partitions()):
            changed = move(state, broker_id, minimum, self._fit(draft, state))
            draft.change(changed)
            if state.leader == broker_id:
                led[TopicPartition(state.topic, state.partition)] = changed.leader_epoch
                if changed.leader == NO_LEADER:
                    leaderless.add(TopicPartition(state.topic, state.partition))
        if kind is not None:
            lost = broker_id, session.broker_epoch, kind.value
            times = session.heard_ms, detected_ms, now_ms
            info = FailoverInfo(*lost, *times, len(led), is_heard=session.is_heard)
            self._failovers.begin(info, led, leaderless)

    def fence(
        self, draft: MetadataDraft, session: BrokerSession, kind: FailoverKind, detected_ms: int, now_ms: int
    ) -> list[Effect]:
        """R27: one step takes a silent or dead process out of every ISR and opens the next leader
        epochs."""
        broker = self._image.brokers[session.broker_id]
        self._sessions.close(session.broker_id)
        effects: list[Effect] = []
        if session.parked is not None:
            error = InvalidUpdateVersion(f"broker {session.broker_id} was fenced meanwhile; send another heartbeat")
            effects.append(Reply(session.parked.request_id, Problem.of(error)))
        if broker.fenced or broker.epoch != session.broker_epoch:
            return effects
        silent_ms = max(0, now_ms - session.heard_ms) if session.is_heard else -1
        draft.add(BrokerFenced(broker.broker_id, broker.epoch, kind.value, silent_ms))
        told_already = broker.shutting_down
        self._take_out(draft, session, without_replica, None if told_already else kind, detected_ms, now_ms)
        return effects
