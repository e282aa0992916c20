"""Producers that number their batches (R31): what they send again is the same batch, and what they
give up ends an epoch.

One request of a partition is on its way at a time, so everything that is ever written of a
partition must be there in the order in which it was made, and once, however often it was sent; even
when the network delivers requests twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from minilog.errors import MinilogError
from minilog.wire.messages import InitProducer, InitProducerReply, Produce, ProducePartition, ProduceReply
from minilog.wire.records import encode_values
from tests.sim.nodes.clients import Load, Producer, Write
from tests.sim.nodes.network import Network, Response
from tests.sim.nodes.world import Violation, World

IMPOSSIBLE = ("PRODUCER_FENCED", "DUPLICATE_SEQUENCE")
"""For the only user of an id, which has one request of a partition in flight."""
ID_TIMEOUT_MS = 2500


class Numbering:
    """Of one partition: the epoch, the next sequence, and what waits for its turn."""

    def __init__(self) -> None:
        self.producer_epoch = 0
        self.next_sequence = 0
        self.queue: deque[Write] = deque()


class NumberedProducer(Producer):
    doubles = True
    epoch_step = 1
    """What giving up adds to the epoch."""

    def __init__(
        self, world: World, network: Network, node_id: int, name: str, brokers: Sequence[int], load: Load | None = None
    ) -> None:
        super().__init__(world, network, node_id, name, brokers, load)
        self.producer_id = -1
        self.epochs_begun = 0
        self.duplicates = 0
        self.parted = 0
        """Answers whose batches did not lie one after the other."""
        self._numberings: dict[tuple[str, int], Numbering] = {}
        self._bodies: dict[int, bytes] = {}

    def begin(self) -> None:
        super().begin()
        self.ask_for_id()

    def ask_for_id(self) -> None:
        self.ask(self.rng.choice(self.brokers), InitProducer(), self._on_id, ID_TIMEOUT_MS)

    def _on_id(self, answer: Response) -> None:
        if not isinstance(answer, InitProducerReply):
            self.later(self.rng.randint(10, 100), "ask for an id", self.ask_for_id)
        elif self.producer_id < 0:
            self.producer_id = answer.producer_id
            for numbering in self._numberings.values():
                self._send_next(numbering)

    @property
    def is_idle(self) -> bool:
        return not any(numbering.queue for numbering in self._numberings.values())

    def write(self, topic: str, partition: int, acks: int, count: int = 1) -> Write:
        if self.producer_id >= 0 and self.rng.random() < 0.05:
            self.ask_for_id()  # and throw it away
        write = self._make(topic, partition, acks, count)
        write.parts = self._parts(count)
        numbering = self._numberings.setdefault((topic, partition), Numbering())
        numbering.queue.append(write)
        if len(numbering.queue) == 1:
            self._send_next(numbering)
        return write

    def _parts(self, count: int) -> list[int]:
        """Sizes of the batches a write is cut into."""
        first = self.rng.randint(1, count)
        return [first, count - first] if first < count else [count]

    def _send_next(self, numbering: Numbering) -> None:
        if numbering.queue and self.producer_id >= 0:
            write = numbering.queue[0]
            self._bodies[id(write)] = self._encode(write, numbering)
            self._attempt(write)

    def _encode(self, write: Write, numbering: Numbering) -> bytes:
        body, start = b"", 0
        for count in write.parts:
            body += encode_values(
                write.values[start : start + count],
                self.now_ms,
                producer_id=self.producer_id,
                producer_epoch=numbering.producer_epoch,
                base_sequence=numbering.next_sequence,
            )
            start += count
            numbering.next_sequence += count
        return body

    def _retry(self, write: Write, attempt: int) -> None:
        """Unless a second copy of the answer has said something else meanwhile."""
        if write.outcome is None and write.attempts == attempt:
            self._attempt(write)

    def _attempt(self, write: Write) -> None:
        write.attempts += 1
        attempt = write.attempts
        write.ever_unknown = write.ever_unknown or self.network.weather.request_twice > 0
        entry = ProducePartition(write.topic, write.partition, memoryview(self._bodies[id(write)]))
        request = Produce(write.acks, self.load.timeout_ms, [entry])
        target = self.target_of(write.topic, write.partition)
        self.ask(target, request, lambda answer: self._on_numbered(write, attempt, answer), self.load.timeout_ms)

    def _on_numbered(self, write: Write, attempt: int, answer: Response) -> None:
        if write.outcome is not None or attempt != write.attempts:
            return
        result = answer.partitions[0] if isinstance(answer, ProduceReply) else None
        if result is not None and result.problem is None:
            self.duplicates += result.duplicate
            self.parted += bool(result.base_offsets)
            self._end(write, "ok", receipt=result)
            self._next_after(write)
            return
        error = answer if result is None or result.problem is None else result.problem.error()
        assert isinstance(error, MinilogError), error
        if result is not None:
            self.problems[error.code] += 1
        self._on_error(write, error)

    def _on_error(self, write: Write, error: MinilogError) -> None:
        if error.code in IMPOSSIBLE:
            raise Violation("ProducerSequences", f"{self.name}, {write.values}: {error}")
        self.forget(write.topic, write.partition, error)
        write.ever_unknown = write.ever_unknown or not error.definite
        may_help = error.retriable or not error.definite
        if may_help and write.attempts < self.load.attempts_max:
            attempt = write.attempts
            self.later(self.rng.randint(10, 100), "retry", lambda: self._retry(write, attempt))
            return
        self._end(write, "unknown" if write.ever_unknown else "failed", error=error)
        numbering = self._numberings[write.topic, write.partition]
        numbering.producer_epoch += self.epoch_step
        numbering.next_sequence = 0
        self.epochs_begun += 1
        self._next_after(write)

    def _next_after(self, write: Write) -> None:
        numbering = self._numberings[write.topic, write.partition]
        assert numbering.queue.popleft() is write
        del self._bodies[id(write)]
        self._send_next(numbering)
