"""The HTTP face of a broker: a request comes in, its route's handler turns it into messages, an answer goes out.

``make_runner`` serves on aiohttp's low-level server with all limits (listener.py). ``make_app`` is the same
behind an ``aiohttp.web.Application``, without the limits on connections and request heads.

Whatever happens, the answer is a problem document with a sentence: no traceback and no HTML leaves here. A client
that goes away does not cancel what it asked for: a produce is carried out, a parked fetch ends by its deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from minilog.broker import (
    admin_routes,
    fetch_routes,
    group_routes,
    metadata_routes,
    native_routes,
    produce_routes,
    producer_routes,
)
from minilog.broker.admission import Body
from minilog.broker.exchange import Exchange, Face, Handler, message_answer, problem_answer, redirect
from minilog.broker.listener import Listener
from minilog.broker.ports import Runtime
from minilog.errors import InternalError, MinilogError, NotLeader, TimedOut
from minilog.wire.http import MSGPACK
from minilog.wire.messages import Problem
from minilog.wire.routes import ROUTES, Match, match

log = logging.getLogger("minilog.http")

HANDLERS: Final[Mapping[str, Handler]] = {
    **native_routes.HANDLERS,
    **produce_routes.HANDLERS,
    **producer_routes.HANDLERS,
    **fetch_routes.HANDLERS,
    **metadata_routes.HANDLERS,
    **admin_routes.HANDLERS,
    **group_routes.HANDLERS,
}
assert set(HANDLERS) == {route.name for route in ROUTES}, "every route has its handler"


class Server:
    """Dispatches requests; ``handle`` is the handler of the whole HTTP server."""

    def __init__(self, runtime: Runtime) -> None:
        self.face = Face(runtime)

    def close(self) -> None:
        """Ends live tails; everything else ends when the runtime closes."""
        self.face.closing = True

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        response: web.StreamResponse
        found: Match | None = None
        body: Body | None = None
        try:
            found = match(request.method, request.raw_path)
            body = self._body(request, found)
            exchange = Exchange(request, found, body)
            response = await HANDLERS[found.route.name](self.face, exchange)
        except MinilogError as error:
            response = self._problem(found, error)
        except ConnectionError:
            raise
        except Exception:
            log.exception("a fault in %s %s", request.method, request.raw_path)
            response = self._problem(found, InternalError("a fault inside minilog; the broker's log says more"))
        finally:
            if body is not None:
                body.release()
        return await self._send(request, response)

    def _body(self, request: web.BaseRequest, found: Match) -> Body:
        face = self.face
        if found.route.name == "rpc":
            return Body(request, face.limits, face.peer_requests, 2 * face.limits.request_bytes_max)
        return Body(request, face.limits, face.requests, face.limits.request_bytes_max)

    def _problem(self, found: Match | None, error: MinilogError) -> web.Response:
        self.face.metrics.on_error("none" if found is None else found.route.name, error.code)
        if found is not None and found.route.offers == (MSGPACK,):
            return message_answer(Problem.of(error))
        if found is not None and isinstance(error, NotLeader) and (there := redirect(found, error)) is not None:
            return there
        late_body = isinstance(error, TimedOut) and error.definite
        return problem_answer(error, status=408 if late_body else None)

    async def _send(self, request: web.BaseRequest, response: web.StreamResponse) -> web.StreamResponse:
        """Write the answer; a client that does not take it in time loses its connection."""
        size = response.content_length or 0
        transport = request.transport
        if transport is None:
            return response
        if not request.content.is_eof() and "Expect" in request.headers:
            response.force_close()  # whether the body will still come is unknown
        limits = self.face.limits
        allowance_s = max(limits.response_write_ms / 1000, size / limits.body_bytes_per_second_min)
        timer = asyncio.get_running_loop().call_later(allowance_s, transport.abort)
        self.face.answers.used_bytes += size  # whether there is room was asked where refusing was still possible
        try:
            await response.prepare(request)
            await response.write_eof()
        finally:
            self.face.answers.give_back(size)
            timer.cancel()
        return response


class Runner(web.ServerRunner):
    """A runner (``setup``, sites, ``cleanup``) whose connections are limited."""

    __slots__ = ("_broker_server",)

    def __init__(self, server: Server, shutdown_timeout_s: float) -> None:
        listener = Listener(server.handle, server.face.limits)
        server.face.metrics.listener = listener
        super().__init__(listener, shutdown_timeout=shutdown_timeout_s)
        self._broker_server = server

    async def shutdown(self) -> None:
        self._broker_server.close()


def make_runner(runtime: Runtime, shutdown_timeout_s: float = 1.0) -> web.BaseRunner:
    """Call inside the event loop; then ``await runner.setup()`` and start a site on it."""
    return Runner(Server(runtime), shutdown_timeout_s)


def make_app(runtime: Runtime) -> web.Application:
    server = Server(runtime)
    app = web.Application()

    async def close(_: web.Application) -> None:
        server.close()

    async def expect(_: web.Request) -> None:
        """The body's reader answers Expect, after admission."""

    app.router.add_route("*", "/{path:.*}", server.handle, expect_handler=expect)
    app.on_shutdown.append(close)
    return app
