"""Moves under way: what the controller does for them by itself.

Nearly all of a move happens elsewhere. Added brokers catch up and join the ISR as any other. The
leader asks for the ISR without those who go (R115), and the step that brings it about completes the
move (R113). Two things are left. A leader that is to go is given a successor among those who stay,
and loses nothing by that (R111). A move that could be completed because something else has changed,
such as min.insync.replicas, is completed.

Owns, as soft state, when a successor was last named for a partition: a leader that cannot hand over
takes no writes for a moment each time.
"""

from __future__ import annotations

from msgspec.structs import replace

from minilog.core.controller.brokers.broker_sessions import BrokerSessions
from minilog.core.controller.journal.metadata_draft import MetadataDraft
from minilog.core.image import ClusterImage, PartitionState
from minilog.core.moves.moving import completed, is_moving, must_hand_over
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.topic_partition import TopicPartition

LOOK_MS = 100
PAUSE_MS = 15_000
"""So long after a successor was named for it a leader is not asked again to hand over."""


class Moves:
    def __init__(self, image: ClusterImage, sessions: BrokerSessions) -> None:
        self._image, self._sessions = image, sessions
        self._look_ms = 0
        self._named_ms: dict[TopicPartition, int] = {}

    def tick(self, draft: MetadataDraft, now_ms: int) -> None:
        if now_ms < self._look_ms:
            return
        self._look_ms = now_ms + LOOK_MS
        moving = [(state, minimum) for state, minimum in draft.partitions() if is_moving(state)]
        names = {TopicPartition(state.topic, state.partition) for state, _ in moving}
        self._named_ms = {name: at_ms for name, at_ms in self._named_ms.items() if name in names}
        for state, minimum in moving:
            draft.change(completed(state, minimum))
            if must_hand_over(state, minimum) and state.successor == NO_LEADER:
                self._name_successor(draft, state, now_ms)

    def _name_successor(self, draft: MetadataDraft, state: PartitionState, now_ms: int) -> None:
        partition = TopicPartition(state.topic, state.partition)
        named_ms = self._named_ms.get(partition)
        heir = next((r for r in state.target if r in state.isr and self._may_lead(r, state)), NO_LEADER)
        if heir == NO_LEADER or (named_ms is not None and now_ms - named_ms < PAUSE_MS):
            return
        self._named_ms[partition] = now_ms
        draft.change(replace(state, successor=heir))

    def _may_lead(self, broker_id: int, state: PartitionState) -> bool:
        is_well = self._sessions.is_fit(broker_id, state) and not self._sessions.ails(broker_id)
        return is_well and self._image.is_eligible(broker_id)
