"""The cluster as the console is told of it, section by section."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from minilog.wire.figure_messages import LostTold, ReplicaBehind
from minilog.wire.json.json_answers import Finding, NotedEvent
from minilog.wire.messages import FailoverInfo


class LiveAbout(Struct, frozen=True):
    """``role`` of who tells this: "broker" or "controller". ``at_ms``: by its clock. ``left_out``:
    so many partitions are not among the topics."""

    role: str
    broker_id: int | None
    version: str
    at_ms: int
    cluster_id: str
    metadata_offset: int
    controller_epoch: int
    controller_url: str
    controller_heard_ms_ago: int | None
    partitions: int
    left_out: int


class LiveHealth(Struct, frozen=True):
    """As /v1/cluster/health. The lists of partitions are numbers here, and ``findings`` the first
    of them."""

    healthy: bool
    offline: int
    under_min_isr: int
    under_replicated: int
    brokers_not_running: list[int]
    findings: list[Finding]
    findings_left_out: int


class LiveBroker(Struct, frozen=True):
    """``heard_ms_ago``: by the controller; null where it does not say. All from ``version`` on is
    what the broker has told of itself, null where it does not answer."""

    broker_id: int
    url: str
    state: str
    rack: str
    broker_epoch: int
    heard_ms_ago: int | None = None
    clock_skew_ms: int | None = None
    version: str | None = None
    ready: bool | None = None
    uptime_ms: int | None = None
    replicas: int | None = None
    leaders: int | None = None
    log_bytes: int | None = None
    written_records: int | None = None
    written_bytes: int | None = None
    produces: int | None = None
    read_bytes: int | None = None
    fetches: int | None = None
    at_risk: int | None = None
    connections: int | None = None
    loop_lag_ms: int | None = None


class LivePartition(Struct, frozen=True, array_like=True):
    partition: int
    leader: int
    leader_epoch: int
    replicas: list[int]
    isr: list[int]


class LiveTopic(Struct, frozen=True):
    """``min_isr``: what a partition needs for acks=all."""

    topic: str
    topic_id: str
    is_internal: bool
    min_isr: int
    config: dict[str, str]
    partitions: list[LivePartition]


class LiveLost(Struct, frozen=True):
    """``unheard``: brokers that have not told what they keep."""

    tails: list[LostTold]
    left_out: int
    unheard: list[int]


class LiveState(Struct, frozen=True):
    """All of it, as JSON. An event of the stream has the sections that have changed since the last
    one."""

    about: LiveAbout | UnsetType = UNSET
    health: LiveHealth | UnsetType = UNSET
    brokers: list[LiveBroker] | UnsetType = UNSET
    topics: list[LiveTopic] | UnsetType = UNSET
    behind: list[ReplicaBehind] | UnsetType = UNSET
    failovers: list[FailoverInfo] | UnsetType = UNSET
    events: list[NotedEvent] | UnsetType = UNSET
    lost: LiveLost | UnsetType = UNSET
