"""Metrics of a broker for Prometheus: what the HTTP face counts, and what core and runtime can say
when asked.

Numbers of the core are read on the event loop, in one go, when somebody scrapes. The text is made
in a thread. Every replica exports its offsets; facts about a partition as a whole come from its
leader alone, so that sums over brokers count nothing twice. ``broker`` is always the exporting
broker, ``replica`` the follower spoken of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from minilog.broker import group_metrics
from minilog.broker.ports import Runtime
from minilog.core.broker.statistics import PartitionStatistics
from minilog.server.clock import clock_metrics
from minilog.storage.compaction.rewrite import CleaningFigures
from minilog.wire.http import acks_text
from minilog.wire.metadata_records import NO_LEADER

LATENCY_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PARTITION_SERIES_MAX: Final = 5000
"""With more replicas than this on one broker, series by partition are left out."""
_PARTITION_GAUGES: Final = (
    ("log_start_offset", "First offset that is still there"),
    ("high_watermark", "Committed end: records below it can be read"),
    ("log_end_offset", "Offset the next record will get on this replica"),
)
_LEADER_GAUGES: Final = (
    ("isr_size", "In-sync replicas, as the leader sees them"),
    ("replicas", "Assigned replicas"),
    ("under_replicated", "1 when replicas are missing from the ISR"),
    ("under_min_isr", "1 when the ISR is smaller than min.insync.replicas"),
)
_ISR_COUNTERS: Final = (
    ("isr_shrinks", "Times the ISR lost members, as this broker saw it leading"),
    ("isr_expands", "Times the ISR got members, as this broker saw it leading"),
)


class Metrics:
    def __init__(self, runtime: Runtime) -> None:
        self.registry = CollectorRegistry()
        self.listener: Any = None
        """Set by the server that has one: ``open_connections`` and ``refused_connections``."""
        self._runtime = runtime
        self._snapshot: list[Metric] = []
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._make_counters()
        self._produce_by_acks: dict[int, tuple[Any, Any, Any]] = {}
        self.registry.register(self)
        flusher = getattr(runtime, "flusher", None)
        if flusher is not None:
            self.registry.register(flusher.latency)
        peers = getattr(runtime, "peers", None)
        if peers is not None:
            self.registry.register(peers.queue_latency)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def _make_counters(self) -> None:
        registry = self.registry
        counters = (("produce", ["acks"]), ("fetch", ["source"]))
        self._requests = {
            kind: Counter(f"minilog_{kind}_requests", f"{kind} requests", names, registry=registry)
            for kind, names in counters
        }
        self._bytes = {
            kind: Counter(f"minilog_{kind}_bytes", f"Bytes of record batches in {kind}", names, registry=registry)
            for kind, names in counters
        }
        self._errors = {
            kind: Counter(
                f"minilog_{kind}_errors", f"Partitions or requests refused in {kind}", ["code"], registry=registry
            )
            for kind in ("produce", "fetch", "replica_fetch")
        }
        self._latency = {
            kind: Histogram(
                f"minilog_{kind}_latency_seconds",
                f"From the whole request to its answer, {kind}",
                names,
                buckets=LATENCY_BUCKETS_S,
                registry=registry,
            )
            for kind, names in counters
        }
        self._replica_fetch = Counter("minilog_replica_fetch_requests", "Fetches by followers", registry=registry)
        self._replica_fetch_bytes = Counter(
            "minilog_replica_fetch_bytes", "Bytes of record batches sent to followers", registry=registry
        )
        self._http_errors = Counter(
            "minilog_http_errors", "Whole requests that failed, by route", ["route", "code"], registry=registry
        )

    # --- events of the face -----------------------------------------------------------------------

    def on_produce(self, acks: int, size_bytes: int, seconds: float, codes: Sequence[str]) -> None:
        """``codes``: of the partitions that failed."""
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
        for code in codes:
            self._errors["produce"].labels(code).inc()

    def on_produce_refused(self, code: str) -> None:
        """A partition's share of a JSON produce that came to no leader, or records of it that never
        left here."""
        self._errors["produce"].labels(code).inc()

    def on_fetch(self, source: str, size_bytes: int, seconds: float, codes: Sequence[str]) -> None:
        requests, volume, latency = (by[kind].labels(source) for by, kind in self._by("fetch"))
        requests.inc()
        volume.inc(size_bytes)
        latency.observe(seconds)
        for code in codes:
            self._errors["fetch"].labels(code).inc()

    def on_replica_fetch(self, size_bytes: int, codes: Sequence[str]) -> None:
        self._replica_fetch.inc()
        self._replica_fetch_bytes.inc(size_bytes)
        for code in codes:
            self._errors["replica_fetch"].labels(code).inc()

    def on_error(self, route: str, code: str) -> None:
        """A whole request failed before or instead of its message."""
        self._http_errors.labels(route, code).inc()

    def _by(self, kind: str) -> Iterator[tuple[dict[str, Any], str]]:
        return iter(((self._requests, kind), (self._bytes, kind), (self._latency, kind)))

    # --- scraping ---------------------------------------------------------------------------------

    async def render(self) -> bytes:
        """The text that Prometheus reads."""
        groups = await group_metrics.collect(self._runtime)
        self._snapshot = [*self._cluster(), *self._process(), *self._partitions(), *groups]
        return await asyncio.to_thread(generate_latest, self.registry)

    def collect(self) -> Iterable[Metric]:
        return self._snapshot

    def _cluster(self) -> Iterator[Metric]:
        image = self._runtime.image
        brokers = GaugeMetricFamily("minilog_brokers", "Brokers by state, as this broker knows them", labels=["state"])
        states = [broker.state for broker in image.brokers.values()]
        for state in ("running", "fenced", "shutting_down"):
            brokers.add_metric([state], states.count(state))
        yield brokers
        yield GaugeMetricFamily(
            "minilog_metadata_offset", "Journal index this broker has applied", image.metadata_offset
        )
        yield GaugeMetricFamily("minilog_broker_ready", "1 when registered and caught up", float(self._runtime.ready))

    def _process(self) -> Iterator[Metric]:
        statistics = self._runtime.statistics()
        yield GaugeMetricFamily("minilog_parked_requests", "Requests that wait in the broker", statistics.parked)
        yield GaugeMetricFamily(
            "minilog_event_loop_lag_seconds", "How late the last tick was", statistics.loop_lag_seconds
        )
        yield GaugeMetricFamily(
            "minilog_event_loop_lag_seconds_max", "The latest tick so far", statistics.loop_lag_seconds_max
        )
        yield from clock_metrics(self._runtime.clock.offset_ms, self._runtime.clock.steps)
        yield from _cleaning(statistics.cleaning)
        if self.listener is not None:
            yield GaugeMetricFamily("minilog_http_connections", "Open connections", self.listener.open_connections)
            yield CounterMetricFamily(
                "minilog_http_connections_refused", "Connections over the limit", self.listener.refused_connections
            )

    def _partitions(self) -> Iterator[Metric]:
        broker = str(self._runtime.settings.broker_id)
        replicas = self._runtime.core.statistics(self._runtime.clock.now_ms()).partitions
        yield GaugeMetricFamily("minilog_replicas_hosted", "Replicas on this broker", len(replicas))
        size = GaugeMetricFamily("minilog_log_bytes_hosted", "Bytes of all logs on this broker")
        size.add_metric([], sum(replica.log_bytes for replica in replicas))
        yield size
        if len(replicas) > PARTITION_SERIES_MAX:
            return
        labelled = [([replica.topic, str(replica.partition), broker], replica) for replica in replicas]
        leaders = [(labels, replica) for labels, replica in labelled if replica.is_leader]
        yield from self._leadership(labelled)
        for name, doc in _PARTITION_GAUGES:
            yield _family(f"minilog_partition_{name}", doc, labelled, name)
        for name, doc in _LEADER_GAUGES:
            yield _family(f"minilog_partition_{name}", doc, leaders, name)
        yield _family("minilog_log_bytes", "Bytes of the log on disk", labelled, "log_bytes")
        for name, doc in _ISR_COUNTERS:
            yield _counter(f"minilog_{name}", doc, leaders, name)
        yield from _lags(leaders)

    def _leadership(self, labelled: list[tuple[list[str], PartitionStatistics]]) -> Iterator[Metric]:
        leader = GaugeMetricFamily(
            "minilog_partition_leader", "Broker id of the leader, -1 for none", labels=["topic", "partition", "broker"]
        )
        offline = GaugeMetricFamily(
            "minilog_partition_offline", "1 when the partition has no leader", labels=["topic", "partition", "broker"]
        )
        for labels, replica in labelled:
            state = self._runtime.image.partition(replica.topic, replica.partition)
            leads = NO_LEADER if state is None else state.leader
            leader.add_metric(labels, leads)
            offline.add_metric(labels, leads == NO_LEADER)
        yield leader
        yield offline


_CLEANING = (
    ("rounds", "Rounds of compaction begun"),
    ("bytes_read", "Bytes read by compaction"),
    ("bytes_written", "Bytes written by compaction"),
    ("records_removed", "Records that compaction has taken away"),
    ("tombstones_removed", "Tombstones whose time was up"),
    ("segments_replaced", "Segments replaced by cleaned ones"),
    ("seconds", "Time that rounds of compaction took, pauses included"),
)


def _cleaning(figures: CleaningFigures) -> Iterator[Metric]:
    for name, doc in _CLEANING:
        yield CounterMetricFamily(f"minilog_compaction_{name}", doc, getattr(figures, name))
    yield GaugeMetricFamily(
        "minilog_compaction_map_bytes_max", "Memory of the largest map of keys so far", figures.map_bytes_max
    )


def _family(name: str, doc: str, labelled: list[tuple[list[str], PartitionStatistics]], field: str) -> Metric:
    family = GaugeMetricFamily(name, doc, labels=["topic", "partition", "broker"])
    for labels, replica in labelled:
        value = getattr(replica, field)
        if value is not None:
            family.add_metric(labels, float(value))
    return family


def _counter(name: str, doc: str, labelled: list[tuple[list[str], PartitionStatistics]], field: str) -> Metric:
    family = CounterMetricFamily(name, doc, labels=["topic", "partition", "broker"])
    for labels, replica in labelled:
        family.add_metric(labels, getattr(replica, field))
    return family


def _lags(leaders: list[tuple[list[str], PartitionStatistics]]) -> Iterator[Metric]:
    labels = ["topic", "partition", "broker", "replica"]
    records = GaugeMetricFamily("minilog_replica_lag_records", "Records a follower is behind its leader", labels=labels)
    seconds = GaugeMetricFamily(
        "minilog_replica_lag_seconds", "For how long a follower has not held all of its leader's log", labels=labels
    )
    for of_leader, replica in leaders:
        for follower, (behind_records, behind_ms) in replica.replica_lag.items():
            if behind_records is not None:
                records.add_metric([*of_leader, str(follower)], behind_records)
            seconds.add_metric([*of_leader, str(follower)], behind_ms / 1000)
    yield records
    yield seconds
