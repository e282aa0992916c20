"""Metadata records: what the controller's journal holds and what heartbeat replies carry to the
brokers.

Each record states the whole new value of one thing, never a difference, so replaying is assignment
and a snapshot is just a shorter list of records. A record's *index* is its place in the journal,
counted from 1. The index after which a process stands is its ``metadata_offset``.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from minilog.wire.journal.events import Event
from minilog.wire.journal.failovers import FailoverInfo

NO_LEADER = -1


class DiskState(StrEnum):
    """What a process has found of what its predecessor wrote."""

    SAME = "same"
    """All of it."""
    UNCLEAN = "unclean"
    """What was durable, at least."""
    OTHER = "other"
    """Another data directory, or this one as it was before it was last used."""


class ReplicaName(msgspec.Struct, array_like=True, frozen=True):
    """A replica of the broker that speaks, or is spoken of."""

    topic: str
    topic_id: str
    partition: int


class MetadataRecord(msgspec.Struct, frozen=True, tag=True):
    """Base of all metadata records. The tag is the class name."""


class ControllerStarted(MetadataRecord, frozen=True):
    """A new controller term (R25), written and synced before the controller does anything else.

    ``term_id`` is like no other: with it an index names one place in one journal (R38).
    ``first_index`` is that of this record. A snapshot has one such record for each term, an older
    journal none of both. ``session_timeout_ms``: what brokers are told in this term, 0 where an
    older controller wrote it. ``version``: of the controller's program, for people."""

    cluster_id: str
    controller_epoch: int
    term_id: str = ""
    first_index: int = 0
    session_timeout_ms: int = 0
    version: str = ""


class UnusedRegistration(msgspec.Struct, array_like=True, frozen=True):
    """A registration that was over before its process was unfenced: nothing was written under it.

    ``shown_epoch`` is what the directory had noted before. ``disk`` and ``lost``: what was found of
    that directory."""

    broker_epoch: int
    shown_epoch: int
    disk: DiskState
    lost: list[ReplicaName]


class BrokerRegistered(MetadataRecord, frozen=True):
    """A broker process. ``broker_epoch`` is the journal index of this very record. It starts
    fenced.

    ``directory_id``: of its data directory, "" from an older broker. ``used_directory_id`` and
    ``used_epoch``: the directory and the epoch in which this broker was last unfenced, "" and -1
    for never. ``disk`` and ``lost``: what it cannot have kept since, which counts when it is
    unfenced (R21, R36, R37). ``shown_epoch``: the broker epoch that the directory had noted, -1
    from an older controller. ``unused``: the registrations since it was last unfenced.
    ``version``: of its program, for people."""

    broker_id: int
    broker_epoch: int
    incarnation: str
    url: str
    rack: str = ""
    directory_id: str = ""
    used_directory_id: str = ""
    used_epoch: int = -1
    disk: DiskState = DiskState.SAME
    lost: list[ReplicaName] = []
    shown_epoch: int = -1
    unused: list[UnusedRegistration] = []
    version: str = ""


class BrokerFenced(MetadataRecord, frozen=True):
    """``why`` is a FailoverKind, ``silent_ms`` how long nothing had been heard: for people. -1:
    this controller had never heard it. "" and -1 from an older controller."""

    broker_id: int
    broker_epoch: int
    why: str = ""
    silent_ms: int = -1


class BrokerUnfenced(MetadataRecord, frozen=True):
    broker_id: int
    broker_epoch: int


class BrokerShuttingDown(MetadataRecord, frozen=True):
    broker_id: int
    broker_epoch: int


class BrokerRemoved(MetadataRecord, frozen=True):
    """It was fenced, has no replicas, and is forgotten."""

    broker_id: int
    broker_epoch: int


class TopicCreated(MetadataRecord, frozen=True):
    topic: str
    topic_id: str
    config: dict[str, str]


class TopicConfigured(MetadataRecord, frozen=True):
    """``config`` takes the place of all the settings that the topic had before."""

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
    (R20). ``successor``: the member of the ISR that the leader is to hand over to, NO_LEADER for
    nobody (R111). ``target``: the replicas it is to have, while it moves to them from ``former``.
    Then ``replicas`` are all of both, those of the target first (R113).
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
    successor: int = NO_LEADER
    former: list[int] = []
    target: list[int] = []


class ReplicaEnd(msgspec.Struct, array_like=True, frozen=True):
    """How far the log of one candidate reached."""

    broker_id: int
    last_epoch: int
    end_offset: int


class UncleanElection(MetadataRecord, frozen=True):
    """``leader`` was made the leader although it was not known to hold all (R37). ``decided_by``:
    "operator" or "topic", whose setting says so. ``missing``: at least so many committed records
    were on no candidate. ``asked_by``: from where the operator has asked, as far as that is
    known."""

    topic: str
    topic_id: str
    partition: int
    leader: int
    leader_epoch: int
    candidates: list[ReplicaEnd]
    missing: int
    decided_by: str
    at_ms: int
    asked_by: str = ""


class ProducerIdsAllocated(MetadataRecord, frozen=True):
    """Producer ids below ``next_producer_id`` are taken for ever (R33)."""

    broker_id: int
    next_producer_id: int


class LostClaimed(MetadataRecord, frozen=True):
    """The tail ``tail`` in the quarantine of a broker is to be written again, these runs of it
    (leader epoch, base offset, end offset), and nobody else's copy of them. A later record of the
    same tail takes the place of this one. ``directory_id``: of the data directory that has it, ""
    where an older broker claimed, which never says that it has ``finished``."""

    broker_id: int
    tail: str
    topic: str
    topic_id: str
    partition: int
    runs: list[tuple[int, int, int]]
    into: str
    into_topic_id: str
    into_partition: int
    producer_id: int
    directory_id: str = ""
    finished: bool = False


class EventNoted(MetadataRecord, frozen=True):
    """For people. ``number`` is the journal index of this very record. ``source`` is the
    incarnation of the broker's process that has seen it, and ``source_number`` its own count; ""
    and 0 where the controller did."""

    number: int
    event: Event
    source: str = ""
    source_number: int = 0


class FailoverNoted(MetadataRecord, frozen=True):
    """For people: what is known by now of the failover with that number."""

    info: FailoverInfo


BrokerRecord = BrokerRegistered | BrokerFenced | BrokerUnfenced | BrokerShuttingDown | BrokerRemoved
"""A broker came, went, or is about to."""
AnyMetadataRecord = (
    ControllerStarted
    | BrokerRegistered
    | BrokerFenced
    | BrokerUnfenced
    | BrokerShuttingDown
    | BrokerRemoved
    | TopicCreated
    | TopicConfigured
    | TopicDeleted
    | PartitionChanged
    | UncleanElection
    | ProducerIdsAllocated
    | LostClaimed
    | EventNoted
    | FailoverNoted
)
