"""The HTTP face of a broker: a request comes in, its route's handler turns it into messages, an
answer goes out.

``make_runner`` serves on aiohttp's low-level server with all limits (listener.py). ``make_app`` is
the same behind an ``aiohttp.web.Application``, without the limits on connections and request heads.

Whatever happens, the answer is a problem document with a sentence: no traceback and no HTML leaves
here. A client that goes away does not cancel what it asked to change: a produce is carried out.
What it asked to read is dropped at once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from minilog.broker.figures import Figures
from minilog.broker.http.cluster import admin, console, events, log_level, metadata, moves
from minilog.broker.http.cors import Origins
from minilog.broker.http.exchange import Exchange, Handler, HttpContext, message_answer, problem_answer, redirect
from minilog.broker.http.groups import groups
from minilog.broker.http.records import fetch, lost, native, produce, producer_ids, receipts, topic_tail
from minilog.broker.lost_replays import LostReplays
from minilog.broker.ports import Runtime
from minilog.config import Limits
from minilog.console.live import Live
from minilog.errors import InternalError, MinilogError, NotLeader, TimedOut
from minilog.server.inbound.accepted_connection import Connection
from minilog.server.inbound.answer_delivery import Delivery
from minilog.server.inbound.listener import Listener
from minilog.server.inbound.request_body import RequestBody, refuse_body
from minilog.server.log_level import LOG_LEVEL_BYTES_MAX
from minilog.server.outbound.asker import ASKER
from minilog.server.security.answer_headers import make_safe
from minilog.server.security.gate import Gate
from minilog.wire.http import MSGPACK
from minilog.wire.messages import CreateTopic, Problem
from minilog.wire.routes import ROUTE_NEEDS, ROUTES, Match, match
from minilog.wire.sizes import MESSAGE_BYTES_MAX, SMALLER

log = logging.getLogger("minilog.http")
RequestHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

HANDLERS: Final[Mapping[str, Handler]] = {
    **native.HANDLERS,
    **produce.HANDLERS,
    **producer_ids.HANDLERS,
    **fetch.HANDLERS,
    **topic_tail.HANDLERS,
    **metadata.HANDLERS,
    **admin.HANDLERS,
    **moves.HANDLERS,
    **events.HANDLERS,
    **log_level.HANDLERS,
    **console.HANDLERS,
    **lost.HANDLERS,
    **receipts.HANDLERS,
    **groups.HANDLERS,
}
JSON_BYTES_MAX: Final = {
    "create_topic": SMALLER[CreateTopic],
    "alter_topic": SMALLER[CreateTopic],
    "set_log_level": LOG_LEVEL_BYTES_MAX,
    "group_heartbeat": MESSAGE_BYTES_MAX,
    "commit_offsets": MESSAGE_BYTES_MAX,
}
"""Of bodies that hold no records, for the reason that bounds messages: nothing else goes on while
JSON is decoded."""
OF_METADATA: Final = frozenset(
    [
        "metadata",
        "metadata_copy",
        "list_topics",
        "describe_topic",
        "brokers",
        "cluster",
        "health",
        "failovers",
        "events",
        "live",
        "metrics",
        "metrics_kafka",
        "list_moves",
        "plan_moves",
    ]
)
"""What is answered without the core, which has a gate of its own."""
assert set(HANDLERS) >= OF_METADATA
assert set(HANDLERS) == {route.name for route in ROUTES}, "every route has its handler"


class Server:
    """Dispatches requests. ``handle`` is the handler of the whole HTTP server."""

    def __init__(self, runtime: Runtime, gate: Gate | None = None) -> None:
        """``gate``: the process's own, that of the runtime's settings otherwise."""
        self.context = HttpContext(runtime, gate or Gate(runtime.settings))
        self._origins = Origins(runtime.settings.cors_origins)
        self.context.lost = LostReplays(
            self.context.broker_id,
            runtime.tails,
            lost.HttpCluster(self.context),
            runtime.clock.wall_ms,
            runtime.failure.trip,
        )
        self.context.figures = Figures(runtime, self.context.metrics, self.context.lost)
        self.context.live = Live(console.BrokerSource(self.context))

    def begin_close(self) -> None:
        """Ends live tails. Everything else ends when the runtime closes."""
        self.context.closing = True

    def close(self) -> None:
        """When every handler has ended."""
        self.context.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        delivery = Delivery(request, self.context.answers, self.context.limits)
        answer: web.StreamResponse | None = None
        try:
            answer = await self._cross_origin(request, delivery)
            return await delivery.send(answer)
        finally:
            self.context.gate.leave(request, answer)
            delivery.release()
            connection = request.protocol
            if isinstance(connection, Connection):
                connection.ends_with_it = None

    async def _cross_origin(self, request: web.BaseRequest, delivery: Delivery) -> web.StreamResponse:
        """An answer that scripts of pages may see, where they may."""
        preflight = self._origins.preflight(request)
        if preflight is not None:
            return preflight
        response = await self._answer(request, delivery)
        if not response.prepared:
            response.headers.update(self._origins.headers(request))
            response.headers.update(self.context.gate.headers(request))
            make_safe(response)
        return response

    async def _answer(self, request: web.BaseRequest, delivery: Delivery) -> web.StreamResponse:
        found: Match | None = None
        body: RequestBody | None = None
        exchange: Exchange | None = None
        try:
            self.context.gate.check_target(request)
            found = match(request.method, request.raw_path)
            route, gate = found.route, self.context.gate
            known = gate.admit(request, ROUTE_NEEDS[route.name], found.values)
            ASKER.set(known.principal.name)
            body = self._body(request, found)
            exchange = Exchange(request, found, body, delivery, self._origins.headers(request), gate, known)
            exchange.note_act(ROUTE_NEEDS[route.name].operation, route.name)
            if len(route.offers) == 1 and "Accept" in request.headers:
                exchange.media_out()  # where there is a choice, the handler asks
            if route.method == "GET":
                refuse_body(request)
                exchange.end_with_client()
            if route.name in OF_METADATA:
                await self.context.turn()
            response = await HANDLERS[found.route.name](self.context, exchange)
            if route.method == "GET" and isinstance(response, web.Response):
                delivery.expect(response.content_length or 0)  # what only reads can still be refused
            return response
        except MinilogError as error:
            _check_not_begun(request)
            return self._problem(found, error, is_counted=exchange is not None and exchange.is_counted)
        except ConnectionError:
            raise
        except Exception:
            log.exception("a fault in %s %s", request.method, request.raw_path)
            _check_not_begun(request)
            return self._problem(found, InternalError("a fault inside minilog; the broker's log says more"))
        finally:
            if body is not None:
                body.release()

    def _body(self, request: web.BaseRequest, found: Match) -> RequestBody:
        context = self.context
        if found.route.name == "rpc":
            return RequestBody(request, context.limits, context.peer_requests, 2 * context.limits.request_bytes_max)
        bytes_max = min(
            context.limits.request_bytes_max, JSON_BYTES_MAX.get(found.route.name, context.limits.request_bytes_max)
        )
        return RequestBody(request, context.limits, context.requests, bytes_max)

    def _problem(self, found: Match | None, error: MinilogError, *, is_counted: bool = False) -> web.Response:
        is_native = found is not None and found.route.offers == (MSGPACK,)
        if found is not None and not is_native and isinstance(error, NotLeader):
            there = redirect(found, error)
            if there is not None:
                return there  # no failure: this is how a client finds the leader
        route = "none" if found is None else found.route.name
        self.context.metrics.requests.on_error(route, error.code, is_counted=is_counted)
        if is_native:
            return message_answer(Problem.of(error))
        late_body = isinstance(error, TimedOut) and error.definite
        return problem_answer(error, status=408 if late_body else None)


def _check_not_begun(request: web.BaseRequest) -> None:
    """A live tail that has begun cannot become another answer: its client learns by the connection
    that it is over."""
    if request.writer.output_size > 0:
        raise ConnectionResetError("the answer has begun")


class Runner(web.ServerRunner):
    """A runner (``setup``, sites, ``cleanup``) whose connections are limited. ``begin`` says who
    answers until ``serve``."""

    __slots__ = ("_broker_server", "_handle", "_listener")

    def __init__(self, limits: Limits, shutdown_timeout_s: float, begin: RequestHandler) -> None:
        self._handle = begin
        self._broker_server: Server | None = None
        self._listener = Listener(lambda request: self._handle(request), limits)
        super().__init__(self._listener, shutdown_timeout=shutdown_timeout_s)

    def serve(self, server: Server) -> None:
        server.context.metrics.listener = self._listener
        self._broker_server = server
        self._handle = server.handle

    async def shutdown(self) -> None:
        if self._broker_server is not None:
            self._broker_server.begin_close()

    async def _cleanup_server(self) -> None:
        if self._broker_server is not None:
            self._broker_server.close()


def make_runner(runtime: Runtime, shutdown_timeout_s: float = 1.0) -> web.BaseRunner:
    """Call inside the event loop. Then ``await runner.setup()`` and start a site on it."""
    server = Server(runtime)
    runner = Runner(server.context.limits, shutdown_timeout_s, server.handle)
    runner.serve(server)
    return runner


def make_app(runtime: Runtime) -> web.Application:
    server = Server(runtime)
    app = web.Application()

    async def begin_close(_: web.Application) -> None:
        server.begin_close()

    async def close(_: web.Application) -> None:
        server.close()

    async def expect(_: web.Request) -> None:
        """The body's reader answers Expect, after admission."""

    app.router.add_route("*", "/{path:.*}", server.handle, expect_handler=expect)
    app.on_shutdown.append(begin_close)
    app.on_cleanup.append(close)
    return app
