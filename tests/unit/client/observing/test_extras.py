"""The extras with the real libraries: metrics of Prometheus, spans of OpenTelemetry."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry, generate_latest

from minilog.errors import BrokerUnavailable, NotEnoughReplicas, Overloaded
from minilog_client import AsyncClient, ClientObserver, MinilogError
from minilog_client.observing.events import Assigned, CommitFailed, LeaderMoved, Revoked
from minilog_client.observing.otel import OpenTelemetryObserver, context_of, headers_of_context
from minilog_client.observing.prometheus import PrometheusObserver
from tests.unit.client.fake_cluster import FakeCluster, Fault
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.virtual_time import run


async def busy(observer: ClientObserver, headers: dict[str, bytes] | None = None) -> None:
    """Ten records are sent, with a retry, one fails, and a group reads what there is."""
    cluster = FakeCluster()
    cluster.create("t", 1)
    FakeCoordinator(cluster)
    cluster.faults.append(Fault("produce", Overloaded("full"), times=1))
    async with AsyncClient(cluster.bootstrap, transport=cluster, observer=observer) as client:
        client._use_own_loop_for_heartbeats()
        await client.producer().send_many("t", [b"x"] * 10)
        async with client.consumer("t", group="g") as consumer:
            assert len(await consumer.batch()) == 10
            await consumer.commit()
        cluster.faults.append(Fault("produce", NotEnoughReplicas("one"), times=10**6))
        try:
            await client.producer(delivery_timeout_ms=100).send("t", b"x")
        except MinilogError:
            return


def test_metrics_of_prometheus_are_those_of_what_happened() -> None:
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    run(busy(observer))
    values = {
        "sent_records_total": ({"topic": "t"}, 10),
        "sent_batches_total": ({"topic": "t"}, 1),
        "failed_records_total": ({"topic": "t", "code": "REQUEST_TIMED_OUT"}, 1),
        "retries_total": ({"what": "produce", "topic": "t", "code": "OVERLOADED"}, 1),
        "received_records_total": ({"topic": "t"}, 10),
        "queue_seconds_count": ({"topic": "t"}, 1),
        "delivery_seconds_count": ({"topic": "t"}, 1),
        "queue_bytes": ({}, 0),
        "rebalances_total": ({"group": "g"}, 1),
        "assigned_partitions": ({"group": "g"}, 0),
    }
    for name, (labels, value) in values.items():
        assert registry.get_sample_value(f"minilog_client_{name}", labels) == value, name
    commits = registry.get_sample_value("minilog_client_commits_total", {"group": "g"})
    assert commits is not None
    assert commits >= 1
    observer.on_event(LeaderMoved("t", 0, 2, 3))
    observer.on_event(CommitFailed("g", BrokerUnavailable("away")))
    observer.on_event(Assigned("g", [("t", 0)]))
    assert registry.get_sample_value("minilog_client_assigned_partitions", {"group": "g"}) == 1
    observer.on_event(Revoked("g", [("t", 0)], is_lost=True))
    text = generate_latest(registry).decode()
    assert 'minilog_client_leader_changes_total{topic="t"} 1.0' in text
    assert 'minilog_client_commit_failures_total{code="BROKER_UNAVAILABLE",group="g"} 1.0' in text
    assert "minilog_client_lag_records{" not in text, "what is not read any more has no lag"


def spans_of(exporter: InMemorySpanExporter) -> dict[str, list[ReadableSpan]]:
    found: dict[str, list[ReadableSpan]] = {}
    for span in exporter.get_finished_spans():
        found.setdefault(span.name, []).append(span)
    return found


def test_spans_are_of_batches_fetches_and_commits() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    run(busy(OpenTelemetryObserver(provider)))
    spans = spans_of(exporter)
    sent, failed = spans["send t"]
    assert (sent.kind, sent.status.status_code) == (SpanKind.PRODUCER, StatusCode.UNSET)
    assert sent.attributes is not None
    assert sent.attributes["messaging.system"] == "minilog"
    assert sent.attributes["messaging.destination.name"] == "t"
    assert sent.attributes["messaging.destination.partition.id"] == "0"
    assert sent.attributes["messaging.batch.message_count"] == 10
    assert sent.start_time is not None
    assert sent.end_time is not None
    assert sent.end_time > sent.start_time
    assert (failed.status.status_code, (failed.attributes or {})["error.type"]) == (
        StatusCode.ERROR,
        "REQUEST_TIMED_OUT",
    )
    (received,) = spans["receive t"]
    assert (received.kind, (received.attributes or {})["messaging.batch.message_count"]) == (SpanKind.CONSUMER, 10)
    assert {span.kind for span in spans["commit g"]} == {SpanKind.CLIENT}


def test_a_trace_goes_on_in_the_headers_of_a_record() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("app")

    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t", 1)
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            with tracer.start_as_current_span("order"):
                await client.producer().send("t", b"x", headers=headers_of_context())
            async with client.consumer("t") as consumer:
                (record,) = await consumer.batch()
                with tracer.start_as_current_span("handle", context_of(record)):
                    pass

    run(main())
    spans = spans_of(exporter)
    (order,), (handled,) = spans["order"], spans["handle"]
    assert handled.parent is not None
    assert handled.parent.span_id == order.context.span_id
    assert handled.context.trace_id == order.context.trace_id
