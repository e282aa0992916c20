"""Requests and responses between brokers, and between brokers and the controller.

Every answer names what it is about by identity, never by name alone: a topic by its id, a broker
process by its incarnation or its epoch, a leadership by its leader epoch. A name, an address or a
broker id outlives what it stood for, and so does an answer on its way. Whoever receives one
compares the identity with what it asked about, and drops the rest.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from minilog.wire.message_base import Message, Problem
from minilog.wire.metadata_records import AnyMetadataRecord

NOTHING = memoryview(b"")


class NoAnswer(StrEnum):
    """Why a peer gave no answer: ``info["reason"]`` of the error that stands for it. Only REFUSED
    proves that no process is there."""

    REFUSED = "refused"
    """Every address of its host refused the connection."""
    UNREACHABLE = "unreachable"
    NOT_CONNECTED = "connect"
    """The connection was not made in time."""
    RESET = "reset"
    """The connection was closed before the answer had come."""
    TIMED_OUT = "timeout"
    GARBAGE = "garbage"
    """What came is no message of a peer."""
    NO_ADDRESS = "unknown"


class Register(Message):
    """``clean``: nothing written by the last process of this data directory can be missing (R21):
    its clean marker is whole, or the machine has not restarted since, so the page cache was never
    lost."""

    broker_id: int
    incarnation: str
    cluster_id: str
    url: str
    rack: str
    clean: bool
    controller_epoch: int


class RegisterReply(Message):
    """``incarnation`` repeats the one that was registered. ``session_timeout_ms``: after so long
    without a heartbeat the controller may fence it, whatever the broker's own settings say."""

    incarnation: str
    broker_epoch: int
    cluster_id: str
    controller_epoch: int
    session_timeout_ms: int


class UnfitReplica(msgspec.Struct, array_like=True, frozen=True):
    """A replica whose log lost something that was durable, or could not be opened (R20)."""

    topic: str
    topic_id: str
    partition: int


class Heartbeat(Message):
    """Long poll: answered when the journal grows past ``metadata_offset`` or after the heartbeat
    interval.

    ``incarnation`` says which process this is: a broker epoch is a place in one journal, and two
    clusters may share it. ``metadata_offset`` is what the broker has applied; 0 asks for a
    snapshot. ``drained``, of one that is shutting down: every member of every ISR this broker knows
    of, as of ``metadata_offset`` and with what it has proposed, holds all it ever appended.
    ``waits`` False: answered at once, news or not. ``unfit``: replicas here that must neither lead
    nor count, all of them each time. ``wait_ms``: no answer is waited for longer than that and the
    time of the way. -1: an older broker does not say."""

    broker_id: int
    broker_epoch: int
    incarnation: str
    sequence: int
    metadata_offset: int
    controller_epoch: int
    shutting_down: bool = False
    drained: bool = False
    waits: bool = True
    unfit: list[UnfitReplica] = []
    wait_ms: int = -1


class HeartbeatReply(Message):
    """``records`` follow ``base_offset`` without a gap. With ``snapshot`` they replace all that was
    known, and the receiver then stands at ``metadata_offset``."""

    broker_epoch: int
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
    """``sequence`` grows with every request of one broker epoch (R15). ``incarnation`` as in a
    heartbeat."""

    broker_id: int
    broker_epoch: int
    incarnation: str
    controller_epoch: int
    sequence: int
    partitions: list[IsrProposal]


class IsrDecision(msgspec.Struct, omit_defaults=True):
    """No problem: applied. The new state itself comes with the metadata, never from here (R29)."""

    topic: str
    topic_id: str
    partition: int
    problem: Problem | None = None


class AlterPartitionReply(Message):
    broker_epoch: int
    sequence: int
    partitions: list[IsrDecision]


class PositionQuery(msgspec.Struct):
    topic: str
    topic_id: str
    partition: int
    leader_epoch: int


class Positions(Message):
    """Asked in an election. Answering fences every epoch below ``leader_epoch`` on the answering
    broker.

    ``broker_epoch`` says which process is asked. Another one that has its id or its address by now
    does not answer."""

    broker_id: int
    broker_epoch: int
    controller_epoch: int
    sequence: int
    partitions: list[PositionQuery]


class Position(msgspec.Struct, omit_defaults=True):
    topic: str
    topic_id: str
    partition: int
    leader_epoch: int
    last_epoch: int = -1
    end_offset: int = 0
    problem: Problem | None = None


class PositionsReply(Message):
    """``broker_epoch``: of the process whose logs these are (R9, R22)."""

    broker_id: int
    broker_epoch: int
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
    """``fetch_offset`` is the follower's end offset and acknowledges everything below it as held
    (R8: durable when the topic's flush policy is ``commit``). ``last_epoch`` is the epoch of the
    batch that ended there, -1 when it is not known. ``start_offset``: where the follower's log
    begins; below that it holds nothing."""

    topic: str
    topic_id: str
    partition: int
    leader_epoch: int
    fetch_offset: int
    last_epoch: int
    start_offset: int = 0


class ReplicaFetch(Message):
    """One per (follower, leader) pair. Sequence 0 opens a session and names every partition. Later
    ones name only what changed since the previous request, and ``forgotten`` what is to be dropped
    (KIP-227, R5, R35).

    ``leader`` says which broker is asked. Another one at its address takes no part of it into its
    own sessions."""

    broker_id: int
    broker_epoch: int
    leader: int
    session_id: int
    sequence: int
    max_wait_ms: int
    max_bytes: int
    partitions: list[ReplicaFetchPartition]
    forgotten: list[tuple[str, int]] = []


class ReplicaFetchResult(msgspec.Struct, omit_defaults=True):
    """``topic_id``, ``leader_epoch`` and ``fetch_offset`` repeat the position this answers (R5).
    ``diverging``: (epoch, end offset) (R2). ``is_exact`` False: ``high_watermark`` is a floor, a
    new leader does not know the true one yet (R7). ``swept_end``, with batches: what compaction
    took out of the leader's log went because of records below this; -1 from a leader that does not
    say it."""

    topic: str
    topic_id: str
    partition: int
    leader_epoch: int
    fetch_offset: int
    high_watermark: int
    log_start_offset: int
    is_exact: bool = True
    batches: memoryview = NOTHING
    diverging: tuple[int, int] | None = None
    problem: Problem | None = None
    swept_end: int = -1


class ReplicaFetchReply(Message):
    """What is not mentioned has not changed since the answer before, but for ``untold``.

    ``held_ms``: how long the leader kept the request, so this is the state of that long after it
    was sent, or later. ``unsure_ms``: for how long by then the leader may have been replaced
    without knowing; 0 while it is sure. ``untold``: (topic, partition) of the session that the
    leader does not lead in the follower's epoch, or that have news which did not fit: silence about
    them means nothing."""

    session_id: int
    sequence: int
    partitions: list[ReplicaFetchResult]
    held_ms: int = 0
    unsure_ms: int = 0
    untold: list[tuple[str, int]] = []
