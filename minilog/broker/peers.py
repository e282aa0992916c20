"""Performs Send: each request goes out once, in order, on the one connection of its (node, purpose).

The outcome, an answer or the error that stands for it, comes back on the loop after the turn that sent it:
refused and never-sent are definite; a timeout, a reset or an answer not understood is not (R14).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from minilog.broker.connection import Answer, Outcome
from minilog.broker.lane import Address, Call, Lane
from minilog.config import MIB
from minilog.errors import BrokerUnavailable, MinilogError
from minilog.wire.http import MSGPACK, PROBLEM, error_from_response
from minilog.wire.messages import (
    AlterPartition,
    CreateTopic,
    Fetch,
    Heartbeat,
    Message,
    Positions,
    Probe,
    Problem,
    Produce,
    Register,
    ReplicaFetch,
    decode,
    encode,
)

ANSWER_BYTES_MAX: Final = 128 * MIB
FORWARD_LANES_MAX: Final = 16
OTHER: Final = "other"
PURPOSES: Final[dict[type[Message], str]] = {
    ReplicaFetch: "fetch",
    Heartbeat: "session",
    Register: "session",
    AlterPartition: "isr",
    Positions: "positions",
    Probe: "probe",
}

Response = Message | MinilogError


class Peers:
    def __init__(self, tasks: asyncio.TaskGroup, timeout_ms: int, heartbeat_ms: int = 0) -> None:
        """``timeout_ms`` bounds an answer, on top of what the request itself asks the peer to wait."""
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._timeout_ms = timeout_ms
        self._heartbeat_ms = heartbeat_ms
        self._lanes: dict[tuple[int, str], Lane] = {}
        self._forward: dict[Address, list[Lane]] = {}

    def send(self, node_id: int, url: str | None, request: Message, on_response: Callable[[Response], None]) -> None:
        """``on_response`` is called once, later. ``url`` None means that nobody knows where the node is."""
        address = _address(url)
        if address is None:
            error = BrokerUnavailable(
                f"node {node_id} has no usable address ({url!r})", definite=True, reason="unknown"
            )
            self._loop.call_soon(on_response, error)
            return
        call = Call(address, encode(request), self._wait_ms(request), lambda outcome: on_response(read(outcome)))
        self._lane(node_id, request).send(call)

    async def call(self, url: str, request: Message, timeout_ms: int) -> Message:
        """Forward a client's request; the answer is a Problem when it failed there or on the way."""
        address = _address(url)
        if address is None:
            return Problem.of(BrokerUnavailable(f"{url!r} is no http://host:port", definite=True, reason="unknown"))
        answered: asyncio.Future[Outcome] = self._loop.create_future()
        call = Call(address, encode(request), timeout_ms, lambda outcome: _resolve(answered, outcome))
        lane = self._forward_lane(address)
        lane.send(call)
        try:
            response = read(await answered)
        except asyncio.CancelledError:
            lane.withdraw(call)
            raise
        return Problem.of(response) if isinstance(response, MinilogError) else response

    def close(self) -> None:
        for lane in [*self._lanes.values(), *(lane for lanes in self._forward.values() for lane in lanes)]:
            lane.close()

    def _lane(self, node_id: int, request: Message) -> Lane:
        purpose = PURPOSES.get(type(request), OTHER)
        lane = self._lanes.get((node_id, purpose))
        if lane is None:
            lane = Lane(self._tasks, f"{purpose} to {node_id}", ANSWER_BYTES_MAX, fresh=purpose == "probe")
            self._lanes[node_id, purpose] = lane
        return lane

    def _forward_lane(self, address: Address) -> Lane:
        lanes = self._forward.setdefault(address, [])
        lane = min(lanes, key=lambda lane: lane.load, default=None)
        if lane is None or (lane.load and len(lanes) < FORWARD_LANES_MAX):
            lane = Lane(self._tasks, f"forward to {address.host}:{address.port}", ANSWER_BYTES_MAX)
            lanes.append(lane)
        return lane

    def _wait_ms(self, request: Message) -> int:
        match request:
            case ReplicaFetch() | Fetch():
                return self._timeout_ms + request.max_wait_ms
            case Produce():
                return self._timeout_ms + request.timeout_ms
            case Heartbeat():
                return self._timeout_ms + self._heartbeat_ms
            case CreateTopic():
                return 2 * self._timeout_ms
            case _:
                return self._timeout_ms


def _address(url: str | None) -> Address | None:
    try:
        return None if url is None else Address.of(url)
    except ValueError:
        return None


def _resolve(answered: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not answered.done():
        answered.set_result(outcome)


def read(outcome: Outcome) -> Response:
    """What a peer's answer says: a message, whatever the status; or the problem an HTTP layer reports; or garbage."""
    if not isinstance(outcome, Answer):
        return outcome
    media = outcome.content_type.partition(";")[0].strip().lower()
    try:
        if media == MSGPACK:
            return decode(outcome.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return BrokerUnavailable(f"the peer's answer is no message: {error}", reason="garbage")
    if media == PROBLEM:
        return error_from_response(outcome.status, {"Content-Type": PROBLEM}, bytes(outcome.body))
    return BrokerUnavailable(
        f"status {outcome.status} with {outcome.content_type!r}: no minilog peer", reason="garbage"
    )
