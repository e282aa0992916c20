"""Lost logs: what the last process of a data directory had, and what is not there now (R37)."""

from __future__ import annotations

import logging

from minilog.storage.aside import trash
from minilog.storage.directories import StoredPartition, directory_name
from minilog.storage.points import Points
from minilog.wire.journal.metadata_copy import MetadataCopy
from minilog.wire.journal.metadata_records import ReplicaName

_logger = logging.getLogger("minilog.storage")


def find_lost(
    copy: MetadataCopy,
    points: Points,
    moved_away: set[tuple[str, str | None]],
    here: set[StoredPartition],
    broker_id: int,
) -> list[ReplicaName]:
    """By the copy of the metadata, or by the recovery points. ``moved_away`` is what trash and
    stray hold.

    The copy says what there must be. It may be a moment old, so the points speak for newer logs."""
    had = {StoredPartition(*replica) for replica in copy.replicas_of(broker_id)}
    for name in points.without({directory_name(stored.topic, stored.partition) for stored in here}):
        topic, _, partition = name.rpartition("-")
        if points.held_records(name):
            had.add(StoredPartition(topic, points.saved[name].topic_id, int(partition)))
    missing = sorted(stored for stored in had - here if in_trash(stored) not in moved_away)
    for stored in missing:
        _logger.error(
            "the log of %s is not there any more, although it was in this directory: "
            "it counts for nothing until it was copied from its leader",
            directory_name(stored.topic, stored.partition),
        )
    return [ReplicaName(*stored) for stored in missing]


def in_trash(stored: StoredPartition) -> tuple[str, str | None]:
    """What the trash would have of it."""
    return trash.stem(directory_name(stored.topic, stored.partition)), stored.topic_id
