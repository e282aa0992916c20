"""IsrProposals: ISR changes on their way to the controller: one request in flight, every open
proposal in it.

Owns: which leaders have an open proposal, the broker's request sequence. The proposals themselves
belong to their LeaderState.

Invariants (R14, R15): sequences only grow within a broker epoch. A decision counts only if it
answers the request in flight; timeouts and errors prove nothing, so the proposal stays open and is
asked again under a higher sequence until the controller refuses it for good or newer metadata
arrives.
"""

from __future__ import annotations

from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replicas
from minilog.errors import IneligibleReplica
from minilog.wire.messages import AlterPartition, AlterPartitionReply
from minilog.wire.topic_partition import TopicPartition

RETRY_MS = 200


class IsrProposals:
    def __init__(self, broker_id: int, incarnation: str, replicas: Replicas) -> None:
        self.broker_id, self.incarnation = broker_id, incarnation
        self._replicas = replicas
        self._open: dict[TopicPartition, None] = {}
        self._sequence = 0
        self._inflight: AlterPartition | None = None
        self._retry_ms = 0

    def add(self, partition: TopicPartition) -> None:
        self._open[partition] = None
        self._retry_ms = 0

    def next_request(self, broker_epoch: int, controller_epoch: int, now_ms: int) -> AlterPartition | None:
        if self._inflight is not None or not self._open or now_ms < self._retry_ms or broker_epoch < 0:
            return None
        leaders = self._leaders()
        self._open = {leader.partition: None for leader in leaders}
        if not leaders:
            return None
        self._sequence += 1
        proposals = [leader.send_proposal(self._sequence) for leader in leaders]
        named = self.broker_id, broker_epoch, self.incarnation
        self._inflight = AlterPartition(*named, controller_epoch, self._sequence, proposals)
        self._retry_ms = now_ms + RETRY_MS
        return self._inflight

    def _leaders(self) -> list[LeaderState]:
        roles = [self._replicas[p].role for p in self._open if p in self._replicas]
        return [role for role in roles if isinstance(role, LeaderState) and role.proposal is not None]

    def on_failed(self, request: AlterPartition, now_ms: int) -> None:
        if self._inflight is not None and self._inflight.sequence == request.sequence:
            self._inflight = None
            self._retry_ms = now_ms + RETRY_MS

    def on_reply(self, request: AlterPartition, reply: AlterPartitionReply, now_ms: int) -> list[TopicPartition]:
        """Returns the partitions whose proposals were refused: nobody else is waited for there any
        more."""
        mine = self._inflight
        if mine is None or mine.sequence != request.sequence:
            return []
        if (reply.broker_epoch, reply.sequence) != (mine.broker_epoch, mine.sequence):
            self.on_failed(request, now_ms)
            return []
        given_up = []
        self._inflight = None
        self._retry_ms = now_ms + RETRY_MS
        for decision in reply.partitions:
            replica = self._replicas.get(TopicPartition(decision.topic, decision.partition))
            refused = decision.problem is not None and decision.problem.code == IneligibleReplica.code
            if replica is None or replica.topic_id != decision.topic_id or not refused:
                continue
            if isinstance(replica.role, LeaderState):
                replica.role.on_refused(request.sequence, now_ms)
                given_up.append(replica.partition)
        return given_up
