"""What a broker answers while it checks its logs: that it is alive, how far it is, and that nothing
else is to be had yet.

The controller's probe is answered too, with the incarnation of this process: the process it asks
about is another one and has gone, which the controller may believe at once ("replaced"). So to
listen early hides no death, and "refused" still means that no process is there. Everything else is
refused as by a broker that does not know the cluster yet: definitely, with the advice to come again
or to ask another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from aiohttp import web

from minilog.broker.http.exchange import json_answer, message_answer, problem_answer
from minilog.config import Limits
from minilog.core.access.principal import Principal
from minilog.errors import LeaderNotAvailable, MinilogError
from minilog.server.inbound.answer_delivery import Answers, Delivery
from minilog.server.inbound.request_body import RequestBody, Requests
from minilog.server.security.gate import Gate
from minilog.storage.store import Checked
from minilog.wire.http import MSGPACK
from minilog.wire.json.json_answers import Alive, LogsChecked, Readiness
from minilog.wire.messages import Message, NotAMessage, Probe, ProbeReply, Problem, decode
from minilog.wire.routes import ROUTE_NEEDS, Match, match

PROBE_BYTES_MAX: Final = 16 * 1024


class Recovering:
    """``handle`` is the handler of the whole HTTP server for so long."""

    def __init__(
        self, broker_id: int, incarnation: str, limits: Limits, progress: Callable[[], Checked], gate: Gate
    ) -> None:
        self._broker_id = broker_id
        self._incarnation = incarnation
        self._limits = limits
        self._progress = progress
        self._gate = gate
        self._requests = Requests("request bodies", limits.inflight_bytes_max)
        self._answers = Answers(limits.inflight_bytes_max)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        delivery = Delivery(request, self._answers, self._limits)
        try:
            return await delivery.send(await self._answer(request))
        finally:
            self._gate.leave(request, None)
            delivery.release()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        try:
            self._gate.check_target(request)
            found = match(request.method, request.raw_path)
            known = self._gate.admit(request, ROUTE_NEEDS[found.route.name], found.values)
            return await self._found(request, found, known.principal)
        except MinilogError as error:
            return problem_answer(error)

    async def _found(self, request: web.BaseRequest, found: Match, principal: Principal) -> web.Response:
        match found.route.name:
            case "healthz":
                return json_answer(Alive("alive", self._broker_id))
            case "readyz":
                return json_answer(self._readiness(), 503)
            case "rpc" if isinstance(message := await self._message(request), Probe):
                self._gate.permit(request, principal, message)
                return message_answer(ProbeReply(self._broker_id, self._incarnation))
        refusal = LeaderNotAvailable(f"{self._state()}; retry later or ask another")
        return message_answer(Problem.of(refusal)) if found.route.offers == (MSGPACK,) else problem_answer(refusal)

    def _readiness(self) -> Readiness:
        checked = self._progress()
        return Readiness(False, self._broker_id, self._state(), LogsChecked(checked.logs, checked.logs_total))

    def _state(self) -> str:
        checked = self._progress()
        return f"broker {self._broker_id} is recovering: {checked.logs} of {checked.logs_total} logs are checked"

    async def _message(self, request: web.BaseRequest) -> Message | None:
        body = RequestBody(request, self._limits, self._requests, PROBE_BYTES_MAX)
        try:
            with contextlib.suppress(MinilogError, NotAMessage):
                return decode(await body.read())
            return None
        finally:
            body.release()
