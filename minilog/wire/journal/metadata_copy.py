"""A copy of the metadata: what somebody who follows the controller's journal has applied of it.

Journals are many: the one in use, a backup, one that was begun anew. An index says nothing without
its journal. Each start of a controller is a *term* with an id of its own, written into the journal
first, and only one process writes in a term. So (term id, index) names one place in one journal,
and everything before it. Source: the log matching property of Raft, section 5.3.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from minilog.wire.journal.metadata_records import AnyMetadataRecord, PartitionChanged, TopicCreated


class MetadataCopy(msgspec.Struct, frozen=True):
    """``records`` rebuild the image as of ``metadata_offset``, in the term ``term_id``, "" when its
    controller gave it no id."""

    cluster_id: str = ""
    controller_epoch: int = 0
    term_id: str = ""
    metadata_offset: int = 0
    records: list[AnyMetadataRecord] = []

    @property
    def topic_ids(self) -> set[str]:
        return {record.topic_id for record in self.records if isinstance(record, TopicCreated)}

    def replicas_of(self, broker_id: int) -> Iterator[tuple[str, str, int]]:
        """(topic, topic id, partition) of everything that this broker is to hold."""
        for record in self.records:
            if isinstance(record, PartitionChanged) and broker_id in record.replicas:
                yield record.topic, record.topic_id, record.partition


class BrokerCopy(msgspec.Struct, frozen=True):
    """What one broker has applied, and the highest numbers that its data directory has noted.

    ``is_live``: a process that follows the journal says so itself. A copy that was saved may be
    older than what the process after it has applied."""

    broker_id: int
    broker_epoch: int
    controller_epoch: int
    metadata: MetadataCopy
    is_live: bool = False
