"""Requests and responses of the native protocol (msgpack; the JSON face is built on the same structs).

Clients speak Produce, Fetch, Offsets and Metadata with brokers and the admin messages with any broker, which
forwards them to the controller. Brokers speak ReplicaFetch, Positions and Probe with each other and with the
controller, and Register, Heartbeat and AlterPartition with the controller.

Any request may be answered by ``Problem`` in place of its own reply: then the whole request failed.
Every "end" is exclusive. Absent offsets are None, never 0 or -1 in disguise.
``batches`` fields hold concatenated record batches (wire/batch.py), byte for byte as they lie on disk.
"""

from __future__ import annotations

from typing import Any

import msgspec

from minilog.errors import MinilogError, error_from
from minilog.wire.metadata import AnyMetadataRecord

ACKS_ALL = -1
EARLIEST = -2
LATEST = -1
NOTHING = memoryview(b"")


class Message(msgspec.Struct, tag=True, omit_defaults=True):
    """Base of all messages; the tag (field ``type``) is the class name."""


class Problem(Message):
    """An error on the wire; see errors.py for codes and the meaning of ``definite``."""

    code: str
    detail: str
    definite: bool
    info: dict[str, Any] = {}

    @classmethod
    def of(cls, error: MinilogError) -> Problem:
        return cls(error.code, error.detail, error.definite, error.info)

    def error(self) -> MinilogError:
        return error_from(self.code, self.detail, self.definite, self.info)


class Ok(Message):
    """Done; nothing more to say. ``metadata_offset`` is set when the journal changed."""

    metadata_offset: int = 0


# --- clients to brokers -------------------------------------------------------------------------------


class ProducePartition(msgspec.Struct):
    topic: str
    partition: int
    batches: memoryview
    """Batches of one partition; base offsets and leader epochs are the leader's to set."""


class Produce(Message):
    """Append to partitions led by the receiver. ``acks``: 0, 1, N copies, or ACKS_ALL."""

    acks: int
    timeout_ms: int
    partitions: list[ProducePartition]


class ProduceResult(msgspec.Struct, omit_defaults=True):
    """A receipt, or why there is none. ``crc`` is the first batch's as stored; ``isr`` the ISR at commit."""

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


class ProduceReply(Message):
    partitions: list[ProduceResult]


class FetchPartition(msgspec.Struct, omit_defaults=True):
    """``leader_epoch``: the current epoch the client knows (-1: do not check). ``last_epoch``: the epoch of
    the record before ``offset`` as the client read it (-1: none), so that truncation is detected (R23)."""

    topic: str
    partition: int
    offset: int
    max_bytes: int = 1024 * 1024
    leader_epoch: int = -1
    last_epoch: int = -1


class Fetch(Message):
    """Read committed records; long-polls on the high watermark up to ``max_wait_ms`` for ``min_bytes``.

    ``any_replica`` reads from a follower too, no staler than ``max_lag_ms`` (-1: any staleness)."""

    partitions: list[FetchPartition]
    max_wait_ms: int = 0
    min_bytes: int = 1
    max_bytes: int = 16 * 1024 * 1024
    any_replica: bool = False
    max_lag_ms: int = -1


class FetchResult(msgspec.Struct, omit_defaults=True):
    """``batches`` may begin with a batch that starts before the offset asked for: skip those records.

    ``high_watermark`` is None while a new leader does not know it (R7). ``lag_ms`` is how stale a follower's
    answer may be; 0 from a leader."""

    topic: str
    partition: int
    problem: Problem | None = None
    batches: memoryview = NOTHING
    high_watermark: int | None = None
    log_start_offset: int = 0
    leader_epoch: int = -1
    lag_ms: int = 0
    lag_records: int = 0


class FetchReply(Message):
    partitions: list[FetchResult]


class OffsetsPartition(msgspec.Struct):
    """``at``: a timestamp in ms since the epoch, EARLIEST or LATEST (the high watermark)."""

    topic: str
    partition: int
    at: int


class Offsets(Message):
    partitions: list[OffsetsPartition]


class OffsetsResult(msgspec.Struct, omit_defaults=True):
    """``offset`` is the first record at or after the time; with none it is the high watermark and
    ``timestamp`` is None. ``last_epoch`` is the epoch of the record before ``offset`` (-1: none)."""

    topic: str
    partition: int
    problem: Problem | None = None
    offset: int | None = None
    timestamp: int | None = None
    leader_epoch: int = -1
    last_epoch: int = -1


class OffsetsReply(Message):
    partitions: list[OffsetsResult]


class Metadata(Message):
    """What the receiver knows of ``topics`` (None: all). A topic that does not exist is left out of the reply."""

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


# --- admin: to any broker, which forwards to the controller ----------------------------------------------


class CreateTopic(Message):
    """0 partitions or replicas: the cluster's default. ``assignment`` fixes the replicas of each partition."""

    topic: str
    partitions: int = 0
    replication_factor: int = 0
    config: dict[str, str] = {}
    assignment: list[list[int]] = []


class CreateTopicReply(Message):
    topic: TopicInfo
    metadata_offset: int


class DeleteTopic(Message):
    topic: str


class AllocateProducerIds(Message):
    broker_id: int
    broker_epoch: int


class AllocateProducerIdsReply(Message):
    """Ids from ``first`` below ``end`` belong to the asker."""

    first: int
    end: int


class DescribeCluster(Message):
    """Asks the controller for its own view: liveness and failovers as well as metadata."""


class FailoverInfo(msgspec.Struct, omit_defaults=True):
    """One loss of a broker, as a timeline of ms since the epoch. ``kind``: refused, timeout, shutdown."""

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


# --- brokers and controller --------------------------------------------------------------------------------


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
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode(body: bytes | memoryview) -> AnyMessage:
    """Raises ``msgspec.DecodeError`` (ValidationError is one) on anything that is not exactly one message.

    Batches inside the message are views into ``body``, not copies."""
    return _decoder.decode(body)
