"""RequestCounters: what the HTTP face counts where it makes its answers.

Owns counters by kind of request, and of the partitions whose writes were refused, as many as
``REFUSALS_MAX``. Codes that alerts ask for begin at 0, or the first refusal would be no increase.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import prometheus_client
from prometheus_client import CollectorRegistry, Histogram

from minilog.core.image import ClusterImage
from minilog.errors import (
    BrokerUnavailable,
    CorruptBatch,
    DiskFull,
    LeaderNotAvailable,
    LeadershipLost,
    NotEnoughReplicas,
    NotEnoughReplicasAfterAppend,
    NotLeader,
    OffsetOutOfRange,
    Overloaded,
    RecordTooLarge,
    TimedOut,
)
from minilog.server.exposition import Exposition, labels
from minilog.wire.http import acks_text
from minilog.wire.messages import FetchReply, Message, Problem, ProduceReply, ReplicaFetchReply

LATENCY_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
REFUSALS_MAX: Final = 1000
_KINDS: Final = (("produce", ["acks"]), ("fetch", ["source"]))
_USUAL: Final = (NotLeader, LeaderNotAvailable, BrokerUnavailable, Overloaded, TimedOut)
EXPECTED: Final = {
    "produce": (
        *_USUAL,
        NotEnoughReplicas,
        NotEnoughReplicasAfterAppend,
        LeadershipLost,
        DiskFull,
        CorruptBatch,
        RecordTooLarge,
    ),
    "fetch": (*_USUAL, OffsetOutOfRange),
    "replica_fetch": (*_USUAL,),
}
ROUTES: Final = {
    "produce": "produce",
    "produce_topic": "produce",
    "produce_partition": "produce",
    "fetch": "fetch",
    "fetch_partition": "fetch",
    "fetch_topic": "fetch",
}


class TopicCounts:
    """Of one topic, by partitions asked for."""

    __slots__ = ("bytes_out", "fetches", "fetches_refused", "produces", "produces_refused")

    def __init__(self) -> None:
        self.produces = self.produces_refused = self.fetches = self.fetches_refused = self.bytes_out = 0


class RequestCounters:
    def __init__(self, registry: CollectorRegistry, image: Callable[[], ClusterImage]) -> None:
        self._image = image
        self._requests = {kind: _counter(registry, f"{kind}_requests", f"{kind} requests", by) for kind, by in _KINDS}
        self._bytes = {
            kind: _counter(registry, f"{kind}_bytes", f"Bytes of record batches in {kind}", by) for kind, by in _KINDS
        }
        self._latency = {
            kind: Histogram(
                f"minilog_{kind}_latency_seconds",
                f"From the whole request to its answer, {kind}",
                by,
                buckets=LATENCY_BUCKETS_S,
                registry=registry,
            )
            for kind, by in _KINDS
        }
        self._errors = {
            kind: _counter(registry, f"{kind}_errors", f"Partitions or requests refused in {kind}, by code", ["code"])
            for kind in EXPECTED
        }
        for kind, expected in EXPECTED.items():
            for error in expected:
                self._errors[kind].labels(error.code)
        self._replica_fetch = _counter(registry, "replica_fetch_requests", "Fetches by followers", [])
        self._replica_bytes = _counter(registry, "replica_fetch_bytes", "Bytes of record batches sent to followers", [])
        self._http_errors = _counter(registry, "http_errors", "Whole requests that failed, by route", ["route", "code"])
        self._produce_by_acks: dict[int, tuple[Any, Any, Any]] = {}
        self._refusals: Counter[tuple[str, int, str]] = Counter()
        self._refusals_omitted = 0
        self.by_topic: dict[str, TopicCounts] = {}

    # --- events of the face -----------------------------------------------------------------------

    def on_produce(self, acks: int, size_bytes: int, seconds: float, reply: Message) -> None:
        series = self._produce_by_acks.get(acks)
        if series is None:
            label = acks_text(acks) if -1 <= acks <= 32 else "invalid"
            series = tuple(by[kind].labels(label) for by, kind in self._by("produce"))
            assert series is not None
            self._produce_by_acks[acks if label != "invalid" else -2] = series
        requests, volume, latency = series
        requests.inc()
        volume.inc(size_bytes)
        latency.observe(seconds)
        if isinstance(reply, ProduceReply):
            for result in reply.partitions:
                counts = self._of(result.topic)
                if counts is not None:
                    counts.produces += 1
                if result.problem is not None:
                    self.on_produce_refused(result.problem.code, result.topic, result.partition)
        else:
            self.on_refused("produce", _code(reply))

    def on_produce_refused(self, code: str, topic: str = "", partition: int = -1) -> None:
        """A partition's share of a produce. Also one that came to no leader, or records of it that
        never left here."""
        self._errors["produce"].labels(code).inc()
        counts = self._of(topic)
        if counts is None or self._image().partition(topic, partition) is None:
            return
        counts.produces_refused += 1
        key = topic, partition, code
        if key in self._refusals or len(self._refusals) < REFUSALS_MAX:
            self._refusals[key] += 1
        else:
            self._refusals_omitted += 1

    def on_fetch(self, source: str, size_bytes: int, seconds: float, reply: Message) -> None:
        requests, volume, latency = (by[kind].labels(source) for by, kind in self._by("fetch"))
        requests.inc()
        volume.inc(size_bytes)
        latency.observe(seconds)
        if not isinstance(reply, FetchReply):
            self.on_refused("fetch", _code(reply))
            return
        for result in reply.partitions:
            if result.problem is not None:
                self._errors["fetch"].labels(result.problem.code).inc()
            counts = self._of(result.topic)
            if counts is not None:
                counts.fetches += 1
                counts.bytes_out += len(result.batches)
                counts.fetches_refused += result.problem is not None

    def on_replica_fetch(self, size_bytes: int, reply: Message) -> None:
        self._replica_fetch.inc()
        self._replica_bytes.inc(size_bytes)
        if not isinstance(reply, ReplicaFetchReply):
            self.on_refused("replica_fetch", _code(reply))
            return
        for result in reply.partitions:
            if result.problem is not None:
                self._errors["replica_fetch"].labels(result.problem.code).inc()

    def on_refused(self, kind: str, code: str) -> None:
        self._errors[kind].labels(code).inc()

    def on_error(self, route: str, code: str, *, is_counted: bool = True) -> None:
        """A whole request failed. ``is_counted``: as a produce or fetch, where its partitions
        were."""
        self._http_errors.labels(route, code).inc()
        if not is_counted and route in ROUTES:
            self.on_refused(ROUTES[route], code)

    def _by(self, kind: str) -> Iterator[tuple[dict[str, Any], str]]:
        return iter(((self._requests, kind), (self._bytes, kind), (self._latency, kind)))

    # --- scraping ---------------------------------------------------------------------------------

    def total(self, name: str) -> int:
        """``produce_requests``, ``fetch_bytes`` and the like, over all labels."""
        kind, _, what = name.partition("_")
        by = {"requests": self._requests, "bytes": self._bytes}[what]
        samples = (sample for family in by[kind].collect() for sample in family.samples)
        return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))

    def write(self, page: Exposition) -> None:
        self._forget_gone()
        by_partition = page.counter(
            "minilog_partition_produce_errors", "Writes to a partition that were refused here, by code"
        )
        for (topic, partition, code), count in self._refusals.items():
            by_partition.add(labels(topic=topic, partition=partition, code=code), count)
        page.counter(
            "minilog_produce_errors_omitted",
            f"Refused writes that are in no series by partition, because there are {REFUSALS_MAX} of them",
            self._refusals_omitted,
        )

    def _of(self, topic: str) -> TopicCounts | None:
        """None for a name that nobody knows: clients could send any number of them."""
        counts = self.by_topic.get(topic)
        if counts is None and topic in self._image().topics:
            if len(self.by_topic) >= 2 * len(self._image().topics):
                self._forget_gone()
            counts = self.by_topic[topic] = TopicCounts()
        return counts

    def _forget_gone(self) -> None:
        image = self._image()
        for key in [key for key in self._refusals if image.partition(key[0], key[1]) is None]:
            del self._refusals[key]
        for topic in self.by_topic.keys() - image.topics.keys():
            del self.by_topic[topic]


def _counter(registry: CollectorRegistry, name: str, doc: str, by: Sequence[str]) -> Any:
    return prometheus_client.Counter(f"minilog_{name}", doc, by, registry=registry)


def _code(reply: Message) -> str:
    return reply.code if isinstance(reply, Problem) else "INTERNAL"
