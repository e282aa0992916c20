"""One request and its answer: what the route handlers are given and what they give back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from minilog.broker.figures import Figures
from minilog.broker.http.records.shared_pages import SharedPages
from minilog.broker.lost_replays import LostReplays
from minilog.broker.metrics.metrics import Metrics
from minilog.broker.ports import Runtime
from minilog.console.live import Live
from minilog.core.access.partitions import Refused
from minilog.core.access.policy import Known
from minilog.core.access.principal import Principal
from minilog.core.image import ClusterImage, TopicImage, check_topic_id
from minilog.core.shares import Shares
from minilog.errors import (
    ERRORS_BY_CODE,
    CoordinatorNotAvailable,
    InternalError,
    LeaderNotAvailable,
    MethodNotAllowed,
    MinilogError,
    NotLeader,
    OffsetNotAvailable,
    Overloaded,
    Throttled,
    Unauthenticated,
    UnknownPartition,
    UnknownTopic,
)
from minilog.server.inbound.accepted_connection import Connection
from minilog.server.inbound.answer_delivery import Answers, Delivery
from minilog.server.inbound.event_stream import EventStream
from minilog.server.inbound.request_body import RequestBody, Requests
from minilog.server.inbound.request_gate import RequestGate
from minilog.server.security.answer_headers import ASK_FOR_TOKEN, SAFE, retry_after_s
from minilog.server.security.gate import Gate
from minilog.wire import http
from minilog.wire.http import JSON, MSGPACK, PROBLEM, problem_body
from minilog.wire.journal.metadata_records import NO_LEADER, PartitionChanged
from minilog.wire.json.json_answers import plain
from minilog.wire.messages import Message, Problem, encode
from minilog.wire.needs import Operation
from minilog.wire.routes import Match, parse_query

T = TypeVar("T")
Reply = TypeVar("Reply", bound=Message)
SERVER: Final = "minilog"
EVENT_STREAMS_MAX: Final = 200
"""As many followers of events as one broker has. A client has as many as are free."""
THREAD_BYTES_MIN: Final = 32 * 1024
"""The worst JSON of this size, all tiny records, keeps the event loop for some 15 ms. Of batches
only when they are not compressed."""
RETRY_LATER: Final = (Throttled, Overloaded, LeaderNotAvailable, OffsetNotAvailable, CoordinatorNotAvailable)


class HttpContext:
    """What all handlers share."""

    lost: LostReplays
    figures: Figures
    live: Live
    """These are set by the server, for they need this."""

    def __init__(self, runtime: Runtime, gate: Gate) -> None:
        limits = runtime.settings.limits
        self.runtime = runtime
        self.gate = gate
        self.limits = limits
        self.broker_id = runtime.settings.broker_id
        self.metrics = Metrics(runtime, gate)
        self.requests = Requests("request bodies", limits.inflight_bytes_max)
        self.peer_requests = Requests("request bodies of peers", limits.inflight_bytes_max)
        self.answers = Answers(limits.inflight_bytes_max)
        self.closing = False
        self.rotation = 0
        """Where the next unkeyed request looks for a partition first."""
        self.pages = SharedPages()
        """Of live tails."""
        self.streams = Shares(EVENT_STREAMS_MAX)
        """Of events: each wakes with every change of the metadata."""
        self._pages = ThreadPoolExecutor(1, thread_name_prefix="pages")
        self._gate = RequestGate(limits.turn_wait_ms_max)

    async def turn(self) -> None:
        """Wait until this round of the loop, or a later one, has time for what is answered without
        the core (R45): a list of many partitions takes as long as a hundred reads. Raises
        Overloaded."""
        turn = self._gate.knock("metadata")
        if turn is not None:
            await turn

    async def compute(self, work: Callable[[], T], *, is_long: bool) -> T:
        """Run pure ``work``. In a thread, one at a time, when it is long, so that heartbeats go on
        meanwhile."""
        if not is_long:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._pages, work)

    def close(self) -> None:
        """Once no handler is left."""
        self._pages.shutdown(wait=False)
        self.lost.close()

    @property
    def image(self) -> ClusterImage:
        """The metadata; raises LeaderNotAvailable before this process has learnt it, so that no
        answer denies what exists."""
        if not self.runtime.core.informed:
            raise LeaderNotAvailable(
                f"broker {self.broker_id} has just started and does not know the cluster yet; retry shortly or ask another"
            )
        return self.runtime.image

    def topic(self, name: str, topic_id: str = "") -> TopicImage:
        """The topic of that name, which must be the one meant if an id is given."""
        found = self.image.topics.get(name)
        if found is None:
            raise UnknownTopic(f"there is no topic {name!r}; POST /v1/topics creates one", topic=name)
        check_topic_id(name, topic_id, found.topic_id)
        return found

    def partition(self, name: str, partition: int, topic_id: str = "") -> PartitionChanged:
        topic = self.topic(name, topic_id)
        state = topic.partitions.get(partition)
        if state is None:
            raise UnknownPartition(
                f"topic {name} has partitions 0 to {len(topic.partitions) - 1}, not {partition}",
                topic=name,
                partition=partition,
            )
        return state

    def not_leader(self, state: PartitionChanged) -> NotLeader:
        """The error that sends a client on; raises LeaderNotAvailable when there is nowhere to
        go."""
        url = self.leader_url(state)
        detail = (
            f"{state.topic}-{state.partition} is led by broker {state.leader} at {url}, not by broker {self.broker_id}"
        )
        return NotLeader(detail, leader=state.leader, leader_url=url, leader_epoch=state.leader_epoch)

    def leader_url(self, state: PartitionChanged) -> str:
        """Raises LeaderNotAvailable when nobody leads, or nobody knows where."""
        broker = self.runtime.image.brokers.get(state.leader)
        if state.leader == NO_LEADER or broker is None:
            raise LeaderNotAvailable(
                f"{state.topic}-{state.partition} has no leader at the moment; retry shortly",
                topic=state.topic,
                partition=state.partition,
            )
        return broker.url


class Exchange:
    """One request. ``values`` are from the path, ``query`` from the query string: both parsed and
    checked."""

    __slots__ = ("_gate", "body", "cors_headers", "delivery", "is_counted", "known", "match", "query", "request")

    def __init__(
        self,
        request: web.BaseRequest,
        match: Match,
        body: RequestBody,
        delivery: Delivery,
        cors_headers: Mapping[str, str],
        gate: Gate,
        known: Known,
    ) -> None:
        self.request = request
        self._gate = gate
        self.known = known
        self.cors_headers = cors_headers
        self.match = match
        self.query = parse_query(match.route, match.query)
        self.body = body
        self.delivery = delivery
        self.is_counted = False
        """What became of it at its partitions is in the metrics."""

    def end_with_client(self) -> None:
        """The handler is cancelled when its client leaves: for what changes nothing, or will be
        asked again.

        Call it once the body has been read: nobody sees a client leave that has more of it to
        send."""
        connection = self.request.protocol
        if isinstance(connection, Connection):
            connection.end_with_client(asyncio.current_task())

    def vouch(self, *, is_clusters: bool) -> None:
        """As ``Connection``."""
        connection = self.request.protocol
        if isinstance(connection, Connection):
            connection.vouch(is_clusters=is_clusters)

    @property
    def principal(self) -> Principal:
        """Who asks."""
        return self.known.principal

    def permit(self, message: Message) -> None:
        """Raises Forbidden. For every message that was made of what a client has sent."""
        self._gate.permit(self.request, self.principal, message)

    def permit_inner(self, envelope: Message, inner: Message) -> None:
        """Of what a broker has passed on: with the rights of who has asked. Raises Forbidden."""
        self._gate.permit(self.request, self.asker(envelope), inner)

    def asker(self, message: Message) -> Principal:
        """Whose rights count for a message: a broker passes on what others have asked."""
        return self._gate.asker(self.request, self.principal, message)

    def note_refusals(self, message: Message, refused: Refused) -> None:
        self._gate.note_refusals(self.request, message, refused)

    def note_act(self, operation: Operation, what: str) -> None:
        self._gate.note_act(self.request, self.principal, operation, what)

    @property
    def values(self) -> dict[str, Any]:
        return self.match.values

    @property
    def is_of_a_page(self) -> bool:
        """A page asks, and cannot follow a redirect: one of another origin that may, or the
        console, which says so."""
        is_allowed = "Origin" in self.request.headers and "Access-Control-Allow-Origin" in self.cors_headers
        return is_allowed or self.query.get("elsewhere") == "ask"

    @property
    def topic_id(self) -> str:
        """Which topic of its name the client means; "" when it does not say."""
        return str(self.query.get("topic_id", ""))

    def media_in(self) -> str:
        """The media type of the body; raises UnsupportedMediaType."""
        return http.content_type(self.request.headers.get("Content-Type"), self.match.route.accepts)

    def media_out(self) -> str:
        """The media type of the answer; raises NotAcceptable."""
        return http.accepted(self.request.headers.get("Accept"), self.match.route.offers)

    def event_stream(self, media: str = http.EVENTS) -> EventStream:
        return EventStream(self.request, self.delivery, {"Server": SERVER, **SAFE, **self.cors_headers}, media)


Handler = Callable[[HttpContext, Exchange], Awaitable[web.StreamResponse]]


def answer(body: bytes, media: str, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    names = {"Content-Type": media, "Server": SERVER}
    if headers:
        names.update(headers)
    return web.Response(body=body, status=status, headers=names)


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """``value``: a struct of wire/json_answers or of the native protocol, or the document of
    /openapi.json."""
    return answer(msgspec.json.encode(plain(value)), JSON, status, headers)


def message_answer(message: Message) -> web.Response:
    """A native answer. A Problem carries its status as well."""
    if not isinstance(message, Problem):
        return answer(encode(message), MSGPACK)
    cls = ERRORS_BY_CODE.get(message.code, InternalError)
    headers = {"Retry-After": str(retry_after_s(message.info))} if issubclass(cls, RETRY_LATER) else {}
    if issubclass(cls, Unauthenticated):
        headers |= ASK_FOR_TOKEN
    return answer(encode(message), MSGPACK, cls.http_status, headers)


def problem_answer(
    error: MinilogError,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> web.Response:
    """``body``: the error's document, when it is already made."""
    names = dict(headers or {})
    if isinstance(error, RETRY_LATER):
        names["Retry-After"] = str(retry_after_s(error.info))
    if isinstance(error, Unauthenticated):
        names |= ASK_FOR_TOKEN
    if isinstance(error, MethodNotAllowed):
        names["Allow"] = ", ".join(error.info.get("allow", ()))
    if body is None:
        body = problem_body(error, status)
    return answer(body, PROBLEM, error.http_status if status is None else status, names)


def checked(reply: Message, wanted: type[Reply]) -> Reply:
    """An answer of the core, the coordinator or the controller as what it should be; raises the
    error it stands for."""
    if isinstance(reply, Problem):
        raise reply.error()
    if not isinstance(reply, wanted):
        raise InternalError(
            f"the answer was a {type(reply).__name__}, not a {wanted.__name__}; the broker's log says more"
        )
    return reply


def redirect(match: Match, error: NotLeader) -> web.Response | None:
    """307 to the same path and query on the leader. Its URL comes from the metadata, never from the
    request."""
    url = error.info.get("leader_url")
    if not isinstance(url, str):
        return None
    query = f"?{match.query}" if match.query else ""
    return problem_answer(error, status=307, headers={"Location": url.rstrip("/") + match.path + query})
