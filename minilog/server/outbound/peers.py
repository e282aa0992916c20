"""Performs Send: each request goes out once, in order, on the one connection of its (node,
purpose).

What clients' requests make necessary (``call``) travels apart from that, in a pool per address and
purpose: so group heartbeats wait behind no slow produce, and the cluster's own traffic behind
neither. Whatever is not used is closed and forgotten after a minute, lanes to addresses that are no
more among it.

The outcome, an answer or the error that stands for it, comes back on the loop after the turn that
sent it: refused and never-sent are definite. A timeout, a reset or an answer not understood is not
(R14). An answer that is not understood is logged, once until the peer answers again: it is asked
for again and again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple, get_args

from prometheus_client import Histogram

from minilog.config import MESSAGE_BYTES_MAX, MIB, REPLICA_FETCH_BYTES_MAX
from minilog.errors import BrokerUnavailable, MinilogError
from minilog.server.outbound.asker import in_the_name_of_its_asker
from minilog.server.outbound.connection import Answer, Outcome
from minilog.server.outbound.dial import dial
from minilog.server.outbound.host_names import Names
from minilog.server.outbound.peer_credential import NOTHING_SHOWN, AsPeer
from minilog.server.outbound.peer_lane import Address, Call, PeerLane
from minilog.server.outbound.peer_pool import Errand, PeerPool
from minilog.wire.group_messages import ForwardedGroupRequest
from minilog.wire.http import MSGPACK, PROBLEM, error_from_response
from minilog.wire.messages import (
    AllocateProducerIds,
    AlterPartition,
    ClaimLost,
    CreateTopic,
    Fetch,
    Heartbeat,
    Message,
    NotAMessage,
    PersonsChange,
    Positions,
    Probe,
    Problem,
    Produce,
    Register,
    ReplicaFetch,
    decode,
    encode,
)
from minilog.wire.peer_messages import NoAnswer

ANSWER_BYTES_MAX: Final = REPLICA_FETCH_BYTES_MAX + MESSAGE_BYTES_MAX + 16 * MIB
"""The batches of a replica fetch, the one that is the first too many, and what is said of them."""
log = logging.getLogger("minilog.peers")
QUEUE_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PURPOSES: Final[dict[type[Message], str]] = {
    ReplicaFetch: "fetch",
    Heartbeat: "session",
    Register: "session",
    AlterPartition: "isr",
    Positions: "positions",
    Probe: "probe",
    AllocateProducerIds: "producer ids",
    CreateTopic: "create topic",
}
"""What is not named here has a purpose of its own, too."""

Response = Message | MinilogError


class PoolLimits(NamedTuple):
    """Per address. The connections of one broker's pools together leave most of a peer's
    ``limits.connections_max`` to clients."""

    purpose: str
    lanes_max: int
    bytes_max: int


QUESTIONS: Final = PoolLimits("questions", 64, 16 * MIB)
GROUPS: Final = PoolLimits("groups", 256, 16 * MIB)
CHANGES: Final = PoolLimits("changes", 64, 16 * MIB)
READS: Final = PoolLimits("forwarded reads", 256, 16 * MIB)
"""Tails of pages: each waits at its partition's leader."""
PRODUCE: Final = PoolLimits("forwarded produce", 512, 64 * MIB)
"""A produce may take as long as its client allows, so it is bounded by what it holds; connections
are for the many small ones."""
POOLS: Final[dict[type[Message], PoolLimits]] = {
    ForwardedGroupRequest: GROUPS,
    Produce: PRODUCE,
    Fetch: READS,
    **dict.fromkeys(get_args(PersonsChange), CHANGES),
    ClaimLost: CHANGES,
}


class Peers:
    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        timeout_ms: int,
        heartbeat_ms: int = 0,
        patience_ms: int | None = None,
        as_peer: AsPeer = NOTHING_SHOWN,
    ) -> None:
        """``timeout_ms``: for an answer to begin, on top of what the request asks the peer to
        wait. ``patience_ms``: the same for heartbeats, where it is another."""
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._timeout_ms = timeout_ms
        self._heartbeat_ms = heartbeat_ms
        self._patience_ms = timeout_ms if patience_ms is None else patience_ms
        self._names = Names()
        self._as_peer = as_peer
        self._meetings: set[asyncio.Task[None]] = set()
        self._lanes: dict[tuple[int, str], PeerLane] = {}
        self._complained: set[tuple[int, str]] = set()
        """Lanes whose last answer was refused, and the log says so."""
        self._pools: dict[tuple[Address, str], PeerPool] = {}
        self.failures: Counter[str] = Counter(dict.fromkeys(PURPOSES.values(), 0))
        """Of what was sent for the cluster itself, by purpose: no usable answer came."""
        self.queue_latency = Histogram(
            "minilog_peer_queue_seconds",
            "Time a request to another process waited behind earlier ones before a connection was free.",
            ["purpose"],
            buckets=QUEUE_BUCKETS,
            registry=None,
        )

    def send(self, node_id: int, url: str | None, request: Message, on_response: Callable[[Response], None]) -> None:
        """``on_response`` is called once, later. ``url`` None means that nobody knows where the
        node is."""
        address = _address(url)
        if address is None:
            error = BrokerUnavailable(
                f"node {node_id} has no usable address ({url!r})", definite=True, reason=NoAnswer.NO_ADDRESS
            )
            self._loop.call_soon(on_response, error)
            return
        lane = (node_id, PURPOSES.get(type(request), type(request).__name__))

        def on_outcome(outcome: Outcome) -> None:
            response = read(outcome)
            if isinstance(response, MinilogError):
                self.failures[lane[1]] += 1
            self._complain(lane, response)
            on_response(response)

        self._lane(*lane).send(Call(address, encode(request), self._wait_ms(request), on_outcome))

    async def call(self, url: str, request: Message, timeout_ms: int) -> Message:
        """Forward a client's request. The answer is a Problem when it failed there or on the
        way."""
        address = _address(url)
        if address is None:
            return Problem.of(
                BrokerUnavailable(f"{url!r} is no http://host:port", definite=True, reason=NoAnswer.NO_ADDRESS)
            )
        answered: asyncio.Future[Outcome] = self._loop.create_future()
        errand = Errand(
            encode(in_the_name_of_its_asker(request)), timeout_ms, lambda outcome: _resolve(answered, outcome)
        )
        pool = self._pool(address, POOLS.get(type(request), QUESTIONS))
        pool.send(errand)
        try:
            response = read(await answered)
        except asyncio.CancelledError:
            pool.withdraw(errand)
            raise
        return Problem.of(response) if isinstance(response, MinilogError) else response

    def expect(self, urls: Iterable[str]) -> None:
        """Nodes that are new, or have come back: where they are is looked up before it is
        needed."""
        for address in filter(None, map(_address, urls)):
            self._names.forget_reached(address.host, address.port)
            self._names.expect(address.host)
            if address.is_name:
                meeting = self._tasks.create_task(self._meet(address), name=f"meet {address}")
                self._meetings.add(meeting)
                meeting.add_done_callback(self._meetings.discard)

    async def _meet(self, address: Address) -> None:
        """Connect once: so that, when DNS is silent later, it is known at which address this very
        peer was."""
        with suppress(Exception):  # nobody waits for it
            (await dial(self._names, address.host, address.port, self._timeout_ms / 1000)).close()

    def has_met(self, url: str) -> bool:
        """Whether a connection to it has been made since it was expected last."""
        address = _address(url)
        return address is not None and self._names.reached_at(address.host, address.port) is not None

    @property
    def remembered(self) -> int:
        """Lanes and pools that there are now."""
        return len(self._lanes) + len(self._pools)

    def close(self) -> None:
        for meeting in self._meetings:
            meeting.cancel()
        for lane in self._lanes.values():
            lane.close()
        for pool in self._pools.values():
            pool.close()

    def _complain(self, lane: tuple[int, str], response: Response) -> None:
        if not isinstance(response, MinilogError):
            self._complained.discard(lane)
        elif response.info.get("reason") == NoAnswer.GARBAGE and lane not in self._complained:
            self._complained.add(lane)
            log.warning("%s to node %d: %s", lane[1], lane[0], response.detail)

    def _lane(self, node_id: int, purpose: str) -> PeerLane:
        lane = self._lanes.get((node_id, purpose))
        if lane is None:
            lane = self._lanes[node_id, purpose] = PeerLane(
                self._tasks,
                f"{purpose} to {node_id}",
                ANSWER_BYTES_MAX,
                fresh=purpose == "probe",
                names=self._names,
                as_peer=self._as_peer,
                on_start=self.queue_latency.labels(purpose).observe,
                on_idle=lambda _: self._forget_lane(node_id, purpose),
            )
        return lane

    def _forget_lane(self, node_id: int, purpose: str) -> None:
        del self._lanes[node_id, purpose]
        self._complained.discard((node_id, purpose))

    def _pool(self, address: Address, limits: PoolLimits) -> PeerPool:
        key = (address, limits.purpose)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = PeerPool(
                address,
                partial(self._pool_lane, f"{limits.purpose} to {address}"),
                self.queue_latency.labels(limits.purpose).observe,
                lambda: self._forget_pool(key),
                lanes_max=limits.lanes_max,
                bytes_max=limits.bytes_max,
            )
        return pool

    def _pool_lane(self, name: str, on_idle: Callable[[PeerLane], None]) -> PeerLane:
        return PeerLane(self._tasks, name, ANSWER_BYTES_MAX, names=self._names, as_peer=self._as_peer, on_idle=on_idle)

    def _forget_pool(self, key: tuple[Address, str]) -> None:
        del self._pools[key]

    def _wait_ms(self, request: Message) -> int:
        match request:
            case ReplicaFetch() | Fetch():
                return self._timeout_ms + request.max_wait_ms
            case Produce():
                return self._timeout_ms + request.timeout_ms
            case Heartbeat():
                return self._patience_ms + self._heartbeat_ms
            case CreateTopic():
                return 2 * self._timeout_ms
            case Probe():
                return max(1, self._timeout_ms // 2)  # a registration waits for it, in all its time
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
    """What a peer's answer says: a message, whatever the status; or the problem an HTTP layer
    reports; or garbage.

    Callbacks of connections read answers, and an exception that leaves one ends the process. So
    none does."""
    if not isinstance(outcome, Answer):
        return outcome
    try:
        return _read(outcome)
    except NotAMessage as error:
        return BrokerUnavailable(f"the peer's answer is no message: {error}", reason=NoAnswer.GARBAGE)
    except Exception as error:
        log.warning("an answer of a peer cannot be read: %s", type(error).__name__, exc_info=True)
        return BrokerUnavailable("the peer's answer cannot be read; the log says more", reason=NoAnswer.GARBAGE)


def _read(answer: Answer) -> Response:
    media = answer.content_type.partition(";")[0].strip().lower()
    if media == MSGPACK:
        return decode(answer.body)
    if media == PROBLEM:
        return error_from_response(answer.status, {"Content-Type": PROBLEM}, bytes(answer.body))
    return BrokerUnavailable(
        f"status {answer.status} with {answer.content_type!r}: no minilog peer", reason=NoAnswer.GARBAGE
    )
