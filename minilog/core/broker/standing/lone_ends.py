"""How far the partitions are committed that this broker leads.

The controller is told, so that it can say how much is missing when all whole copies are lost (R37).
Told is what has changed, with the next heartbeat: a partition that rests costs nothing. First come
those of which some replica has no whole copy, for these are nearest to a loss. A new controller is
told all.
"""

from __future__ import annotations

from itertools import islice

from minilog.core.image import PartitionState
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replicas
from minilog.wire.messages import LoneEnd
from minilog.wire.topic_partition import TopicPartition

TOLD_MAX = 1000
"""In one heartbeat. The others come with the next ones."""
WHOLE_TOLD_MAX = 50
"""Of those whose replicas are all in sync."""
LOOKED_AT_MAX = 5000
"""Before one heartbeat."""


class LoneEnds:
    def __init__(self) -> None:
        self._moved: dict[TopicPartition, LeaderState] = {}
        self._noted: dict[TopicPartition, LoneEnd] = {}
        self._untold: dict[TopicPartition, LoneEnd] = {}
        self._untold_whole: dict[TopicPartition, LoneEnd] = {}
        self._told: list[LoneEnd] = []
        self._controller_epoch = 0

    def note(self, partition: TopicPartition, role: LeaderState) -> None:
        """This broker leads it, and its high watermark or its ISR may have moved. Called in every
        turn, so it is looked at before a heartbeat."""
        self._moved[partition] = role

    def tell(self, controller_epoch: int, replicas: Replicas) -> list[LoneEnd]:
        if controller_epoch != self._controller_epoch:
            self._controller_epoch = controller_epoch
            self._noted.clear()
            roles = ((partition, replica.role) for partition, replica in replicas.items())
            self._moved.update((partition, role) for partition, role in roles if isinstance(role, LeaderState))
        for partition in list(islice(self._moved, LOOKED_AT_MAX)):
            self._look(partition, self._moved.pop(partition))
        self._told = [
            *islice(self._untold.values(), TOLD_MAX),
            *islice(self._untold_whole.values(), WHOLE_TOLD_MAX),
        ]
        return self._told

    def _look(self, partition: TopicPartition, role: LeaderState) -> None:
        end, is_whole = _end_of(role), _is_whole(role.state)
        if self._noted.get(partition) != end or (partition in self._untold_whole and not is_whole):
            self._noted[partition] = end
            self._untold_whole.pop(partition, None)
            (self._untold_whole if is_whole else self._untold)[partition] = end

    def on_answered(self) -> None:
        """The controller has what was told last."""
        for end in self._told:
            partition = TopicPartition(end.topic, end.partition)
            for untold in (self._untold, self._untold_whole):
                if untold.get(partition) == end:
                    del untold[partition]
        self._told = []


def _is_whole(state: PartitionState) -> bool:
    return 1 < len(state.isr) == len(state.replicas)


def _end_of(role: LeaderState) -> LoneEnd:
    state = role.state
    return LoneEnd(
        state.topic, state.topic_id, state.partition, role.high_watermark, state.leader_epoch, role.start_offset
    )
