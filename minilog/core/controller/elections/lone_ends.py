"""What is known to be committed: how far each partition reached, by its leaders' word (R37).

Owns those ends: soft state, told again to each new controller. They say how much is missing when
all whole copies are lost, and that a log which ends before one is an older copy.

Invariants: an end only rises, until records are given up. That is so where a leader was elected
uncleanly, and where a power cut took from all copies what their topic had not synced. What was told
of an earlier epoch, by a leader or by a replica that has heard of nothing since, then counts for
nothing: whoever lacks those records has no older copy.
"""

from __future__ import annotations

from collections.abc import Iterable

from minilog.core.image import ClusterImage, PartitionState
from minilog.wire.messages import LoneEnd


class LoneEnds:
    def __init__(self, image: ClusterImage) -> None:
        self._image = image
        self._ends: dict[tuple[str, int], LoneEnd] = {}
        """By topic id and partition."""
        self._recovered: dict[tuple[str, int], int] = {}
        """The leader epoch in which those go on that have lost committed records in a recovery."""

    def note(self, ends: Iterable[LoneEnd]) -> None:
        counts_from = self.counts_from()
        for end in ends:
            key = (end.topic_id, end.partition)
            if self._is_there(end) and (end.leader_epoch < 0 or end.leader_epoch >= counts_from.get(key, 0)):
                known = self._ends.get(key)
                if known is None or _place(end) > _place(known):
                    self._ends[key] = end

    def _is_there(self, end: LoneEnd) -> bool:
        """It may have been deleted since that was told."""
        state = self._image.partition(end.topic, end.partition)
        return state is not None and state.topic_id == end.topic_id

    def counts_from(self) -> dict[tuple[str, int], int]:
        """By topic id and partition, where records were given up: the leader epoch from which on
        counts what is told of what is committed."""
        unclean = {(e.topic_id, e.partition): e.leader_epoch for e in self._image.unclean_elections}
        for key, leader_epoch in self._recovered.items():
            unclean[key] = max(leader_epoch, unclean.get(key, 0))
        return unclean

    def of(self, state: PartitionState) -> int:
        known = self._known(state)
        return 0 if known is None else known.high_watermark

    def missing(self, state: PartitionState, last_epoch: int, end_offset: int) -> int:
        """At least so many committed records are not in a log that ends there. What is above the
        beginning of an epoch that it does not know it lacks, however far it reaches."""
        known = self._known(state)
        if known is None:
            return 0
        is_older = last_epoch < known.leader_epoch and known.epoch_start >= 0
        held = min(end_offset, known.epoch_start) if is_older else end_offset
        return max(0, known.high_watermark - held)

    def _known(self, state: PartitionState) -> LoneEnd | None:
        return self._ends.get((state.topic_id, state.partition))

    def on_unclean(self, topic_id: str, partition: int) -> None:
        """A leader was elected without what was told of earlier ones."""
        self._ends.pop((topic_id, partition), None)

    def on_recovered(self, state: PartitionState, last_epoch: int, end_offset: int) -> int:
        """The longest log of all who were complete ends there. What it lacks nobody has any more;
        returns how much that is at least."""
        missing = self.missing(state, last_epoch, end_offset)
        if missing:
            self._ends.pop((state.topic_id, state.partition))
            self._recovered[state.topic_id, state.partition] = state.leader_epoch
        return missing

    def on_deleted(self, topic_id: str) -> None:
        self._ends = {key: end for key, end in self._ends.items() if key[0] != topic_id}
        self._recovered = {key: epoch for key, epoch in self._recovered.items() if key[0] != topic_id}


def _place(end: LoneEnd) -> tuple[int, int]:
    return end.high_watermark, end.leader_epoch
