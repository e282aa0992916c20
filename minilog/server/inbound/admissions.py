"""Admissions: which connections a process takes, and the counts of those it does not (R45).

``Places`` decides. Here is what a decision costs: who is refused is told and closed, and few of
them hold descriptors until then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from http import HTTPStatus
from typing import Final, Protocol

from aiohttp import web

from minilog import machine
from minilog.config import Limits
from minilog.core.places import Holder, Places
from minilog.errors import Overloaded
from minilog.server.inbound.http_rules import Refusal
from minilog.wire.http import origin_form
from minilog.wire.peer_messages import RPC_PATH

CONNECTIONS_MIN: Final = 8
DESCRIPTORS_KEPT: Final = 32
"""For peers, and what is opened for a moment."""
REFUSED_MAX: Final = 64
"""Connections that were refused and are not closed yet. They hold descriptors as any other."""
ANSWERED_ON_TRIAL: Final = (RPC_PATH, "/healthz", "/readyz")
"""Whoever watches a process learns of it also when all places are held. Of the first one only what
the cluster asks."""


class Occupant(Holder, Protocol):
    """A connection, or one that is about to be."""

    def give_way(self) -> None: ...


class Admissions:
    def __init__(self, limits: Limits, *, ends_with_clients: bool) -> None:
        self.connections_max = bearable_connections(limits)
        self.places: Places[Occupant] = Places(self.connections_max, limits.connections_reserved)
        self.ends_with_clients = ends_with_clients
        """Every handler is cancelled when its client leaves."""
        self.refused = 0
        self.displaced = 0
        self._refused: deque[asyncio.Transport] = deque()

    def trial_refusal(self, holder: Occupant, request: web.BaseRequest) -> Refusal | None:
        """Why a request gets no answer here that came without a place, or None."""
        path = origin_form(request.raw_path).partition("?")[0]
        return self.refusal if self.places.is_on_trial(holder) and path not in ANSWERED_ON_TRIAL else None

    @property
    def refusal(self) -> Refusal:
        error = Overloaded(
            f"{self.connections_max} connections are open, the limit (limits.connections_max, or what the process may "
            "open: ulimit -n), and none of them rests; retry later"
        )
        return HTTPStatus.SERVICE_UNAVAILABLE, error

    def on_refused(self, transport: asyncio.Transport) -> None:
        """It was told. It is closed soon, and sooner when many are."""
        self.refused += 1
        self._refused.append(transport)
        if len(self._refused) > REFUSED_MAX:
            self._refused.popleft().abort()


def bearable_connections(limits: Limits) -> int:
    """The limit, or less where the process may open few files (R43): logs have half of these."""
    descriptors = machine.descriptors_max()
    return min(limits.connections_max, max(CONNECTIONS_MIN, descriptors // 2 - DESCRIPTORS_KEPT))
