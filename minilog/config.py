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


def _dotted(name: str) -> str:
    return name.replace("_", ".")


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=_dotted):
    """Topic configuration under Kafka's names; on the wire and in files the underscores are dots."""

    min_insync_replicas: Annotated[int, Meta(ge=1, le=32)] = 1
    max_message_bytes: Annotated[int, Meta(ge=KIB, le=64 * MIB)] = MIB
    segment_bytes: Annotated[int, Meta(ge=4 * KIB, le=2**31 - 1)] = 256 * MIB
    flush_policy: FlushPolicy = "commit"
    flush_ms: Milliseconds = 1000
    message_timestamp_type: Literal["CreateTime", "LogAppendTime"] = "CreateTime"
    compression_type: Literal["producer"] = "producer"


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
    return msgspec.convert(config, TopicSettings, strict=False)


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
    drain_timeout_ms: Milliseconds = 1000
    shutdown_timeout_ms: Milliseconds = 10_000
    self_fencing: bool = False
    """R30; on only when several controllers stand ready, so that one controller's outage stops no data path."""
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
    topics_max: PositiveInt = 10_000
    partitions_max: PositiveInt = 100_000
    limits: Limits = Limits()
