"""The producer's accumulator: records in, requests out, and what became of each record. Pure.

Time is an argument, randomness injected, sending somebody else's work (``producer.py``). Tokens are
opaque: one stands for the call that waits for the record. Lifecycle of a record: waiting (its
topic's partitions are not known yet) -> in the open batch of a queue -> sealed -> in flight ->
succeeded, retried or given up.

Invariants, besides those of ``partition_queue.py``:
* Every token accepted by ``append`` or ``extend`` comes out exactly once, in
  ``PartitionQueue.take_in_flight``'s batches or a ``Failure``.
* ``buffered_bytes`` is the sum of what the queues and the waiting records reserve, and returns to
  0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

from minilog.errors import (
    LeaderNotAvailable,
    MinilogError,
    ProducerFenced,
    RecordTooLarge,
    UnknownTopic,
)
from minilog.wire.batch import acks_level_for
from minilog.wire.codec.codec import Headers
from minilog.wire.records import BatchBuilder
from minilog_client.connection.routing import Leader
from minilog_client.producer.conditional import fill, is_never_written
from minilog_client.producer.failed_tries import Failure, is_gap_to_step_over, is_worth_retrying
from minilog_client.producer.packing import Dispatch, Packing
from minilog_client.producer.partition_queue import (
    RECORD_OVERHEAD_BYTES,
    PartitionQueue,
    ProducerBatch,
    TopicQueues,
    Waiting,
)
from minilog_client.producer.partitioner import next_sticky, partition_for_key
from minilog_client.producer.record_errors import Unsettled, expired, for_batch, no_partitions, remade, unsettled_of
from minilog_client.producer.sequences import NONE, ProducerIdentity, Sequences
from minilog_client.settings import ProducerSettings, acks_number
from minilog_client.values import Row

LeaderOf = Callable[[str, int], Leader | None]


class Drained(NamedTuple):
    """What there is to do: requests to send now, and what keeps others from being sent."""

    dispatches: list[Dispatch]
    is_leaderless: bool
    """Some queue has no leader to send to: metadata are wanted."""
    needs_producer_id: bool
    """Some queue has no producer id to number its records with."""
    restarted: list[PartitionQueue]
    """Queues that begin a new producer epoch with these requests, after records were given up."""


class Accumulator:
    def __init__(self, settings: ProducerSettings, random: Random) -> None:
        self.settings = settings
        self.buffered_bytes = 0
        self.topics: dict[str, TopicQueues] = {}
        self.beyond: set[str] = set()
        """Topics that have records for partitions beyond those that are known."""
        self.identity = ProducerIdentity()
        self._acks_level = acks_level_for(acks_number(settings.acks))
        self._random = random
        self._active: dict[PartitionQueue, None] = {}
        self._sequence = 0
        self._flushed_sequence = 0

    # --- records in -------------------------------------------------------------------------------

    def topic(self, topic: str) -> TopicQueues:
        queues = self.topics.get(topic)
        if queues is None:
            queues = self.topics[topic] = TopicQueues(topic)
        return queues

    def has_room(self, size_bytes: int) -> bool:
        """Whether ``size_bytes`` more fit. An empty buffer takes a record of any size."""
        return self.buffered_bytes + size_bytes <= self.settings.buffer_bytes or self.buffered_bytes == 0

    def join(
        self,
        topic: TopicQueues,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        partition: int | None,
        timestamp: int,
        token: Any,
    ) -> bool:
        """Add one record to the open batch of its queue: the short way, which most records can
        take. False, and nothing added: there is no such batch or no room in it, ``append`` is for
        that. Raises what ``append`` does."""
        if not topic.partition_count or (partition is not None and partition >= topic.partition_count):
            return False
        sticky = topic.sticky
        is_free = key is None and partition is None and sticky >= 0
        queue = topic.partitions[sticky] if is_free else self._queue_for(topic, key, partition)
        batch = queue.open
        if batch is None:
            return False
        size = batch.builder.append(key, value, headers, timestamp)
        if not size:
            return False
        batch.add_owner(1, token)
        batch.reserved_bytes += size
        queue.queued_bytes += size
        self.buffered_bytes += size
        return True

    def append(
        self,
        topic: TopicQueues,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        partition: int | None,
        timestamp: int,
        token: Any,
        now_ms: int,
    ) -> int | None:
        """Add one record; returns in how many ms ``drain`` is wanted for it, None when that is
        arranged already.

        Raises RecordTooLarge. Nothing was added then. A record for a partition that is not known
        waits until the layout was asked for anew: the partition may have been added a moment
        ago."""
        if not topic.partition_count or (partition is not None and partition >= topic.partition_count):
            return self._park(topic, value, key, headers, partition, timestamp, token, now_ms)
        due_ms: int | None = None
        while (queue := self._queue_for(topic, key, partition)).open is not None:
            if self.join(topic, value, key, headers, partition, timestamp, token):
                return due_ms
            self._seal(topic, queue)
            due_ms = 0
        batch = self._fresh(topic, now_ms, self.settings.batch_bytes)
        try:
            size = batch.builder.append(key, value, headers, timestamp)
        except RecordTooLarge:
            batch = self._fresh(topic, now_ms, topic.message_bytes_max)
            size = batch.builder.append(key, value, headers, timestamp)
        batch.add_owner(1, token)
        self._open(queue, batch, size)
        return self.settings.linger_ms if due_ms is None else due_ms

    def extend(
        self,
        topic: TopicQueues,
        values: Sequence[bytes],
        start: int,
        partition: int | None,
        timestamp: int,
        token: Any,
        now_ms: int,
    ) -> int:
        """Add records without key for ``values[start:]`` until one batch is full; returns where to
        go on.

        The topic's partitions must be known. Raises RecordTooLarge when the very first value fits
        no batch."""
        assert topic.partition_count, "place() comes before extend()"
        queue = self._queue_for(topic, None, partition)
        batch = queue.open
        if batch is not None:
            before = batch.builder.bytes_total
            index = batch.builder.extend(values, timestamp, start)
            if index > start:
                batch.add_owner(index - start, token)
                self._reserve(queue, batch, batch.builder.bytes_total - before)
        else:
            batch = self._fresh(topic, now_ms, self.settings.batch_bytes)
            try:
                index = batch.builder.extend(values, timestamp, start)
            except RecordTooLarge:
                batch = self._fresh(topic, now_ms, topic.message_bytes_max)
                index = batch.builder.extend(values, timestamp, start)
            batch.add_owner(index - start, token)
            self._open(queue, batch, batch.builder.bytes_total)
        if index < len(values):
            self._seal(topic, queue)
        return index

    def append_if(
        self,
        topic: TopicQueues,
        rows: Iterable[Row],
        partition: int,
        timestamp: int,
        expected_offset: int,
        token: Any,
        now_ms: int,
    ) -> None:
        """Add one batch for ``expected_offset``, behind what was given before (conditional.py). The
        topic's partitions must be known. Raises RecordTooLarge. Nothing was added then."""
        queue = self._queue_for(topic, None, partition)
        batch = self._fresh(topic, now_ms, topic.message_bytes_max)
        fill(batch, rows, timestamp, token)
        if queue.open is not None:
            self._seal(topic, queue)
        batch.expected_offset = expected_offset
        self._open(queue, batch, batch.builder.bytes_total)
        self._seal(topic, queue)

    def on_partitions(
        self,
        topic: str,
        partition_count: int,
        message_bytes_max: int,
        now_ms: int,
        topic_id: str = "",
        asked_after: int | None = None,
    ) -> list[Failure]:
        """The topic's partitions became known, or grew: waiting records find their queues, in
        order. What was placed for another topic of that name, which is gone, is given up. So is a
        record for a partition that is not there, if it was given before the layout was asked for
        (its number is up to ``asked_after``)."""
        queues = self.topic(topic)
        is_other = queues.topic_id not in ("", topic_id)
        queues.topic_id = topic_id
        failures = self._fail_placed(remade(topic), queues) if is_other else []
        queues.message_bytes_max, queues.partition_count, queues.sticky = message_bytes_max, partition_count, -1
        for partition in range(len(queues.partitions), partition_count):
            queues.partitions.append(PartitionQueue(topic, partition, self._sequences_of_new_queue()))
        for _ in range(len(queues.waiting) if partition_count else 0):
            record = queues.waiting.popleft()
            if record.is_beyond(partition_count) and (asked_after is None or record.sequence > asked_after):
                queues.waiting.append(record)
                self.beyond.add(topic)
                continue
            self.buffered_bytes -= record.reserved_bytes
            try:
                self._enqueue(queues, record, now_ms)
            except MinilogError as error:
                failures.append(Failure([(0, 1, record.token)], error, topic))
        return failures

    def _enqueue(self, queues: TopicQueues, record: Waiting, now_ms: int) -> None:
        queue = self._queue_for(queues, record.key, record.partition)
        self.append(
            queues, record.value, record.key, record.headers, queue.partition, record.timestamp, record.token, now_ms
        )
        assert queue.open is not None, "the record has just been added to it"
        queue.open.sequence = min(queue.open.sequence, record.sequence)
        queue.open.deadline_ms = min(queue.open.deadline_ms, record.deadline_ms)

    def _park(
        self,
        topic: TopicQueues,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        partition: int | None,
        timestamp: int,
        token: Any,
        now_ms: int,
    ) -> int | None:
        if topic.partition_count:
            self.beyond.add(topic.topic)
        size = len(value or b"") + len(key or b"") + RECORD_OVERHEAD_BYTES
        deadline_ms = now_ms + self.settings.delivery_timeout_ms
        topic.waiting.append(
            Waiting(value, key, headers, partition, timestamp, token, self._next_sequence(), deadline_ms, size)
        )
        self.buffered_bytes += size
        return 0

    def _queue_for(self, topic: TopicQueues, key: bytes | None, partition: int | None) -> PartitionQueue:
        count = topic.partition_count
        if partition is not None:
            if not 0 <= partition < count:
                raise UnknownTopic(f"partition is {partition}, topic {topic.topic} has 0 to {count - 1}")
        elif key is not None:
            partition = partition_for_key(key, count)
        else:
            if topic.sticky < 0:
                topic.sticky = next_sticky(count, lambda index: topic.partitions[index].queued_bytes, self._random)
            partition = topic.sticky
        return topic.partitions[partition]

    def _fresh(self, topic: TopicQueues, now_ms: int, size_bytes: int) -> ProducerBatch:
        builder = BatchBuilder(min(size_bytes, topic.message_bytes_max))
        deadline_ms = now_ms + self.settings.delivery_timeout_ms
        return ProducerBatch(builder, self._next_sequence(), now_ms, deadline_ms, topic.topic_id)

    @property
    def last_sequence(self) -> int:
        """The number of the youngest batch or record."""
        return self._sequence

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _open(self, queue: PartitionQueue, batch: ProducerBatch, size_bytes: int) -> None:
        queue.open = batch
        self._active[queue] = None
        self._reserve(queue, batch, size_bytes)

    def _reserve(self, queue: PartitionQueue, batch: ProducerBatch, size: int) -> None:
        batch.reserved_bytes += size
        queue.queued_bytes += size
        self.buffered_bytes += size

    def _release(self, queue: PartitionQueue, batches: Sequence[ProducerBatch]) -> None:
        for batch in batches:
            queue.queued_bytes -= batch.reserved_bytes
            self.buffered_bytes -= batch.reserved_bytes
        if queue.is_idle:
            self._active.pop(queue, None)
        assert self.buffered_bytes >= 0, "nothing is released twice"

    def _seal(self, topic: TopicQueues, queue: PartitionQueue) -> None:
        assert queue.open is not None, "only an open batch can be sealed"
        settings = self.settings
        queue.seal(queue.open.builder.seal(compression=settings.compression, acks_level=self._acks_level))
        if topic.sticky == queue.partition:
            topic.sticky = -1

    # --- requests out -----------------------------------------------------------------------------

    def flush(self) -> int:
        """What has been given so far need not linger; returns the sequence up to which that is."""
        self._flushed_sequence = self._sequence
        return self._sequence

    def drain(self, now_ms: int, leader_of: LeaderOf, is_busy: Callable[[str], bool]) -> Drained:
        """Requests to send now."""
        packing = Packing(now_ms, self.settings.try_timeout_ms)
        restarted: list[PartitionQueue] = []
        is_leaderless = needs_producer_id = False
        for queue in self._active:
            ready_ms = queue.ready_at_ms(self.settings.linger_ms, self._flushed_sequence)
            if queue.in_flight or ready_ms is None or ready_ms > now_ms:
                continue
            leader = leader_of(queue.topic, queue.partition)
            if not queue.attempts.may_try(now_ms, leader.leader_epoch if leader else -1):
                continue
            if leader is None:
                is_leaderless = True
                error = LeaderNotAvailable(f"{queue.topic}-{queue.partition} has no leader")
                queue.attempts.on_failure(error, now_ms, self._random)
            elif queue.attempts.tries or not is_busy(leader.url):
                if not queue.can_number():
                    needs_producer_id = True
                    continue
                if queue.starts_over:
                    restarted.append(queue)
                if queue.open is not None and self._is_due(queue, now_ms):
                    self._seal(self.topics[queue.topic], queue)
                packing.add(queue, leader)
        return Drained(packing.dispatches, is_leaderless, needs_producer_id, restarted)

    def _is_due(self, queue: PartitionQueue, now_ms: int) -> bool:
        """The open batch has lingered long enough."""
        return queue.open_due_ms(self.settings.linger_ms, self._flushed_sequence) <= now_ms

    def next_wake_ms(self, now_ms: int) -> int | None:
        """When ``expire`` or ``drain`` should be called next, if nothing else happens before."""
        wake: int | None = None
        for queue in self._active:
            ready_ms = queue.ready_at_ms(self.settings.linger_ms, self._flushed_sequence)
            if queue.in_flight or ready_ms is None:
                continue
            if queue.attempts.tries:
                ready_ms = max(ready_ms, queue.attempts.retry_at_ms)
            oldest = queue.oldest
            assert oldest is not None, "an active queue has a batch"
            due_ms = min(ready_ms, oldest.deadline_ms) if ready_ms > now_ms else oldest.deadline_ms
            wake = due_ms if wake is None else min(wake, due_ms)
        for topic in self.topics.values():
            if topic.waiting:
                wake = min(wake or topic.waiting[0].deadline_ms, topic.waiting[0].deadline_ms)
        return wake

    # --- outcomes ---------------------------------------------------------------------------------

    def on_success(self, queue: PartitionQueue) -> list[ProducerBatch]:
        """The batches of ``queue`` that were in flight are acknowledged."""
        batches = queue.take_in_flight()
        self._release(queue, batches)
        return batches

    def on_failure(self, queue: PartitionQueue, error: MinilogError, now_ms: int) -> list[Failure]:
        """The try in flight failed: send again later, or give up and say what is known of the
        records."""
        assert queue.in_flight, "only a try in flight can fail"
        for batch in queue.in_flight:
            batch.last_error = error
            batch.maybe_written |= not error.definite
        if queue.in_flight[0].topic_id not in ("", self.topics[queue.topic].topic_id):
            error = remade(queue.topic)
            return [self._give_up(queue, batch, for_batch(error, queue, batch)) for batch in queue.take_in_flight()]
        if is_gap_to_step_over(queue, error, self.settings):
            assert queue.sequences is not None, "only numbered batches are out of order"
            queue.sequences.give_up()
            queue.given_up = for_batch(error, queue, queue.in_flight[0])
        elif not is_worth_retrying(queue, error, self.settings, now_ms):
            if len(queue.in_flight) > 1 and error.definite and not error.retriable:
                queue.solo = len(queue.in_flight)
                queue.put_back()
                return []
            if isinstance(error, ProducerFenced) and queue.sequences is not None:
                queue.sequences.discard()
            return [self._give_up(queue, batch, for_batch(error, queue, batch)) for batch in queue.take_in_flight()]
        queue.put_back()
        queue.attempts.on_failure(error, now_ms, self._random)
        return []

    def expire(self, now_ms: int, unheard: MinilogError | None = None) -> list[Failure]:
        """Give up what has waited longer than the delivery timeout and is not in flight.
        ``unheard``: why no broker tells the layout, if none does."""
        failures: list[Failure] = []
        timeout_ms = self.settings.delivery_timeout_ms
        for queue in list(self._active):
            while not queue.in_flight and (batch := queue.oldest) is not None and batch.deadline_ms <= now_ms:
                if not queue.sealed:
                    self._seal(self.topics[queue.topic], queue)
                error = expired(batch, timeout_ms, self.identity.last_error)
                failures.append(self._give_up(queue, queue.sealed.popleft(), for_batch(error, queue, batch)))
        for topic in self.topics.values():
            while topic.waiting and topic.waiting[0].deadline_ms <= now_ms:
                failures.append(self._give_up_waiting(topic, no_partitions(topic.topic, timeout_ms, unheard)))
        return failures

    def requeue_in_flight(self) -> None:
        """Nobody waits for the answers of what is in flight any more: it may or may not be
        written."""
        for queue in self._active:
            for batch in queue.in_flight:
                batch.maybe_written = True
            queue.put_back()

    def fail_all(self, error: MinilogError, topic: TopicQueues | None = None) -> list[Failure]:
        """Give up whatever is not in flight, of one ``topic`` or of all, for ``error``."""
        failures: list[Failure] = []
        for queues in self.topics.values() if topic is None else [topic]:
            while queues.waiting:
                failures.append(self._give_up_waiting(queues, error))
            failures += self._fail_placed(error, queues)
        return failures

    def _fail_placed(self, error: MinilogError, queues: TopicQueues) -> list[Failure]:
        failures: list[Failure] = []
        for queue in queues.partitions:
            if queue.open is not None:
                self._seal(queues, queue)
            while queue.sealed:
                batch = queue.sealed.popleft()
                failures.append(self._give_up(queue, batch, for_batch(error, queue, batch)))
        return failures

    def forget(self, queues: TopicQueues) -> bool:
        """A topic of which nothing is left to send. False: something is."""
        is_empty = not queues.waiting and all(queue.is_idle for queue in queues.partitions)
        return is_empty and self.topics.pop(queues.topic, None) is not None

    def oldest_sequence(self) -> int | None:
        """The creation number of the oldest batch or record not yet settled."""
        return min(self._sequences(), default=None)

    def unsettled(self, unheard: MinilogError | None = None) -> list[Unsettled]:
        """Where records wait for their fate, and why. ``unheard``: as for ``expire``."""
        found = [unsettled_of(queue, self.identity.last_error) for queue in self._active]
        found += [Unsettled(t.topic, None, len(t.waiting), unheard) for t in self.topics.values() if t.waiting]
        return found

    def _sequences(self) -> Iterator[int]:
        for queue in self._active:
            for batch in (*queue.in_flight[:1], *queue.sealed, queue.open):
                if batch is not None:
                    yield batch.sequence
        for topic in self.topics.values():
            if topic.waiting:
                yield topic.waiting[0].sequence

    def _give_up(self, queue: PartitionQueue, batch: ProducerBatch, error: MinilogError) -> Failure:
        if queue.sequences is not None and batch.base_sequence != NONE:
            if is_never_written(error):
                queue.sequences.take_back(batch.base_sequence)
            else:
                queue.sequences.give_up()
                queue.given_up = error
        self._release(queue, [batch])
        return Failure(list(batch.spans()), error, queue.topic)

    def _give_up_waiting(self, topic: TopicQueues, error: MinilogError) -> Failure:
        record = topic.waiting.popleft()
        self.buffered_bytes -= record.reserved_bytes
        return Failure([(0, 1, record.token)], error, topic.topic)

    def _sequences_of_new_queue(self) -> Sequences | None:
        return Sequences(self.identity) if self.settings.idempotent else None
