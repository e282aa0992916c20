"""When this broker's copy of the metadata is saved in its data directory.

What the copy says serves the next process: which replicas must be there (R37), and which journal
was followed how far (R38). It is written in a thread, because it is as large as the metadata: soon
when there are new replicas here, else once a second at most. A copy that is a moment old misses
only what came in that moment.

Invariants: one is under way at a time. None is saved while files of a deleted topic wait for room
to be moved away: the copy of before tells the next process that the topic was deleted (R39).
"""

from __future__ import annotations

from minilog.core.broker.state import LocalState
from minilog.core.effects import SaveMetadata
from minilog.wire.journal.metadata_copy import BrokerCopy, MetadataCopy

INTERVAL_MS = 1000


class MetadataSaving:
    def __init__(self, state: LocalState) -> None:
        self._state = state
        self._saved = ("", 0)
        self._is_under_way = False
        self._next_ms = 0

    def due(self, now_ms: int) -> list[SaveMetadata]:
        image = self._state.image
        applied = (image.term_id, image.metadata_offset)
        is_early = now_ms < self._next_ms and not self._state.has_new
        if self._is_under_way or is_early or applied == self._saved or not self._state.informed:
            return []
        if self._state.unmoved or self._state.unopened:
            return []
        self._is_under_way, self._next_ms, self._state.has_new = True, now_ms + INTERVAL_MS, False
        return [SaveMetadata(self._copy())]

    def _copy(self) -> MetadataCopy:
        image = self._state.image
        records = image.snapshot()
        return MetadataCopy(
            image.cluster_id,
            image.controller_epoch,
            image.term_id,
            image.metadata_offset,
            records,  # type: ignore[arg-type]
        )

    def newest(self) -> BrokerCopy:
        """For whoever makes a journal from it: what this process has applied, or else the one
        before it."""
        store, informed = self._state.store, self._state.informed
        metadata = self._copy() if informed else store.metadata
        numbers = store.broker_epoch, store.controller_epoch
        return BrokerCopy(self._state.broker_id, *numbers, metadata, is_live=informed)

    def on_saved(self, copy: MetadataCopy | None) -> None:
        """None: there was no room for it. It is tried again."""
        self._is_under_way = False
        if copy is not None:
            self._saved = (copy.term_id, copy.metadata_offset)
