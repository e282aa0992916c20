"""Moves under way: what the controller does for them by itself.

Nearly all of a move happens elsewhere. Added brokers catch up and join the ISR as any other. The
leader asks for the ISR without those who go (R115), and the step that brings it about completes the
move (R113). Two things are left. A leader that is to go is given a successor among those who stay,
and loses nothing by that (R111). A move that could be completed because something else has changed,
such as min.insync.replicas, is completed.

Owns, as soft state, when a successor may be named next for a partition. A leader that cannot hand
over takes no writes for a moment each time, so it is asked less and less often.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from minilog.core.controller.brokers.broker_sessions import BrokerSessions
from minilog.core.controller.journal.metadata_draft import MetadataDraft
from minilog.core.image import ClusterImage, PartitionState
from minilog.core.moves.moving import completed, is_moving, must_hand_over
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.topic_partition import TopicPartition

LOOK_MS = 1000
PAUSE_MS = 6_000
"""So long after a successor was named for the first time none is named again. Each time it is twice
as long as before, up to PAUSE_MS_MAX."""
PAUSE_MS_MAX = 60_000


class Pause(NamedTuple):
    until_ms: int
    ms: int


class Moves:
    def __init__(self, image: ClusterImage, sessions: BrokerSessions) -> None:
        self._image, self._sessions = image, sessions
        self._look_ms = 0
        self._pauses: dict[TopicPartition, Pause] = {}

    def tick(self, draft: MetadataDraft, now_ms: int) -> None:
        if now_ms < self._look_ms:
            return
        self._look_ms = now_ms + LOOK_MS
        moving = [(state, minimum) for state, minimum in draft.partitions() if is_moving(state)]
        names = {TopicPartition(state.topic, state.partition) for state, _ in moving}
        self._pauses = {name: pause for name, pause in self._pauses.items() if name in names}
        for state, minimum in moving:
            draft.change(completed(state, minimum, draft.is_eligible))
            if must_hand_over(state, minimum, draft.is_eligible) and state.successor == NO_LEADER:
                self._name_successor(draft, state, now_ms)

    def _name_successor(self, draft: MetadataDraft, state: PartitionState, now_ms: int) -> None:
        partition = TopicPartition(state.topic, state.partition)
        last = self._pauses.get(partition, Pause(0, PAUSE_MS // 2))
        heir = next((r for r in state.target if r in state.isr and self._may_lead(r, state)), NO_LEADER)
        if heir == NO_LEADER or now_ms < last.until_ms:
            return
        pause_ms = min(2 * last.ms, PAUSE_MS_MAX)
        self._pauses[partition] = Pause(now_ms + pause_ms, pause_ms)
        draft.change(replace(state, successor=heir))

    def _may_lead(self, broker_id: int, state: PartitionState) -> bool:
        is_well = self._sessions.is_fit(broker_id, state) and not self._sessions.ails(broker_id)
        return is_well and self._image.is_eligible(broker_id)
