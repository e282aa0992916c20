"""Records: what was once written to a partition that retention may take from its logs, known to the
checker.

A batch is known by its (leader epoch, base offset), as LogMatching has it, and first seen where it
was written.
"""

from __future__ import annotations

from minilog.config import DAY_MS, TopicSettings
from minilog.wire.batch import Batch
from minilog.wire.records import Record, decode_batch


def are_remembered(settings: TopicSettings) -> bool:
    """Records of this topic may go, in the time that a schedule takes."""
    return settings.retention_bytes >= 0 or 0 <= settings.retention_ms < DAY_MS


class Records:
    """Of one partition."""

    def __init__(self) -> None:
        self.originals: dict[tuple[int, int], tuple[Record, ...]] = {}

    def observe(self, batch: Batch) -> None:
        key = (batch.leader_epoch, batch.base_offset)
        if key not in self.originals:
            self.originals[key] = tuple(decode_batch(batch))
