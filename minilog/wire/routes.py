"""Every route of the HTTP interface as data: the table that the server dispatches on, the clients
build paths from and /openapi.json is made of.

Matching works on the raw request target, segment by segment, before any percent-decoding: an
encoded slash never makes a new segment, and a name is checked after it was decoded. Unknown and
repeated query parameters are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from minilog.errors import InvalidRequest, MethodNotAllowed, UnknownRoute
from minilog.wire import http
from minilog.wire.http import BATCH, EVENTS, HTML, INT32_MAX, JSON, MSGPACK, NDJSON, OCTETS, TEXT
from minilog.wire.needs import Need

FORMATS: Final = ("json", "text", "base64")
Schema = dict[str, Any]


class Parameter(NamedTuple):
    """One query parameter, or a header. ``parse`` takes (name, decoded bytes) and raises a
    MinilogError on anything else."""

    name: str
    parse: Callable[[str, bytes], Any]
    schema: Schema
    doc: str


class Route(NamedTuple):
    """``needs`` says what whoever asks must be allowed (needs.py). ``accepts`` are the media types
    of the request body, ``offers`` those of the answer, the default first."""

    name: str
    method: str
    path: str
    needs: str
    summary: str
    query: tuple[Parameter, ...] = ()
    accepts: tuple[str, ...] = ()
    offers: tuple[str, ...] = (JSON,)
    headers: tuple[Parameter, ...] = ()


class Match(NamedTuple):
    """``values`` are the decoded path values, ``query`` the raw query string, ``path`` the path in
    canonical form."""

    route: Route
    values: dict[str, Any]
    query: str
    path: str


def _integer(name: str, low: int, high: int, doc: str) -> Parameter:
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Parameter(name, lambda name, value: http.integer(name, value, low, high), schema, doc)


def _choice(name: str, allowed: tuple[str, ...], doc: str) -> Parameter:
    schema = {"type": "string", "enum": list(allowed)}
    return Parameter(name, lambda name, value: http.choice(name, value, allowed), schema, doc)


def _topics(name: str, value: bytes) -> list[str]:
    return [http.topic_name(topic) for topic in http.text(name, value).split(",")]


def _group(name: str, value: bytes) -> str:
    return http.group_name(http.text(name, value))


_STRING: Final[Schema] = {"type": "string"}


def _pattern(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^({pattern})$"}


_NUMBER: Final = "0|[1-9][0-9]{0,17}"
NAME_SCHEMA: Final = _pattern(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
"""Of topics. A group may be called . and .. as well."""
_ACKS = Parameter(
    "acks", http.acks, _pattern("all|[0-9]|[12][0-9]|3[0-2]"), "all (default), 0, 1, or how many copies must be durable"
)
_TIMEOUT = _integer("timeout_ms", 1, INT32_MAX, "how long to wait for the acknowledgement")
_FORMAT = _choice("format", FORMATS, "how keys and values map to bytes; json by default")
_KEY_FORMAT = _choice(
    "key_format",
    FORMATS,
    "the same for keys alone; by default a string is its text, and any other JSON value its JSON (format=base64: base64)",
)
_KEY = Parameter(
    "key", lambda _, value: value, _STRING, "key of the one raw record (application/octet-stream), as bytes"
)
_TOPIC_ID = Parameter(
    "topic_id",
    http.topic_id,
    _pattern("[0-9a-f]{32}"),
    "the topic you mean: refused when another one has its name by now",
)
_PRODUCE = (_ACKS, _TIMEOUT, _FORMAT, _KEY_FORMAT, _TOPIC_ID)
NUMBERS: Final = (
    _integer("Minilog-Producer-Id", 0, 2**63 - 1, "safe retries: an id from POST /v1/producers; with the other two"),
    _integer(
        "Minilog-Producer-Epoch", 0, 2**15 - 1, "0 at first; one more, with sequence 0, after OUT_OF_ORDER_SEQUENCE"
    ),
    _integer("Minilog-Sequence", 0, INT32_MAX, "how many records you have sent to this partition in this epoch before"),
)
"""Headers that make a produce request idempotent, in the order of a batch's header."""
IF_MATCH: Final = Parameter(
    "If-Match",
    http.entity_tag,
    _pattern(f'"{_NUMBER}"'),
    'write only where the partition ends at this offset, in quotes: "42"; 409 with end_offset otherwise',
)
_ELSEWHERE = _choice(
    "elsewhere",
    ("redirect", "ask"),
    "where another broker leads: redirect (default) sends you there, ask has this broker ask it for you",
)
_TOLERANCE = _choice("errors_tolerance", ("none", "all"), "what cannot be read: none (default) marks it, all skips it")
_FETCH = (
    Parameter(
        "offset",
        http.start,
        _pattern(f"earliest|latest|@?({_NUMBER})"),
        "earliest (default), latest, an offset, or @ms: the first record at or after a time",
    ),
    _integer(
        "max_bytes",
        1,
        INT32_MAX,
        "about how much to read; one record is always delivered, one batch of raw ones, and a page may have 4 MiB",
    ),
    _integer("max_records", 1, INT32_MAX, "at most so many records; not for raw batches"),
    _integer("min_bytes", 0, INT32_MAX, "wait until so much is there, or wait_ms is over"),
    _integer("wait_ms", 0, INT32_MAX, "long poll: how long to wait for min_bytes"),
    _FORMAT,
    _KEY_FORMAT,
    _TOLERANCE,
    _choice("replica", ("leader", "any"), "any: a follower may answer, up to its high watermark"),
    _integer("max_lag_ms", 0, INT32_MAX, "replica=any: redirect to the leader when staler than this"),
    _integer(
        "leader_epoch", 0, INT32_MAX, "leader_epoch of your last answer; detects that what you read was truncated"
    ),
    _ELSEWHERE,
    _TOPIC_ID,
)
_TOPIC_FETCH: Final = (
    Parameter(
        "offset",
        http.start,
        _pattern(f"earliest|latest|@({_NUMBER})"),
        "where each partition begins: earliest (default), latest (default for text/event-stream), or @ms",
    ),
    Parameter(
        "cursor", http.text, _pattern(rf"[0-9a-f]{{32}}(\.({_NUMBER})){{1,64}}"), "go on behind the record of it"
    ),
    Parameter(
        "group", _group, _pattern("[A-Za-z0-9._-]{1,249}"), "begin where it is; commits the cursor you come back with"
    ),
    _choice("follow", ("false", "true"), "NDJSON: true goes on at the end of the topic; events always do"),
    _integer("max_bytes", 1, INT32_MAX, "about how much to read at a time"),
    _FORMAT,
    _KEY_FORMAT,
    _TOLERANCE,
    _TOPIC_ID,
)
_EVENTS: Final = (
    _integer("after", 0, 2**63 - 1, "what was noted behind this number; without it the last ones"),
    _integer("since_ms", 0, 2**53, "what happened at or after a time, in ms since 1970"),
    _integer("limit", 1, 1000, "at most so many; 100 by default"),
)
_TAIL_PATH = "/v1/lost/{tail}"
_LOST: Final = (
    _integer("offset", 0, 2**63 - 1, "where to begin; without it where the lost records begin"),
    _integer("max_records", 1, INT32_MAX, "at most so many records; not for raw batches"),
    _integer("max_bytes", 1, INT32_MAX, "about how much to read; 1 MiB by default"),
    _FORMAT,
    _KEY_FORMAT,
)
_GROUP_PATH = "/v1/groups/{group}"
_ELECTION_PATH = "/v1/topics/{topic}/partitions/{partition}/election"
_NAMES: Final[Mapping[str, Callable[[str], str]]] = {
    "topic": http.topic_name,
    "group": http.group_name,
    "member": http.member_id,
    "tail": http.tail_name,
}
_TOPIC_PATH = "/v1/topics/{topic}"
_RECORDS_PATH = "/v1/topics/{topic}/partitions/{partition}/records"
_AT = Parameter(
    "at",
    http.time_or_end,
    _pattern(f"earliest|latest|@?({_NUMBER})"),
    "earliest, latest (default), or ms: the first record at or after a time",
)
_GROUP_EPOCH = _integer(
    "group_epoch",
    0,
    2**63 - 1,
    "the one that was seen: a request that a proxy repeats deletes no group that is made anew",
)
_MEMBER_EPOCH = _integer(
    "member_epoch",
    0,
    2**63 - 1,
    "the one you were told last: a request that a proxy repeats removes nobody who came back",
)
_TOPICS = Parameter(
    "topics",
    _topics,
    _pattern(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,60}(,[A-Za-z0-9_-][A-Za-z0-9._-]{0,60}){0,9}"),
    "names separated by commas; all topics by default",
)

ROUTES: Final[tuple[Route, ...]] = (
    Route("root", "GET", "/", "describe", "What this is and where to look; the console for a browser", offers=(JSON, HTML)),
    Route("healthz", "GET", "/healthz", "public", "The process is alive"),
    Route("readyz", "GET", "/readyz", "public", "Registered with the controller and caught up with the metadata"),
    Route("metrics", "GET", "/metrics", "metrics", "Prometheus metrics", offers=(TEXT,)),
    Route("metrics_kafka", "GET", "/metrics/kafka", "metrics", "The same under the names of Kafka's exporters", offers=(TEXT,)),
    Route("openapi", "GET", "/openapi.json", "public", "This description"),
    Route("log_level", "GET", "/v1/loglevel", "describe", "What this process writes to its log, and what its settings say"),
    Route("set_log_level", "PUT", "/v1/loglevel", "admin",
          'Change what this process writes to its log, until it ends: {"level": "debug", "info", "warning" or "error"}',
          (), (JSON,)),
    Route("produce", "POST", "/v1/produce", "message", "Native produce: a Produce message", (), (MSGPACK,), (MSGPACK,)),
    Route("fetch", "POST", "/v1/fetch", "message", "Native fetch: a Fetch message", (), (MSGPACK,), (MSGPACK,)),
    Route("rpc", "POST", "/internal/rpc", "message", "Any native message", (), (MSGPACK,), (MSGPACK,)),
    Route("metadata", "GET", "/v1/metadata", "describe", "Brokers, topics and partitions as this broker knows them",
          (_TOPICS,), (), (JSON, MSGPACK)),
    Route("metadata_copy", "GET", "/v1/metadata/copy", "admin",
          "What this broker has applied of the controller's journal, to make a journal from"),
    Route("list_topics", "GET", "/v1/topics", "describe", "All topics"),
    Route("create_topic", "POST", "/v1/topics", "alter", "Create a topic", (), (JSON,)),
    Route("describe_topic", "GET", _TOPIC_PATH, "describe", "One topic with its partitions"),
    Route("alter_topic", "PATCH", _TOPIC_PATH, "alter topic",
          'Add partitions, {"partitions": how many in all}, or change settings: {"config": {name: value, or null to reset}, "dry_run"?}',
          (_TOPIC_ID,), (JSON,)),
    Route("delete_topic", "DELETE", _TOPIC_PATH, "alter topic",
          "Delete a topic and its records; with topic_id a request that a proxy repeats deletes no successor", (_TOPIC_ID,)),
    Route("produce_topic", "POST", f"{_TOPIC_PATH}/records", "write topic", "Produce; any broker partitions and forwards",
          (*_PRODUCE, _KEY), (JSON, NDJSON, OCTETS)),
    Route("produce_partition", "POST", _RECORDS_PATH, "write topic", "Produce to one partition; elsewhere 307 to its leader",
          _PRODUCE, (JSON, NDJSON, BATCH), headers=(*NUMBERS, IF_MATCH)),
    Route("create_producer", "POST", "/v1/producers", "write", "A producer id: with it a request sent twice is written once"),
    Route("fetch_partition", "GET", _RECORDS_PATH, "read topic", "Read committed records, long poll or live tail",
          _FETCH, (), (JSON, NDJSON, BATCH, EVENTS)),
    Route("fetch_topic", "GET", f"{_TOPIC_PATH}/records", "read topic", "Read all partitions of a topic, up to its end or as a live tail",
          _TOPIC_FETCH, (), (NDJSON, EVENTS)),
    Route("offsets", "GET", "/v1/topics/{topic}/partitions/{partition}/offsets", "describe", "The offset at a time",
          (_AT, _ELSEWHERE, _TOPIC_ID)),
    Route("topic_offsets", "GET", f"{_TOPIC_PATH}/offsets", "describe", "Where each partition begins and ends, as its leader says"),
    Route("describe_election", "GET", _ELECTION_PATH, "describe", "Who leads, and who could: how far each replica reaches", (_TOPIC_ID,)),
    Route("elect_leader", "POST", _ELECTION_PATH, "admin",
          'Let a partition go on that has lost its last complete copy: {"unclean": true, "leader"?}', (_TOPIC_ID,), (JSON,)),
    Route("balance_leaders", "POST", "/v1/cluster/leaders/balance", "admin",
          'Let the first replica of each partition lead it again, where it is in sync: {"topics"?, "dry_run"?}', (), (JSON,)),
    Route("list_moves", "GET", "/v1/reassignments", "describe", "Partitions whose replicas are on the move, and how far that is"),
    Route("move_replicas", "POST", "/v1/reassignments", "admin",
          'Let partitions have other replicas, or let a move go back: {"moves": [{"topic", "partition", "replicas": [brokers] or null}, ...], "dry_run"?}',
          (), (JSON,)),
    Route("plan_moves", "POST", "/v1/reassignments/plan", "admin",
          'What would have to move: {"off"?: [brokers to empty], "onto"?: [brokers], "topic"?, "replication_factor"?, "spread"?}',
          (), (JSON,)),
    Route("brokers", "GET", "/v1/brokers", "describe", "All brokers"),
    Route("remove_broker", "DELETE", "/v1/brokers/{broker}", "admin", "Forget a broker that has no replicas and does not run"),
    Route("cluster", "GET", "/v1/cluster", "describe", "Identity and size of the cluster"),
    Route("health", "GET", "/v1/cluster/health", "describe", "Healthy, or what is wrong"),
    Route("failovers", "GET", "/v1/cluster/failovers", "describe", "Losses of brokers as timelines"),
    Route("events", "GET", "/v1/cluster/events", "describe", "What happened, oldest first; as text/event-stream it goes on",
          _EVENTS, (), (JSON, EVENTS)),
    Route("live", "GET", "/v1/cluster/live", "describe", "What the console shows; as text/event-stream it goes on with what changes",
          (), (), (JSON, EVENTS)),
    Route("check_receipts", "POST", "/v1/receipts/check", "describe",
          'What became of acknowledged records: {"receipts": [{"topic", "partition", "offset", "leader_epoch"}, ...]}',
          (), (JSON,)),
    Route("list_lost", "GET", "/v1/lost", "admin", "Records that this broker has cut from the ends of its logs, and keeps"),
    Route("describe_lost", "GET", _TAIL_PATH, "admin", "One tail of lost records"),
    Route("read_lost", "GET", f"{_TAIL_PATH}/records", "admin", "Read lost records", _LOST, (), (JSON, NDJSON, BATCH)),
    Route("replay_lost", "POST", f"{_TAIL_PATH}/replay", "admin",
          'Write more of the tail again, each record once; ask again until it is "finished": {"into"?, "partition"?, "overwrites"?}',
          (), (JSON,)),
    Route("discard_lost", "DELETE", _TAIL_PATH, "admin", "Remove a tail of lost records for good"),
    Route("list_groups", "GET", "/v1/groups", "describe", "All consumer groups"),
    Route("describe_group", "GET", _GROUP_PATH, "group group", "One group with its members"),
    Route("delete_group", "DELETE", _GROUP_PATH, "group group", "Delete a group without members, and its offsets", (_GROUP_EPOCH,)),
    Route("group_heartbeat", "PUT", f"{_GROUP_PATH}/members/{{member}}", "group group",
          "Join, or stay: says what you own, tells what you are to own", (), (JSON,)),
    Route("leave_group", "DELETE", f"{_GROUP_PATH}/members/{{member}}", "group group", "Leave; frees the member's partitions at once",
          (_MEMBER_EPOCH,)),
    Route("committed_offsets", "GET", f"{_GROUP_PATH}/offsets", "group group", "What the group has committed"),
    Route("commit_offsets", "PUT", f"{_GROUP_PATH}/offsets", "group group", "Commit: all of the request or nothing", (), (JSON,)),
    Route("group_lag", "GET", f"{_GROUP_PATH}/lag", "group group", "How far the group is behind, in records and seconds"),
)  # fmt: skip
ROUTE_NEEDS: Final[Mapping[str, Need]] = {route.name: Need.of_text(route.needs) for route in ROUTES}
BY_NAME: Final[Mapping[str, Route]] = {route.name: route for route in ROUTES}


class _Template(NamedTuple):
    segments: tuple[str, ...]
    methods: dict[str, Route]


def _templates() -> dict[int, list[_Template]]:
    by_path: dict[str, _Template] = {}
    for route in ROUTES:
        template = by_path.setdefault(route.path, _Template(tuple(route.path.split("/")[1:]), {}))
        template.methods[route.method] = route
    by_length: dict[int, list[_Template]] = {}
    for template in by_path.values():
        by_length.setdefault(len(template.segments), []).append(template)
    return by_length


_TEMPLATES: Final = _templates()
_EXACT: Final[Mapping[tuple[str, str], Match]] = {
    (route.method, route.path): Match(route, {}, "", route.path) for route in ROUTES if "{" not in route.path
}


def match(method: str, target: str) -> Match:
    """The route of a raw request target (path and query as sent).

    Raises UnknownRoute, MethodNotAllowed (``info["allow"]``), InvalidRequest, InvalidTopic."""
    found = _EXACT.get((method, target))
    if found is not None:
        return found
    target = http.origin_form(target)
    if target == "*":
        allow = sorted({"HEAD", *(route.method for route in ROUTES)})
        raise MethodNotAllowed(
            f"{http.shown(method)} * is not allowed; allowed on paths: {', '.join(allow)}", allow=allow
        )
    path, _, query = target.partition("?")
    if not path.startswith("/") or "#" in target:
        raise InvalidRequest(
            f"the request target is {http.shown(target)}; it must be a path that begins with /, without #"
        )
    segments = path.split("/")[1:]
    for template in _TEMPLATES.get(len(segments), ()):
        if all(want == seen or want[:1] == "{" for want, seen in zip(template.segments, segments, strict=True)):
            return _matched(template, method, path, segments, query)
    raise UnknownRoute(f"there is no {http.shown(path)}; GET /openapi.json lists every route")


def _matched(template: _Template, method: str, path: str, segments: list[str], query: str) -> Match:
    route = template.methods.get("GET" if method == "HEAD" else method)
    if route is None:
        allow = sorted({*template.methods, *(("HEAD",) if "GET" in template.methods else ())})
        raise MethodNotAllowed(
            f"{http.shown(method)} is not allowed on {http.shown(path)}; allowed: {', '.join(allow)}", allow=allow
        )
    values: dict[str, Any] = {}
    for want, seen in zip(template.segments, segments, strict=True):
        if want[:1] == "{":
            values[want[1:-1]] = _path_value(want[1:-1], seen)
    return Match(route, values, query, path_of(route.name, **values))


def _path_value(name: str, raw: str) -> Any:
    value = http.percent_decoded(name, raw)
    if name in ("partition", "broker"):
        return http.integer(name, value, 0, INT32_MAX)
    text = value.decode("utf-8", "backslashreplace")
    return _NAMES[name](text)


def parse_query(route: Route, query: str) -> dict[str, Any]:
    """The parsed parameters that were given; raises when one is unknown, repeated or malformed."""
    values: dict[str, Any] = {}
    if not query:
        return values
    known = {parameter.name: parameter for parameter in route.query}
    for pair in query.split("&"):
        raw_name, equals, raw_value = pair.partition("=")
        name = http.text("a query parameter's name", http.percent_decoded("a query parameter's name", raw_name))
        parameter = known.get(name)
        if parameter is None:
            allowed = ", ".join(known) or "none"
            raise InvalidRequest(f"query parameter {http.shown(name)} is unknown here; allowed: {allowed}")
        if name in values:
            raise InvalidRequest(f"query parameter {name} is given more than once; give it once")
        if not equals:
            raise InvalidRequest(f"query parameter {name} has no value; write {name}=...")
        values[name] = parameter.parse(name, http.percent_decoded(name, raw_value, plus_is_space=True))
    return values


def path_of(name: str, query: Mapping[str, str | int | bytes] | None = None, **values: str | int) -> str:
    """The request target of a route, for clients and redirects: ``path_of("describe_topic",
    topic="orders")``."""
    path = BY_NAME[name].path
    for key, value in values.items():
        path = path.replace("{" + key + "}", quote(str(value), safe=""))
    assert "{" not in path, f"{name} needs every value of {path}"
    return f"{path}?{urlencode(query)}" if query else path
