"""One partition's batches on their way out, oldest first: in flight, sealed, open. Pure.

Invariants:
* Batches leave in the order in which they were opened, and a later one is sent only after every
  earlier one was acknowledged or given up: nothing of one partition is ever overtaken, whatever is
  retried.
* A sealed batch keeps its bytes: every try sends exactly the same ones.
* ``maybe_written`` never goes back to False: after one try with an open end, no later refusal
  proves anything. Batches that may be written are always the oldest of their queue, because a
  request takes the oldest.
* With ``sequences``, a batch that may be written is sent alone: a leader may hold it already,
  elsewhere than the batches it travelled with, and answers with one place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from minilog.errors import MinilogError
from minilog.wire.batch import peek
from minilog.wire.codec.codec import Headers
from minilog.wire.records import BatchBuilder, SealedBatch
from minilog_client.connection.backoff import Attempts
from minilog_client.producer.sequences import NONE, REMEMBERED_BATCHES, Sequences
from minilog_client.settings import MIB

RECORD_OVERHEAD_BYTES: Final = 64
"""Added to key and value when room for a record is reserved. An upper bound for all but records
with headers."""


Span = tuple[int, int, Any]
"""(start, count, token): records ``start`` up to ``start + count`` of a batch belong to the call
behind ``token``."""


class ProducerBatch:
    """A record batch from its first record to its acknowledgement."""

    __slots__ = (
        "base_sequence",
        "builder",
        "created_ms",
        "deadline_ms",
        "ends",
        "expected_offset",
        "head",
        "last_error",
        "maybe_written",
        "record_count",
        "reserved_bytes",
        "sealed",
        "sequence",
        "tokens",
        "topic_id",
        "tries",
    )
    builder: BatchBuilder
    """Gone once the batch is sealed: only its bytes and its count are needed then."""
    sealed: SealedBatch
    head: bytes
    """The header as it was last sent. With ``sealed.payload`` the whole batch."""

    def __init__(self, builder: BatchBuilder, sequence: int, now_ms: int, deadline_ms: int, topic_id: str = "") -> None:
        self.builder = builder
        self.topic_id = topic_id
        """Of the very topic that its records are for, "" if no broker says."""
        self.record_count = 0
        self.sequence = sequence
        """Order of creation in the whole producer. What ``flush`` waits by."""
        self.created_ms = now_ms
        self.deadline_ms = deadline_ms
        self.tokens: list[Any] = []
        self.ends: list[int] = []
        """Records up to ``ends[i]``, from ``ends[i - 1]`` on, belong to ``tokens[i]``. Two lists
        and not one of tuples: what the garbage collector has to look at, for every record in
        flight, is a third of the cost of sending."""
        self.reserved_bytes = 0
        self.base_sequence = NONE
        """Its number once it was sent; NONE until then, and without sequences."""
        self.expected_offset: int | None = None
        """Where the partition has to end, or nothing is written. Such a batch travels alone."""
        self.tries = 0
        self.maybe_written = False
        self.last_error: MinilogError | None = None

    @property
    def number(self) -> dict[str, int]:
        """Its producer id, epoch and base sequence as they were last sent, by name."""
        header = peek(self.head)
        return {
            "producer_id": header.producer_id,
            "producer_epoch": header.producer_epoch,
            "base_sequence": self.base_sequence,
        }

    def add_owner(self, count: int, token: Any) -> None:
        """The last ``count`` records belong to ``token``; neighbouring records of one token become
        one span."""
        self.record_count += count
        tokens = self.tokens
        if tokens and tokens[-1] is token:
            self.ends[-1] += count
        else:
            tokens.append(token)
            self.ends.append(self.record_count)

    def spans(self) -> Iterator[Span]:
        start = 0
        for token, end in zip(self.tokens, self.ends, strict=True):
            yield start, end - start, token
            start = end


class PartitionQueue:
    """The queue of one partition."""

    __slots__ = (
        "attempts",
        "given_up",
        "in_flight",
        "open",
        "partition",
        "queued_bytes",
        "sealed",
        "sequences",
        "solo",
        "topic",
    )

    def __init__(self, topic: str, partition: int, sequences: Sequences | None = None) -> None:
        self.sequences = sequences
        """None: the batches carry no numbers, and a retry may write them twice."""
        self.topic = topic
        self.partition = partition
        self.open: ProducerBatch | None = None
        self.sealed: deque[ProducerBatch] = deque()
        self.in_flight: list[ProducerBatch] = []
        self.queued_bytes = 0
        self.attempts = Attempts()
        self.given_up: MinilogError | None = None
        """Why numbered records were given up last."""
        self.solo = 0
        """So many batches must travel alone, because one of a group was refused and it is not known
        which."""

    def __repr__(self) -> str:
        return (
            f"PartitionQueue({self.topic}-{self.partition}, {len(self.in_flight)} in flight, {len(self.sealed)} sealed)"
        )

    def seal(self, sealed: SealedBatch) -> None:
        """Close the open batch: ``sealed`` is what it holds from here on."""
        batch = self.open
        assert batch is not None, "only an open batch is sealed"
        assert batch.record_count > 0, "a batch without records is never open"
        batch.sealed = sealed
        del batch.builder
        self.sealed.append(batch)
        self.open = None

    def ready_at_ms(self, linger_ms: int, flushed_sequence: int) -> int | None:
        """When the queue next has something to send, were its leader willing; None: no record
        waits."""
        if self.sealed:
            return self.sealed[0].created_ms
        return None if self.open is None else self.open_due_ms(linger_ms, flushed_sequence)

    def open_due_ms(self, linger_ms: int, flushed_sequence: int) -> int:
        """When the open batch has lingered long enough. At once if it was flushed."""
        assert self.open is not None, "only an open batch lingers"
        return self.open.created_ms + (linger_ms if self.open.sequence > flushed_sequence else 0)

    def can_number(self) -> bool:
        """The oldest batch has its number or can be given one; False: a producer id is wanted
        first.

        Begins a new epoch when one is due and nothing that may be written is left of the old
        one."""
        sequences = self.sequences
        if sequences is None or not sequences.is_spent or (self.sealed and self.sealed[0].maybe_written):
            return True
        if not sequences.renew():
            return False
        for batch in self.sealed:
            assert not batch.maybe_written, "what may be written keeps its number"
            batch.base_sequence = NONE
        return True

    @property
    def starts_over(self) -> bool:
        """The next batch is the first of a new epoch, after records were given up in the one
        before."""
        return self.sequences is not None and self.sequences.is_restart

    def take(self, bytes_max: int, leader_epoch: int) -> list[ProducerBatch]:
        """Put the oldest sealed batches, ``bytes_max`` of them but at least one, in flight."""
        assert self.sealed, "only what is sealed is sent"
        assert not self.in_flight, "one request per partition"
        size = 0
        while self.sealed and len(self.in_flight) < self._count_max:
            batch = self.sealed[0]
            size += batch.sealed.weight_bytes
            if self.in_flight and (size > bytes_max or batch.expected_offset is not None):
                break
            self.sealed.popleft()
            if batch.base_sequence == NONE:
                self._number(batch)
            batch.tries += 1
            self.in_flight.append(batch)
        self.attempts.tried_epoch = leader_epoch
        return list(self.in_flight)

    @property
    def _count_max(self) -> int:
        """How many batches one request may hold."""
        oldest = self.in_flight[0] if self.in_flight else self.sealed[0]
        if self.solo or oldest.expected_offset is not None or (self.sequences is not None and oldest.maybe_written):
            return 1
        return len(self.sealed) + len(self.in_flight) if self.sequences is None else REMEMBERED_BATCHES

    def _number(self, batch: ProducerBatch) -> None:
        sequences = self.sequences
        if sequences is None:
            batch.head = batch.sealed.head()
            return
        batch.base_sequence = sequences.draw(batch.record_count)
        batch.head = batch.sealed.head(sequences.producer_id, sequences.producer_epoch, batch.base_sequence)

    def take_in_flight(self) -> list[ProducerBatch]:
        """The batches in flight are done with, for good or ill."""
        done, self.in_flight = self.in_flight, []
        self.solo = max(0, self.solo - len(done))
        self.attempts.on_success()
        return done

    def put_back(self) -> None:
        """The batches in flight are to be sent again, before all others."""
        self.sealed.extendleft(reversed(self.in_flight))
        self.in_flight = []

    def batches(self) -> Iterator[ProducerBatch]:
        """All of them, oldest first."""
        yield from self.in_flight
        yield from self.sealed
        if self.open is not None:
            yield self.open

    @property
    def oldest(self) -> ProducerBatch | None:
        if self.in_flight:
            return self.in_flight[0]
        return self.sealed[0] if self.sealed else self.open

    @property
    def is_idle(self) -> bool:
        return self.open is None and not self.sealed and not self.in_flight


class Waiting(NamedTuple):
    """A record whose topic's partitions, or whose own partition, are not known yet."""

    value: bytes | None
    key: bytes | None
    headers: Headers
    partition: int | None
    timestamp: int
    token: Any
    sequence: int
    deadline_ms: int
    reserved_bytes: int

    def is_beyond(self, partition_count: int) -> bool:
        return self.partition is not None and self.partition >= partition_count


@dataclass(slots=True)
class TopicQueues:
    topic: str
    topic_id: str = ""
    partitions: list[PartitionQueue] = field(default_factory=list)
    partition_count: int = 0
    """0 while unknown; may be less than there are queues when the topic was created anew."""
    message_bytes_max: int = MIB
    sticky: int = -1
    """The partition unkeyed records go to until its batch is sealed; -1: choose anew."""
    waiting: deque[Waiting] = field(default_factory=deque)
