"""Requests and responses between brokers, and between brokers and the controller.

Every answer names what it is about by identity, never by name alone: a topic by its id, a broker
process by its incarnation or its epoch, a leadership by its leader epoch. A name, an address or a
broker id outlives what it stood for, and so does an answer on its way. Whoever receives one
compares the identity with what it asked about, and drops the rest.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from minilog.wire.bounded import BrokerId, Count, Few, Id, Int64, Many, Milliseconds, Name, Text, Url
from minilog.wire.journal.events import SeenEvent
from minilog.wire.journal.metadata_records import NO_LEADER, AnyMetadataRecord, ReplicaName
from minilog.wire.message_base import Message, Problem

NOTHING = memoryview(b"")
RPC_PATH = "/internal/rpc"


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
    lost.

    ``directory_id`` and ``last_epoch``: which data directory this is, and the last broker epoch
    that was noted in it, 0 for none (R36). An older broker says neither. ``lost``: replicas that
    were in this directory and are not there any more (R37). ``metadata_offset`` of ``term_id``:
    what the last process is known to have applied (R38). ``version``: of its
    program, for people, "" from one that did not say."""

    broker_id: BrokerId
    incarnation: Name
    cluster_id: Name
    url: Url
    rack: Name
    clean: bool
    controller_epoch: Int64
    directory_id: Id = ""
    last_epoch: Int64 = -1
    lost: Many[ReplicaName] = []
    term_id: Id = ""
    metadata_offset: Count = 0
    version: Name = ""


class RegisterReply(Message):
    """``incarnation`` repeats the one that was registered. ``session_timeout_ms``: after so long
    without a heartbeat the controller may fence it, whatever the broker's own settings say."""

    incarnation: Name
    broker_epoch: Int64
    cluster_id: Name
    controller_epoch: Int64
    session_timeout_ms: Milliseconds


class Condition(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong with a broker, as it knows itself: for people (R46)."""

    kind: Name
    sentence: Text
    next_step: Text
    is_warning: bool = False


class LoneEnd(msgspec.Struct, array_like=True, frozen=True):
    """So much of a partition is committed, by its leader's word: what will be missing when all
    whole copies are lost. ``leader_epoch`` is -1 from an older broker, and so is ``epoch_start``,
    the offset at which that epoch began."""

    topic: Name
    topic_id: Id
    partition: Int64
    high_watermark: Count
    leader_epoch: Int64 = -1
    epoch_start: Int64 = -1


class FirstWrite(msgspec.Struct, array_like=True, frozen=True):
    """A leader has acknowledged its first write in ``leader_epoch``, ``ago_ms`` before this was
    sent, for people. acks=0 is acknowledged to nobody."""

    topic: Name
    partition: Int64
    leader_epoch: Int64
    ago_ms: Milliseconds


class Heartbeat(Message):
    """``ails``: this broker cannot write, or only slowly. With ``drained`` others may lead at once
    what it leads (R43). Long poll: answered when the journal grows past ``metadata_offset`` or
    after the heartbeat interval.

    ``incarnation`` says which process this is: a broker epoch is a place in one journal, and two
    clusters may share it. ``metadata_offset``, of ``term_id``, is what the broker has applied; 0
    asks for a snapshot. ``drained``, of one that is shutting down: every member of every ISR this
    broker knows of, as of ``metadata_offset`` and with what it has proposed, holds all it ever
    appended. ``waits`` False: answered at once, news or not. ``unfit``: replicas here whose log
    lost something that was durable, or could not be opened: they must neither lead nor count (R53),
    all of them each time. ``wait_ms``: no answer is waited for longer than that and the time of the
    way. -1: an older broker does not say. ``session_timeout_ms``: the controller's last word, by
    which the broker goes until this heartbeat is answered. 0: an older broker does not say.
    ``wall_ms``: the broker's wall clock as this was sent, -1 where it does not say (R40).
    ``events``: of this process, which are told until they are noted."""

    broker_id: BrokerId
    broker_epoch: Int64
    incarnation: Name
    sequence: Int64
    metadata_offset: Count
    controller_epoch: Int64
    shutting_down: bool = False
    drained: bool = False
    waits: bool = True
    unfit: Many[ReplicaName] = []
    wait_ms: Milliseconds = -1
    term_id: Id = ""
    cluster_id: Name = ""
    lone_ends: Many[LoneEnd] = []
    session_timeout_ms: Milliseconds = 0
    wall_ms: Milliseconds = -1
    conditions: Few[Condition] = []
    ails: bool = False
    events: Few[SeenEvent] = []
    first_writes: Few[FirstWrite] = []


class HeartbeatReply(Message):
    """``records`` follow ``base_offset`` without a gap. With ``snapshot`` they replace all that was
    known, and the receiver then stands at ``metadata_offset``. ``session_timeout_ms``: what holds
    from this heartbeat on. 0: an older controller does not say. ``clock_skew_ms``: how far the
    broker's wall clock was ahead of the controller's when the heartbeat came. ``events_noted``: of
    the process's events up to this number are in the journal."""

    broker_epoch: Int64
    sequence: Int64
    controller_epoch: Int64
    base_offset: Int64
    metadata_offset: Count
    records: Many[AnyMetadataRecord] = []
    snapshot: bool = False
    may_exit: bool = False
    session_timeout_ms: Milliseconds = 0
    clock_skew_ms: Milliseconds | None = None
    events_noted: Count = 0


class IsrMember(msgspec.Struct, array_like=True):
    """``broker_epoch`` as the leader saw it in that replica's last fetch (R17)."""

    broker_id: BrokerId
    broker_epoch: Int64


class IsrLeaver(msgspec.Struct, array_like=True, frozen=True):
    """A member that its leader leaves out, for people: ``behind_records`` it lacks, -1 where its
    leader has not heard it in this epoch, and for ``behind_ms`` it has not held the log's end."""

    broker_id: BrokerId
    behind_records: Int64
    behind_ms: Milliseconds


class IsrProposal(msgspec.Struct):
    """``leader``: the successor, which is to lead now, because it holds all that the sender has."""

    topic: Name
    topic_id: Id
    partition: Int64
    leader_epoch: Int64
    partition_epoch: Int64
    isr: Few[IsrMember]
    leaving: Few[IsrLeaver] = []
    leader: Int64 = NO_LEADER


class AlterPartition(Message):
    """``sequence`` grows with every request of one broker epoch (R15). ``incarnation`` as in a
    heartbeat."""

    broker_id: BrokerId
    broker_epoch: Int64
    incarnation: Name
    controller_epoch: Int64
    sequence: Int64
    partitions: Many[IsrProposal]


class IsrDecision(msgspec.Struct, omit_defaults=True):
    """No problem: applied. The new state itself comes with the metadata, never from here (R29)."""

    topic: Name
    topic_id: Id
    partition: Int64
    problem: Problem | None = None


class AlterPartitionReply(Message):
    broker_epoch: Int64
    sequence: Int64
    partitions: Many[IsrDecision]


class PositionQuery(msgspec.Struct):
    topic: Name
    topic_id: Id
    partition: Int64
    leader_epoch: Int64


class Positions(Message):
    """Asked in an election. Answering fences every epoch below ``leader_epoch`` on the answering
    broker.

    ``broker_epoch`` says which process is asked. Another one that has its id or its address by now
    does not answer."""

    broker_id: BrokerId
    broker_epoch: Int64
    controller_epoch: Int64
    sequence: Int64
    partitions: Many[PositionQuery]


class Position(msgspec.Struct, omit_defaults=True):
    """``high_watermark``: so much was committed as this replica knows, or more. ``epoch_ends``: of
    the last leader epochs in the log, and where each ends, the last one first. Empty: not told, but
    for ``last_epoch``."""

    topic: Name
    topic_id: Id
    partition: Int64
    leader_epoch: Int64
    last_epoch: Int64 = -1
    end_offset: Count = 0
    problem: Problem | None = None
    high_watermark: Count = 0
    start_offset: Count = 0
    epoch_ends: Few[tuple[Int64, Count]] = []


class PositionsReply(Message):
    """``broker_epoch``: of the process whose logs these are (R9, R22)."""

    broker_id: BrokerId
    broker_epoch: Int64
    sequence: Int64
    partitions: Many[Position]


class Probe(Message):
    """Is the process that registered with this incarnation still there?"""

    broker_id: BrokerId
    incarnation: Name


class ProbeReply(Message):
    broker_id: BrokerId
    incarnation: Name


class StandBy(Message):
    """A controller that does not decide asks the one that does whether it is there. ``nonce`` is
    that of the term it takes to be in force. Long poll: answered after ``wait_ms``, so the end of
    the process shows as the end of the connection. ``metadata_offset``: what the standby has
    replayed. ``looked_ms_ago``: when it has last seen etcd."""

    url: Url
    nonce: Name
    metadata_offset: Count
    wait_ms: Milliseconds
    looked_ms_ago: Milliseconds = 0


class StandByReply(Message):
    """From who decides, in the term of ``nonce``."""

    nonce: Name
    controller_epoch: Int64
    metadata_offset: Count


class ReplicaFetchPartition(msgspec.Struct, array_like=True):
    """``fetch_offset`` is the follower's end offset and acknowledges everything below it as held
    (R8: durable when the topic's flush policy is ``commit``). ``last_epoch`` is the epoch of the
    batch that ended there, -1 when it is not known. ``start_offset``: where the follower's log
    begins; below that it holds nothing."""

    topic: Name
    topic_id: Id
    partition: Int64
    leader_epoch: Int64
    fetch_offset: Count
    last_epoch: Int64
    start_offset: Count = 0


class ReplicaFetch(Message):
    """One per (follower, leader) pair. Sequence 0 opens a session and names every partition. Later
    ones name only what changed since the previous request, and ``forgotten`` what is to be dropped
    (KIP-227, R5, R35).

    ``leader`` says which broker is asked. Another one at its address takes no part of it into its
    own sessions."""

    broker_id: BrokerId
    broker_epoch: Int64
    leader: Int64
    session_id: Int64
    sequence: Int64
    max_wait_ms: Milliseconds
    max_bytes: Int64
    partitions: Many[ReplicaFetchPartition]
    forgotten: Many[tuple[Name, Int64]] = []


class ReplicaFetchResult(msgspec.Struct, omit_defaults=True):
    """``topic_id``, ``leader_epoch`` and ``fetch_offset`` repeat the position this answers (R5).
    ``diverging``: (epoch, end offset) (R2). ``is_exact`` False: ``high_watermark`` is a floor, a
    new leader does not know the true one yet (R7). ``swept_end``, with batches: what compaction
    took out of the leader's log went because of records below this; -1 from a leader that does not
    say it. ``written``, with batches: (end offset, ms), for so long what lies below has been in the
    leader's log (R40)."""

    topic: Name
    topic_id: Id
    partition: Int64
    leader_epoch: Int64
    fetch_offset: Count
    high_watermark: Count
    log_start_offset: Count
    is_exact: bool = True
    batches: memoryview = NOTHING
    diverging: tuple[Int64, Count] | None = None
    problem: Problem | None = None
    swept_end: Int64 = -1
    written: tuple[Count, Milliseconds] | None = None


class ReplicaFetchReply(Message):
    """What is not mentioned has not changed since the answer before, but for ``untold``.

    ``held_ms``: how long the leader kept the request, so this is the state of that long after it
    was sent, or later. ``unsure_ms``: for how long by then the leader may have been replaced
    without knowing; 0 while it is sure. ``untold``: (topic, partition) of the session that the
    leader does not lead in the follower's epoch, or that have news which did not fit: silence about
    them means nothing."""

    session_id: Int64
    sequence: Int64
    partitions: Many[ReplicaFetchResult]
    held_ms: Milliseconds = 0
    unsure_ms: Milliseconds = 0
    untold: Many[tuple[Name, Int64]] = []
