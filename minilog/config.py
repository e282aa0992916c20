"""Typed settings of brokers, controllers and topics: every limit (``*_max``) and every timeout
(``*_ms``).

Order of precedence, weakest first: built-in default, TOML file, ``MINILOG_*`` environment,
command-line flag. Unknown keys, wrong types and impossible combinations are refused with file, key,
value and what is allowed.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from minilog.errors import InvalidConfig

KIB = 1024
MIB = 1024 * KIB

Port = Annotated[int, Meta(ge=0, le=65535)]
PositiveInt = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Milliseconds = Annotated[int, Meta(ge=1, le=2**53)]
Bytes = Annotated[int, Meta(ge=1, le=2**53)]
FlushPolicy = Literal["commit", "interval", "never"]
CleanupPolicy = Literal["delete", "compact", "compact,delete", "delete,compact"]
MillisecondsOrNever = Annotated[int, Meta(ge=-1, le=2**53)]
MillisecondsOrNone = Annotated[int, Meta(ge=0, le=2**53)]
FILE_NAME_BYTES_MAX = 255
"""What file systems take as one name: topics are named so that their directories can be made."""
DAY_MS = 24 * 60 * 60 * 1000
REPLICA_FETCH_BYTES_MAX: Final = 64 * MIB
"""Batches in one answer to a follower. It may hold one more, and peers take that (``peers.py``)."""
MESSAGE_BYTES_MAX: Final = 64 * MIB
"""The most that ``max.message.bytes`` may be."""


_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_DOTS: Final = re.compile("[.\u3002\uff0e\uff61]")
HOST_CHARACTERS_MAX: Final = 253


def ascii_host(host: str) -> str:
    """A host as resolvers and HTTP know it: letters beyond ASCII become IDNA. Raises ValueError
    saying what is wrong."""
    if ":" in host:
        ipaddress.IPv6Address(host)
        return host
    labels = [_ascii_label(label) for label in _DOTS.split(host)]
    whole = ".".join(labels)
    if not labels[-1]:  # the root: "example.org."
        labels.pop()
    for label in labels or [""]:
        if not _LABEL.fullmatch(label):
            raise ValueError(f"its part {label!r} is no name: 1 to 63 letters, digits, - and _")
    if len(whole) > HOST_CHARACTERS_MAX:
        raise ValueError(f"it is {len(whole)} characters long, at most {HOST_CHARACTERS_MAX} are allowed")
    return whole


def _ascii_label(label: str) -> str:
    if label.isascii():
        return label
    import idna  # here, because hardly any process meets such a name

    try:
        return idna.encode(label, uts46=True).decode("ascii")
    except UnicodeError:
        raise ValueError(f"its part {label!r} cannot be written as an international domain name (IDNA)") from None


def ascii_url(url: str) -> str:
    """``url`` with its host in ASCII. One that is ASCII already is returned as it was written.
    Raises ValueError."""
    host = urlsplit(url).hostname
    if not host:
        raise ValueError("it names no host")
    written = ascii_host(host)
    if url.isascii():
        return url
    scheme, _, rest = url.partition("://")
    netloc, slash, path = rest.partition("/")
    _, colon, port = netloc.rpartition(":")
    return f"{scheme}://{written}{colon}{port if colon else ''}{slash}{path}"


def _dotted(name: str) -> str:
    return name.replace("_", ".")


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=_dotted):
    """Topic configuration under Kafka's names. On the wire and in files the underscores are
    dots."""

    min_insync_replicas: Annotated[int, Meta(ge=1, le=32)] = 1
    max_message_bytes: Annotated[int, Meta(ge=KIB, le=MESSAGE_BYTES_MAX)] = MIB
    segment_bytes: Annotated[int, Meta(ge=4 * KIB, le=2**31 - 1)] = 256 * MIB
    segment_ms: Milliseconds = 7 * DAY_MS
    cleanup_policy: CleanupPolicy = "delete"
    retention_ms: MillisecondsOrNever = 7 * DAY_MS
    """-1: records never go because of their age."""
    retention_bytes: Annotated[int, Meta(ge=-1, le=2**53)] = -1
    """-1: records never go because of the log's size."""
    min_cleanable_dirty_ratio: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5
    min_compaction_lag_ms: MillisecondsOrNone = 0
    max_compaction_lag_ms: Milliseconds = 2**53
    delete_retention_ms: MillisecondsOrNone = DAY_MS
    """How long a tombstone can still be read after the values before it have gone."""
    flush_policy: FlushPolicy = "commit"
    flush_ms: Milliseconds = 1000
    message_timestamp_type: Literal["CreateTime", "LogAppendTime"] = "CreateTime"
    compression_type: Literal["producer"] = "producer"
    producer_id_expiration_ms: Milliseconds = DAY_MS
    """A producer silent for longer is forgotten once many others have come: its next batch may have
    any sequence (R31). By the records' timestamps, of which no few count
    (storage/log/producers.py)."""

    @property
    def is_compacted(self) -> bool:
        return "compact" in self.cleanup_policy

    @property
    def is_deleted(self) -> bool:
        """Whole segments go by age and size."""
        return "delete" in self.cleanup_policy

    @property
    def roll_ms(self) -> int:
        """How old the first record of the active segment may get; cleaning has to wait for the
        roll."""
        return min(self.segment_ms, self.max_compaction_lag_ms) if self.is_compacted else self.segment_ms


def topic_settings(config: dict[str, str]) -> TopicSettings:
    """Typed topic settings from their text form; raises InvalidConfig naming key, value and what is
    allowed."""
    allowed = [_dotted(name) for name in TopicSettings.__struct_fields__]
    for key, value in config.items():
        if key not in allowed:
            raise InvalidConfig(f"unknown topic setting {key!r}; known are: {', '.join(allowed)}")
        try:
            msgspec.convert({key: value}, TopicSettings, strict=False)
        except msgspec.ValidationError as error:
            reason = str(error).split(" - at ")[0]
            raise InvalidConfig(f"topic setting {key} cannot be {value!r}: {reason}") from None
    settings = msgspec.convert(config, TopicSettings, strict=False)
    if settings.min_compaction_lag_ms > settings.max_compaction_lag_ms:
        raise InvalidConfig(
            f"min.compaction.lag.ms is {settings.min_compaction_lag_ms} and max.compaction.lag.ms "
            f"{settings.max_compaction_lag_ms}; the first may be at most the second"
        )
    return settings


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on everything a peer can make us hold or wait for."""

    request_bytes_max: Bytes = 16 * MIB
    batch_bytes_max: Bytes = MIB
    fetch_bytes_max: Bytes = 16 * MIB
    inflight_bytes_max: Bytes = 256 * MIB
    connections_max: PositiveInt = 4096
    parked_requests_max: PositiveInt = 20_000
    partitions_max: PositiveInt = 10_000
    wait_ms_max: Milliseconds = 60_000
    timeout_ms_max: Milliseconds = 300_000
    header_read_ms: Milliseconds = 10_000
    body_read_ms: Milliseconds = 10_000
    body_bytes_per_second_min: Bytes = 64 * KIB
    response_write_ms: Milliseconds = 10_000


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    broker_id: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    data_dir: str
    controller_url: str = "http://127.0.0.1:9093"
    host: str = "127.0.0.1"
    port: Port = 8082
    advertised_url: str = ""
    """What clients and peers are told; empty means http://host:port."""
    rack: str = ""
    heartbeat_interval_ms: Milliseconds = 200
    session_timeout_ms: Milliseconds = 2000
    replica_lag_max_ms: Milliseconds = 4000
    replica_fetch_wait_ms: Milliseconds = 500
    replica_fetch_bytes_max: Annotated[int, Meta(ge=1, le=REPLICA_FETCH_BYTES_MAX)] = 8 * MIB
    peer_timeout_ms: Milliseconds = 2000
    checkpoint_interval_ms: Milliseconds = 10_000
    retention_check_ms: Milliseconds = 30_000
    """How often each log is looked at for segments to roll, to delete or to compact."""
    cleaner_bytes_per_second: Bytes = 32 * MIB
    """What compaction reads and writes at most."""
    cleaner_map_bytes: Bytes = 64 * MIB
    """Memory for the keys of one round. A log with more of them is cleaned in several rounds."""
    drain_timeout_ms: Milliseconds = 1000
    shutdown_timeout_ms: Milliseconds = 10_000
    self_fencing: bool = False
    """R30. On only when several controllers stand ready, so that one controller's outage stops no
    data path."""
    groups_max: PositiveInt = 10_000
    """Consumer groups per partition of the internal topic, that is: per coordinator."""
    group_members_max: PositiveInt = 1000
    group_session_timeout_ms_min: Milliseconds = 1000
    group_session_timeout_ms_max: Milliseconds = 1_800_000
    group_heartbeat_interval_ms: Milliseconds = 1000
    """What members are told. One that waits for partitions is told to ask sooner."""
    group_wait_ms: Milliseconds = 5000
    """How long an answer of a coordinator may wait for its replicas."""
    group_offsets_retention_ms: Milliseconds = 7 * 24 * 3_600_000
    """How long a group without members keeps its offsets: time that coordinators have watched
    through, no wall clock's."""
    limits: Limits = Limits()


class ControllerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    data_dir: str
    host: str = "127.0.0.1"
    port: Port = 9093
    cluster_id: str = ""
    """Empty: made at the first start and kept in the journal."""
    session_timeout_ms: Milliseconds = 2000
    heartbeat_interval_ms: Milliseconds = 200
    peer_timeout_ms: Milliseconds = 2000
    """How long a broker may take to begin its answer. An election may decide before."""
    probe_after_ms: Milliseconds = 40
    """A heartbeat this late makes the controller probe the broker's listener."""
    election_timeout_ms: Milliseconds = 300
    topic_create_wait_ms: Milliseconds = 2000
    snapshot_records: PositiveInt = 10_000
    """A journal longer than this is replaced by a snapshot."""
    default_replication_factor: Annotated[int, Meta(ge=1, le=32)] = 3
    default_partitions: PositiveInt = 1
    groups_partitions: Annotated[int, Meta(ge=1, le=1000)] = 8
    """Partitions of the internal topic of consumer groups, fixed when it is first needed."""
    groups_brokers_min: Annotated[int, Meta(ge=1, le=32)] = 1
    """The topic of consumer groups is not made before so many brokers have registered: its copies
    are as many as then are known, at most 3."""
    topics_max: PositiveInt = 10_000
    partitions_max: PositiveInt = 100_000
    limits: Limits = Limits()
