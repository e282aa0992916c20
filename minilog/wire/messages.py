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
from minilog.wire.message_base import UNDECODABLE, Message, Ok, Problem, why_undecodable
from minilog.wire.peer_messages import (
    NOTHING,
    AlterPartition,
    AlterPartitionReply,
    Heartbeat,
    HeartbeatReply,
    IsrDecision,
    IsrMember,
    IsrProposal,
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
    UnfitReplica,
)

__all__ = [  # defined in message.py and peer_messages.py, and part of this vocabulary
    "NOTHING",
    "AlterPartition",
    "AlterPartitionReply",
    "Heartbeat",
    "HeartbeatReply",
    "IsrDecision",
    "IsrMember",
    "IsrProposal",
    "Message",
    "Ok",
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
    "UnfitReplica",
]

ACKS_ALL = -1
EARLIEST = -2
LATEST = -1


# --- clients to brokers ---------------------------------------------------------------------------


class ProducePartition(msgspec.Struct, omit_defaults=True):
    topic: str
    partition: int
    batches: memoryview
    """Batches of one partition; base offsets and leader epochs are the leader's to set."""
    topic_id: str = ""


class Produce(Message):
    """Append to partitions led by the receiver, each named once. ``acks``: 0, 1, N copies, or
    ACKS_ALL."""

    acks: int
    timeout_ms: int
    partitions: list[ProducePartition]


class ProduceResult(msgspec.Struct, omit_defaults=True):
    """A receipt, or why there is none. ``crc`` is the first batch's as stored. ``isr`` the ISR at
    commit.

    ``duplicate``: the batches, or the first of them, had been written before, and the offsets are
    those of then (R31). ``base_offsets`` is empty unless the batches do not lie one after the
    other, because something came between the first attempt and this one. It then names the base
    offset of each. A batch sent alone needs no look at it."""

    topic: str
    partition: int
    problem: Problem | None = None
    base_offset: int | None = None
    end_offset: int | None = None
    leader_epoch: int | None = None
    timestamp: int | None = None
    crc: int | None = None
    acks: int | None = None
    isr: list[int] = []
    duplicate: bool = False
    base_offsets: list[int] = []
    topic_id: str = ""


class ProduceReply(Message):
    partitions: list[ProduceResult]


class FetchPartition(msgspec.Struct, omit_defaults=True):
    """``leader_epoch``: the current epoch the client knows (-1: do not check). ``last_epoch``: the
    epoch of the record before ``offset`` as the client read it (-1: none), so that truncation is
    detected (R23)."""

    topic: str
    partition: int
    offset: int
    max_bytes: int = 1024 * 1024
    leader_epoch: int = -1
    last_epoch: int = -1
    topic_id: str = ""


class Fetch(Message):
    """Read committed records; long-polls on the high watermark up to ``max_wait_ms`` for
    ``min_bytes``.

    ``any_replica`` reads from a follower too, no staler than ``max_lag_ms`` (-1: any staleness)."""

    partitions: list[FetchPartition]
    max_wait_ms: int = 0
    min_bytes: int = 1
    max_bytes: int = 16 * 1024 * 1024
    any_replica: bool = False
    max_lag_ms: int = -1


class FetchResult(msgspec.Struct, omit_defaults=True):
    """``batches`` may begin with a batch that starts before the offset asked for: skip those
    records.

    ``high_watermark`` is None while a new leader does not know it (R7). ``lag_ms`` is how stale the
    answer may be; 0 from a leader that cannot have been replaced and knows the end, 2^31 - 1 when
    nobody can say."""

    topic: str
    partition: int
    problem: Problem | None = None
    batches: memoryview = NOTHING
    high_watermark: int | None = None
    log_start_offset: int = 0
    leader_epoch: int = -1
    lag_ms: int = 0
    lag_records: int = 0
    topic_id: str = ""


class FetchReply(Message):
    partitions: list[FetchResult]


class OffsetsPartition(msgspec.Struct, omit_defaults=True):
    """``at``: a timestamp in ms since the epoch, EARLIEST or LATEST (the high watermark).

    ``behind``, only with LATEST: an offset to measure the lag of. ``timestamp`` of the answer is
    then that of the first record at or after it, to the batch, and None when nothing is left to
    read there."""

    topic: str
    partition: int
    at: int
    behind: int | None = None
    topic_id: str = ""


class Offsets(Message):
    partitions: list[OffsetsPartition]


class OffsetsResult(msgspec.Struct, omit_defaults=True):
    """``offset`` is the first record at or after the time. With none it is the high watermark and
    ``timestamp`` is None. ``last_epoch`` is the epoch of the record before ``offset`` (-1:
    none)."""

    topic: str
    partition: int
    problem: Problem | None = None
    offset: int | None = None
    timestamp: int | None = None
    leader_epoch: int = -1
    last_epoch: int = -1
    topic_id: str = ""


class OffsetsReply(Message):
    partitions: list[OffsetsResult]


class Metadata(Message):
    """What the receiver knows of ``topics`` (None: all). A topic that does not exist is left out of
    the reply."""

    topics: list[str] | None = None


class BrokerInfo(msgspec.Struct, omit_defaults=True):
    """``state`` is running, fenced, shutting_down."""

    broker_id: int
    url: str
    state: str
    broker_epoch: int
    rack: str = ""


class PartitionInfo(msgspec.Struct, omit_defaults=True):
    partition: int
    leader: int
    leader_epoch: int
    partition_epoch: int
    replicas: list[int]
    isr: list[int]
    elr: list[int] = []


class TopicInfo(msgspec.Struct, omit_defaults=True):
    topic: str
    topic_id: str
    partitions: list[PartitionInfo]
    config: dict[str, str] = {}


class MetadataReply(Message):
    cluster_id: str
    metadata_offset: int
    controller_epoch: int
    brokers: list[BrokerInfo]
    topics: list[TopicInfo]


# --- admin: to any broker, which forwards to the controller ---------------------------------------


class CreateTopic(Message):
    """0 partitions or replicas: the cluster's default. ``assignment`` fixes the replicas of each
    partition."""

    topic: str
    partitions: int = 0
    replication_factor: int = 0
    config: dict[str, str] = {}
    assignment: list[list[int]] = []


class CreateTopicReply(Message):
    topic: TopicInfo
    metadata_offset: int


class DeleteTopic(Message):
    """``topic_id`` says which topic of that name; "" the one there is, which may be a successor of
    the one meant."""

    topic: str
    topic_id: str = ""


class AddPartitions(Message):
    """Let a topic have ``partitions`` in all. There can only be more of them than before."""

    topic: str
    partitions: int
    topic_id: str = ""


class InitProducer(Message):
    """A client asks any broker for a producer id of its own. Epochs it counts by itself, from 0
    (R33, KIP-360)."""


class InitProducerReply(Message):
    producer_id: int


class AllocateProducerIds(Message):
    broker_id: int
    broker_epoch: int
    incarnation: str


class AllocateProducerIdsReply(Message):
    """Ids from ``first`` below ``end`` belong to the asker."""

    first: int
    end: int


class DescribeCluster(Message):
    """Asks the controller for its own view: broker sessions and failovers as well as metadata."""


class FailoverInfo(msgspec.Struct, omit_defaults=True):
    """One loss of a broker, as a timeline of ms since the epoch. ``kind``: refused, replaced,
    timeout, shutdown."""

    broker_id: int
    broker_epoch: int
    kind: str
    last_heard_ms: int
    detected_ms: int
    fenced_ms: int
    partitions: int
    elected_ms: int | None = None
    published_ms: int | None = None


class BrokerHealth(msgspec.Struct, omit_defaults=True):
    broker_id: int
    url: str
    state: str
    broker_epoch: int
    metadata_offset: int
    heartbeat_age_ms: int
    rack: str = ""


class DescribeClusterReply(Message):
    cluster_id: str
    controller_epoch: int
    metadata_offset: int
    brokers: list[BrokerHealth]
    failovers: list[FailoverInfo]
    elections: dict[str, int] = {}


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
    | CreateTopic
    | CreateTopicReply
    | DeleteTopic
    | AddPartitions
    | InitProducer
    | InitProducerReply
    | AllocateProducerIds
    | AllocateProducerIdsReply
    | DescribeCluster
    | DescribeClusterReply
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
