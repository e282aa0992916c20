"""What tests of the controller and its brokers share."""

from __future__ import annotations

from minilog.wire.messages import (
    Problem,
)
from tests.unit.core.controller.controller_bench import ControllerBench

TIMEOUT_MS = 2000


def code(bench: ControllerBench, request_id: int) -> str:
    reply = bench.replies[request_id]
    assert isinstance(reply, Problem), reply
    return reply.code


def fenced(bench: ControllerBench) -> set[int]:
    return {b.broker_id for b in bench.core.image.brokers.values() if b.fenced}
