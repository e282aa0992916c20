"""/openapi.json of a controller: what people and monitoring ask."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

import minilog
from minilog.server.log_level import LogLevelBody
from minilog.wire.http import EVENTS, HTML, JSON, PROBLEM, TEXT
from minilog.wire.json.json_answers import LogLevelNow, ProblemDocument
from minilog.wire.json.live_answers import LiveState
from minilog.wire.messages import DescribeClusterReply

_REF = "#/components/schemas/{name}"
_READS = {
    "/": ("root", "What this is and where to look; the console for a browser", (JSON, HTML)),
    "/healthz": ("healthz", "The process is alive", (TEXT,)),
    "/readyz": ("readyz", "Has read its journal and decides", (TEXT,)),
    "/metrics": ("metrics", "Prometheus metrics", (TEXT,)),
    "/metrics/kafka": ("metrics_kafka", "The same under the names of Kafka's exporters", (TEXT,)),
    "/v1/cluster": ("cluster", "Identity and size of the cluster, and every broker", (JSON,)),
    "/v1/cluster/live": ("live", "What the console shows; as text/event-stream it goes on", (JSON, EVENTS)),
    "/v1/loglevel": ("log_level", "What this process writes to its log, and what its settings say", (JSON,)),
    "/openapi.json": ("openapi", "This description", (JSON,)),
}
_SET_LOG_LEVEL = "Change what this process writes to its log, until it ends"


@functools.cache
def encoded_document() -> bytes:
    """Anybody may ask for it, as often as he likes."""
    return msgspec.json.encode(document())


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI 3.1 description of every route but /internal."""
    kinds = [DescribeClusterReply, ProblemDocument, LogLevelNow, LogLevelBody, LiveState]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    answers = {
        "cluster": {"schema": schemas[0]},
        "log_level": {"schema": schemas[2]},
        "live": {"schema": schemas[4]},
    }
    problem = {"description": "What went wrong, in a sentence", "content": {PROBLEM: {"schema": schemas[1]}}}

    def operation(name: str, summary: str, offered: tuple[str, ...], answer: dict[str, Any]) -> dict[str, Any]:
        content = {media: answer if media == JSON else {} for media in offered}
        success = {"description": summary, "content": content}
        return {"operationId": name, "summary": summary, "responses": {"200": success, "default": problem}}

    paths = {
        path: {"get": operation(name, summary, offered, answers.get(name, {}))}
        for path, (name, summary, offered) in _READS.items()
    }
    body = {"required": True, "content": {JSON: {"schema": schemas[3]}}}
    change = operation("set_log_level", _SET_LOG_LEVEL, (JSON,), answers["log_level"])
    paths["/v1/loglevel"]["put"] = {**change, "requestBody": body}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "minilog controller",
            "version": minilog.__version__,
            "description": "What a controller is asked by people.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }
