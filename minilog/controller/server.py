"""The controller's HTTP face: one route for messages, and what people and monitoring ask."""

from __future__ import annotations

import asyncio
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
    RequestTooLarge,
    TimedOut,
    UnknownRoute,
    UnsupportedMediaType,
)
from minilog.wire.http import JSON, MSGPACK, PROBLEM, problem_body
from minilog.wire.messages import (
    AllocateProducerIds,
    AlterPartition,
    CreateTopic,
    DeleteTopic,
    DescribeCluster,
    DescribeClusterReply,
    Heartbeat,
    Message,
    Metadata,
    Problem,
    Register,
    decode,
    encode,
)

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
ANSWERED = (
    Register,
    Heartbeat,
    AlterPartition,
    CreateTopic,
    DeleteTopic,
    AllocateProducerIds,
    DescribeCluster,
    Metadata,
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(runtime: Runtime) -> web.Application:
    """Serve it with ``handler_cancellation=True``: a dropped connection must reach ``runtime.submit`` at once."""
    app = web.Application(middlewares=[_problems], client_max_size=runtime.settings.limits.request_bytes_max)
    face = _Face(runtime)
    app.router.add_post("/internal/rpc", face.rpc)
    app.router.add_get("/healthz", face.healthz)
    app.router.add_get("/readyz", face.readyz)
    app.router.add_get("/metrics", face.metrics)
    app.router.add_get("/v1/cluster", face.cluster)
    return app


class _Face:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._metrics = Metrics(runtime)

    async def rpc(self, request: web.Request) -> web.Response:
        if request.content_type != MSGPACK:
            raise UnsupportedMediaType(f"Content-Type is {request.content_type!r}; allowed: {MSGPACK}")
        try:
            message = decode(await self._body(request))
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"the body is not one message: {error}") from None
        if not isinstance(message, ANSWERED):
            raise InvalidRequest(f"a controller does not answer {type(message).__name__}; send it to a broker")
        return web.Response(body=encode(await self._runtime.submit(message)), content_type=MSGPACK)

    async def _body(self, request: web.Request) -> bytes:
        """The whole body, within its limits of size and time."""
        limits = self._runtime.settings.limits
        if (request.content_length or 0) > limits.request_bytes_max:
            raise _too_large(limits.request_bytes_max)
        try:
            async with asyncio.timeout(limits.body_read_ms / 1000):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise _too_large(limits.request_bytes_max) from None
        except TimeoutError:
            raise TimedOut(f"the body did not arrive within {limits.body_read_ms} ms", definite=True) from None

    async def healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(self, _: web.Request) -> web.Response:
        ready = self._runtime.started and not self._runtime.failure.tripped
        return web.Response(text="ready\n" if ready else "not ready\n", status=200 if ready else 503)

    async def cluster(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(await self._describe()), content_type=JSON)

    async def metrics(self, _: web.Request) -> web.Response:
        body = self._metrics.exposition(await self._describe())
        return web.Response(body=body, headers={"Content-Type": EXPOSITION})

    async def _describe(self) -> DescribeClusterReply:
        reply: Message = await self._runtime.submit(DescribeCluster())
        if isinstance(reply, Problem):
            raise reply.error()
        assert isinstance(reply, DescribeClusterReply), f"DescribeCluster was answered by {type(reply).__name__}"
        return reply


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure leaves as a problem document; of a bug only its existence."""
    try:
        return await handler(request)
    except MinilogError as error:
        return _problem(error)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return _problem(MethodNotAllowed(f"{request.method} is not for {request.path!r}; allowed: {allowed}"), allowed)
    except web.HTTPNotFound:
        return _problem(UnknownRoute(f"there is nothing at {request.path!r} on a controller"))
    except Exception:
        request.app.logger.exception("%s %s failed", request.method, request.path)
        return _problem(InternalError("the controller failed at this request; its log says why"))


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"the body is larger than {limit} bytes (limits.request_bytes_max)")


def _problem(error: MinilogError, allow: str | None = None) -> web.Response:
    headers = {} if allow is None else {"Allow": allow}
    return web.Response(status=error.http_status, body=problem_body(error), content_type=PROBLEM, headers=headers)
