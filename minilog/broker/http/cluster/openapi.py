"""/openapi.json, made from the route table and the structs that the server decodes and encodes
with."""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec

import minilog
from minilog.broker.http.cluster.admin import AlterTopicBody, BalanceLeadersBody, CreateTopicBody, ElectLeaderBody
from minilog.broker.http.cluster.moves import MoveReplicasBody, PlanMovesBody
from minilog.broker.http.groups.groups import CommitBody, HeartbeatBody
from minilog.broker.http.records.lost import ReplayBody
from minilog.broker.http.records.receipts import ReceiptsBody
from minilog.errors import ERRORS_BY_CODE
from minilog.server.log_level import LogLevelBody
from minilog.wire.http import INT32_MAX, JSON, MSGPACK, PROBLEM, TAIL_PATTERN
from minilog.wire.journal.metadata_copy import BrokerCopy
from minilog.wire.json.json_answers import (
    Alive,
    BrokerList,
    ClusterInfo,
    ElectionInfo,
    EventList,
    FailoverList,
    FetchAnswer,
    GroupDeleted,
    GroupDescription,
    GroupsFound,
    Health,
    LogLevelNow,
    LostDiscarded,
    LostList,
    LostRecords,
    LostTailInfo,
    MemberLeft,
    MemberState,
    OffsetFound,
    OffsetsCommitted,
    OffsetsFound,
    ProblemDocument,
    ProduceAnswer,
    ProducerCreated,
    Readiness,
    TopicDeleted,
    TopicList,
)
from minilog.wire.json.json_records import JsonRecord, JsonRecords
from minilog.wire.json.lag_answers import LagOfGroup, TopicOffsets
from minilog.wire.json.lever_answers import (
    BrokerGone,
    LeadersBalanced,
    MovesBegun,
    MovesPlanned,
    MovesUnderWay,
    TopicAltered,
)
from minilog.wire.json.live_answers import LiveState
from minilog.wire.json.receipt_answers import CheckedReceipts
from minilog.wire.messages import Fetch, FetchReply, MetadataReply, Problem, Produce, ProduceReply, TopicInfo
from minilog.wire.routes import NAME_SCHEMA, ROUTES, Route, Schema

_REF: Final = "#/components/schemas/{name}"


_REQUESTS: Final[dict[str, Any]] = {
    "create_topic": CreateTopicBody,
    "alter_topic": AlterTopicBody,
    "elect_leader": ElectLeaderBody,
    "balance_leaders": BalanceLeadersBody,
    "move_replicas": MoveReplicasBody,
    "plan_moves": PlanMovesBody,
    "replay_lost": ReplayBody,
    "set_log_level": LogLevelBody,
    "check_receipts": ReceiptsBody,
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
    "log_level": LogLevelNow,
    "set_log_level": LogLevelNow,
    "health": Health,
    "brokers": BrokerList,
    "failovers": FailoverList,
    "events": EventList,
    "live": LiveState,
    "check_receipts": CheckedReceipts,
    "list_lost": LostList,
    "describe_lost": LostTailInfo,
    "read_lost": LostRecords,
    "replay_lost": LostTailInfo,
    "discard_lost": LostDiscarded,
    "metadata": MetadataReply,
    "list_topics": TopicList,
    "create_topic": TopicInfo,
    "describe_topic": TopicInfo,
    "alter_topic": TopicAltered,
    "describe_election": ElectionInfo,
    "metadata_copy": BrokerCopy,
    "elect_leader": ElectionInfo,
    "balance_leaders": LeadersBalanced,
    "list_moves": MovesUnderWay,
    "move_replicas": MovesBegun,
    "plan_moves": MovesPlanned,
    "remove_broker": BrokerGone,
    "delete_topic": TopicDeleted,
    "offsets": OffsetFound,
    "topic_offsets": TopicOffsets,
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
_NATIVE_ANSWERS: Final = frozenset({"metadata"})
"""Messages of the native protocol that are answered as JSON, without their tag."""
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
def encoded_document() -> bytes:
    """Anybody may ask for it, as often as he likes."""
    return msgspec.json.encode(document())


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI 3.1 description of every route but /internal."""
    kinds = [*dict.fromkeys([*_REQUESTS.values(), *ANSWERS.values(), JsonRecord, Problem, ProblemDocument])]
    schemas, components = msgspec.json.schema_components(kinds, schema_hook=_schema_hook, ref_template=_REF)
    by_kind = dict(zip(kinds, schemas, strict=True))
    components |= {
        f"{name}Json": _untagged(component) for name, component in components.items() if _is_tagged(component)
    }
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
    is_native = route.offers == (MSGPACK,)
    content = {media: _content(media, schema) for media in route.offers}
    if not is_native and route.name in _NATIVE_ANSWERS:
        content[JSON] = {"schema": {"$ref": _REF.format(name=f"{ANSWERS[route.name].__name__}Json")}}
    success = {"description": route.summary, "content": content}
    more = {status: {"description": text} for status, text in _MORE_STATUS.get(route.name, {}).items()}
    problem = {
        "description": "What went wrong, in a sentence",
        "content": {MSGPACK: {"schema": schemas[Problem]}}
        if is_native
        else {PROBLEM: {"schema": schemas[ProblemDocument]}},
    }
    operation["responses"] = {_STATUS.get(route.name, "200"): success, **more, "default": problem}
    return operation


def _is_tagged(component: Schema) -> bool:
    return "enum" in component.get("properties", {}).get("type", {})


def _untagged(component: Schema) -> Schema:
    """As JSON for people has it (``plain``)."""
    properties = {name: schema for name, schema in component["properties"].items() if name != "type"}
    return {
        **component,
        "title": f"{component['title']}Json",
        "properties": properties,
        "required": [name for name in component["required"] if name != "type"],
    }


def _content(media: str, schema: Schema | None) -> dict[str, Any]:
    if schema is None or media not in (JSON, MSGPACK):
        return {}
    return {"schema": schema}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    schemas = {
        "topic": NAME_SCHEMA,
        "partition": {"type": "integer", "minimum": 0, "maximum": INT32_MAX},
        "broker": {"type": "integer", "minimum": 0, "maximum": INT32_MAX},
        "group": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,249}$"},
        "member": {"type": "string", "minLength": 1, "maxLength": 249},
        "tail": {"type": "string", "pattern": f"^({TAIL_PATTERN})$"},
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
