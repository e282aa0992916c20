"""The answers of the JSON routes, each declared once.

The routes encode these structs, /openapi.json documents them, the Python client and the command
decode them. A field with a default may be missing in the answer of an older broker. A broker itself
always writes every field. What the native protocol has a struct for is not repeated here.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from minilog.wire.admin_messages import ControllerInfo
from minilog.wire.group_messages import CommittedOffset, GroupInfo, GroupMember, MissingGroups, TopicPartitions
from minilog.wire.journal.events import Event
from minilog.wire.json.json_records import JsonRecordOut, UnreadableRecords
from minilog.wire.messages import BrokerInfo, Candidate, FailoverInfo, TopicInfo


class ProblemDocument(Struct):
    """RFC 9457. ``definite``: the write provably did not happen. ``retriable``: the same request
    may succeed later."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retriable: bool
    definite: bool


# --- the process ----------------------------------------------------------------------------------


class Alive(Struct):
    status: str
    broker_id: int


class LogsChecked(Struct):
    """How far a broker that has just started has come with its logs."""

    logs_checked: int
    logs: int


class Readiness(Struct, omit_defaults=True):
    """``reason``: why the broker is not ready. ``recovery``: while it still checks its logs.
    ``controller_heard_ms_ago``: as of when it knows who leads, null for never."""

    ready: bool
    broker_id: int
    reason: str
    recovery: LogsChecked | UnsetType = UNSET
    controller_heard_ms_ago: int | UnsetType | None = UNSET


class LogLevelNow(Struct):
    """``level``: what this process writes to its log from now on. ``configured``: what it begins
    with at its next start."""

    level: str
    configured: str


# --- the cluster ----------------------------------------------------------------------------------


class ClusterInfo(Struct, frozen=True):
    """The cluster as the broker ``answered_by`` sees it."""

    cluster_id: str
    controller_epoch: int
    metadata_offset: int
    answered_by: int
    brokers: list[BrokerInfo]
    topics: int
    partitions: int
    controller_url: str = ""
    controller_version: str = ""


class PartitionHealth(Struct, frozen=True):
    topic: str
    partition: int
    leader: int
    replicas: list[int]
    isr: list[int]
    min_isr: int


class Finding(Struct, frozen=True, omit_defaults=True):
    """Something that is not as it should be: what, in a sentence, and what to do next. A warning
    alone makes nothing unhealthy."""

    kind: str
    sentence: str
    next_step: str
    topic: str | None = None
    partition: int | None = None
    broker_id: int | None = None
    is_warning: bool = False


class Health(Struct, frozen=True):
    """``healthy``: the controller has answered just now, every partition has a leader and enough
    in-sync replicas, and no broker has told otherwise. ``findings`` say what is wrong and what to
    do, the lists which partitions it concerns. ``controller_heard_ms_ago``: when the broker
    ``answered_by`` last heard the controller, null for never."""

    healthy: bool
    offline: list[PartitionHealth] = []
    under_min_isr: list[PartitionHealth] = []
    under_replicated: list[PartitionHealth] = []
    not_preferred: list[PartitionHealth] = []
    brokers_not_running: list[int] = []
    findings: list[Finding] = []
    controller_heard_ms_ago: int | None = None
    answered_by: int | None = None
    controllers: list[ControllerInfo] = []
    """Where there are several: the active one first."""


class BrokerList(Struct):
    brokers: list[BrokerInfo]


class FailoverList(Struct):
    """``elections``: how many there were since the controller started, by kind; none where the
    controller does not answer. ``controller_epoch``: of the controller there is now."""

    failovers: list[FailoverInfo]
    elections: dict[str, int] = {}
    controller_epoch: int = 0


class NotedEvent(Struct):
    """``number``: where it stands in the controller's journal."""

    number: int
    event: Event


class EventList(Struct):
    """Oldest first. ``next``: ask with ``after`` of it for what comes then."""

    events: list[NotedEvent]
    next: int


class ElectionInfo(Struct):
    """An election of one partition: one that was held, or, with ``leader`` null, one that could be.

    ``kind``: "clean", "recovery" or "unclean", "" while the partition has a leader. ``missing``: at
    least so many committed records the leader does not hold, and without one none of the
    candidates."""

    topic: str
    topic_id: str
    partition: int
    leader: int | None
    leader_epoch: int
    kind: str
    candidates: list[Candidate]
    missing: int


# --- topics ---------------------------------------------------------------------------------------


class TopicList(Struct):
    topics: list[TopicInfo]


class TopicDeleted(Struct):
    topic: str = ""
    deleted: bool = True


class OffsetFound(Struct):
    """``timestamp`` is null when no record is that late. ``offset`` is then the high watermark."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None
    leader_epoch: int | None
    topic_id: str


# --- records --------------------------------------------------------------------------------------


class FetchAnswer(Struct):
    """``leader_epoch`` is that of the last record shown: send it back with
    ``offset=next_offset``. In the place of records that cannot be read is an
    ``UnreadableRecords``."""

    records: list[JsonRecordOut | UnreadableRecords | Any]
    next_offset: int
    high_watermark: int | None
    log_start_offset: int
    leader_epoch: int | None
    topic_id: str


class RecordResult(Struct, omit_defaults=True):
    """Where a record went. Without ``offset`` and ``leader_epoch`` for acks=0, which promises
    none."""

    partition: int
    offset: int | UnsetType = UNSET
    end_offset: int | UnsetType = UNSET
    """Of raw batches only: one result stands for all of the request's records."""
    timestamp: int | UnsetType = UNSET
    leader_epoch: int | UnsetType = UNSET


class RecordFailure(Struct):
    """Why a record was not written, or may not have been: ``error`` is a problem document."""

    error: Raw


class Receipt(Struct):
    """What the leader promises about one partition's share. ``crc`` is the first batch's as
    stored."""

    topic: str
    partition: int
    offset: int
    end_offset: int
    leader_epoch: int
    timestamp: int | None
    crc: int | None
    acks: str
    isr: list[int]
    duplicate: bool
    topic_id: str


class ProduceAnswer(Struct):
    """One result per record, in the order of the records. One receipt per partition."""

    results: list[RecordResult | RecordFailure | Any]
    receipts: list[Receipt]


class ProducerCreated(Struct):
    """An id of your own, and the epoch to begin with."""

    producer_id: int
    producer_epoch: int


# --- lost records ---------------------------------------------------------------------------------


class LostReplay(Struct):
    """``claimed``: so many offsets are this tail's to write. ``skipped``: unreadable, or too large.
    The records written lie between ``first_offset`` and ``end_offset``, perhaps with others."""

    into: str
    partition: int
    topic_id: str
    claimed: int
    written: int
    skipped: int
    first_offset: int | None
    end_offset: int | None
    finished: bool


class LostTailInfo(Struct):
    """What a broker cut from the end of a log. ``records_by_acks``: written with acks "0", "1",
    "many" or "unknown". Times are in ms. ``note``: why it cannot be written again, else "".
    ``left_open``: so many were left to copies of other brokers, which have not written them yet."""

    tail: str
    broker_id: int
    topic: str
    topic_id: str
    partition: int
    reason: str
    cut_at_ms: int
    base_offset: int
    end_offset: int
    first_epoch: int
    last_epoch: int
    bytes: int
    records: int
    records_by_acks: dict[str, int]
    unreadable_bytes: int
    first_timestamp: int | None
    last_timestamp: int | None
    replay: LostReplay | None = None
    note: str = ""
    left_open: int = 0


class LostList(Struct):
    broker_id: int
    tails: list[LostTailInfo]


class LostDiscarded(Struct):
    tail: str
    records: int


class LostRecords(Struct):
    """``next_offset``: ask with ``offset`` of it for more; null behind the last record."""

    records: list[JsonRecordOut | UnreadableRecords | Any]
    next_offset: int | None


# --- groups ---------------------------------------------------------------------------------------


class MemberState(Struct):
    """Give back what you own and ``assignment`` does not name. What it adds is yours at once. Send
    the next heartbeat within ``heartbeat_interval_ms``. ``pending``: partitions that come as soon
    as their owners have let go."""

    member_id: str
    member_epoch: int
    heartbeat_interval_ms: int
    assignment: list[TopicPartitions]
    pending: int


class MemberLeft(Struct):
    group: str
    member_id: str
    left: bool = True


class GroupsFound(Struct):
    """``missing``: partitions of the groups' topic whose groups are not in this list, because
    nobody answered for them."""

    groups: list[GroupInfo]
    missing: list[MissingGroups] = []


class GroupDescription(Struct, frozen=True):
    """A group and its members. ``coordinator`` is a broker id. ``rebalances`` and
    ``last_rebalance_ms`` (how long the last one took) count since that broker coordinates the
    group."""

    group: GroupInfo
    members: list[GroupMember]
    coordinator: int
    rebalances: int = 0
    last_rebalance_ms: int | None = None


class GroupDeleted(Struct):
    group: str
    deleted: bool = True


class OffsetsFound(Struct):
    offsets: list[CommittedOffset]


class OffsetsCommitted(Struct):
    """``committed``: of how many partitions."""

    group: str
    committed: int


def plain(value: Any) -> Any:
    """An answer as JSON for people: every field is there, defaults too, and no tag of the native
    protocol."""
    if isinstance(value, msgspec.Struct):
        fields = {name: plain(getattr(value, name)) for name in value.__struct_fields__}
        return {name: content for name, content in fields.items() if content is not UNSET}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value
