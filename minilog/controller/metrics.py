"""/metrics of a controller: its own description of the cluster and the runtime's statistics,
collected on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from minilog.controller.runtime import Runtime
from minilog.server.clock import clock_metrics
from minilog.server.listener import Listener
from minilog.wire.messages import DescribeClusterReply

STATES = ("running", "fenced", "shutting_down")


class _Snapshot(Collector):
    """Families made from values that were read beforehand: a scrape must go through the serial
    runtime."""

    def __init__(self) -> None:
        self.families: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        return self.families


class Metrics:
    def __init__(self, runtime: Runtime, listener: Listener) -> None:
        self._runtime, self._listener = runtime, listener
        self._registry = CollectorRegistry()
        self._snapshot = _Snapshot()
        self._registry.register(self._snapshot)
        self._registry.register(runtime.append_latency)
        self._registry.register(runtime.peers.queue_latency)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def exposition(self, cluster: DescribeClusterReply) -> bytes:
        self._snapshot.families = [*self._cluster(cluster), *self._process()]
        return generate_latest(self._registry)

    def _cluster(self, cluster: DescribeClusterReply) -> Iterable[Metric]:
        states = Counter(broker.state for broker in cluster.brokers)
        brokers = GaugeMetricFamily("minilog_brokers", "Registered brokers by state.", labels=["state"])
        for state in STATES:
            brokers.add_metric([state], states[state])
        age = GaugeMetricFamily(
            "minilog_broker_heartbeat_age_seconds", "Time since a broker was last heard of.", labels=["broker"]
        )
        lag = GaugeMetricFamily(
            "minilog_broker_metadata_lag_records", "Metadata records a broker has yet to apply.", labels=["broker"]
        )
        for broker in cluster.brokers:
            age.add_metric([str(broker.broker_id)], broker.heartbeat_age_ms / 1000)
            lag.add_metric([str(broker.broker_id)], cluster.metadata_offset - broker.metadata_offset)
        elections = CounterMetricFamily("minilog_leader_elections", "Leaders elected, by kind.", labels=["kind"])
        for kind, count in sorted(cluster.elections.items()):
            elections.add_metric([kind], count)
        yield from (brokers, age, lag, elections)
        yield _gauge("minilog_controller_epoch", "Term of this controller.", cluster.controller_epoch)

    def _process(self) -> Iterable[Metric]:
        now = self._runtime.statistics()
        yield _gauge("minilog_active_controller", "1 where metadata is decided.", int(self._runtime.started))
        yield _gauge("minilog_journal_index", "Index of the last durable metadata record.", now.journal_index)
        yield _gauge("minilog_journal_tail_records", "Records since the last snapshot.", now.journal_tail_records)
        yield _gauge("minilog_parked_requests", "Requests that wait for an answer.", now.parked)
        yield _gauge("minilog_event_loop_lag_seconds", "How late the last tick was.", now.loop_lag_seconds)
        yield from clock_metrics(self._runtime.clock.offset_ms, self._runtime.clock.steps)
        yield _gauge("minilog_http_connections", "Open connections.", self._listener.open_connections)
        yield CounterMetricFamily(
            "minilog_http_connections_refused",
            "Connections over the limit.",
            value=self._listener.refused_connections,
        )
        yield CounterMetricFamily("minilog_controller_decisions", "Events decided.", value=now.decisions)
        yield CounterMetricFamily(
            "minilog_controller_disconnects", "Parked requests whose connection dropped.", value=now.disconnects
        )


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)
