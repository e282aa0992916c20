"""One partition's batches on their way out, oldest first: in flight, sealed, open. Pure.

Invariants:
* Batches leave in the order in which they were opened, and a later one is sent only after every earlier one was
  acknowledged or given up: nothing of one partition is ever overtaken, whatever is retried.
* A sealed batch keeps its bytes: every try sends exactly the same ones.
* ``maybe_written`` never goes back to False: after one try with an open end, no later refusal proves anything.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from minilog.errors import MinilogError
from minilog.wire.records import BatchBuilder
from minilog_client.backoff import Attempts

RECORD_OVERHEAD_BYTES: Final = 64
"""Added to key and value when room for a record is reserved; an upper bound for all but records with headers."""


Span = tuple[int, int, Any]
"""(start, count, token): records ``start`` up to ``start + count`` of a batch belong to the call behind ``token``."""


class ProducerBatch:
    """A record batch from its first record to its acknowledgement."""

    __slots__ = (
        "builder",
        "created_ms",
        "deadline_ms",
        "last_error",
        "maybe_written",
        "payload",
        "record_count",
        "reserved_bytes",
        "sequence",
        "spans",
        "tries",
    )

    def __init__(self, builder: BatchBuilder, sequence: int, now_ms: int, deadline_ms: int) -> None:
        self.builder = builder
        """Gone once the batch is sealed: only its bytes and its count are needed then."""
        self.record_count = 0
        self.sequence = sequence
        """Order of creation in the whole producer; what ``flush`` waits by."""
        self.created_ms = now_ms
        self.deadline_ms = deadline_ms
        self.spans: list[Span] = []
        self.reserved_bytes = 0
        self.payload = b""
        self.tries = 0
        self.maybe_written = False
        self.last_error: MinilogError | None = None

    def own(self, count: int, token: Any) -> None:
        """The last ``count`` records belong to ``token``; neighbouring spans of one token become one."""
        spans = self.spans
        if spans and spans[-1][2] is token:
            first, before, _ = spans[-1]
            spans[-1] = (first, before + count, token)
        else:
            spans.append((self.record_count, count, token))
        self.record_count += count


class Lane:
    """The queue of one partition."""

    __slots__ = (
        "attempts",
        "in_flight",
        "open",
        "partition",
        "queued_bytes",
        "sealed",
        "solo",
        "topic",
    )

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.open: ProducerBatch | None = None
        self.sealed: deque[ProducerBatch] = deque()
        self.in_flight: list[ProducerBatch] = []
        self.queued_bytes = 0
        self.attempts = Attempts()
        self.solo = 0
        """So many batches must travel alone, because one of a group was refused and it is not known which."""

    def __repr__(self) -> str:
        return f"Lane({self.topic}-{self.partition}, {len(self.in_flight)} in flight, {len(self.sealed)} sealed)"

    def seal(self, payload: bytes) -> None:
        """Close the open batch: ``payload`` is its bytes from here on."""
        batch = self.open
        assert batch is not None, "only an open batch is sealed"
        assert batch.record_count > 0, "a batch without records is never open"
        batch.payload = payload
        del batch.builder
        self.sealed.append(batch)
        self.open = None

    def ready_at_ms(self, linger_ms: int, flushed_sequence: int) -> int | None:
        """When the lane next has something to send, were its leader willing; None: no record waits."""
        if self.sealed:
            return self.sealed[0].created_ms
        return None if self.open is None else self.open_due_ms(linger_ms, flushed_sequence)

    def open_due_ms(self, linger_ms: int, flushed_sequence: int) -> int:
        """When the open batch has lingered long enough; at once if it was flushed."""
        assert self.open is not None, "only an open batch lingers"
        return self.open.created_ms + (linger_ms if self.open.sequence > flushed_sequence else 0)

    def take(self, bytes_max: int, leader_epoch: int) -> list[ProducerBatch]:
        """Put the oldest sealed batches, ``bytes_max`` of them but at least one, in flight."""
        assert self.sealed, "only what is sealed is sent"
        assert not self.in_flight, "one request per partition"
        size = 0
        while self.sealed:
            size += len(self.sealed[0].payload)
            if self.in_flight and (size > bytes_max or self.solo):
                break
            batch = self.sealed.popleft()
            batch.tries += 1
            self.in_flight.append(batch)
        self.attempts.tried_epoch = leader_epoch
        return list(self.in_flight)

    def land(self) -> list[ProducerBatch]:
        """The batches in flight are done with, for good or ill."""
        done, self.in_flight = self.in_flight, []
        self.solo = max(0, self.solo - len(done))
        self.attempts.on_success()
        return done

    def put_back(self) -> None:
        """The batches in flight are to be sent again, before all others."""
        self.sealed.extendleft(reversed(self.in_flight))
        self.in_flight = []

    @property
    def oldest(self) -> ProducerBatch | None:
        if self.in_flight:
            return self.in_flight[0]
        return self.sealed[0] if self.sealed else self.open

    @property
    def is_idle(self) -> bool:
        return self.open is None and not self.sealed and not self.in_flight
