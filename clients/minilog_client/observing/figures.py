"""Figures: what a client has done since it was made, and what it has at hand. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from minilog_client.observing.events import (
    ClientEvent,
    CommitFailed,
    Committed,
    Delivered,
    GivenUp,
    Joined,
    Received,
    Retried,
)
from minilog_client.values import PartitionKey


class ProducerStatistics(NamedTuple):
    """A snapshot; counts are since the start."""

    buffered_bytes: int
    requests_in_flight: int
    records_acknowledged: int
    records_failed: int
    requests: int
    retries: int
    restarts: int
    """How often a partition went on in a new producer epoch, because numbered records had been
    given up."""


class ProducerFigures(msgspec.Struct, frozen=True):
    """Of all producers of a client together, also of those that are closed."""

    records: int
    """Acknowledged."""
    bytes: int
    """Acknowledged, as they were sent: with what framing takes, and compressed."""
    batches: int
    failed_records: int
    retries: int
    """Tries of one partition that failed and were repeated."""
    errors: Mapping[str, int]
    """By code: failed tries, and batches that were given up."""
    queue_bytes: int
    """Given and not acknowledged yet."""
    queued_ms: int
    """The sum over all batches of the time from the first record to the request."""
    queued_max_ms: int


class ConsumerFigures(msgspec.Struct, frozen=True):
    """Of all consumers of a client together. Lag is of those that are not closed."""

    records: int
    """Fetched, also what was read ahead and is not handed out yet."""
    bytes: int
    batches: int
    retries: int
    errors: Mapping[str, int]
    lag: Mapping[PartitionKey, int | None]
    """Records that can be read still, None where that is not known yet."""
    rebalances: int
    """Epochs that members of groups have been in."""
    commits: int
    commit_failures: int


class ClientFigures(msgspec.Struct, frozen=True):
    """``msgspec.to_builtins`` makes plain dicts of them."""

    producers: ProducerFigures
    consumers: ConsumerFigures


class Counts:
    """What events add up to."""

    def __init__(self) -> None:
        self._sent: Counter[str] = Counter()
        self._read: Counter[str] = Counter()
        self._errors: dict[str, Counter[str]] = {"produce": Counter(), "fetch": Counter()}
        self._queued_max_ms = 0

    def on_event(self, event: ClientEvent) -> None:
        match event:
            case Delivered():
                self._sent["records"] += event.record_count
                self._sent["bytes"] += event.bytes_total
                self._sent["batches"] += 1
                self._sent["queued_ms"] += event.queued_ms
                self._queued_max_ms = max(self._queued_max_ms, event.queued_ms)
            case Received():
                self._read["records"] += event.record_count
                self._read["bytes"] += event.bytes_total
                self._read["batches"] += event.batch_count
            case GivenUp():
                self._sent["failed_records"] += event.record_count
                self._errors["produce"][event.error.code] += 1
            case Retried():
                (self._sent if event.what == "produce" else self._read)["retries"] += 1
                self._errors[event.what][event.error.code] += 1
            case Joined():
                self._read["rebalances"] += 1
            case Committed():
                self._read["commits"] += 1
            case CommitFailed():
                self._read["commit_failures"] += 1
            case _:
                pass

    def figures(self, queue_bytes: int, lags: Iterable[Mapping[PartitionKey, int | None]]) -> ClientFigures:
        sent, read = self._sent, self._read
        lag: dict[PartitionKey, int | None] = {}
        for each in lags:
            lag.update(each)
        return ClientFigures(
            ProducerFigures(
                records=sent["records"],
                bytes=sent["bytes"],
                batches=sent["batches"],
                failed_records=sent["failed_records"],
                retries=sent["retries"],
                errors=dict(self._errors["produce"]),
                queue_bytes=queue_bytes,
                queued_ms=sent["queued_ms"],
                queued_max_ms=self._queued_max_ms,
            ),
            ConsumerFigures(
                records=read["records"],
                bytes=read["bytes"],
                batches=read["batches"],
                retries=read["retries"],
                errors=dict(self._errors["fetch"]),
                lag=lag,
                rebalances=read["rebalances"],
                commits=read["commits"],
                commit_failures=read["commit_failures"],
            ),
        )
