"""Metadata records: what the controller's journal holds and what heartbeat replies carry to the
brokers.

Each record states the whole new value of one thing, never a difference, so replaying is assignment
and a snapshot is just a shorter list of records. A record's *index* is its place in the journal,
counted from 1. The index after which a process stands is its ``metadata_offset``.
"""

from __future__ import annotations

import msgspec

NO_LEADER = -1


class MetadataRecord(msgspec.Struct, frozen=True, tag=True):
    """Base of all metadata records. The tag is the class name."""


class ControllerStarted(MetadataRecord, frozen=True):
    """A new controller term (R25), written and synced before the controller does anything else."""

    cluster_id: str
    controller_epoch: int


class BrokerRegistered(MetadataRecord, frozen=True):
    """A broker process. ``broker_epoch`` is the journal index of this very record. It starts
    fenced."""

    broker_id: int
    broker_epoch: int
    incarnation: str
    url: str
    rack: str = ""


class BrokerFenced(MetadataRecord, frozen=True):
    broker_id: int
    broker_epoch: int


class BrokerUnfenced(MetadataRecord, frozen=True):
    broker_id: int
    broker_epoch: int


class BrokerShuttingDown(MetadataRecord, frozen=True):
    broker_id: int
    broker_epoch: int


class TopicCreated(MetadataRecord, frozen=True):
    topic: str
    topic_id: str
    config: dict[str, str]


class TopicDeleted(MetadataRecord, frozen=True):
    """The only thing that lets a broker move a partition's files to trash."""

    topic: str
    topic_id: str


class PartitionChanged(MetadataRecord, frozen=True):
    """The whole state of one partition. ``partition_epoch`` grows by exactly one per change (R16).

    ``leader`` is NO_LEADER while an election asks for positions or nobody eligible is alive. The
    ``leader_epoch`` of the coming leader is already taken then. ``isr`` and ``elr`` are disjoint
    (R20).
    """

    topic: str
    topic_id: str
    partition: int
    replicas: list[int]
    leader: int
    leader_epoch: int
    partition_epoch: int
    isr: list[int]
    elr: list[int] = []
    last_known_elr: list[int] = []


class ProducerIdsAllocated(MetadataRecord, frozen=True):
    """Producer ids below ``next_producer_id`` are taken for ever (R33)."""

    broker_id: int
    next_producer_id: int


BrokerRecord = BrokerRegistered | BrokerFenced | BrokerUnfenced | BrokerShuttingDown
"""A broker came, went, or is about to."""
AnyMetadataRecord = (
    ControllerStarted
    | BrokerRegistered
    | BrokerFenced
    | BrokerUnfenced
    | BrokerShuttingDown
    | TopicCreated
    | TopicDeleted
    | PartitionChanged
    | ProducerIdsAllocated
)
