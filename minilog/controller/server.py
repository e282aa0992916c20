"""The controller's HTTP face: one route for messages, and what people and monitoring ask."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
from aiohttp import web
from msgspec.structs import replace

from minilog.controller.console import Console
from minilog.controller.metrics import Metrics
from minilog.controller.openapi import encoded_document
from minilog.controller.runtime import Runtime
from minilog.errors import (
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    MinilogError,
    Throttled,
    TimedOut,
    Unauthenticated,
    UnknownRoute,
    UnsupportedMediaType,
)
from minilog.server.exposition import CONTENT_TYPE
from minilog.server.inbound.accepted_connection import Connection
from minilog.server.inbound.answer_delivery import Answers, Delivery
from minilog.server.inbound.listener import Listener
from minilog.server.inbound.request_body import RequestBody, Requests, refuse_body
from minilog.server.log_level import LOG_LEVEL_BYTES_MAX, changed_level, shown_level
from minilog.server.security.answer_headers import ASK_FOR_TOKEN, make_safe, retry_after_s
from minilog.server.security.gate import Gate
from minilog.wire.admin_messages import PlanReplicas
from minilog.wire.http import EVENTS, HTML, JSON, MSGPACK, PROBLEM, TEXT, accepted, origin_form, problem_body, shown
from minilog.wire.messages import (
    CLUSTER_MESSAGES,
    AllocateProducerIds,
    AlterPartition,
    ClaimLost,
    DescribeCluster,
    DescribeClusterReply,
    Heartbeat,
    Metadata,
    NotAMessage,
    PersonsChange,
    Problem,
    Register,
    StandBy,
    decode,
    encode,
)
from minilog.wire.needs import Need, need_of
from minilog.wire.sizes import check_size

log = logging.getLogger("minilog.http")

ANSWERED = (
    PersonsChange,
    PlanReplicas,
    ClaimLost,
    Register,
    Heartbeat,
    AlterPartition,
    AllocateProducerIds,
    DescribeCluster,
    Metadata,
)
Handler = Callable[[web.BaseRequest, Delivery], Awaitable[web.StreamResponse]]


class Place(NamedTuple):
    """What one method of a path needs (wire/needs.py), offers, and is answered by."""

    needs: str
    offers: tuple[str, ...]
    handler: Handler

    @property
    def need(self) -> Need:
        return Need.of_text(self.needs)


class Server:
    """``handle`` is the handler of the whole HTTP server, ``runner`` what listens."""

    def __init__(self, runtime: Runtime, gate: Gate | None = None) -> None:
        """``gate``: the process's own, that of the runtime's settings otherwise."""
        self.gate = gate or Gate(runtime.settings)
        limits = runtime.settings.limits
        self._runtime = runtime
        self._limits = limits
        self._requests = Requests("request bodies", limits.inflight_bytes_max)
        self._answers = Answers(limits.inflight_bytes_max)
        # A dropped connection must reach ``runtime.submit`` at once, so handlers are cancelled with
        # it.
        self.listener = Listener(self.handle, limits, handler_cancellation=True)
        self._metrics = Metrics(runtime, self.listener, self.gate)
        self._console = Console(runtime, self._describe)
        self.places: dict[str, dict[str, Place]] = {
            "/internal/rpc": {"POST": Place("message", (MSGPACK,), self._rpc)},
            "/": {"GET": Place("describe", (JSON, HTML), self._console.root)},
            "/healthz": {"GET": Place("public", (TEXT,), self._healthz)},
            "/readyz": {"GET": Place("public", (TEXT,), self._readyz)},
            "/metrics": {"GET": Place("metrics", (TEXT,), self._exposition)},
            "/metrics/kafka": {"GET": Place("metrics", (TEXT,), self._kafka_exposition)},
            "/v1/cluster": {"GET": Place("describe", (JSON,), self._cluster)},
            "/v1/cluster/live": {"GET": Place("describe", (JSON, EVENTS), self._console.live)},
            "/v1/loglevel": {
                "GET": Place("describe", (JSON,), self._log_level),
                "PUT": Place("admin", (JSON,), self._set_log_level),
            },
            "/openapi.json": {"GET": Place("public", (JSON,), self._openapi)},
        }

    def runner(self, shutdown_timeout_s: float) -> web.ServerRunner:
        return web.ServerRunner(self.listener, shutdown_timeout=shutdown_timeout_s)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Every failure leaves as a problem document. Of a bug only its existence."""
        delivery = Delivery(request, self._answers, self._limits)
        answer: web.StreamResponse | None = None
        try:
            answer = await self._answer(request, delivery)
            if not answer.prepared:
                answer.headers.update(self.gate.headers(request))
                make_safe(answer)
            return await delivery.send(answer)
        finally:
            self.gate.leave(request, answer)
            delivery.release()

    async def _answer(self, request: web.BaseRequest, delivery: Delivery) -> web.StreamResponse:
        try:
            self.gate.check_target(request)
            place = self._place(request)
            known = self.gate.admit(request, place.need, {})
            self.gate.note_act(request, known.principal, place.need.operation, place.needs)
            accepted(request.headers.get("Accept"), place.offers)
            if request.method in ("GET", "HEAD"):
                refuse_body(request)
            return await place.handler(request, delivery)
        except MinilogError as error:
            _check_not_begun(request)
            return _problem(error)
        except ConnectionError:
            raise
        except Exception:
            log.exception("%s %s failed", request.method, shown(request.raw_path))
            _check_not_begun(request)
            return _problem(InternalError("the controller failed at this request; its log says why"))

    def _place(self, request: web.BaseRequest) -> Place:
        path = origin_form(request.raw_path).partition("?")[0]
        if path == "*":
            allow = "GET, HEAD, POST, PUT"
            raise MethodNotAllowed(f"{shown(request.method)} * is not allowed; ask for a path", allow=allow)
        if path not in self.places:
            raise UnknownRoute(f"there is nothing at {shown(path)} on a controller; see {', '.join(self.places)}")
        methods = self.places[path]
        found = methods.get("GET" if request.method == "HEAD" else request.method)
        if found is None:
            allow = ", ".join(sorted({*methods, *(("HEAD",) if "GET" in methods else ())}))
            raise MethodNotAllowed(f"{shown(request.method)} is not for {path}; allowed: {allow}", allow=allow)
        return found

    def _body(self, request: web.BaseRequest, media: str, bytes_max: int) -> RequestBody:
        if request.content_type != media:
            raise UnsupportedMediaType(f"Content-Type is {shown(request.content_type)}; allowed: {media}")
        return RequestBody(request, self._limits, self._requests, bytes_max)

    async def _rpc(self, request: web.BaseRequest, _: Delivery) -> web.Response:
        body = self._body(request, MSGPACK, self._limits.request_bytes_max)
        try:
            content = await body.read()
            check_size(content)
            message = decode(content)
            principal = self.gate.principal_of(request)
            self.gate.permit(request, principal, message)
            connection = request.protocol
            assert isinstance(connection, Connection)
            connection.vouch(is_clusters=isinstance(message, CLUSTER_MESSAGES))
            if isinstance(message, StandBy):
                return web.Response(body=encode(await self._runtime.hold(message)), content_type=MSGPACK)
            if not isinstance(message, ANSWERED):
                raise InvalidRequest(f"a controller does not answer {type(message).__name__}; send it to a broker")
            if isinstance(message, PersonsChange):
                need = need_of(message)
                assert need is not None, "it was permitted"
                self.gate.note_act(request, principal, need.operation, type(message).__name__)
                if not message.asked_by:
                    message = replace(message, asked_by=f"{request.remote or 'an unknown address'} without any broker")
            return web.Response(body=encode(await self._runtime.submit(message)), content_type=MSGPACK)
        except NotAMessage as error:
            raise InvalidRequest(f"the body is not one message in msgpack: {error}") from None
        finally:
            body.release()

    async def _healthz(self, _: web.BaseRequest, __: Delivery) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.BaseRequest, __: Delivery) -> web.Response:
        stands_by = self._runtime.standing_by is not None
        decides = self._runtime.started and self._runtime.decides
        ready = (decides or stands_by) and not self._runtime.failure.tripped
        text = "standing by\n" if stands_by else "ready\n"
        return web.Response(text=text if ready else "not ready\n", status=200 if ready else 503)

    async def _cluster(self, _: web.BaseRequest, __: Delivery) -> web.Response:
        return web.Response(body=msgspec.json.encode(await self._describe()), content_type=JSON)

    async def _log_level(self, _: web.BaseRequest, __: Delivery) -> web.Response:
        level = shown_level(self._runtime.settings.log_level)
        return web.Response(body=msgspec.json.encode(level), content_type=JSON)

    async def _set_log_level(self, request: web.BaseRequest, _: Delivery) -> web.Response:
        body = self._body(request, JSON, LOG_LEVEL_BYTES_MAX)
        try:
            asked_by = request.remote or "an unknown address"
            level = changed_level(await body.read(), self._runtime.settings.log_level, asked_by)
        finally:
            body.release()
        return web.Response(body=msgspec.json.encode(level), content_type=JSON)

    async def _openapi(self, _: web.BaseRequest, __: Delivery) -> web.Response:
        return web.Response(body=encoded_document(), content_type=JSON)

    async def _exposition(self, _: web.BaseRequest, __: Delivery) -> web.Response:
        body = await self._metrics.exposition(await self._as_known())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _kafka_exposition(self, _: web.BaseRequest, __: Delivery) -> web.Response:
        body = await self._metrics.kafka_exposition(await self._as_known())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _as_known(self) -> DescribeClusterReply:
        """For who watches this process, whether it decides or not."""
        if self._runtime.decides:
            return await self._describe()
        reply = self._runtime.own_view()
        assert isinstance(reply, DescribeClusterReply)
        return reply

    async def _describe(self) -> DescribeClusterReply:
        runtime = self._runtime
        reply = runtime.own_view() if runtime.standing_by is not None else await runtime.submit(DescribeCluster())
        if isinstance(reply, Problem):
            raise reply.error()
        assert isinstance(reply, DescribeClusterReply), f"DescribeCluster was answered by {type(reply).__name__}"
        return reply


def _check_not_begun(request: web.BaseRequest) -> None:
    """A stream that has begun cannot become another answer: its client learns by the connection
    that it is over."""
    if request.writer.output_size > 0:
        raise ConnectionResetError("the answer has begun")


def _problem(error: MinilogError) -> web.Response:
    late_body = isinstance(error, TimedOut) and error.definite
    headers = {"Allow": error.info["allow"]} if isinstance(error, MethodNotAllowed) else {}
    if isinstance(error, Unauthenticated):
        headers |= ASK_FOR_TOKEN
    if isinstance(error, Throttled):
        headers["Retry-After"] = str(retry_after_s(error.info))
    status = 408 if late_body else error.http_status
    return web.Response(status=status, body=problem_body(error, status), content_type=PROBLEM, headers=headers)
