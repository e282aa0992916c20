"""Spans of OpenTelemetry for programs that use minilog (extra ``otel``).

A span is of a batch or of a fetch, as an event is. What belongs together across programs travels in
the headers of records: ``headers_of_context`` writes it, ``context_of`` reads it.

Names of attributes: OpenTelemetry's semantic conventions for messaging."""

from __future__ import annotations

import time
from collections.abc import Mapping

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, TracerProvider

from minilog_client.observing.events import ClientEvent, CommitFailed, Committed, Delivered, GivenUp, Received
from minilog_client.values import RecordFields

_MS_NS = 1_000_000
Attributes = dict[str, str | int]


class OpenTelemetryObserver:
    """An observer for any number of clients. Without a ``provider`` it takes the global one."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer: Tracer = trace.get_tracer("minilog_client", tracer_provider=provider)

    def on_event(self, event: ClientEvent) -> None:
        match event:
            case Delivered(topic):
                said = _of_batch("send", topic, event.partition, event.record_count)
                said["messaging.message.body.size"] = event.bytes_total
                if event.base_offset is not None:
                    said["minilog.base_offset"] = event.base_offset
                self._span(f"send {topic}", SpanKind.PRODUCER, said, event.took_ms)
            case GivenUp(topic, count, error):
                said = _of_batch("send", topic, None, count)
                self._span(f"send {topic}", SpanKind.PRODUCER, said, 0, (error.code, error.detail))
            case Received(topic):
                said = _of_batch("receive", topic, event.partition, event.record_count)
                self._span(f"receive {topic}", SpanKind.CONSUMER, said, event.took_ms)
            case Committed(group):
                self._span(f"commit {group}", SpanKind.CLIENT, _of_group(group), 0)
            case CommitFailed(group, error):
                self._span(f"commit {group}", SpanKind.CLIENT, _of_group(group), 0, (error.code, error.detail))
            case _:
                pass

    def _span(
        self, name: str, kind: SpanKind, said: Attributes, took_ms: int, failure: tuple[str, str] | None = None
    ) -> None:
        """One that ends now."""
        end_ns = time.time_ns()
        start_ns = end_ns - took_ms * _MS_NS
        span = self._tracer.start_span(name, Context(), kind, said, start_time=start_ns)
        if failure is not None:
            span.set_attribute("error.type", failure[0])
            span.set_status(Status(StatusCode.ERROR, failure[1]))
        span.end(end_ns)


def headers_of_context(context: Context | None = None) -> dict[str, bytes]:
    """Headers for ``send`` that name the span of the caller, as ``traceparent`` does in HTTP."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context)
    return {name: value.encode() for name, value in carrier.items()}


def context_of(record: RecordFields) -> Context:
    """What the headers of a record name, as the parent of the spans in which it is worked on."""
    carrier: Mapping[str, str] = {
        name: value.decode("utf-8", "replace") for name, value in record.headers if value is not None
    }
    return propagate.extract(carrier)


def _of_batch(operation: str, topic: str, partition: int | None, record_count: int) -> Attributes:
    said: Attributes = {
        "messaging.system": "minilog",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": topic,
        "messaging.batch.message_count": record_count,
    }
    if partition is not None:
        said["messaging.destination.partition.id"] = str(partition)
    return said


def _of_group(group: str) -> Attributes:
    return {
        "messaging.system": "minilog",
        "messaging.operation.type": "settle",
        "messaging.operation.name": "commit",
        "messaging.consumer.group.name": group,
    }
