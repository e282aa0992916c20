"""Requests and responses between brokers, and between brokers and the controller."""

from __future__ import annotations

import msgspec

from minilog.wire.message import Message, Problem
from minilog.wire.metadata import AnyMetadataRecord

NOTHING = memoryview(b"")


class Register(Message):
    """``clean``: nothing written by the last process of this data directory can be missing (R21): its clean
    marker is whole, or the machine has not restarted since, so the page cache was never lost."""

    broker_id: int
    incarnation: str
    cluster_id: str
    url: str
    rack: str
    clean: bool
    controller_epoch: int


class RegisterReply(Message):
    broker_epoch: int
    cluster_id: str
    controller_epoch: int


class Heartbeat(Message):
    """Long poll: answered when the journal grows past ``metadata_offset`` or after the heartbeat interval.

    ``metadata_offset`` is what the broker has applied; 0 asks for a snapshot. ``drained``, of one that is shutting
    down: every ISR member holds all it ever appended, so nobody has to be asked who should lead instead."""

    broker_id: int
    broker_epoch: int
    sequence: int
    metadata_offset: int
    controller_epoch: int
    shutting_down: bool = False
    drained: bool = False


class HeartbeatReply(Message):
    """``records`` follow ``base_offset`` without a gap. With ``snapshot`` they replace all that was known, and
    the receiver then stands at ``metadata_offset``."""

    sequence: int
    controller_epoch: int
    base_offset: int
    metadata_offset: int
    records: list[AnyMetadataRecord] = []
    snapshot: bool = False
    may_exit: bool = False


class IsrMember(msgspec.Struct, array_like=True):
    """``broker_epoch`` as the leader saw it in that replica's last fetch (R17)."""

    broker_id: int
    broker_epoch: int


class IsrProposal(msgspec.Struct):
    topic: str
    topic_id: str
    partition: int
    leader_epoch: int
    partition_epoch: int
    isr: list[IsrMember]


class AlterPartition(Message):
    """``sequence`` grows with every request of one broker epoch (R15)."""

    broker_id: int
    broker_epoch: int
    controller_epoch: int
    sequence: int
    partitions: list[IsrProposal]


class IsrDecision(msgspec.Struct, omit_defaults=True):
    """No problem: applied; the new state itself comes with the metadata, never from here (R29)."""

    topic: str
    partition: int
    problem: Problem | None = None


class AlterPartitionReply(Message):
    sequence: int
    partitions: list[IsrDecision]


class PositionQuery(msgspec.Struct):
    topic: str
    topic_id: str
    partition: int
    leader_epoch: int


class Positions(Message):
    """Asked in an election. Answering fences every epoch below ``leader_epoch`` on the answering broker."""

    controller_epoch: int
    sequence: int
    partitions: list[PositionQuery]


class Position(msgspec.Struct, omit_defaults=True):
    topic: str
    partition: int
    leader_epoch: int
    last_epoch: int = -1
    end_offset: int = 0
    problem: Problem | None = None


class PositionsReply(Message):
    sequence: int
    partitions: list[Position]


class Probe(Message):
    """Is the process that registered with this incarnation still there?"""

    broker_id: int
    incarnation: str


class ProbeReply(Message):
    broker_id: int
    incarnation: str


class ReplicaFetchPartition(msgspec.Struct, array_like=True):
    """``fetch_offset`` is the follower's end offset and acknowledges everything below it as held (R8: durable
    when the topic's flush policy is ``commit``). ``last_epoch`` is the epoch of its last batch, -1 for none."""

    topic: str
    topic_id: str
    partition: int
    leader_epoch: int
    fetch_offset: int
    last_epoch: int


class ReplicaFetch(Message):
    """One per (follower, leader) pair. Sequence 0 opens a session and names every partition; later ones name
    only what changed since the previous request, and ``forgotten`` what is to be dropped (KIP-227, R5, R35)."""

    broker_id: int
    broker_epoch: int
    session_id: int
    sequence: int
    max_wait_ms: int
    max_bytes: int
    partitions: list[ReplicaFetchPartition]
    forgotten: list[tuple[str, int]] = []


class ReplicaFetchResult(msgspec.Struct, omit_defaults=True):
    """``fetch_offset`` repeats the position this answers (R5). ``diverging``: (epoch, end offset) (R2)."""

    topic: str
    partition: int
    leader_epoch: int
    fetch_offset: int
    high_watermark: int
    log_start_offset: int
    batches: memoryview = NOTHING
    diverging: tuple[int, int] | None = None
    problem: Problem | None = None


class ReplicaFetchReply(Message):
    session_id: int
    sequence: int
    partitions: list[ReplicaFetchResult]
