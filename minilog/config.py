"""Typed settings of brokers, controllers and topics: every limit (``*_max``) and every timeout (``*_ms``).

Order of precedence, weakest first: built-in default, TOML file, ``MINILOG_*`` environment, command-line flag.
Unknown keys, wrong types and impossible combinations are refused with file, key, value and what is allowed.
"""

from __future__ import annotations

from typing import Annotated, Literal

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


def _dotted(name: str) -> str:
    return name.replace("_", ".")


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=_dotted):
    """Topic configuration under Kafka's names; on the wire and in files the underscores are dots."""

    min_insync_replicas: Annotated[int, Meta(ge=1, le=32)] = 1
    max_message_bytes: Annotated[int, Meta(ge=KIB, le=64 * MIB)] = MIB
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
    """A producer silent for longer is forgotten once many others have come: its next batch may have any sequence (R31).
    By the records' timestamps, of which no few count (storage/producers.py)."""

    @property
    def is_compacted(self) -> bool:
        return "compact" in self.cleanup_policy

    @property
    def is_deleted(self) -> bool:
        """Whole segments go by age and size."""
        return "delete" in self.cleanup_policy

    @property
    def roll_ms(self) -> int:
        """How old the first record of the active segment may get; cleaning has to wait for the roll."""
        return min(self.segment_ms, self.max_compaction_lag_ms) if self.is_compacted else self.segment_ms


def topic_settings(config: dict[str, str]) -> TopicSettings:
    """Typed topic settings from their text form; raises InvalidConfig naming key, value and what is allowed."""
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
    replica_fetch_bytes_max: Bytes = 8 * MIB
    peer_timeout_ms: Milliseconds = 2000
    checkpoint_interval_ms: Milliseconds = 10_000
    retention_check_ms: Milliseconds = 30_000
    """How often each log is looked at for segments to roll, to delete or to compact."""
    cleaner_bytes_per_second: Bytes = 32 * MIB
    """What compaction reads and writes at most."""
    cleaner_map_bytes: Bytes = 64 * MIB
    """Memory for the keys of one round; a log with more of them is cleaned in several rounds."""
    drain_timeout_ms: Milliseconds = 1000
    shutdown_timeout_ms: Milliseconds = 10_000
    self_fencing: bool = False
    """R30; on only when several controllers stand ready, so that one controller's outage stops no data path."""
    groups_max: PositiveInt = 10_000
    """Consumer groups per partition of the internal topic, that is: per coordinator."""
    group_members_max: PositiveInt = 1000
    group_session_timeout_ms_min: Milliseconds = 1000
    group_session_timeout_ms_max: Milliseconds = 1_800_000
    group_heartbeat_interval_ms: Milliseconds = 1000
    """What members are told; one that waits for partitions is told to ask sooner."""
    group_wait_ms: Milliseconds = 5000
    """How long an answer of a coordinator may wait for its replicas."""
    group_offsets_retention_ms: Milliseconds = 7 * 24 * 3_600_000
    """How long a group without members keeps its offsets."""
    limits: Limits = Limits()


class ControllerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    data_dir: str
    host: str = "127.0.0.1"
    port: Port = 9093
    cluster_id: str = ""
    """Empty: made at the first start and kept in the journal."""
    session_timeout_ms: Milliseconds = 2000
    heartbeat_interval_ms: Milliseconds = 200
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
    topics_max: PositiveInt = 10_000
    partitions_max: PositiveInt = 100_000
    limits: Limits = Limits()
