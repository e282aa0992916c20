"""Options of the clients: every limit, every timeout, and what is allowed. Misuse raises
InvalidRequest."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal

from minilog.errors import InvalidAcks, InvalidRequest
from minilog.wire.messages import ACKS_ALL

KIB: Final = 1024
MIB: Final = 1024 * KIB

Acks = Literal["all"] | int
Codec = Literal["none", "gzip", "snappy", "lz4", "zstd"]
Retries = Literal["all", "definite", "none"]
ReadFrom = Literal["leader", "any"]
ErrorsTolerance = Literal["none", "all"]
OutOfRange = Literal["raise", "earliest", "latest"]
Undecodable = Literal["raise", "skip"]
Assignor = Literal["sticky", "range"]
PollExceeded = Literal["rejoin", "raise"]

_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "compression": ("none", "gzip", "snappy", "lz4", "zstd"),
    "retries": ("all", "definite", "none"),
    "read_from": ("leader", "any"),
    "out_of_range": ("raise", "earliest", "latest"),
    "errors_tolerance": ("none", "all"),
    "undecodable": ("raise", "skip"),
    "assignor": ("sticky", "range"),
    "max_poll_exceeded": ("rejoin", "raise"),
}
_MAY_BE_ZERO: Final = frozenset({"linger_ms"})
_MAY_BE_NONE: Final = frozenset({"unreachable_timeout_ms"})
_UNREACHABLE_MS: Final = 60_000


def acks_number(acks: Acks) -> int:
    """``acks`` as the wire has it: 0, 1, N copies, or -1 for "all"; raises InvalidAcks."""
    if acks == "all":
        return ACKS_ALL
    if isinstance(acks, bool) or not isinstance(acks, int) or not 0 <= acks <= 32:
        raise InvalidAcks(f'acks is {acks!r}; allowed are 0, 1, a number of copies up to 32, or "all"')
    return acks


class _Checked:
    """Refuses values of the wrong kind with a sentence naming option, value and what is allowed."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            _check(field.name, getattr(self, field.name))


def _check(name: str, value: object) -> None:
    allowed = _CHOICES.get(name)
    if value is None and name in _MAY_BE_NONE:
        return
    if allowed is not None:
        if value not in allowed:
            raise InvalidRequest(f"{name} is {value!r}; allowed are {', '.join(allowed)}")
    elif name == "max_lag_ms":
        if not isinstance(value, int) or value < -1:
            raise InvalidRequest(f"max_lag_ms is {value!r}; allowed are whole numbers >= 0, or -1 for any staleness")
    elif name.endswith(("_ms", "_bytes", "_max")):
        least = 0 if name in _MAY_BE_ZERO else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidRequest(f"{name} is {value!r}; allowed are whole numbers >= {least}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientSettings(_Checked):
    """How a client finds and reaches brokers. All times in ms."""

    request_timeout_ms: int = 2000
    """For one answer, on top of the time the broker was asked to wait."""
    connect_timeout_ms: int = 1000
    """For the connection to one address."""
    metadata_max_age_ms: int = 10_000
    """A cached layout older than this is asked for again: new partitions are seen no later."""
    metadata_hedge_ms: int = 100
    """A broker that has not answered a metadata request by then gets competition from the next
    one."""
    suspect_ms: int = 500
    """A leader this late makes the client ask other brokers whether it still leads."""
    topic_wait_ms: int = 2000
    """How long a topic no broker knows may still appear before UnknownTopic is raised."""
    token_file: str = ""
    """Holds the token that every request shows; mode 0600. A new one is seen within a second."""
    ca_file: str = ""
    """Who must have signed the certificates of brokers (https://); "": whom this machine trusts."""
    cert_file: str = ""
    """A certificate that this client shows."""
    key_file: str = ""
    """Its key, if it is not in the same file."""
    token_without_tls: bool = False
    """The token may go to other machines over http://, where others can read it on the way."""
    client_id: str = ""
    """A name for people: whoever looks at a group sees it with its members."""
    rack: str = ""
    """Reads with read_from="any" prefer replicas in this rack."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProducerSettings(_Checked):
    """How records are gathered, sent and retried.

    ``idempotent`` (the default): batches are numbered, and a leader recognizes one it has already.
    So a retry neither writes a record twice nor lets it overtake another, whatever became of the
    tries before, and also across a change of leader. What that means depends on ``acks``:

    * ``"all"``: an acknowledged record is in the log exactly once, in the order of sending.
    * ``1`` or a number of copies: the same, unless the leader is lost with records that it had
      acknowledged and not yet passed on. Those are gone (a warning is logged), never doubled. Later
      records are written after the gap.
    * ``0``: the same for what arrives. There is no acknowledgement to rely on.

    It covers the retries of this producer object. Sending a record again after its future has
    failed with ``definite=False``, or from a new producer, is a new record."""

    acks: Acks = "all"
    """When a record counts as written: 0, 1, a number of copies, or ``"all"`` in-sync replicas."""
    idempotent: bool = True
    """False: no numbers. A retry after an unclear answer may then write records twice, or after
    later ones."""
    linger_ms: int = 5
    """How long a batch that is not full waits for more records."""
    batch_bytes: int = 256 * KIB
    """How large a batch of one partition may grow."""
    buffer_bytes: int = 64 * MIB
    """How much may be buffered or on its way before ``send`` waits."""
    compression: Codec = "none"
    """What batches are compressed with."""
    retries: Retries = "all"
    """``all``: also after an answer that leaves it open whether the records were written. With
    ``idempotent=False`` that may write them twice. ``definite``: only when they provably were not.
    ``none``: not at all. That leaves nothing to number records for, and needs
    ``idempotent=False``."""
    delivery_timeout_ms: int = 120_000
    """For one record, from ``send`` to its outcome, retries included."""
    try_timeout_ms: int = 10_000
    """For one try; longer than a session timeout, so that a slow follower is dropped before the
    producer gives up."""
    block_timeout_ms: int = 30_000
    """How long ``send`` waits for room in the buffer."""
    flush_timeout_ms: int = 130_000
    """How long ``flush`` waits for everything that was sent."""
    close_timeout_ms: int = 10_000
    """How long ``close`` waits for everything that was sent. What is left then has failed."""

    def __post_init__(self) -> None:
        _Checked.__post_init__(self)
        acks_number(self.acks)
        if self.batch_bytes > self.buffer_bytes:
            raise InvalidRequest(f"batch_bytes is {self.batch_bytes}, more than buffer_bytes {self.buffer_bytes}")
        if not isinstance(self.idempotent, bool):
            raise InvalidRequest(f"idempotent is {self.idempotent!r}; allowed are True and False")
        if self.idempotent and self.retries == "none":
            raise InvalidRequest(
                "retries is 'none' and idempotent is True, but numbering records is for retries; "
                "allow retries, or say idempotent=False"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsumerSettings(_Checked):
    """How records are fetched ahead and what happens at the edges of the log."""

    prefetch_bytes: int = 32 * MIB
    """How much is fetched ahead of the application, over all partitions."""
    partition_fetch_bytes: int = MIB
    """How much one fetch asks of one partition. A larger batch comes all the same."""
    max_wait_ms: int = 500
    """How long a broker may hold a fetch while there is nothing new."""
    read_from: ReadFrom = "leader"
    """Who is read from: the leader, or any replica (see ``max_lag_ms``)."""
    max_lag_ms: int = -1
    """How stale a follower's answer may be with read_from="any"; -1: any staleness."""
    out_of_range: OutOfRange = "raise"
    """What happens where the offset asked for is not in the log: an error, or reading on at one of
    its ends."""
    errors_tolerance: ErrorsTolerance = "none"
    """What happens where records cannot be decoded: ``none``: CorruptBatch, again and again, until
    the application seeks behind them. ``all``: they are skipped with a warning in the log."""
    undecodable: Undecodable = "raise"
    """What happens where a value or a key is not what ``value=`` and ``key=`` say: ``raise``:
    UndecodableRecord, again and again, until the application seeks behind the record. ``skip``: it
    is left out with a warning in the log, and counted."""
    unreachable_timeout_ms: int | None = None
    """Reading raises BrokerUnavailable when nothing could be reached for so long; reading on tries
    again. None: after a minute. A member of a group waits on for as long as it takes then, and a
    warning in the log says every minute what is wrong."""
    close_timeout_ms: int = 5000
    """How long ``close`` waits for the last commit and for leaving the group."""

    @property
    def unreachable_limit_ms(self) -> int:
        """After how long it is told, one way or the other."""
        return _UNREACHABLE_MS if self.unreachable_timeout_ms is None else self.unreachable_timeout_ms


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupSettings(_Checked):
    """How a consumer takes part in its group.

    ``auto_commit`` (the default): what the application has finished with is committed by itself. A
    record counts as finished when the next one is asked for, so the plain loop ``async for record
    in consumer: process(record)`` loses nothing when it dies and repeats little. Who hands records
    on to tasks or threads of its own and asks for the next at once must say ``auto_commit=False``
    and call ``commit``."""

    assignor: Assignor = "sticky"
    """How partitions are shared out: ``sticky`` moves the least, ``range`` gives neighbours of
    every topic together."""
    instance_id: str = ""
    """A name of this instance that outlives it: after a restart within ``session_timeout_ms`` it
    gets its partitions back without a rebalance. No two at a time may have the same."""
    auto_commit: bool = True
    """Commit by itself what the application has finished with."""
    auto_commit_interval_ms: int = 1000
    """How often that is done."""
    commit_timeout_ms: int = 10_000
    """For one commit, retries included."""
    session_timeout_ms: int = 10_000
    """A member not heard of for so long loses its partitions."""
    max_poll_interval_ms: int = 300_000
    """An application that asks for no records for so long loses its partitions, however well the
    heartbeats go."""
    max_poll_exceeded: PollExceeded = "rejoin"
    """What the next read does after that: join again (a warning is logged, ``on_lost`` is called),
    or raise UnknownMember first."""

    def __post_init__(self) -> None:
        _Checked.__post_init__(self)
        if not isinstance(self.auto_commit, bool):
            raise InvalidRequest(f"auto_commit is {self.auto_commit!r}; allowed are True and False")
        if not isinstance(self.instance_id, str) or len(self.instance_id) > 249:
            raise InvalidRequest(f"instance_id is {self.instance_id!r}; allowed is a text of at most 249 characters")
