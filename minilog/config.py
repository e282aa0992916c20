"""Typed settings of brokers, controllers and topics: every limit (``*_max``) and every timeout
(``*_ms``).

Order of precedence, weakest first: built-in default, TOML file, ``MINILOG_*`` environment,
command-line flag. Unknown keys, wrong types and impossible combinations are refused with file, key,
value and what is allowed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
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
BytesOrNone = Annotated[int, Meta(ge=0, le=2**53)]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
EventLoop = Literal["auto", "asyncio", "uvloop"]
FlushPolicy = Literal["commit", "interval", "never"]
PeerTls = Literal["optional", "required"]
TokensWithoutTls = Literal["never", "loopback", "always"]
RetentionBy = Literal["written", "timestamp"]
CleanupPolicy = Literal["delete", "compact", "compact,delete", "delete,compact"]
MillisecondsOrNever = Annotated[int, Meta(ge=-1, le=2**53)]
MillisecondsOrNone = Annotated[int, Meta(ge=0, le=2**53)]
FILE_NAME_BYTES_MAX = 255
"""What file systems take as one name: topics are named so that their directories can be made."""
HOUR_MS = 60 * 60 * 1000
DAY_MS = 24 * HOUR_MS
NEVER_MS: Final = 2**53
CONTROLLER_PATIENCE_MS: Final = 10_000
"""How long a broker waits for the controller's answer to a change."""
REPLICA_FETCH_BYTES_MAX: Final = 64 * MIB
"""Batches in one answer to a follower. It may hold one more, and peers take that (``peers.py``)."""
MESSAGE_BYTES_MAX: Final = 64 * MIB
"""The most that ``max.message.bytes`` may be."""


_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_DOTS: Final = re.compile("[.\u3002\uff0e\uff61]")
HOST_CHARACTERS_MAX: Final = 253
SHOWN_CHARACTERS_MAX: Final = 80
URL_CHARS_MAX: Final = 2048


def ascii_host(host: str) -> str:
    """A host as resolvers and HTTP know it: letters beyond ASCII become IDNA. Raises ValueError
    saying what is wrong."""
    if ":" in host:
        ipaddress.IPv6Address(host)
        return host
    if len(host) > 4 * HOST_CHARACTERS_MAX:  # writing it in ASCII takes the longer the longer it is
        raise ValueError(f"it is {len(host)} characters long, at most {HOST_CHARACTERS_MAX} are allowed")
    labels = [_ascii_label(label) for label in _DOTS.split(host)]
    whole = ".".join(labels)
    if not labels[-1]:  # the root: "example.org."
        labels.pop()
    for label in labels or [""]:
        if not _LABEL.fullmatch(label):
            raise ValueError(f"its part {label[:SHOWN_CHARACTERS_MAX]!r} is no name: 1 to 63 letters, digits, - and _")
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
        raise ValueError(
            f"its part {label[:SHOWN_CHARACTERS_MAX]!r} cannot be written as an international domain name (IDNA)"
        ) from None


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


def is_nobodys(host: str) -> bool:
    """An address that is no single machine's: any, all of a network, a group."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_unspecified or address.is_multicast or host == "255.255.255.255"


_SECRET: Final = re.compile(r"(?<=//)[^/?#]*@|\bmlt_[\w-]+|(?<=token=)[^&\s]+")


def without_secrets(url: str) -> str:
    """A URL for a sentence: without a password before its host, and without tokens."""
    return _SECRET.sub("...", url)


def url_fault(url: str) -> str | None:
    """Why ``url`` is no address of a process of this cluster, for a sentence; None when it is one
    that others can try to connect to."""
    if len(url) > URL_CHARS_MAX:
        return f"it has {len(url)} characters, at most {URL_CHARS_MAX} are allowed"
    unlike = "it must look like http://host:port"
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets without an IPv6 address between them, letters that normalize to : or /
        return unlike
    plain = (
        parts.scheme in ("http", "https")
        and parts.hostname
        and parts.path in ("", "/")
        and not parts.query + parts.fragment
    )
    if not plain or not re.fullmatch(r"[^@\s]+", parts.netloc):
        return unlike
    try:
        ascii_host(host := parts.hostname or "")
    except ipaddress.AddressValueError:
        return "its host is no IPv6 address"
    except ValueError as error:
        return f"of its host: {error}" + ("; $NAME is not expanded here" if "$" in parts.netloc else "")
    if is_nobodys(host):
        return "its host is no single machine's address, so nobody can connect to it; name the one that others reach"
    try:
        port = parts.port
    except ValueError:
        return "it has a port outside 1 to 65535"
    return "it has port 0, which nobody can connect to; name the real one" if port == 0 else None


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
    retention_by: RetentionBy = "written"
    """What their age is (R40). "written": they go when both the time in them and the time since
    they were written are past the limit. "timestamp": the time in them decides, as in Kafka, so
    history goes as soon as it is loaded."""
    retention_bytes: Annotated[int, Meta(ge=-1, le=2**53)] = -1
    """-1: records never go because of the log's size."""
    min_cleanable_dirty_ratio: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5
    min_compaction_lag_ms: MillisecondsOrNone = 0
    max_compaction_lag_ms: Milliseconds = NEVER_MS
    delete_retention_ms: MillisecondsOrNone = DAY_MS
    """How long a tombstone can still be read after the values before it have gone."""
    flush_policy: FlushPolicy = "commit"
    flush_ms: Milliseconds = 1000
    message_timestamp_type: Literal["CreateTime", "LogAppendTime"] = "CreateTime"
    message_timestamp_before_max_ms: MillisecondsOrNone = 2**53
    """How far the time that a producer gives may lie in the past."""
    message_timestamp_after_max_ms: MillisecondsOrNone = HOUR_MS
    """How far it may lie in the future. What lies further is no time: retention does not go by
    it."""
    compression_type: Literal["producer"] = "producer"
    unclean_leader_election_enable: bool = False
    """Whether the longest log that can be reached leads, with whatever is lost, when nobody who is
    known to hold all can be elected (R37). Else a person decides."""
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

    @property
    def age_limits_ms(self) -> list[int]:
        """The ages of records that something here goes by."""
        limits = [self.roll_ms]
        if self.is_deleted:
            limits.append(self.retention_ms)
        if self.is_compacted:
            limits += [self.min_compaction_lag_ms, self.max_compaction_lag_ms]
        return [limit for limit in limits if 0 < limit < NEVER_MS]


VALUE_CHARS_MAX: Final = 64
"""Of a topic setting: every number and word that is allowed is shorter. Journals of older versions
hold longer ones."""


def check_topic_keys(keys: Iterable[str]) -> None:
    """Raises InvalidConfig."""
    known = TopicSettings.__struct_encode_fields__
    for key in keys:
        if key not in known:
            raise InvalidConfig(f"unknown topic setting {key[:VALUE_CHARS_MAX]!r}; known are: {', '.join(known)}")


def topic_settings(config: dict[str, str]) -> TopicSettings:
    """Typed topic settings from their text form; raises InvalidConfig naming key, value and what is
    allowed."""
    check_topic_keys(config)
    for key, value in config.items():
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
    connections_reserved: PositiveInt = 256
    """Of these, for brokers and the controller. A quarter of all at most."""
    parked_requests_max: PositiveInt = 20_000
    partitions_max: PositiveInt = 10_000
    wait_ms_max: Milliseconds = 60_000
    timeout_ms_max: Milliseconds = 300_000
    turn_wait_ms_max: Milliseconds = 1000
    """Whose request waits longer for its turn has newer ones refused."""
    header_read_ms: Milliseconds = 10_000
    body_read_ms: Milliseconds = 10_000
    body_bytes_per_second_min: Bytes = 64 * KIB
    response_write_ms: Milliseconds = 10_000


def cors_origins(setting: str) -> list[str]:
    """The origins that a setting names; [] for none. Raises ValueError, which says what is
    wrong."""
    named = [part.strip() for part in setting.split(",") if part.strip()]
    for origin in named:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is no origin; write *, or https://app.example.org (no path, no slash at the end)"
            )
    return named


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    broker_id: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    data_dir: str
    controller_url: str = "http://127.0.0.1:9093"
    controller_urls: Annotated[str, Meta(max_length=4096)] = ""
    """Where there are several: all of them, separated by commas, in place of controller_url."""
    host: str = "127.0.0.1"
    port: Port = 8082
    advertised_url: str = ""
    """What clients and peers are told; empty means http://host:port."""
    rack: Annotated[str, Meta(max_length=255)] = ""
    cors_origins: Annotated[str, Meta(max_length=4096)] = ""
    """Origins whose pages may read and write, separated by commas; * is every page there is."""
    heartbeat_interval_ms: Milliseconds = 200
    session_timeout_ms: Milliseconds = 2000
    replica_lag_max_ms: Milliseconds = 4000
    replica_fetch_wait_ms: Milliseconds = 500
    replica_fetch_bytes_max: Annotated[int, Meta(ge=1, le=REPLICA_FETCH_BYTES_MAX)] = 8 * MIB
    move_bytes_per_second: BytesOrNone = 0
    """What this broker copies at most of partitions that move to it; 0: as fast as it comes."""
    peer_timeout_ms: Milliseconds = 2000
    checkpoint_interval_ms: Milliseconds = 10_000
    retention_check_ms: Milliseconds = 30_000
    """How often each log is looked at for segments to roll, to delete or to compact."""
    cleaner_bytes_per_second: Bytes = 32 * MIB
    """What compaction reads and writes at most."""
    cleaner_map_bytes: Bytes = 64 * MIB
    """Memory for the keys of one round. A log with more of them is cleaned in several rounds."""
    flush_slow_ms: Milliseconds = 3000
    """A sync that takes longer lets this broker hand over what it leads."""
    clock_skew_max_ms: Milliseconds = 60_000
    """How far this broker's wall clock may be from the controller's. Beyond that it deletes nothing
    because of its age (R40)."""
    quarantine_bytes_max: Annotated[int, Meta(ge=-1, le=2**53)] = 8 * 1024 * MIB
    """What was cut from logs is kept so far, the oldest goes first; -1: all of it."""
    quarantine_retention_ms: MillisecondsOrNever = -1
    """What was cut from logs goes after so long, whatever became of it; -1: never. One clock alone
    decides (R40): that of this broker when it cut."""
    drain_timeout_ms: Milliseconds = 1000
    shutdown_timeout_ms: Milliseconds = 10_000
    self_fencing: bool = False
    """R30. It is on in any case where several controllers stand ready (controller_urls), so that
    one controller's outage stops no data path."""
    event_loop: EventLoop = "auto"
    """``auto``: uvloop where it can be imported (``pip install minilog-broker[fast]``)."""
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"
    """What it begins with. ``minilog loglevel`` and SIGUSR2 change it at run time."""
    groups_max: PositiveInt = 10_000
    """Consumer groups per partition of the internal topic, that is: per coordinator."""
    group_members_max: PositiveInt = 1000
    group_session_timeout_ms_min: Milliseconds = 1000
    group_session_timeout_ms_max: Milliseconds = 1_800_000
    group_heartbeat_interval_ms: Milliseconds = 1000
    """What members are told. One that waits for partitions is told to ask sooner."""
    group_wait_ms: Milliseconds = 5000
    """How long an answer of a coordinator may wait for its replicas."""
    metrics_partitions_max: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 5000
    """Replicas on this broker that have metrics of their own, those in trouble first. The others
    are in the sums, and are counted as left out."""
    metrics_groups_max: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 5000
    """The same for partitions of consumer groups: the groups that are furthest behind first."""
    group_offsets_retention_ms: Milliseconds = 7 * 24 * 3_600_000
    """How long a group without members keeps its offsets: time that coordinators have watched
    through, no wall clock's."""
    security_file: str = ""
    """Who is known, and what each may do. Empty: whoever connects may do everything."""
    insecure: bool = False
    """Said to listen for other machines without a security file."""
    host_names: Annotated[str, Meta(max_length=4096)] = ""
    """Names, separated by commas, by which this process may be asked besides its own; * is any."""
    token_file: str = ""
    """Holds the token that this process shows the others of the cluster."""
    tls_cert_file: str = ""
    """The certificate chain, in PEM. The listener speaks TLS when it is given."""
    tls_key_file: str = ""
    tls_ca_file: str = ""
    """Who must have signed the certificates of the cluster's processes and of clients."""
    peer_tls: PeerTls = "optional"
    """required: processes of the cluster are known by certificates only."""
    tokens_without_tls: TokensWithoutTls = "loopback"
    """From where a token is taken over a connection without TLS."""
    failed_logins_per_minute_max: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 60
    """Of one address. Beyond them comes 429; 0: no bound."""
    limits: Limits = Limits()

    @property
    def controllers(self) -> list[str]:
        """All that there are, of which one decides."""
        return [part.strip() for part in self.controller_urls.split(",") if part.strip()] or [self.controller_url]

    @property
    def controller_patience_ms(self) -> int:
        """How long a heartbeat is waited for, beyond what the controller may hold it. Where another
        one stands ready this broker turns to it within its session."""
        several = len(self.controllers) > 1
        return min(self.peer_timeout_ms, self.session_timeout_ms // 2) if several else self.peer_timeout_ms

    @property
    def fences_itself(self) -> bool:
        return self.self_fencing or len(self.controllers) > 1


JournalKind = Literal["file", "etcd"]


class ControllerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    data_dir: str
    host: str = "127.0.0.1"
    port: Port = 9093
    event_loop: EventLoop = "auto"
    """``auto``: uvloop where it can be imported (``pip install minilog-broker[fast]``)."""
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"
    """What it begins with. ``minilog loglevel`` and SIGUSR2 change it at run time."""
    cluster_id: Annotated[str, Meta(max_length=255)] = ""
    """Empty: made at the first start and kept in the journal."""
    advertised_url: str = ""
    """What brokers and other controllers are told, with journal = "etcd"; empty means
    http://host:port."""
    journal: JournalKind = "file"
    """"file": in data_dir, of the one controller there is. "etcd": shared by several, of which one
    decides at a time."""
    etcd_urls: Annotated[str, Meta(max_length=4096)] = "http://127.0.0.1:2379"
    """Members of one etcd cluster (3.4 or newer), separated by commas."""
    etcd_prefix: Annotated[str, Meta(max_length=255)] = "/minilog/main/"
    """Below which this cluster alone has its keys."""
    etcd_user: Annotated[str, Meta(max_length=255)] = ""
    """Empty: etcd asks for none."""
    etcd_password_file: str = ""
    etcd_ca_file: str = ""
    """Who has signed etcd's certificate; empty: whomever this machine trusts."""
    etcd_cert_file: str = ""
    """This controller's own certificate towards etcd; empty: none."""
    etcd_key_file: str = ""
    etcd_timeout_ms: Milliseconds = 1000
    """How long etcd may take to answer before the same is asked again."""
    etcd_lease_ms: Annotated[int, Meta(ge=2000, le=60_000)] = 2000
    """A controller that stands still for longer is no longer named as the active one."""
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
    leader_balance: bool = True
    """Leaderships go back to the first replica of each partition by themselves."""
    leader_balance_steady_ms: Milliseconds = 30_000
    """To no broker that was not well and in service for so long."""
    leader_balance_pause_ms: Milliseconds = 300_000
    """No partition twice within this."""
    leader_balance_skew_percent: Annotated[int, Meta(ge=0, le=100)] = 10
    """Only where a broker lacks more of the leaderships that it is the first replica for."""
    default_replication_factor: Annotated[int, Meta(ge=1, le=32)] = 3
    default_partitions: PositiveInt = 1
    groups_partitions: Annotated[int, Meta(ge=1, le=1000)] = 8
    """Partitions of the internal topic of consumer groups, fixed when it is first needed."""
    groups_brokers_min: Annotated[int, Meta(ge=1, le=32)] = 1
    """The topic of consumer groups is not made before so many brokers have registered: its copies
    are as many as then are known, at most 3."""
    topics_max: PositiveInt = 10_000
    partitions_max: PositiveInt = 100_000
    new_partitions_max: PositiveInt = 10_000
    """Partitions that one request makes: they are one decision, and brokers open a log for each."""
    security_file: str = ""
    """Who is known, and what each may do. Empty: whoever connects may do everything."""
    insecure: bool = False
    """Said to listen for other machines without a security file."""
    host_names: Annotated[str, Meta(max_length=4096)] = ""
    """Names, separated by commas, by which this process may be asked besides its own; * is any."""
    token_file: str = ""
    """Holds the token that this process shows the others of the cluster."""
    tls_cert_file: str = ""
    """The certificate chain, in PEM. The listener speaks TLS when it is given."""
    tls_key_file: str = ""
    tls_ca_file: str = ""
    """Who must have signed the certificates of the cluster's processes and of clients."""
    peer_tls: PeerTls = "optional"
    """required: processes of the cluster are known by certificates only."""
    tokens_without_tls: TokensWithoutTls = "loopback"
    """From where a token is taken over a connection without TLS."""
    failed_logins_per_minute_max: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 60
    """Of one address. Beyond them comes 429; 0: no bound."""
    limits: Limits = Limits()

    @property
    def etcd_url_list(self) -> list[str]:
        return [part.strip() for part in self.etcd_urls.split(",") if part.strip()]
