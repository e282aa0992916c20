"""Requests and responses of the native protocol (msgpack; the JSON face is built on the same
structs).

Clients speak Produce, Fetch, Offsets and Metadata with brokers and the admin messages with any
broker, which forwards them to the controller. Brokers speak ReplicaFetch, Positions and Probe with
each other and with the controller, and Register, Heartbeat and AlterPartition with the controller.

Any request may be answered by ``Problem`` in place of its own reply: then the whole request failed.
A topic is meant by its id where the request names one. By its name alone, "" for the id, it is
whichever topic has that name when the request is decided. Answers name the id of the topic they are
about. Every "end" is exclusive. Absent offsets are None, never 0 or -1 in disguise. ``batches``
fields hold concatenated record batches (wire/batch.py), byte for byte as they lie on disk.
"""

from __future__ import annotations

import msgspec

from minilog.wire.admin_messages import (
    ANY_REPLICA,
    AddPartitions,
    AdminMessage,
    AllocateProducerIds,
    AllocateProducerIdsReply,
    BrokerHealth,
    Candidate,
    ClaimLost,
    ClaimLostReply,
    CreateTopic,
    CreateTopicReply,
    DeleteTopic,
    DescribeCluster,
    DescribeClusterReply,
    ElectLeader,
    ElectLeaderReply,
    InitProducer,
    InitProducerReply,
    LostRun,
    PartitionInfo,
    PersonsChange,
    TopicInfo,
)
from minilog.wire.bounded import BrokerId, Count, Few, Id, Int64, Many, Milliseconds, Name, Told
from minilog.wire.figure_messages import FigureMessage
from minilog.wire.group_messages import (
    CommitOffsets,
    CommitOffsetsReply,
    CommittedOffsets,
    CommittedOffsetsReply,
    DeleteGroup,
    DeleteGroupReply,
    DescribeGroup,
    DescribeGroupReply,
    ForwardedGroupRequest,
    GroupHeartbeat,
    GroupHeartbeatReply,
    LeaveGroup,
    ListGroups,
    ListGroupsReply,
)
from minilog.wire.journal.events import SeenEvent
from minilog.wire.journal.failovers import FailoverInfo
from minilog.wire.journal.metadata_records import ReplicaName
from minilog.wire.message_base import UNDECODABLE, Message, Ok, Problem, why_undecodable
from minilog.wire.peer_messages import (
    NOTHING,
    AlterPartition,
    AlterPartitionReply,
    Condition,
    FirstWrite,
    Heartbeat,
    HeartbeatReply,
    IsrDecision,
    IsrLeaver,
    IsrMember,
    IsrProposal,
    LoneEnd,
    Position,
    PositionQuery,
    Positions,
    PositionsReply,
    Probe,
    ProbeReply,
    Register,
    RegisterReply,
    ReplicaFetch,
    ReplicaFetchPartition,
    ReplicaFetchReply,
    ReplicaFetchResult,
    StandBy,
    StandByReply,
)

__all__ = [  # defined elsewhere, and part of this vocabulary
    "ANY_REPLICA",
    "NOTHING",
    "AddPartitions",
    "AllocateProducerIds",
    "AllocateProducerIdsReply",
    "AlterPartition",
    "AlterPartitionReply",
    "BrokerHealth",
    "Candidate",
    "ClaimLost",
    "ClaimLostReply",
    "Condition",
    "CreateTopic",
    "CreateTopicReply",
    "DeleteTopic",
    "DescribeCluster",
    "DescribeClusterReply",
    "ElectLeader",
    "ElectLeaderReply",
    "FailoverInfo",
    "FirstWrite",
    "Heartbeat",
    "HeartbeatReply",
    "InitProducer",
    "InitProducerReply",
    "IsrDecision",
    "IsrLeaver",
    "IsrMember",
    "IsrProposal",
    "LoneEnd",
    "LostRun",
    "Message",
    "Ok",
    "PartitionInfo",
    "PersonsChange",
    "Position",
    "PositionQuery",
    "Positions",
    "PositionsReply",
    "Probe",
    "ProbeReply",
    "Problem",
    "Register",
    "RegisterReply",
    "ReplicaFetch",
    "ReplicaFetchPartition",
    "ReplicaFetchReply",
    "ReplicaFetchResult",
    "ReplicaName",
    "SeenEvent",
    "StandBy",
    "StandByReply",
    "TopicInfo",
]

ACKS_ALL = -1
EARLIEST = -2
LATEST = -1


# --- clients to brokers ---------------------------------------------------------------------------


class ProducePartition(msgspec.Struct, omit_defaults=True):
    topic: Name
    partition: Int64
    batches: memoryview
    """Batches of one partition; base offsets and leader epochs are the leader's to set."""
    topic_id: Id = ""
    expected_offset: Int64 | None = None
    """Append only where this is the end of the log: END_OFFSET_MISMATCH otherwise (R101). Not with
    acks=0, which could not be told."""


class Produce(Message):
    """Append to partitions led by the receiver, each named once. ``acks``: 0, 1, N copies, or
    ACKS_ALL. ``principal``: for whom a broker passes it on."""

    acks: Int64
    timeout_ms: Milliseconds
    partitions: Many[ProducePartition]
    principal: Name = ""


class ProduceResult(msgspec.Struct, omit_defaults=True):
    """A receipt, or why there is none. ``crc`` is the first batch's as stored. ``isr`` the ISR at
    commit.

    ``duplicate``: the batches, or the first of them, had been written before, and the offsets are
    those of then (R31). ``base_offsets`` is empty unless the batches do not lie one after the
    other, because something came between the first attempt and this one. It then names the base
    offset of each. A batch sent alone needs no look at it."""

    topic: Name
    partition: Int64
    problem: Problem | None = None
    base_offset: Int64 | None = None
    end_offset: Int64 | None = None
    leader_epoch: Int64 | None = None
    timestamp: Int64 | None = None
    crc: Int64 | None = None
    acks: Int64 | None = None
    isr: Few[Int64] = []
    duplicate: bool = False
    base_offsets: Many[Int64] = []
    topic_id: Id = ""


class ProduceReply(Message):
    partitions: Many[ProduceResult]


class FetchPartition(msgspec.Struct, omit_defaults=True):
    """``leader_epoch``: the current epoch the client knows (-1: do not check). ``last_epoch``: the
    epoch of the record before ``offset`` as the client read it (-1: none), so that truncation is
    detected (R23)."""

    topic: Name
    partition: Int64
    offset: Int64
    max_bytes: Int64 = 1024 * 1024
    leader_epoch: Int64 = -1
    last_epoch: Int64 = -1
    topic_id: Id = ""


class Fetch(Message):
    """Read committed records; waits on the high watermark up to ``max_wait_ms`` for ``min_bytes``.

    ``any_replica`` reads from a follower too, no staler than ``max_lag_ms`` (-1: any staleness).
    ``principal``: for whom a broker passes it on. ``of_receipt``: to look whether that is there."""

    partitions: Many[FetchPartition]
    max_wait_ms: Milliseconds = 0
    min_bytes: Int64 = 1
    max_bytes: Int64 = 16 * 1024 * 1024
    any_replica: bool = False
    max_lag_ms: Milliseconds = -1
    principal: Name = ""
    of_receipt: bool = False


class FetchResult(msgspec.Struct, omit_defaults=True):
    """``batches`` may begin with a batch that starts before the offset asked for: skip those
    records.

    ``high_watermark`` is None while a new leader does not know it (R7). ``lag_ms`` is how stale the
    answer may be; 0 from a leader that cannot have been replaced and knows the end, 2^31 - 1 when
    nobody can say."""

    topic: Name
    partition: Int64
    problem: Problem | None = None
    batches: memoryview = NOTHING
    high_watermark: Int64 | None = None
    log_start_offset: Int64 = 0
    leader_epoch: Int64 = -1
    lag_ms: Milliseconds = 0
    lag_records: Int64 = 0
    topic_id: Id = ""


class FetchReply(Message):
    partitions: Many[FetchResult]


class OffsetsPartition(msgspec.Struct, omit_defaults=True):
    """``at``: a timestamp in ms since the epoch, EARLIEST or LATEST (the high watermark).

    ``behind``, only with LATEST: an offset to measure the lag of. ``timestamp`` of the answer is
    then that of the first record at or after it, to the batch, and None when nothing is left to
    read there."""

    topic: Name
    partition: Int64
    at: Int64
    behind: Int64 | None = None
    topic_id: Id = ""


class Offsets(Message):
    partitions: Many[OffsetsPartition]


class OffsetsResult(msgspec.Struct, omit_defaults=True):
    """``offset`` is the first record at or after the time. With none it is the high watermark and
    ``timestamp`` is None. ``last_epoch`` is the epoch of the record before ``offset`` (-1: none).
    ``log_start_offset`` is told whoever asks for ``behind``."""

    topic: Name
    partition: Int64
    problem: Problem | None = None
    offset: Int64 | None = None
    timestamp: Int64 | None = None
    leader_epoch: Int64 = -1
    last_epoch: Int64 = -1
    topic_id: Id = ""
    log_start_offset: Int64 | None = None


class OffsetsReply(Message):
    partitions: Many[OffsetsResult]


class Metadata(Message):
    """What the receiver knows of ``topics`` (None: all). A topic that does not exist is left out of
    the reply."""

    topics: Many[Name] | None = None


class BrokerInfo(msgspec.Struct, omit_defaults=True):
    """``state`` is running, fenced, shutting_down. ``version``: of its program, "" where it has not
    said so."""

    broker_id: BrokerId
    url: Told
    state: Name
    broker_epoch: Int64
    rack: Told = ""
    version: Told = ""


class MetadataReply(Message):
    cluster_id: Name
    metadata_offset: Count
    controller_epoch: Int64
    brokers: Many[BrokerInfo]
    topics: Many[TopicInfo]


AnyMessage = (
    Problem
    | Ok
    | Produce
    | ProduceReply
    | Fetch
    | FetchReply
    | Offsets
    | OffsetsReply
    | Metadata
    | MetadataReply
    | AdminMessage
    | FigureMessage
    | Register
    | RegisterReply
    | Heartbeat
    | HeartbeatReply
    | AlterPartition
    | AlterPartitionReply
    | Positions
    | PositionsReply
    | Probe
    | ProbeReply
    | StandBy
    | StandByReply
    | ReplicaFetch
    | ReplicaFetchReply
    | GroupHeartbeat
    | GroupHeartbeatReply
    | LeaveGroup
    | CommitOffsets
    | CommitOffsetsReply
    | CommittedOffsets
    | CommittedOffsetsReply
    | ListGroups
    | ListGroupsReply
    | DescribeGroup
    | DescribeGroupReply
    | DeleteGroup
    | DeleteGroupReply
    | ForwardedGroupRequest
)

CLUSTER_MESSAGES = (Register, Heartbeat, AlterPartition, AllocateProducerIds, ReplicaFetch, Positions, Probe, StandBy)
"""What brokers and the controller ask each other by themselves. Requests that a broker passes on
are its clients'."""


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


class NotAMessage(ValueError):
    """Bytes that are not exactly one message, or a message that no bytes can be. ``str`` says why,
    for a sentence."""


def encode(message: Message) -> bytes:
    """Raises NotAMessage, and nothing else, where a value in it has no form: a number beyond 64
    bits, a lone surrogate."""
    try:
        return _encoder.encode(message)
    except (*UNDECODABLE, TypeError) as error:
        raise NotAMessage(f"it cannot be written: {why_undecodable(error)}") from None


def decode(body: bytes | memoryview) -> AnyMessage:
    """Raises NotAMessage, and nothing else, on anything that is not exactly one message.

    Batches inside the message are views into ``body``, not copies."""
    try:
        return _decoder.decode(body)
    except UNDECODABLE as error:
        raise NotAMessage(why_undecodable(error)) from None
