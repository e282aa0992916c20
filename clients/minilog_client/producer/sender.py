"""The producer's engine: pumps requests out of the accumulator and brings every outcome to the call
that waits.

All decisions are in ``accumulator.py``. Here are the tasks, the timer and the futures.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from minilog.errors import BufferFull, ClientClosed, InternalError, MinilogError, TimedOut, UnknownTopic
from minilog.wire.http import topic_name
from minilog.wire.messages import Produce, ProduceReply, ProduceResult
from minilog_client.connection.backoff import is_hunting
from minilog_client.connection.cluster import Cluster, led_no_longer, now_ms
from minilog_client.connection.own_loop import check_loop
from minilog_client.connection.tasks import TaskScope
from minilog_client.observing.events import Delivered, GivenUp, Retried
from minilog_client.observing.figures import ProducerStatistics
from minilog_client.producer.accumulator import Accumulator
from minilog_client.producer.failed_tries import Failure
from minilog_client.producer.failure_log import FailureLog, Look
from minilog_client.producer.identification import Identification
from minilog_client.producer.new_partitions import NewPartitions
from minilog_client.producer.packing import Dispatch, in_flight
from minilog_client.producer.partition_queue import PartitionQueue, ProducerBatch, TopicQueues
from minilog_client.producer.receipts import ManyCall, Receipt, batch_receipt
from minilog_client.producer.record_errors import listed
from minilog_client.settings import ProducerSettings, acks_number

REQUESTS_PER_BROKER_MAX: Final = 3
_ANSWER_SLACK_MS: Final = 250
"""How much longer the answer may take than the broker was told to wait."""
_new: Final = tuple.__new__
_log: Final = logging.getLogger("minilog_client.producer.producer")


class Sender:
    """Owns the accumulator of one producer. Tokens are futures of receipts, of this loop or (with
    ``acknowledge``) of a thread, or the ``ManyCall`` of a ``send_many``."""

    def __init__(self, cluster: Cluster, settings: ProducerSettings) -> None:
        self.settings = settings
        self.accumulator = Accumulator(settings, cluster.random)
        self._acks = acks_number(settings.acks)
        self._cluster, self.time_units, self._tell = cluster, cluster.time_units, cluster.teller.tell
        self._loop = asyncio.get_running_loop()
        self._tasks = TaskScope("minilog_client producer")
        self._busy: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_ms = 0
        self._pumping, self._seen_version = False, -1
        self._unplaced: set[str] = set()
        """Topics whose partitions are not known, or no longer."""
        self._line = asyncio.Lock()
        self._room: asyncio.Future[None] | None = None
        self._flush_waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._acknowledged = self._failed = self._requests = self._retries = self._restarts = 0
        self._identification = Identification(cluster, self.accumulator, self._tasks, self._settle, self.wake)
        self.new_partitions = NewPartitions(cluster, self.accumulator, self._tasks, self._settle, self.wake)
        self.failures = FailureLog(_log, self._loop)
        self.closed = False

    # --- what the producer asks for ---------------------------------------------------------------

    def topic_queues(self, topic: str) -> TopicQueues:
        """The queues of a topic, which is watched from now on."""
        self.check_open()
        if not isinstance(topic, str):
            raise TypeError(f"topic must be a string, got {type(topic).__name__}")
        if topic not in self.accumulator.topics:
            self._identification.seek()
            self._cluster.watch([topic_name(topic)], self._on_metadata)
            self._unplaced.add(topic)
        return self.accumulator.topic(topic)

    async def placed(self, topic: str) -> TopicQueues:
        """The same once the topic's partitions are known; raises UnknownTopic,
        BrokerUnavailable."""
        while not (queues := self.topic_queues(topic)).partition_count:
            await self._cluster.topic(topic)
            self.check_open()
            self._pump()
        return queues

    @property
    def is_crowded(self) -> bool:
        """Somebody waits for room already."""
        return self._line.locked()

    async def _wait_room(self, size: int, limit_ms: int | None = None) -> None:
        """Wait in line for ``size`` bytes of buffer, for ``block_timeout_ms`` if no limit is given.
        To be followed by the append without an await in between."""
        limit_ms = self.settings.block_timeout_ms if limit_ms is None else limit_ms
        try:
            async with asyncio.timeout(limit_ms / 1000), self._line:
                self.check_open()
                while not self.accumulator.has_room(size):
                    self.wake(0)
                    self._room = self._loop.create_future()
                    await self._room
                    self.check_open()
        except TimeoutError:
            raise self.buffer_full(size) from None

    async def flush(self, timeout_ms: int, in_vain: str) -> None:
        """``in_vain``: how the error begins that is raised after ``timeout_ms``."""
        mark = self.accumulator.flush()
        self._pump()
        if self.accumulator.oldest_sequence() is None:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._flush_waiters.append((mark, waiter))
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await waiter
        except TimeoutError:
            said, info = self.unsettled()
            raise TimedOut(f"{in_vain}; {said}", definite=False, **info) from None

    def unsettled(self) -> tuple[str, dict[str, object]]:
        """How many records wait for their fate and why: a sentence, and the same for programs."""
        return listed(self.accumulator.unsettled(self._cluster.last_error))

    async def stop(self) -> None:
        """Give up all that is not acknowledged when nothing is on its way any more."""
        self.closed = True
        self._cluster.unwatch(list(self.accumulator.topics), self._on_metadata)
        try:
            await self._tasks.aclose()
        finally:  # whoever gives up waiting leaves no future without an end
            self.abandon()

    def abandon(self) -> None:
        """Give up, at once, all that is not acknowledged by now."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        error = ClientClosed("the producer was closed before the record was acknowledged")
        self.accumulator.requeue_in_flight()
        self._settle(self.accumulator.fail_all(error))
        self.failures.tell()
        self._make_room()

    def statistics(self) -> ProducerStatistics:
        in_flight = len(self._tasks) - self._identification.is_running
        buffered = self.accumulator.buffered_bytes
        return ProducerStatistics(
            buffered, in_flight, self._acknowledged, self._failed, self._requests, self._retries, self._restarts
        )  # fmt: skip

    def check_open(self) -> None:
        if self.closed:
            raise ClientClosed("the producer is closed; make a new one")
        check_loop(self._loop)

    def buffer_full(self, size: int) -> BufferFull:
        used, limit = self.accumulator.buffered_bytes, self.settings.buffer_bytes
        return BufferFull(
            f"{used} of buffer_bytes {limit} wait to be acknowledged, no room for {size} more; "
            "wait for earlier sends, or use send(), which waits"
        )

    # --- the pump ---------------------------------------------------------------------------------

    def wake(self, in_ms: int) -> None:
        """Pump in ``in_ms``, or sooner if that is arranged already."""
        if in_ms <= 0:
            if not self._pumping:
                self._pumping = True
                self._loop.call_soon(self._pump)
            return
        at_ms = now_ms() + in_ms
        if self._timer is not None:
            if self._timer_at_ms <= at_ms:
                return
            self._timer.cancel()
        self._timer_at_ms = at_ms
        self._timer = self._loop.call_later(in_ms / 1000, self._pump)

    def _on_metadata(self) -> None:
        self.wake(0)

    def _pump(self) -> None:
        """Expire, place, send: all that can be done now."""
        self._pumping = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.closed:
            return
        now = now_ms()
        accumulator = self.accumulator
        self._settle(accumulator.expire(now, self._cluster.last_error))
        self._place(now)
        self.new_partitions.ask()
        drained = accumulator.drain(now, self._cluster.routing.leader, self._is_busy)
        for queue in drained.restarted:
            self._on_restart(queue)
        for dispatch in drained.dispatches:
            self._busy[dispatch.leader.url] += not dispatch.is_retry
            self._requests += 1
            self._retries += dispatch.is_retry
            self._tasks.start(self._deliver(dispatch))
        if drained.is_leaderless:
            self._cluster.request_refresh()
        if drained.needs_producer_id:
            self._identification.seek()
        wake_ms = accumulator.next_wake_ms(now)
        if wake_ms is not None:
            self.wake(max(1, wake_ms - now))

    def _on_restart(self, queue: PartitionQueue) -> None:
        self._restarts += 1
        if (sequences := queue.sequences) is None:
            return  # only a numbered queue starts over
        _log.warning(
            "producer %d goes on in epoch %d after records of %s-%d were given up: %s",
            sequences.producer_id, sequences.producer_epoch, queue.topic, queue.partition, queue.given_up,
        )  # fmt: skip

    def _is_busy(self, url: str) -> bool:
        return self._busy[url] >= REQUESTS_PER_BROKER_MAX

    def _place(self, now: int) -> None:
        """Bring the accumulator's view of the topics up to date with the metadata."""
        routing = self._cluster.routing
        topics = self.accumulator.topics
        changed = routing.version != self._seen_version
        self._seen_version = routing.version
        for name in list(topics if changed else self._unplaced):
            queues, known = topics[name], routing.topic(name)
            if known is not None and known.partition_count:
                self._unplaced.discard(name)
                shape = (known.partition_count, known.message_bytes_max, known.topic_id)
                if queues.waiting or (queues.partition_count, queues.message_bytes_max, queues.topic_id) != shape:
                    self._settle(self.accumulator.on_partitions(name, *shape[:2], now, known.topic_id))
                continue
            self._unplaced.add(name)
            queues.partition_count = 0
            missing_since = routing.missing_since_ms(queues.topic)
            if missing_since is not None and now - missing_since >= self._cluster.settings.topic_wait_ms:
                error = UnknownTopic(f"there is no topic {queues.topic!r} in this cluster; create it first")
                self._settle(self.accumulator.fail_all(error, queues))
                if self.accumulator.forget(queues):
                    self._unplaced.discard(name)
                    self._cluster.unwatch([name])
            elif queues.waiting and (unheard := self._cluster.last_error) is not None and not unheard.retriable:
                self._settle(self.accumulator.fail_all(unheard, queues))
            elif queues.waiting:
                self._cluster.request_refresh()

    async def _deliver(self, dispatch: Dispatch) -> None:
        """One request and what became of it."""
        leader = dispatch.leader
        try:
            reply = await self._request(dispatch)
            results = {(result.topic, result.partition): result for result in reply.partitions}
            for queue in dispatch.queues:
                self._on_result(queue, dispatch, results.get((queue.topic, queue.partition)))
        except MinilogError as error:
            self._on_failed_request(dispatch, error)
        except Exception as fault:
            self._on_failed_request(dispatch, InternalError(f"the producer failed: {fault!r}", definite=False))
            raise
        finally:
            self._busy[leader.url] -= not dispatch.is_retry
            self.wake(0)

    async def _request(self, dispatch: Dispatch) -> ProduceReply:
        now = now_ms()
        remaining_ms = min(queue.in_flight[0].deadline_ms for queue in dispatch.queues) - now
        timeout_ms = max(1, min(remaining_ms, self.settings.try_timeout_ms))
        message = Produce(self._acks, timeout_ms, [in_flight(queue) for queue in dispatch.queues])
        return await self._cluster.call(
            dispatch.leader.url,
            message,
            ProduceReply,
            timeout_ms + _ANSWER_SLACK_MS,
            still_leads=self._watch(dispatch) if self.settings.retries == "all" else None,
        )

    def _watch(self, dispatch: Dispatch) -> Callable[[], bool]:
        """What has a new leader is given up and sent there. The answer is waited for as long as the
        broker leads any of the rest."""
        routing, sent_to = self._cluster.routing, dispatch.leader

        def still_leads() -> bool:
            leaders = {queue: routing.leader(queue.topic, queue.partition) for queue in dispatch.queues}
            moved = [q for q, leader in leaders.items() if leader is None or leader.broker_id != sent_to.broker_id]
            if len(moved) == len(dispatch.queues):
                return False
            for queue in moved:
                dispatch.queues.remove(queue)
                self._on_error(queue, led_no_longer(sent_to.url))
            self.wake(0)
            return True

        return still_leads

    # --- outcomes ---------------------------------------------------------------------------------

    def _on_result(self, queue: PartitionQueue, dispatch: Dispatch, result: ProduceResult | None) -> None:
        if result is None:
            silence = f"{dispatch.leader.url} said nothing about {queue.topic}-{queue.partition}"
            self._on_error(queue, InternalError(silence))
        elif result.problem is not None:
            self._on_error(queue, result.problem.error())
        else:
            start = 0
            for batch in self.accumulator.on_success(queue):
                self._acknowledge(batch, result, start)
                self._tell_delivered(batch, dispatch.sent_ms, result, start)
                start += batch.record_count

    def _on_failed_request(self, dispatch: Dispatch, error: MinilogError) -> None:
        for queue in dispatch.queues:
            self._on_error(queue, error)

    def _on_error(self, queue: PartitionQueue, error: MinilogError) -> None:
        if not queue.in_flight:
            return  # it was given up already
        hinted = self._cluster.routing.on_leader_hint(queue.topic, queue.partition, error.info)
        if is_hunting(error) and not hinted:
            self._cluster.request_refresh()
        failures = self.accumulator.on_failure(queue, error, now_ms())
        if not failures:
            self._tell(Retried("produce", queue.topic, queue.partition, error))
        self._settle(failures)

    def _acknowledge(self, batch: ProducerBatch, result: ProduceResult, start: int) -> None:
        self._acknowledged += batch.record_count
        base = None if result.base_offset is None else result.base_offset + start
        acks, topic, partition, duplicate = self.settings.acks, result.topic, result.partition, result.duplicate
        timestamp, leader_epoch, replicas = result.timestamp, result.leader_epoch, tuple(result.isr)
        offset, first, whole = None, 0, None
        for token, end in zip(batch.tokens, batch.ends, strict=True):
            if type(token) is ManyCall:
                token.succeed(batch_receipt(result, start + first, end - first, acks))
            elif not isinstance(token, asyncio.Future):
                whole = whole or batch_receipt(result, start, batch.record_count, acks)
                token.acknowledge(whole, first)
            elif not token.done():
                if base is not None:
                    offset = base + first
                fields = (topic, partition, offset, timestamp, leader_epoch, acks, replicas, duplicate)
                token.set_result(_new(Receipt, fields))
            first = end
        self._after_settling()

    def _tell_delivered(self, batch: ProducerBatch, sent_ms: int, result: ProduceResult, start: int) -> None:
        size = len(batch.head) + len(batch.sealed.payload)
        base = None if result.base_offset is None else result.base_offset + start
        times = sent_ms - batch.created_ms, now_ms() - batch.created_ms, self.accumulator.buffered_bytes
        self._tell(Delivered(result.topic, result.partition, batch.record_count, size, base, *times))

    def _settle(self, failures: Sequence[Failure]) -> None:
        for failure in failures:
            topic, error = failure.topic, failure.error
            self._tell(GivenUp(topic, sum(count for _, count, _ in failure.spans), error))
            for _, count, token in failure.spans:
                self._failed += count
                if type(token) is ManyCall:
                    token.fail(count, error)
                    if token.outcome.cancelled():
                        self.failures.add(topic, count, error, None)
                elif token.cancelled():
                    self.failures.add(topic, count, error, None)
                else:
                    token.set_exception(error)
                    self.failures.add(topic, count, error, token)
        if failures:
            self._after_settling()

    def refuse(self, token: Look, topic: str, error: Exception) -> None:
        """A record that was accepted for a thread has failed before it could be taken."""
        self._failed += 1
        token.set_exception(error)
        self.failures.add(str(topic), 1, error, token)
        if isinstance(error, MinilogError):
            self._tell(GivenUp(topic, 1, error))

    def _after_settling(self) -> None:
        """Records were settled: let those go on who wait for room, or for the last of them."""
        self._make_room()
        if not self._flush_waiters:
            return
        oldest = self.accumulator.oldest_sequence()
        for mark, flushed in self._flush_waiters:
            if not flushed.done() and (oldest is None or oldest > mark):
                flushed.set_result(None)
        self._flush_waiters = [entry for entry in self._flush_waiters if not entry[1].done()]

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
