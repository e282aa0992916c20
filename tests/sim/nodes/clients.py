"""Clients of the simulated cluster: producers, consumers, an admin. Each is a process of its own on
the network.

Every value is written once unless its write definitely failed, so a value that is in a log twice,
or that is there although every attempt was refused for certain, is a fault of the cluster (or of a
``definite`` flag).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from minilog.core.effects import CONTROLLER_ID
from minilog.errors import MinilogError
from minilog.wire.batch import split
from minilog.wire.messages import (
    ACKS_ALL,
    Fetch,
    FetchPartition,
    FetchReply,
    FetchResult,
    Message,
    Metadata,
    MetadataReply,
    Problem,
    Produce,
    ProducePartition,
    ProduceReply,
    ProduceResult,
)
from minilog.wire.records import encode_values
from tests.sim.checks.history import UNBOUNDED
from tests.sim.nodes.network import Network, Response
from tests.sim.nodes.process import Process
from tests.sim.nodes.world import Violation, World

GRACE_MS = 500
"""What a client waits beyond the time it has given the broker."""


class Client(Process):
    """Knows who leads what, as well as it was told."""

    def __init__(self, world: World, network: Network, node_id: int, name: str, brokers: Sequence[int]) -> None:
        super().__init__(world, node_id, name)
        self.network = network
        self.brokers = list(brokers)
        self.rng: Random = world.rng(name)
        self.leaders: dict[tuple[str, int], tuple[int, int]] = {}
        """(leader, leader epoch) by partition."""
        self.problems: Counter[str] = Counter()
        network.add(self)
        self.begin_life()

    def ask(self, target: int, request: Message, on_answer: Callable[[Response], None], timeout_ms: int) -> None:
        def on_response(response: Response) -> None:
            answer = response.error() if isinstance(response, Problem) else response
            if isinstance(answer, MinilogError):
                self.problems[answer.code] += 1
            on_answer(answer)

        self.network.send(self, target, request, on_response, timeout_ms + GRACE_MS)

    def refresh(self) -> None:
        """Ask anybody who leads."""
        self.ask(self.rng.choice(self.brokers), Metadata(), self._on_metadata, GRACE_MS)

    def _on_metadata(self, answer: Response) -> None:
        if not isinstance(answer, MetadataReply):
            return
        for topic in answer.topics:
            for p in topic.partitions:
                key = (topic.topic, p.partition)
                if p.leader >= 0 and p.leader_epoch >= self.leaders.get(key, (-1, -1))[1]:
                    self.leaders[key] = (p.leader, p.leader_epoch)

    def target_of(self, topic: str, partition: int) -> int:
        return self.leaders.get((topic, partition), (self.rng.choice(self.brokers), -1))[0]

    def forget(self, topic: str, partition: int, error: MinilogError) -> None:
        """A refusal: go where it points to, or ask around."""
        leader = error.info.get("leader")
        if isinstance(leader, int) and leader >= 0:
            self.leaders[topic, partition] = (leader, int(error.info.get("leader_epoch", -1)))
        else:
            self.leaders.pop((topic, partition), None)
            self.refresh()


@dataclass
class Write:
    """A batch on its way. ``outcome``: None while open, ok, failed (definitely), unknown."""

    topic: str
    partition: int
    acks: int
    values: list[bytes]
    outcome: str | None = None
    receipt: ProduceResult | None = None
    error: MinilogError | None = None
    attempts: int = 0
    began_ms: int = 0
    ended_ms: int = 0
    ever_unknown: bool = False
    parts: list[int] = field(default_factory=list)
    """How many values each of its batches has, when they are several."""

    def batches(self) -> list[list[bytes]]:
        """The values by batch."""
        values = iter(self.values)
        return [list(islice(values, count)) for count in self.parts or [len(self.values)]]

    def places(self) -> list[tuple[int, bytes]]:
        """(offset, value) of what was acknowledged."""
        assert self.receipt is not None
        assert self.receipt.base_offset is not None
        if not self.receipt.base_offsets:
            return list(enumerate(self.values, self.receipt.base_offset))
        batches = zip(self.receipt.base_offsets, self.batches(), strict=True)
        return [place for base_offset, values in batches for place in enumerate(values, base_offset)]


@dataclass
class Load:
    """How a producer behaves."""

    interval_ms: int = 40
    inflight_max: int = 1
    acks: Sequence[int] = (ACKS_ALL,)
    values_max: int = 4
    timeout_ms: int = 1000
    attempts_max: int = 10
    value_bytes_max: int = 0
    """Values are made longer, up to this, so that segments fill."""


class Producer(Client):
    def __init__(
        self, world: World, network: Network, node_id: int, name: str, brokers: Sequence[int], load: Load | None = None
    ) -> None:
        super().__init__(world, network, node_id, name, brokers)
        self.load = load or Load()
        self.partitions: list[tuple[str, int]] = []
        self.writes: list[Write] = []
        self.active = False
        self._inflight = 0
        self._made = 0

    @property
    def is_idle(self) -> bool:
        """Nothing of it waits for its turn, or for an answer."""
        return self._inflight == 0

    def begin(self) -> None:
        self.active = True
        self._beat()

    def _beat(self) -> None:
        if not self.active:
            return
        if self.partitions and self._inflight < self.load.inflight_max:
            topic, partition = self.rng.choice(self.partitions)
            self.write(topic, partition, self.rng.choice(self.load.acks), self.rng.randint(1, self.load.values_max))
        self.later(self.rng.randint(1, 2 * self.load.interval_ms), "beat", self._beat)

    def write(self, topic: str, partition: int, acks: int, count: int = 1) -> Write:
        write = self._make(topic, partition, acks, count)
        self._attempt(write)
        return write

    def _make(self, topic: str, partition: int, acks: int, count: int) -> Write:
        values = [self._value(self._made + i) for i in range(count)]
        self._made += count
        write = Write(topic, partition, acks, values, began_ms=self.world.now_ms)
        self.writes.append(write)
        self._inflight += 1
        return write

    def _value(self, number: int) -> bytes:
        value = b"%s.%d" % (self.name.encode(), number)
        if self.load.value_bytes_max:
            value += b"." + b"-" * self.rng.randint(0, self.load.value_bytes_max)
        return value

    def _attempt(self, write: Write) -> None:
        write.attempts += 1
        batch = encode_values(write.values, self.wall_ms)
        entry = ProducePartition(write.topic, write.partition, memoryview(batch))
        request = Produce(write.acks, self.load.timeout_ms, [entry])
        target = self.target_of(write.topic, write.partition)
        self.ask(target, request, lambda answer: self._on_answer(write, answer), self.load.timeout_ms)

    def _on_answer(self, write: Write, answer: Response) -> None:
        if isinstance(answer, ProduceReply):
            result = answer.partitions[0]
            if result.problem is None:
                self._end(write, "ok", receipt=result)
                return
            error = result.problem.error()
            self.problems[error.code] += 1
        else:
            assert isinstance(answer, MinilogError), answer
            error = answer
        self.forget(write.topic, write.partition, error)
        if not error.definite:
            write.ever_unknown = True
            self._end(write, "unknown", error=error)
        elif error.retriable and write.attempts < self.load.attempts_max:
            self.later(self.rng.randint(10, 100), "retry", lambda: self._attempt(write))
        else:
            self._end(write, "failed", error=error)

    def _end(
        self, write: Write, outcome: str, *, receipt: ProduceResult | None = None, error: MinilogError | None = None
    ) -> None:
        if write.outcome is not None:  # a late copy of an answer
            return
        self._inflight -= 1
        write.outcome, write.receipt, write.error, write.ended_ms = outcome, receipt, error, self.world.now_ms


@dataclass
class Cursor:
    """Where a consumer stands in one partition: next offset, and the epoch of what it read last
    (R23)."""

    offset: int = 0
    last_epoch: int = -1
    leader_epoch: int = -1
    """The highest that ever answered: of losses, only who knows at least that epoch may speak."""


class Consumer(Client):
    """Reads assigned partitions from the beginning; loss or change of what it has read is a
    violation."""

    def __init__(self, world: World, network: Network, node_id: int, name: str, brokers: Sequence[int]) -> None:
        super().__init__(world, network, node_id, name, brokers)
        self.cursors: dict[tuple[str, int], Cursor] = {}
        self.any_replica = False
        self.names_epoch = True
        self.active = False
        self.wait_ms = 300
        self.max_lag_ms = -1
        self.survives_losses = False
        """Of a scenario that destroys data: goes on behind what it is told was lost."""
        self.losses: list[tuple[int, int]] = []
        """(from, to): offsets it had read and was told are lost."""
        self.overtaken = 0
        """How often the log began beyond the next record by then: it goes on from there."""

    def assign(self, topic: str, partition: int) -> None:
        self.cursors.setdefault((topic, partition), Cursor())

    def begin(self) -> None:
        self.active = True
        for topic, partition in self.cursors:
            self._poll(topic, partition)

    def _poll(self, topic: str, partition: int) -> None:
        cursor = self.cursors.get((topic, partition))
        if not self.active or cursor is None:
            return
        leader, epoch = self.leaders.get((topic, partition), (self.rng.choice(self.brokers), -1))
        target = self.rng.choice(self.brokers) if self.any_replica else leader
        named = epoch if self.names_epoch and not self.any_replica else -1
        entry = FetchPartition(topic, partition, cursor.offset, leader_epoch=named, last_epoch=cursor.last_epoch)
        request = Fetch([entry], max_wait_ms=self.wait_ms, any_replica=self.any_replica, max_lag_ms=self.max_lag_ms)
        self.ask(target, request, lambda answer: self._on_fetched(topic, partition, cursor, answer), self.wait_ms)

    def _on_fetched(self, topic: str, partition: int, cursor: Cursor, answer: Response) -> None:
        pause_ms = self.rng.randint(1, 20)
        if isinstance(answer, FetchReply) and answer.partitions[0].problem is None:
            self._take(topic, partition, cursor, answer.partitions[0])
        else:
            result = answer.partitions[0] if isinstance(answer, FetchReply) else None
            error = result.problem.error() if result is not None and result.problem is not None else answer
            assert isinstance(error, MinilogError)
            self._on_error(topic, partition, cursor, error, -1 if result is None else result.leader_epoch)
            pause_ms = self.rng.randint(20, 100)
        self.later(pause_ms, "poll", lambda: self._poll(topic, partition))

    def _on_error(self, topic: str, partition: int, cursor: Cursor, error: MinilogError, leader_epoch: int) -> None:
        self.problems[error.code] += 1
        is_loss = error.code in ("LOG_TRUNCATED", "OFFSET_OUT_OF_RANGE")
        if error.code == "OFFSET_OUT_OF_RANGE" and error.info["log_start_offset"] > cursor.offset:
            self.overtaken += 1
            cursor.offset, cursor.last_epoch = error.info["log_start_offset"], -1
            cursor.leader_epoch = max(cursor.leader_epoch, leader_epoch)
        elif is_loss and leader_epoch >= cursor.leader_epoch:
            if not self.survives_losses:
                raise Violation("ConsistentRead", f"{self.name} at {cursor.offset} of {topic}-{partition}: {error}")
            self.losses.append((error.info["lost_from"], error.info["lost_to"]))
            cursor.offset, cursor.last_epoch = error.info["lost_from"], error.info["epoch"]
        self.forget(topic, partition, error)

    def _take(self, topic: str, partition: int, cursor: Cursor, result: FetchResult) -> None:
        if self.cursors.get((topic, partition)) is not cursor:
            return
        cursor.leader_epoch = max(cursor.leader_epoch, result.leader_epoch)
        for batch in split(result.batches, UNBOUNDED, stored=True):
            if batch.base_offset > cursor.offset:
                raise Violation(
                    "OffsetsContiguous",
                    f"{self.name} of {topic}-{partition}: {batch.base_offset} after {cursor.offset}",
                )
            if batch.end_offset > cursor.offset:
                cursor.offset, cursor.last_epoch = batch.end_offset, batch.leader_epoch


class Admin(Client):
    """Asks the controller, and remembers the answers."""

    def __init__(self, world: World, network: Network, node_id: int, name: str, brokers: Sequence[int]) -> None:
        super().__init__(world, network, node_id, name, brokers)
        self.answers: list[Response] = []
        self.controller_id: Callable[[], int] = lambda: CONTROLLER_ID

    def request(self, request: Message) -> None:
        self.ask(self.controller_id(), request, self.answers.append, 2500)
