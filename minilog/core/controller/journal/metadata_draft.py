"""One journal step in the making: changes laid over the image, turned into records at the end.

Owns the overlay only. The image is not touched until the records are durable and replayed. However
often a partition is changed in a step, it yields one record with ``partition_epoch`` + 1 (R16). A
move that can be completed is complete in it (R113), unless it is an election. Records of a step
come in the order broker changes, topics, partitions, so that replaying never meets a forward
reference.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from minilog.core.image import ClusterImage, PartitionState, TopicImage, min_isr
from minilog.core.moves.moving import completed
from minilog.wire.journal.metadata_records import NO_LEADER, MetadataRecord


class MetadataDraft:
    def __init__(self, image: ClusterImage) -> None:
        self.image = image
        self.ineligible: set[int] = set()
        """Brokers this step fences or shuts down: no longer eligible within it."""
        self._first: list[MetadataRecord] = []
        self._partitions: dict[tuple[str, int], PartitionState] = {}

    @property
    def next_index(self) -> int:
        """Journal index of the next record given to ``add``."""
        return self.image.metadata_offset + len(self._first) + 1

    def add(self, record: MetadataRecord) -> None:
        self._first.append(record)

    def is_eligible(self, broker_id: int) -> bool:
        return broker_id not in self.ineligible and self.image.is_eligible(broker_id)

    def partitions(self) -> Iterator[tuple[PartitionState, int]]:
        """Every partition as it stands in this step, with its effective min ISR."""
        for topic, state in self.image.partitions():
            yield self._partitions.get((state.topic, state.partition), state), min_isr(topic, state)

    def state_of(self, topic: str, partition: int) -> PartitionState | None:
        """As it stands in this step."""
        return self._partitions.get((topic, partition)) or self.image.partition(topic, partition)

    def change(self, state: PartitionState) -> None:
        """Keep ``state`` if it differs from what stands now."""
        key = (state.topic, state.partition)
        if state != self._partitions.get(key, self._stored(state)):
            self._partitions[key] = state

    def records(self) -> list[MetadataRecord]:
        changed: list[MetadataRecord] = []
        for state in self._partitions.values():
            stored = self._stored(state)
            minimum = min_isr(self.image.topics[state.topic], state)
            moved = state if _is_elected(state, stored) else completed(state, minimum, self.is_eligible)
            settled = _settled(_in_new_epoch(moved, stored), stored)
            if settled != stored:
                changed.append(replace(settled, partition_epoch=stored.partition_epoch + 1))
        return [*self._first, *changed]

    def _stored(self, state: PartitionState) -> PartitionState:
        topic: TopicImage = self.image.topics[state.topic]
        return topic.partitions[state.partition]


def _is_elected(state: PartitionState, stored: PartitionState) -> bool:
    """Its leader takes the epoch that was opened for the election, and no later one: the journal
    may say that it was an unclean one."""
    return stored.leader == NO_LEADER != state.leader


def _in_new_epoch(state: PartitionState, stored: PartitionState) -> PartitionState:
    """R114: a replica that goes opens a new leader epoch, so nothing it has said before counts when
    it is a replica again."""
    goes = not set(stored.replicas) <= {*state.replicas}
    is_new = state.leader_epoch > stored.leader_epoch
    return replace(state, leader_epoch=stored.leader_epoch + 1) if goes and not is_new else state


def _settled(state: PartitionState, stored: PartitionState) -> PartitionState:
    """Who was to succeed does so no more when the leadership has ended, or it is not in the ISR."""
    if state.successor == NO_LEADER:
        return state
    goes_on = state.leader_epoch == stored.leader_epoch and state.leader not in (NO_LEADER, state.successor)
    return state if goes_on and state.successor in state.isr else replace(state, successor=NO_LEADER)
