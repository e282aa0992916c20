"""The producer's accumulator: records in, requests out, verdicts on what became of them. Pure.

Time is an argument, randomness injected, sending somebody else's work (``producer.py``). Tokens are opaque: one
stands for the call that waits for the record. Lifecycle of a record: waiting (its topic's partitions are not known
yet) -> in the open batch of a lane -> sealed -> in flight -> succeeded, retried or given up.

Invariants, besides those of ``lanes.py``:
* Every token accepted by ``append`` or ``extend`` comes out exactly once, in ``Lane.land``'s batches or a ``Failure``.
* ``buffered_bytes`` is the sum of what the lanes and the waiting records reserve, and returns to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final, NamedTuple

from minilog.errors import (
    LeaderNotAvailable,
    MinilogError,
    OutOfOrderSequence,
    ProducerFenced,
    RecordTooLarge,
    UnknownTopic,
)
from minilog.wire.batch import acks_level_for
from minilog.wire.codec import Headers
from minilog.wire.records import BatchBuilder
from minilog_client.connection.routing import Leader
from minilog_client.producer.partition_queue import (
    RECORD_OVERHEAD_BYTES,
    Lane,
    ProducerBatch,
    Span,
    TopicLanes,
    Waiting,
)
from minilog_client.producer.partitioner import next_sticky, partition_for_key
from minilog_client.producer.record_errors import Unsettled, expired, for_batch, no_partitions, unsettled_of
from minilog_client.producer.sequences import NONE, Numbering, ProducerIdentity
from minilog_client.settings import MIB, ProducerSettings, acks_number

PARTITION_REQUEST_BYTES: Final = MIB
REQUEST_BYTES: Final = 8 * MIB
TOPIC_GRACE_MS: Final = 2000
"""A leader that does not know the topic may be told of it this much later than the rest of the cluster."""
LeaderOf = Callable[[str, int], Leader | None]


class Drained(NamedTuple):
    """What there is to do: requests to send now, and what keeps others from being sent."""

    dispatches: list[Dispatch]
    is_leaderless: bool
    """Some lane has no leader to send to: metadata are wanted."""
    is_nameless: bool
    """Some lane has no producer id to number its records with."""
    restarted: list[Lane]
    """Lanes that begin a new producer epoch with these requests, after records were given up."""


class Failure(NamedTuple):
    """Records given up: ``error.definite`` says whether they are provably not in the log."""

    spans: Sequence[Span]
    error: MinilogError


class Dispatch(NamedTuple):
    """One request to one leader."""

    leader: Leader
    lanes: list[Lane]
    is_retry: bool


OpenRequests = dict[tuple[str, bool, bool], tuple[Dispatch, int]]
"""Requests that may still take more lanes, with their sizes so far, by (leader, is a retry, is urgent)."""


class Accumulator:
    def __init__(self, settings: ProducerSettings, random: Random) -> None:
        self.settings = settings
        self.buffered_bytes = 0
        self.topics: dict[str, TopicLanes] = {}
        self.identity = ProducerIdentity()
        self._acks_level = acks_level_for(acks_number(settings.acks))
        self._random = random
        self._active: dict[Lane, None] = {}
        self._sequence = 0
        self._flushed_sequence = 0

    # --- records in ----------------------------------------------------------------------------------

    def topic(self, topic: str) -> TopicLanes:
        lanes = self.topics.get(topic)
        if lanes is None:
            lanes = self.topics[topic] = TopicLanes(topic)
        return lanes

    def has_room(self, size_bytes: int) -> bool:
        """Whether ``size_bytes`` more fit; an empty buffer takes a record of any size."""
        return self.buffered_bytes + size_bytes <= self.settings.buffer_bytes or self.buffered_bytes == 0

    def join(
        self,
        topic: TopicLanes,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        partition: int | None,
        timestamp: int,
        token: Any,
    ) -> bool:
        """Add one record to the open batch of its lane: the short way, which most records can take. False, and
        nothing added: there is no such batch or no room in it, ``append`` is for that. Raises what ``append`` does."""
        if not topic.partition_count:
            return False
        sticky = topic.sticky
        is_free = key is None and partition is None and sticky >= 0
        lane = topic.lanes[sticky] if is_free else self._lane_for(topic, key, partition)
        batch = lane.open
        if batch is None:
            return False
        size = batch.builder.append(key, value, headers, timestamp)
        if not size:
            return False
        batch.own(1, token)
        batch.reserved_bytes += size
        lane.queued_bytes += size
        self.buffered_bytes += size
        return True

    def append(
        self,
        topic: TopicLanes,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        partition: int | None,
        timestamp: int,
        token: Any,
        now_ms: int,
    ) -> int | None:
        """Add one record; returns in how many ms ``drain`` is wanted for it, None when that is arranged already.

        Raises RecordTooLarge, or UnknownTopic for a partition the topic does not have; nothing was added then."""
        if not topic.partition_count:
            return self._park(topic, value, key, headers, partition, timestamp, token, now_ms)
        due_ms: int | None = None
        while (lane := self._lane_for(topic, key, partition)).open is not None:
            if self.join(topic, value, key, headers, partition, timestamp, token):
                return due_ms
            self._seal(topic, lane)
            due_ms = 0
        batch = self._fresh(topic, now_ms, self.settings.batch_bytes)
        try:
            size = batch.builder.append(key, value, headers, timestamp)
        except RecordTooLarge:
            batch = self._fresh(topic, now_ms, topic.message_bytes_max)
            size = batch.builder.append(key, value, headers, timestamp)
        batch.own(1, token)
        self._open(lane, batch, size)
        return self.settings.linger_ms if due_ms is None else due_ms

    def extend(
        self,
        topic: TopicLanes,
        values: Sequence[bytes],
        start: int,
        partition: int | None,
        timestamp: int,
        token: Any,
        now_ms: int,
    ) -> int:
        """Add records without key for ``values[start:]`` until one batch is full; returns where to go on.

        The topic's partitions must be known. Raises RecordTooLarge when the very first value fits no batch."""
        assert topic.partition_count, "place() comes before extend()"
        lane = self._lane_for(topic, None, partition)
        batch = lane.open
        if batch is not None:
            before = batch.builder.bytes_total
            index = batch.builder.extend(values, timestamp, start)
            if index > start:
                batch.own(index - start, token)
                self._reserve(lane, batch, batch.builder.bytes_total - before)
        else:
            batch = self._fresh(topic, now_ms, self.settings.batch_bytes)
            try:
                index = batch.builder.extend(values, timestamp, start)
            except RecordTooLarge:
                batch = self._fresh(topic, now_ms, topic.message_bytes_max)
                index = batch.builder.extend(values, timestamp, start)
            batch.own(index - start, token)
            self._open(lane, batch, batch.builder.bytes_total)
        if index < len(values):
            self._seal(topic, lane)
        return index

    def place(self, topic: str, partition_count: int, message_bytes_max: int, now_ms: int) -> list[Failure]:
        """The topic's partitions became known, or grew: waiting records find their lanes, in order."""
        lanes = self.topic(topic)
        lanes.message_bytes_max, lanes.partition_count, lanes.sticky = message_bytes_max, partition_count, -1
        for partition in range(len(lanes.lanes), partition_count):
            lanes.lanes.append(Lane(topic, partition, self._numbering()))
        failures: list[Failure] = []
        while partition_count and lanes.waiting:
            record = lanes.waiting.popleft()
            self.buffered_bytes -= record.reserved_bytes
            try:
                self._place_one(lanes, record, now_ms)
            except MinilogError as error:
                failures.append(Failure([(0, 1, record.token)], error))
        return failures

    def _place_one(self, lanes: TopicLanes, record: Waiting, now_ms: int) -> None:
        lane = self._lane_for(lanes, record.key, record.partition)
        self.append(
            lanes, record.value, record.key, record.headers, lane.partition, record.timestamp, record.token, now_ms
        )
        assert lane.open is not None, "the record has just been added to it"
        lane.open.sequence = min(lane.open.sequence, record.sequence)
        lane.open.deadline_ms = min(lane.open.deadline_ms, record.deadline_ms)

    def _park(
        self,
        topic: TopicLanes,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        partition: int | None,
        timestamp: int,
        token: Any,
        now_ms: int,
    ) -> int | None:
        size = len(value or b"") + len(key or b"") + RECORD_OVERHEAD_BYTES
        deadline_ms = now_ms + self.settings.delivery_timeout_ms
        topic.waiting.append(
            Waiting(value, key, headers, partition, timestamp, token, self._next_sequence(), deadline_ms, size)
        )
        self.buffered_bytes += size
        return 0

    def _lane_for(self, topic: TopicLanes, key: bytes | None, partition: int | None) -> Lane:
        count = topic.partition_count
        if partition is not None:
            if not 0 <= partition < count:
                raise UnknownTopic(f"partition is {partition}, topic {topic.topic} has 0 to {count - 1}")
        elif key is not None:
            partition = partition_for_key(key, count)
        else:
            if topic.sticky < 0:
                topic.sticky = next_sticky(count, lambda index: topic.lanes[index].queued_bytes, self._random)
            partition = topic.sticky
        return topic.lanes[partition]

    def _fresh(self, topic: TopicLanes, now_ms: int, size_bytes: int) -> ProducerBatch:
        builder = BatchBuilder(min(size_bytes, topic.message_bytes_max))
        return ProducerBatch(builder, self._next_sequence(), now_ms, now_ms + self.settings.delivery_timeout_ms)

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _open(self, lane: Lane, batch: ProducerBatch, size_bytes: int) -> None:
        lane.open = batch
        self._active[lane] = None
        self._reserve(lane, batch, size_bytes)

    def _reserve(self, lane: Lane, batch: ProducerBatch, size: int) -> None:
        batch.reserved_bytes += size
        lane.queued_bytes += size
        self.buffered_bytes += size

    def _release(self, lane: Lane, batches: Sequence[ProducerBatch]) -> None:
        for batch in batches:
            lane.queued_bytes -= batch.reserved_bytes
            self.buffered_bytes -= batch.reserved_bytes
        if lane.is_idle:
            self._active.pop(lane, None)
        assert self.buffered_bytes >= 0, "nothing is released twice"

    def _seal(self, topic: TopicLanes, lane: Lane) -> None:
        assert lane.open is not None, "only an open batch can be sealed"
        settings = self.settings
        lane.seal(lane.open.builder.seal(compression=settings.compression, acks_level=self._acks_level))
        if topic.sticky == lane.partition:
            topic.sticky = -1

    # --- requests out ----------------------------------------------------------------------------------

    def flush(self) -> int:
        """What has been given so far need not linger; returns the sequence up to which that is."""
        self._flushed_sequence = self._sequence
        return self._sequence

    def drain(self, now_ms: int, leader_of: LeaderOf, is_busy: Callable[[str], bool]) -> Drained:
        """Requests to send now.

        Lanes that failed before, and those about to expire, travel apart from healthy ones: what holds them up, or
        shortens the wait for them, must not touch the rest."""
        open_requests: OpenRequests = {}
        dispatches: list[Dispatch] = []
        restarted: list[Lane] = []
        is_leaderless = is_nameless = False
        for lane in self._active:
            ready_ms = lane.ready_at_ms(self.settings.linger_ms, self._flushed_sequence)
            if lane.in_flight or ready_ms is None or ready_ms > now_ms:
                continue
            leader = leader_of(lane.topic, lane.partition)
            if not lane.attempts.may_try(now_ms, leader.leader_epoch if leader else -1):
                continue
            if leader is None:
                is_leaderless = True
                error = LeaderNotAvailable(f"{lane.topic}-{lane.partition} has no leader")
                lane.attempts.on_failure(error, now_ms, self._random)
            elif lane.attempts.tries or not is_busy(leader.url):
                if not lane.is_numberable():
                    is_nameless = True
                    continue
                if lane.starts_over:
                    restarted.append(lane)
                self._dispatch(lane, leader, now_ms, open_requests, dispatches)
        return Drained(dispatches, is_leaderless, is_nameless, restarted)

    def _dispatch(
        self,
        lane: Lane,
        leader: Leader,
        now_ms: int,
        open_requests: OpenRequests,
        dispatches: list[Dispatch],
    ) -> None:
        if lane.open is not None and lane.open_due_ms(self.settings.linger_ms, self._flushed_sequence) <= now_ms:
            self._seal(self.topics[lane.topic], lane)
        is_retry = lane.attempts.tries > 0
        batches = lane.take(PARTITION_REQUEST_BYTES, leader.leader_epoch)
        size = sum(batch.sealed.bytes_total for batch in batches)
        is_urgent = batches[0].deadline_ms - now_ms < self.settings.try_timeout_ms
        kind = (leader.url, is_retry, is_urgent)
        dispatch, filled = open_requests.get(kind, (None, 0))
        if dispatch is None or filled + size > REQUEST_BYTES:
            dispatch, filled = Dispatch(leader, [], is_retry), 0
            dispatches.append(dispatch)
        dispatch.lanes.append(lane)
        open_requests[kind] = (dispatch, filled + size)

    def next_wake_ms(self, now_ms: int) -> int | None:
        """When ``expire`` or ``drain`` should be called next, if nothing else happens before."""
        wake: int | None = None
        for lane in self._active:
            ready_ms = lane.ready_at_ms(self.settings.linger_ms, self._flushed_sequence)
            if lane.in_flight or ready_ms is None:
                continue
            if lane.attempts.tries:
                ready_ms = max(ready_ms, lane.attempts.retry_at_ms)
            oldest = lane.oldest
            assert oldest is not None, "an active lane has a batch"
            due_ms = min(ready_ms, oldest.deadline_ms) if ready_ms > now_ms else oldest.deadline_ms
            wake = due_ms if wake is None else min(wake, due_ms)
        for topic in self.topics.values():
            if topic.waiting:
                wake = min(wake or topic.waiting[0].deadline_ms, topic.waiting[0].deadline_ms)
        return wake

    # --- verdicts --------------------------------------------------------------------------------------

    def on_success(self, lane: Lane) -> list[ProducerBatch]:
        """The batches of ``lane`` that were in flight are acknowledged."""
        batches = lane.land()
        self._release(lane, batches)
        return batches

    def on_failure(self, lane: Lane, error: MinilogError, now_ms: int) -> list[Failure]:
        """The try in flight failed: send again later, or give up and say what is known of the records."""
        assert lane.in_flight, "only a try in flight can fail"
        for batch in lane.in_flight:
            batch.last_error = error
            batch.maybe_written |= not error.definite
        if self._is_gap_to_step_over(lane, error):
            assert lane.numbering is not None, "only numbered batches are out of order"
            lane.numbering.give_up()
            lane.given_up = for_batch(error, lane, lane.in_flight[0])
        elif not self._is_worth_retrying(lane, error, now_ms):
            if len(lane.in_flight) > 1 and error.definite and not error.retriable:
                lane.solo = len(lane.in_flight)
                lane.put_back()
                return []
            if isinstance(error, ProducerFenced) and lane.numbering is not None:
                lane.numbering.discard()
            return [self._give_up(lane, batch, for_batch(error, lane, batch)) for batch in lane.land()]
        lane.put_back()
        lane.attempts.on_failure(error, now_ms, self._random)
        return []

    def expire(self, now_ms: int) -> list[Failure]:
        """Give up what has waited longer than the delivery timeout and is not in flight."""
        failures: list[Failure] = []
        timeout_ms = self.settings.delivery_timeout_ms
        for lane in list(self._active):
            while not lane.in_flight and (batch := lane.oldest) is not None and batch.deadline_ms <= now_ms:
                if not lane.sealed:
                    self._seal(self.topics[lane.topic], lane)
                error = expired(batch, timeout_ms, self.identity.last_error)
                failures.append(self._give_up(lane, lane.sealed.popleft(), for_batch(error, lane, batch)))
        for topic in self.topics.values():
            while topic.waiting and topic.waiting[0].deadline_ms <= now_ms:
                failures.append(self._give_up_waiting(topic, no_partitions(topic.topic, timeout_ms)))
        return failures

    def recall(self) -> None:
        """Nobody waits for the answers of what is in flight any more: it may or may not be written."""
        for lane in self._active:
            for batch in lane.in_flight:
                batch.maybe_written = True
            lane.put_back()

    def abandon(self, error: MinilogError, topic: TopicLanes | None = None) -> list[Failure]:
        """Give up whatever is not in flight, of one ``topic`` or of all, for ``error``."""
        failures: list[Failure] = []
        for lanes in self.topics.values() if topic is None else [topic]:
            while lanes.waiting:
                failures.append(self._give_up_waiting(lanes, error))
            for lane in lanes.lanes:
                if lane.open is not None:
                    self._seal(lanes, lane)
                while lane.sealed:
                    batch = lane.sealed.popleft()
                    failures.append(self._give_up(lane, batch, for_batch(error, lane, batch)))
        return failures

    def oldest_sequence(self) -> int | None:
        """The creation number of the oldest batch or record not yet settled."""
        return min(self._sequences(), default=None)

    def unsettled(self) -> list[Unsettled]:
        """Where records wait for their fate, and why."""
        found = [unsettled_of(lane, self.identity.last_error) for lane in self._active]
        found += [Unsettled(t.topic, None, len(t.waiting), None) for t in self.topics.values() if t.waiting]
        return found

    def _sequences(self) -> Iterator[int]:
        for lane in self._active:
            for batch in (*lane.in_flight[:1], *lane.sealed, lane.open):
                if batch is not None:
                    yield batch.sequence
        for topic in self.topics.values():
            if topic.waiting:
                yield topic.waiting[0].sequence

    def _is_worth_retrying(self, lane: Lane, error: MinilogError, now_ms: int) -> bool:
        retries = self.settings.retries
        if retries == "none":
            return False
        if retries == "definite" and any(batch.maybe_written for batch in lane.in_flight):
            return False
        if isinstance(error, UnknownTopic):
            return lane.attempts.failing_for_ms(now_ms) < TOPIC_GRACE_MS
        return error.retriable

    def _is_gap_to_step_over(self, lane: Lane, error: MinilogError) -> bool:
        """A leader that lacks what was acknowledged with less than acks="all": that can be lost, and goes on in a new
        epoch. With acks="all" it never may, and the application is told."""
        return (
            isinstance(error, OutOfOrderSequence)
            and self.settings.acks != "all"
            and not lane.in_flight[0].maybe_written
        )

    def _give_up(self, lane: Lane, batch: ProducerBatch, error: MinilogError) -> Failure:
        if lane.numbering is not None and batch.base_sequence != NONE:
            lane.numbering.give_up()
            lane.given_up = error
        self._release(lane, [batch])
        return Failure(list(batch.spans()), error)

    def _give_up_waiting(self, topic: TopicLanes, error: MinilogError) -> Failure:
        record = topic.waiting.popleft()
        self.buffered_bytes -= record.reserved_bytes
        return Failure([(0, 1, record.token)], error)

    def _numbering(self) -> Numbering | None:
        return Numbering(self.identity) if self.settings.idempotent else None
