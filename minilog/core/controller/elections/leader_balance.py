"""LeaderBalance: leaderships go back to the preferred replicas, the first of each partition.

After a failover they stay where they went. A person asks for them to go back, or the controller
does by itself. Either way the partition's record names a ``successor``. The leader then takes no
writes for a moment, and asks to be replaced when all of the ISR hold all that it has (R111). When
that does not come about in SUCCESSION_MS the record names nobody any more.

Owns, as soft state: since when each broker has been steady, when partitions were moved, and for how
long a succession is open.

Invariants
* Nobody is named who is not in the ISR, not eligible, unfit, or ails.
* A partition on the move has no preferred replica: who leads it next follows from where it goes.
* By itself the controller moves nothing to a broker that was not steady for ``steady_ms``, moves no
  partition twice within ``pause_ms``, and moves nothing while a broker leads nearly all that it is
  preferred for.

Source: Kafka's preferred leader election and auto.leader.rebalance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from msgspec.structs import replace

from minilog.config import ControllerSettings
from minilog.core.controller.brokers.broker_sessions import BrokerSessions
from minilog.core.controller.decision import Decision
from minilog.core.controller.journal.metadata_draft import MetadataDraft
from minilog.core.effects import Reply
from minilog.core.image import ClusterImage, PartitionState
from minilog.core.moves.moving import is_moving
from minilog.errors import UnknownTopic
from minilog.wire.admin_messages import BalanceLeaders, BalanceLeadersReply, LeaderMove
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.topic_partition import TopicPartition

LOOK_MS = 1000
SUCCESSION_MS = 5000
"""So long a leader may try to hand over."""
MOVES_MAX = 50
"""By itself at a time."""


class LeaderBalance:
    def __init__(self, settings: ControllerSettings, image: ClusterImage, sessions: BrokerSessions) -> None:
        self._settings, self._image, self._sessions = settings, image, sessions
        self._look_ms = 0
        self._steady_ms: dict[int, tuple[int, int]] = {}
        """By broker: its epoch, and since when nothing was wrong with it."""
        self._moved_ms: dict[TopicPartition, int] = {}
        self._named_ms: dict[TopicPartition, int] = {}
        """Since when a successor is named."""

    def on_fenced(self, broker_id: int) -> None:
        self._steady_ms.pop(broker_id, None)

    # --- by request -------------------------------------------------------------------------------

    def on_request(self, request_id: int, request: BalanceLeaders) -> Decision:
        """All that is not led by its preferred replica: who is named for it, or why nobody is.
        Raises UnknownTopic."""
        for topic in request.topics:
            if topic not in self._image.topics:
                raise UnknownTopic(f"there is no topic {topic!r}")
        moves, draft = [], MetadataDraft(self._image)
        for state in self._misplaced(request.topics):
            problem = self._problem(state)
            moves.append(LeaderMove(state.topic, state.partition, state.leader, state.replicas[0], problem))
            if not problem and not request.dry_run:
                draft.change(replace(state, successor=state.replicas[0]))
        records = draft.records()
        end_offset = self._image.metadata_offset + len(records) if records else 0
        return Decision(records, [Reply(request_id, BalanceLeadersReply(moves, end_offset))], request.asked_by)

    def _misplaced(self, topics: Collection[str] = ()) -> Iterator[PartitionState]:
        for topic, state in self._image.partitions():
            if state.leader != state.replicas[0] and not is_moving(state) and (not topics or topic.topic in topics):
                yield state

    def _problem(self, state: PartitionState) -> str:
        """Why the preferred replica cannot lead now; "" when it can."""
        preferred = state.replicas[0]
        if state.leader == NO_LEADER:
            return "it has no leader: an election is under way, or nobody is there for one"
        if not self._image.is_eligible(preferred):
            return f"broker {preferred} is not running"
        if preferred not in state.isr:
            return f"broker {preferred} is not in sync"
        if not self._sessions.is_fit(preferred, state) or self._sessions.ails(preferred):
            return f"broker {preferred} is not well"
        return ""

    # --- by itself --------------------------------------------------------------------------------

    def tick(self, draft: MetadataDraft, now_ms: int) -> None:
        if now_ms < self._look_ms:
            return
        self._look_ms = now_ms + min(LOOK_MS, self._settings.leader_balance_steady_ms)
        self._end_successions(draft, now_ms)
        self._see_brokers(now_ms)
        if self._settings.leader_balance:
            for state in self._due(now_ms):
                self._moved_ms[TopicPartition(state.topic, state.partition)] = now_ms
                draft.change(replace(state, successor=state.replicas[0]))

    def _end_successions(self, draft: MetadataDraft, now_ms: int) -> None:
        open_now = {TopicPartition(s.topic, s.partition): s for _, s in self._image.partitions() if s.successor >= 0}
        self._named_ms = {partition: self._named_ms.get(partition, now_ms) for partition in open_now}
        for partition, state in open_now.items():
            if now_ms - self._named_ms[partition] >= SUCCESSION_MS:
                draft.change(replace(state, successor=NO_LEADER))

    def _see_brokers(self, now_ms: int) -> None:
        steady = {}
        for broker_id, session in self._sessions.by_broker.items():
            if self._image.is_eligible(broker_id) and session.is_heard and not session.ails:
                known_epoch, since_ms = self._steady_ms.get(broker_id, (-1, now_ms))
                same = known_epoch == session.broker_epoch
                steady[broker_id] = session.broker_epoch, since_ms if same else now_ms
        self._steady_ms = steady

    def _is_steady(self, broker_id: int, now_ms: int) -> bool:
        since_ms = self._steady_ms.get(broker_id, (-1, now_ms))[1]
        return now_ms - since_ms >= self._settings.leader_balance_steady_ms

    def _due(self, now_ms: int) -> list[PartitionState]:
        pause_ms = self._settings.leader_balance_pause_ms
        self._moved_ms = {p: at_ms for p, at_ms in self._moved_ms.items() if now_ms - at_ms < pause_ms}
        preferred = Counter(state.replicas[0] for _, state in self._image.partitions())
        missing = Counter(state.replicas[0] for state in self._misplaced())
        percent = self._settings.leader_balance_skew_percent
        skewed = {b for b in missing if 100 * missing[b] > percent * preferred[b] and self._is_steady(b, now_ms)}
        due = []
        for state in self._misplaced() if skewed else ():
            moved = TopicPartition(state.topic, state.partition) in self._moved_ms
            if state.replicas[0] in skewed and not moved and state.successor < 0 and not self._problem(state):
                due.append(state)
        return due[:MOVES_MAX]


def is_successor(state: PartitionState, broker_id: int) -> bool:
    """R111: only the one that was named takes over without an election."""
    return broker_id == state.successor != NO_LEADER
