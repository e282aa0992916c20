"""The options of clients, producers and consumers as type checkers and editors see them.

What each means, and its default, is said in ``settings.py``. A test holds the two together.
"""

from __future__ import annotations

from typing import TypedDict

from minilog_client.settings import (
    Acks,
    Assignor,
    Codec,
    ErrorsTolerance,
    OutOfRange,
    PollExceeded,
    ReadFrom,
    Retries,
    Undecodable,
)


class ClientOptions(TypedDict, total=False):
    """Of ``AsyncClient`` and ``Client``; see ``ClientSettings``."""

    request_timeout_ms: int
    connect_timeout_ms: int
    metadata_max_age_ms: int
    metadata_hedge_ms: int
    suspect_ms: int
    topic_wait_ms: int
    token_file: str
    ca_file: str
    cert_file: str
    key_file: str
    token_without_tls: bool
    client_id: str
    rack: str


class ProducerOptions(TypedDict, total=False):
    """Of ``client.producer``; see ``ProducerSettings``."""

    acks: Acks
    idempotent: bool
    linger_ms: int
    batch_bytes: int
    buffer_bytes: int
    compression: Codec
    retries: Retries
    delivery_timeout_ms: int
    try_timeout_ms: int
    block_timeout_ms: int
    flush_timeout_ms: int
    close_timeout_ms: int


class ConsumerOptions(TypedDict, total=False):
    """Of ``client.consumer``; see ``ConsumerSettings``."""

    prefetch_bytes: int
    partition_fetch_bytes: int
    max_wait_ms: int
    read_from: ReadFrom
    max_lag_ms: int
    out_of_range: OutOfRange
    errors_tolerance: ErrorsTolerance
    undecodable: Undecodable
    unreachable_timeout_ms: int | None
    close_timeout_ms: int


class GroupOptions(ConsumerOptions, total=False):
    """Of ``client.consumer`` with a group; see ``GroupSettings``."""

    assignor: Assignor
    instance_id: str
    auto_commit: bool
    auto_commit_interval_ms: int
    commit_timeout_ms: int
    session_timeout_ms: int
    max_poll_interval_ms: int
    max_poll_exceeded: PollExceeded
