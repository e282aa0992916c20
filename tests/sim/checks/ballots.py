"""Ballots: who was asked in the elections of partitions, and who answered, as the wire to and from
the controller shows it.

Known to the checker alone. An answer counts for the request it answers, of the process that got it:
a broker that was asked again, or that has been restarted since, has not answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minilog.wire.journal.metadata_records import PartitionChanged
from minilog.wire.messages import Heartbeat, Message, Positions, PositionsReply

if TYPE_CHECKING:
    from tests.sim.nodes.broker_node import BrokerNode

Ballot = tuple[str, int, int]
"""(topic id, partition, leader epoch)"""


class Ballots:
    def __init__(self, brokers: dict[int, BrokerNode]) -> None:
        self.brokers = brokers
        self._asked: dict[Ballot, dict[int, tuple[int, int]]] = {}
        """By broker: (sequence of the request, life of the process when it was sent)."""
        self._answered: dict[Ballot, set[int]] = {}
        self._drained: dict[int, int] = {}
        """Broker epoch by broker, of leaders that said they had drained."""

    def on_controller_started(self) -> None:
        self._asked.clear()
        self._answered.clear()

    def on_received(self, request: Message) -> None:
        """What a broker said last counts: it may have been given something since it had drained."""
        if isinstance(request, Heartbeat) and request.shutting_down:
            self._drained[request.broker_id] = request.broker_epoch if request.drained else -1

    def on_asked(self, broker_id: int, request: Positions) -> None:
        for query in request.partitions:
            ballot = (query.topic_id, query.partition, query.leader_epoch)
            self._asked.setdefault(ballot, {})[broker_id] = (request.sequence, self.brokers[broker_id].life)
            self._answered.setdefault(ballot, set()).discard(broker_id)

    def on_answered(self, broker_id: int, request: Positions, reply: PositionsReply) -> None:
        """By the request's names: an answer that says less does not count, nor does one to an older
        request."""
        good = {(a.topic, a.partition, a.leader_epoch) for a in reply.partitions if a.problem is None}
        for query in request.partitions:
            ballot = (query.topic_id, query.partition, query.leader_epoch)
            asked = self._asked.get(ballot, {}).get(broker_id)
            is_current = asked is not None and asked[0] == request.sequence == reply.sequence
            if is_current and (query.topic, query.partition, query.leader_epoch) in good:
                self._answered[ballot].add(broker_id)

    def voters(self, state: PartitionChanged) -> list[int]:
        """Who has answered the election of this leader, as the process it is still."""
        ballot = (state.topic_id, state.partition, state.leader_epoch)
        asked = self._asked.get(ballot, {})
        answered = self._answered.get(ballot, ())
        return [b for b in answered if self.brokers[b].running and self.brokers[b].life == asked[b][1]]

    def is_asked(self, state: PartitionChanged) -> bool:
        return (state.topic_id, state.partition, state.leader_epoch) in self._asked

    def has_drained(self, broker_id: int, broker_epoch: int) -> bool:
        return self._drained.get(broker_id) == broker_epoch
