"""Metrics of Prometheus for programs that use minilog (extra ``prometheus``)."""

from __future__ import annotations

from contextlib import suppress

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from minilog_client.observing.events import (
    Assigned,
    ClientEvent,
    CommitFailed,
    Committed,
    Delivered,
    GivenUp,
    Joined,
    LeaderMoved,
    Received,
    Retried,
    Revoked,
)

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class PrometheusObserver:
    """An observer for any number of clients, which share its metrics: a registry takes each name
    once.

    ```python
    observer = PrometheusObserver()
    client = Client("http://127.0.0.1:8082", observer=observer)
    prometheus_client.start_http_server(9000)
    ```
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"minilog_client_{name}", says, labels, registry=registry)

        def seconds(name: str, says: str) -> Histogram:
            return Histogram(f"minilog_client_{name}_seconds", says, ["topic"], registry=registry, buckets=_BUCKETS_S)

        self._sent = counter("sent_records_total", "Records that were acknowledged.", "topic")
        self._sent_bytes = counter("sent_bytes_total", "Bytes of batches that were acknowledged.", "topic")
        self._sent_batches = counter("sent_batches_total", "Batches that were acknowledged.", "topic")
        self._failed = counter("failed_records_total", "Records that have failed for good.", "topic", "code")
        self._queue_time = seconds("queue", "Time of a batch from its first record to the request.")
        self._delivery = seconds("delivery", "Time of a batch from its first record to the acknowledgement.")
        self._queue_bytes = Gauge(
            "minilog_client_queue_bytes",
            "Bytes that wait to be acknowledged, as of the last acknowledgement.",
            registry=registry,
        )
        self._received = counter("received_records_total", "Records that were fetched.", "topic")
        self._received_bytes = counter("received_bytes_total", "Bytes that were fetched.", "topic")
        self._lag = Gauge(
            "minilog_client_lag_records",
            "Records beyond what was fetched, as of the last fetch.",
            ["topic", "partition"],
            registry=registry,
        )
        self._retries = counter("retries_total", "Failed tries that were repeated.", "what", "topic", "code")
        self._leaders = counter("leader_changes_total", "Changes of a leader that this program saw.", "topic")
        self._rebalances = counter("rebalances_total", "Epochs that members have been in.", "group")
        self._assigned = Gauge(
            "minilog_client_assigned_partitions", "Partitions that members hold.", ["group"], registry=registry
        )
        self._commits = counter("commits_total", "Commits that the group took.", "group")
        self._commit_failures = counter("commit_failures_total", "Commits that failed.", "group", "code")

    def on_event(self, event: ClientEvent) -> None:
        match event:
            case Delivered(topic):
                self._sent.labels(topic).inc(event.record_count)
                self._sent_bytes.labels(topic).inc(event.bytes_total)
                self._sent_batches.labels(topic).inc()
                self._queue_time.labels(topic).observe(event.queued_ms / 1000)
                self._delivery.labels(topic).observe(event.took_ms / 1000)
                self._queue_bytes.set(event.queue_bytes)
            case GivenUp(topic, count, error):
                self._failed.labels(topic, error.code).inc(count)
            case Received(topic):
                self._on_received(event)
            case Retried(what, topic):
                self._retries.labels(what, topic, event.error.code).inc()
            case LeaderMoved(topic):
                self._leaders.labels(topic).inc()
            case _:
                self._on_group_event(event)

    def _on_received(self, event: Received) -> None:
        self._received.labels(event.topic).inc(event.record_count)
        self._received_bytes.labels(event.topic).inc(event.bytes_total)
        if event.lag_records is not None:
            self._lag.labels(event.topic, str(event.partition)).set(event.lag_records)

    def _on_group_event(self, event: ClientEvent) -> None:
        match event:
            case Joined(group):
                self._rebalances.labels(group).inc()
            case Assigned(group, partitions):
                self._assigned.labels(group).inc(len(partitions))
            case Revoked(group, partitions):
                self._assigned.labels(group).dec(len(partitions))
                for topic, partition in partitions:
                    with suppress(KeyError):  # nothing was fetched of it
                        self._lag.remove(topic, str(partition))
            case Committed(group):
                self._commits.labels(group).inc()
            case CommitFailed(group, error):
                self._commit_failures.labels(group, error.code).inc()
            case _:
                pass
