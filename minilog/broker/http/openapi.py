"""/openapi.json, made from the route table and the structs that the server decodes and encodes
with."""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec

import minilog
from minilog.broker.http.admin import AlterTopicBody, CreateTopicBody
from minilog.broker.http.groups import CommitBody, HeartbeatBody
from minilog.errors import ERRORS_BY_CODE
from minilog.wire.http import JSON, MSGPACK, PROBLEM
from minilog.wire.json_answers import (
    Alive,
    BrokerList,
    ClusterInfo,
    FailoverList,
    FetchAnswer,
    GroupDeleted,
    GroupDescription,
    GroupsFound,
    Health,
    LagOfGroup,
    MemberLeft,
    MemberState,
    OffsetFound,
    OffsetsCommitted,
    OffsetsFound,
    ProblemDocument,
    ProduceAnswer,
    ProducerCreated,
    Readiness,
    TopicAltered,
    TopicDeleted,
    TopicList,
)
from minilog.wire.json_records import JsonRecord, JsonRecords
from minilog.wire.messages import Fetch, FetchReply, MetadataReply, Produce, ProduceReply, TopicInfo
from minilog.wire.routes import ROUTES, Route, Schema

_REF: Final = "#/components/schemas/{name}"


_REQUESTS: Final[dict[str, Any]] = {
    "create_topic": CreateTopicBody,
    "alter_topic": AlterTopicBody,
    "group_heartbeat": HeartbeatBody,
    "commit_offsets": CommitBody,
    "produce_topic": JsonRecords,
    "produce_partition": JsonRecords,
    "produce": Produce,
    "fetch": Fetch,
}
ANSWERS: Final[dict[str, Any]] = {
    "healthz": Alive,
    "readyz": Readiness,
    "cluster": ClusterInfo,
    "health": Health,
    "brokers": BrokerList,
    "failovers": FailoverList,
    "metadata": MetadataReply,
    "list_topics": TopicList,
    "create_topic": TopicInfo,
    "describe_topic": TopicInfo,
    "alter_topic": TopicAltered,
    "delete_topic": TopicDeleted,
    "offsets": OffsetFound,
    "fetch_partition": FetchAnswer,
    "produce_topic": ProduceAnswer,
    "produce_partition": ProduceAnswer,
    "create_producer": ProducerCreated,
    "group_heartbeat": MemberState,
    "leave_group": MemberLeft,
    "list_groups": GroupsFound,
    "describe_group": GroupDescription,
    "delete_group": GroupDeleted,
    "committed_offsets": OffsetsFound,
    "commit_offsets": OffsetsCommitted,
    "group_lag": LagOfGroup,
    "produce": ProduceReply,
    "fetch": FetchReply,
}
_STATUS: Final = {"create_topic": "201"}
_MORE_STATUS: Final = {
    "produce_topic": {"202": "acks=0: taken, without offsets", "207": "Some records failed: see results"},
    "produce_partition": {
        "202": "acks=0: taken, without offsets",
        "207": "Some records failed: see results",
        "307": "The leader",
    },
    "fetch_partition": {"307": "The leader is elsewhere: see Location"},
    "offsets": {"307": "The leader is elsewhere: see Location"},
}


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI 3.1 description of every route but /internal."""
    kinds = [*dict.fromkeys([*_REQUESTS.values(), *ANSWERS.values(), JsonRecord, ProblemDocument])]
    schemas, components = msgspec.json.schema_components(kinds, schema_hook=_schema_hook, ref_template=_REF)
    by_kind = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        if not route.path.startswith("/internal"):
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_kind)
    return {
        "openapi": "3.1.0",
        "info": {"title": "minilog", "version": minilog.__version__, "description": _description()},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(route: Route, schemas: dict[Any, Schema]) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": route.name, "summary": route.summary}
    parameters = [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)]
    if parameters:
        operation["parameters"] = parameters
    if route.accepts:
        schema = schemas.get(_REQUESTS.get(route.name))
        operation["requestBody"] = {
            "required": True,
            "content": {media: _content(media, schema) for media in route.accepts},
        }
    schema = schemas.get(ANSWERS.get(route.name))
    success = {"description": route.summary, "content": {media: _content(media, schema) for media in route.offers}}
    more = {status: {"description": text} for status, text in _MORE_STATUS.get(route.name, {}).items()}
    problem = {
        "description": "What went wrong, in a sentence",
        "content": {PROBLEM: {"schema": schemas[ProblemDocument]}},
    }
    operation["responses"] = {_STATUS.get(route.name, "200"): success, **more, "default": problem}
    return operation


def _content(media: str, schema: Schema | None) -> dict[str, Any]:
    if schema is None or media not in (JSON, MSGPACK):
        return {}
    return {"schema": schema}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    schemas = {
        "topic": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,249}$"},
        "partition": {"type": "integer", "minimum": 0},
        "group": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,249}$"},
        "member": {"type": "string", "minLength": 1, "maxLength": 249},
    }
    return [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in schemas.items()
        if "{" + name + "}" in route.path
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": parameter.name, "in": "query", "schema": parameter.schema, "description": parameter.doc}
        for parameter in route.query
    ]


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": header.name, "in": "header", "schema": header.schema, "description": header.doc}
        for header in route.headers
    ]


def _description() -> str:
    codes = ", ".join(f"{code} {cls.http_status}" for code, cls in sorted(ERRORS_BY_CODE.items()))
    return f"A partitioned, replicated log broker. Errors are problem documents with a code: {codes}."


def _schema_hook(kind: type) -> Schema:
    """Raw is any JSON value. Of any other kind NotImplementedError tells msgspec that it has to
    know it by itself."""
    if kind is msgspec.Raw:
        return {"description": "any JSON value"}
    raise NotImplementedError(kind)
