"""The controller's HTTP face: one route for messages, and what people and monitoring ask."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from minilog.controller.metrics import Metrics
from minilog.controller.runtime import Runtime
from minilog.errors import (
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    MinilogError,
    TimedOut,
    UnknownRoute,
    UnsupportedMediaType,
)
from minilog.server.answer_delivery import Answers, Delivery
from minilog.server.listener import Listener
from minilog.server.request_body import RequestBody, Requests, refuse_body
from minilog.wire.http import JSON, MSGPACK, PROBLEM, TEXT, accepted, problem_body, shown
from minilog.wire.messages import (
    AddPartitions,
    AllocateProducerIds,
    AlterPartition,
    CreateTopic,
    DeleteTopic,
    DescribeCluster,
    DescribeClusterReply,
    Heartbeat,
    Message,
    Metadata,
    NotAMessage,
    Problem,
    Register,
    decode,
    encode,
)
from minilog.wire.sizes import check_size

log = logging.getLogger("minilog.http")

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
ANSWERED = (
    AddPartitions,
    Register,
    Heartbeat,
    AlterPartition,
    CreateTopic,
    DeleteTopic,
    AllocateProducerIds,
    DescribeCluster,
    Metadata,
)
Handler = Callable[[web.BaseRequest], Awaitable[web.Response]]


class Server:
    """``handle`` is the handler of the whole HTTP server, ``runner`` what listens."""

    def __init__(self, runtime: Runtime) -> None:
        limits = runtime.settings.limits
        self._runtime = runtime
        self._limits = limits
        self._requests = Requests("request bodies", limits.inflight_bytes_max)
        self._answers = Answers(limits.inflight_bytes_max)
        # A dropped connection must reach ``runtime.submit`` at once, so handlers are cancelled with
        # it.
        self.listener = Listener(self.handle, limits, handler_cancellation=True)
        self._metrics = Metrics(runtime, self.listener)
        self._handlers: dict[str, tuple[str, str, Handler]] = {
            "/internal/rpc": ("POST", MSGPACK, self._rpc),
            "/healthz": ("GET", TEXT, self._healthz),
            "/readyz": ("GET", TEXT, self._readyz),
            "/metrics": ("GET", TEXT, self._exposition),
            "/v1/cluster": ("GET", JSON, self._cluster),
        }

    def runner(self, shutdown_timeout_s: float) -> web.ServerRunner:
        return web.ServerRunner(self.listener, shutdown_timeout=shutdown_timeout_s)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Every failure leaves as a problem document. Of a bug only its existence."""
        delivery = Delivery(request, self._answers, self._limits)
        try:
            return await delivery.send(await self._answer(request))
        finally:
            delivery.release()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        try:
            handler = self._handler(request)
            if handler != self._rpc:
                refuse_body(request)
            return await handler(request)
        except MinilogError as error:
            return _problem(error)
        except ConnectionError:
            raise
        except Exception:
            log.exception("%s %s failed", request.method, shown(request.raw_path))
            return _problem(InternalError("the controller failed at this request; its log says why"))

    def _handler(self, request: web.BaseRequest) -> Handler:
        path = request.raw_path.partition("?")[0]
        if path not in self._handlers:
            raise UnknownRoute(f"there is nothing at {shown(path)} on a controller; see {', '.join(self._handlers)}")
        method, media, handler = self._handlers[path]
        if request.method not in (method, "HEAD" if method == "GET" else method):
            raise MethodNotAllowed(f"{shown(request.method)} is not for {path}; allowed: {method}", allow=method)
        accepted(request.headers.get("Accept"), (media,))
        return handler

    async def _rpc(self, request: web.BaseRequest) -> web.Response:
        if request.content_type != MSGPACK:
            raise UnsupportedMediaType(f"Content-Type is {shown(request.content_type)}; allowed: {MSGPACK}")
        body = RequestBody(request, self._limits, self._requests, self._limits.request_bytes_max)
        try:
            content = await body.read()
            check_size(content)
            message = decode(content)
            if not isinstance(message, ANSWERED):
                raise InvalidRequest(f"a controller does not answer {type(message).__name__}; send it to a broker")
            return web.Response(body=encode(await self._runtime.submit(message)), content_type=MSGPACK)
        except NotAMessage as error:
            raise InvalidRequest(f"the body is not one message in msgpack: {error}") from None
        finally:
            body.release()

    async def _healthz(self, _: web.BaseRequest) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.BaseRequest) -> web.Response:
        ready = self._runtime.started and not self._runtime.failure.tripped
        return web.Response(text="ready\n" if ready else "not ready\n", status=200 if ready else 503)

    async def _cluster(self, _: web.BaseRequest) -> web.Response:
        return web.Response(body=msgspec.json.encode(await self._describe()), content_type=JSON)

    async def _exposition(self, _: web.BaseRequest) -> web.Response:
        body = self._metrics.exposition(await self._describe())
        return web.Response(body=body, headers={"Content-Type": EXPOSITION})

    async def _describe(self) -> DescribeClusterReply:
        reply: Message = await self._runtime.submit(DescribeCluster())
        if isinstance(reply, Problem):
            raise reply.error()
        assert isinstance(reply, DescribeClusterReply), f"DescribeCluster was answered by {type(reply).__name__}"
        return reply


def _problem(error: MinilogError) -> web.Response:
    late_body = isinstance(error, TimedOut) and error.definite
    headers = {"Allow": error.info["allow"]} if isinstance(error, MethodNotAllowed) else {}
    status = 408 if late_body else error.http_status
    return web.Response(status=status, body=problem_body(error, status), content_type=PROBLEM, headers=headers)
