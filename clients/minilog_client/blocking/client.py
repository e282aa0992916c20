"""The same client without ``await``: a thread owns an event loop, and every call is carried out there.

There is no second implementation: each method hands its work to the asynchronous object of the same name. Objects
here may be used from any thread; a consumer from one at a time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, Self, TypeVar, Unpack, overload

from minilog.errors import BufferFull, ClientClosed, TimedOut
from minilog.wire.json_answers import ClusterInfo, GroupDescription, Health
from minilog.wire.messages import BrokerInfo, TopicInfo
from minilog_client.admin.admin import TIMEOUT_MS
from minilog_client.admin.group_admin import GroupLag, GroupList, OffsetChange
from minilog_client.blocking.consumer import SyncCallback, SyncConsumer, SyncGroupConsumer, in_waiting_thread
from minilog_client.client import AsyncClient
from minilog_client.connection.loop_thread import LoopThread
from minilog_client.connection.transport import Transport
from minilog_client.consumer.consumer import Consumer, TopicsLike
from minilog_client.consumer.partition_fetch import StartLike
from minilog_client.group.group_consumer import GroupConsumer
from minilog_client.options import ClientOptions, ConsumerOptions, GroupOptions, ProducerOptions
from minilog_client.producer.producer import Producer, size_of
from minilog_client.producer.receipts import BatchReceipt, Receipt
from minilog_client.producer.sender import ProducerStatistics
from minilog_client.settings import MIB
from minilog_client.values import HeadersLike, PartitionKey, RecordLike, checked_bytes, checked_headers, checked_timeout

T = TypeVar("T")
_log: Final = logging.getLogger("minilog_client")
_QUEUE_BYTES: Final = 4 * MIB


class Client:
    """Connects to the cluster that the brokers at ``bootstrap`` belong to; see ``AsyncClient`` for the options.

    ```python
    with Client("http://127.0.0.1:8082") as client:
        producer = client.producer()
        print(producer.send("orders", b"hello").result())
        for record in client.consumer("orders", group="billing"):    # without group: all partitions, nothing committed
            print(record.offset, record.value)
            break
    ```
    """

    def __init__(
        self, bootstrap: str | Sequence[str], *, transport: Transport | None = None, **options: Unpack[ClientOptions]
    ) -> None:
        self._thread = LoopThread("minilog_client")
        self._producers: list[SyncProducer] = []
        self._consumers: list[SyncConsumer] = []
        try:
            self._client = self._thread.call(lambda: AsyncClient(bootstrap, transport=transport, **options))
            self._thread.call(self._client._use_own_loop_for_heartbeats)
        except BaseException:
            self._thread.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        close_quietly(self.close, kind)

    def producer(self, **options: Unpack[ProducerOptions]) -> SyncProducer:
        producer = SyncProducer(self._thread, self._thread.call(lambda: self._client.producer(**options)))
        self._producers.append(producer)
        return producer

    @overload
    def consumer(
        self, topics: TopicsLike, *, start: StartLike = ..., group: None = ..., **options: Unpack[ConsumerOptions]
    ) -> SyncConsumer: ...

    @overload
    def consumer(
        self,
        topics: str | Sequence[str] | None = ...,
        *,
        group: str,
        start: StartLike = ...,
        pattern: str = ...,
        on_assigned: SyncCallback | None = ...,
        on_revoked: SyncCallback | None = ...,
        on_lost: SyncCallback | None = ...,
        **options: Unpack[GroupOptions],
    ) -> SyncGroupConsumer: ...

    def consumer(
        self,
        topics: TopicsLike | None = None,
        *,
        start: StartLike = "earliest",
        group: str | None = None,
        pattern: str = "",
        on_assigned: SyncCallback | None = None,
        on_revoked: SyncCallback | None = None,
        on_lost: SyncCallback | None = None,
        **options: Any,
    ) -> SyncConsumer:
        """See ``AsyncClient.consumer``."""
        told = {"on_assigned": on_assigned, "on_revoked": on_revoked, "on_lost": on_lost}
        options |= {name: in_waiting_thread(function) for name, function in told.items()}
        make: Callable[..., Consumer] = self._client.consumer
        made = self._thread.call(lambda: make(topics, start=start, group=group, pattern=pattern, **options))
        consumer: SyncConsumer
        if isinstance(made, GroupConsumer):
            consumer = SyncGroupConsumer(self._thread, made)
        else:
            consumer = SyncConsumer(self._thread, made)
        self._consumers.append(consumer)
        return consumer

    def close(self) -> None:
        """Close all producers (flushing them first) and consumers, the connections and the thread.

        Raises TimedOut like ``AsyncClient.close``, once all is closed."""
        if not self._thread.is_alive:
            return
        unsettled: TimedOut | None = None
        try:
            for producer in self._producers:
                try:
                    producer.close()
                except TimedOut as error:
                    unsettled = unsettled or error
            for consumer in self._consumers:
                consumer.close()
            self._thread.run(self._client.close())
        finally:
            self._thread.stop()
        if unsettled is not None:
            raise unsettled

    # --- admin -----------------------------------------------------------------------------------------------

    def create_topic(
        self,
        topic: str,
        partitions: int = 0,
        replication_factor: int = 0,
        config: Mapping[str, str | int] | None = None,
        assignment: Sequence[Sequence[int]] = (),
        timeout_ms: int = TIMEOUT_MS,
    ) -> TopicInfo:
        return self._thread.run(
            self._client.create_topic(topic, partitions, replication_factor, config, assignment, timeout_ms)
        )

    def delete_topic(self, topic: str, timeout_ms: int = TIMEOUT_MS) -> None:
        self._thread.run(self._client.delete_topic(topic, timeout_ms))

    def list_topics(self, timeout_ms: int = TIMEOUT_MS) -> list[TopicInfo]:
        return self._thread.run(self._client.list_topics(timeout_ms))

    def describe_topic(self, topic: str, timeout_ms: int = TIMEOUT_MS) -> TopicInfo:
        return self._thread.run(self._client.describe_topic(topic, timeout_ms))

    def brokers(self, timeout_ms: int = TIMEOUT_MS) -> list[BrokerInfo]:
        return self._thread.run(self._client.brokers(timeout_ms))

    def cluster(self, timeout_ms: int = TIMEOUT_MS) -> ClusterInfo:
        return self._thread.run(self._client.cluster(timeout_ms))

    def health(self, timeout_ms: int = TIMEOUT_MS) -> Health:
        return self._thread.run(self._client.health(timeout_ms))

    def offsets(self, topic: str, partition: int, timeout_ms: int = TIMEOUT_MS) -> tuple[int, int]:
        return self._thread.run(self._client.offsets(topic, partition, timeout_ms))

    def offset_at(self, topic: str, partition: int, at: StartLike, timeout_ms: int = TIMEOUT_MS) -> int:
        return self._thread.run(self._client.offset_at(topic, partition, at, timeout_ms))

    # --- groups ------------------------------------------------------------------------------------------------

    def add_partitions(self, topic: str, total: int, timeout_ms: int = TIMEOUT_MS) -> TopicInfo:
        return self._thread.run(self._client.add_partitions(topic, total, timeout_ms))

    def groups(self, timeout_ms: int = TIMEOUT_MS) -> GroupList:
        return self._thread.run(self._client.groups(timeout_ms))

    def describe_group(self, group: str, timeout_ms: int = TIMEOUT_MS) -> GroupDescription:
        return self._thread.run(self._client.describe_group(group, timeout_ms))

    def delete_group(
        self, group: str, partitions: Iterable[PartitionKey] | None = None, timeout_ms: int = TIMEOUT_MS
    ) -> None:
        self._thread.run(self._client.delete_group(group, partitions, timeout_ms))

    def group_offsets(self, group: str, timeout_ms: int = TIMEOUT_MS) -> dict[PartitionKey, int]:
        return self._thread.run(self._client.group_offsets(group, timeout_ms))

    def alter_group_offsets(
        self,
        group: str,
        topics: str | Iterable[str | PartitionKey],
        to: StartLike,
        *,
        dry_run: bool = False,
        timeout_ms: int = TIMEOUT_MS,
    ) -> list[OffsetChange]:
        """See ``GroupAdmin.alter_group_offsets``."""
        change = self._client.alter_group_offsets(group, topics, to, dry_run=dry_run, timeout_ms=timeout_ms)
        return self._thread.run(change)

    def group_lag(self, group: str, timeout_ms: int = TIMEOUT_MS) -> list[GroupLag]:
        return self._thread.run(self._client.group_lag(group, timeout_ms))


class SyncProducer:
    """``send`` returns a ``concurrent.futures.Future`` at once; everything else waits."""

    def __init__(self, thread: LoopThread, producer: Producer) -> None:
        self._thread = thread
        self._producer = producer
        self._queue: deque[tuple[Future[Receipt], int, tuple[Any, ...], dict[str, Any]]] = deque()
        self._queued_bytes = 0
        self._counting = threading.Lock()
        self._scheduled = False
        self._waiting = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        close_quietly(self.close, kind)

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: HeadersLike | None = None,
        *,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Future[Receipt]:
        """Take one record; records of one thread keep their order. Blocks while the buffer is full, and raises
        BufferFull after ``block_timeout_ms``; all other errors are in the future."""
        value, key = checked_bytes("value", value), checked_bytes("key", key)
        pairs = checked_headers(headers) if headers else None
        size = size_of(value, key)
        if self._queued_bytes > _QUEUE_BYTES:
            self._thread.run(self._wait_taken())
        future: Future[Receipt] = Future()
        options = {"partition": partition, "timestamp_ms": timestamp_ms}
        with self._counting:
            self._queued_bytes += size
        self._queue.append((future, size, (topic, value, key, pairs), options))
        if not self._scheduled:
            self._scheduled = True
            try:
                self._thread.loop.call_soon_threadsafe(self._take)
            except RuntimeError:
                raise ClientClosed("the client is closed; make a new one") from None
        return future

    def send_many(
        self,
        topic: str,
        values: Iterable[RecordLike],
        *,
        keys: Iterable[bytes | None] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> list[BatchReceipt]:
        """See ``Producer.send_many``."""
        return self._thread.run(
            self._after_queue(
                lambda: self._producer.send_many(
                    topic, values, keys=keys, partition=partition, timestamp_ms=timestamp_ms
                )
            )
        )

    def flush(self, timeout_ms: int | None = None) -> None:
        """See ``Producer.flush``."""
        self._thread.run(self._flush(checked_timeout(timeout_ms, self._producer.settings.flush_timeout_ms)))

    def close(self, timeout_ms: int | None = None) -> None:
        """See ``Producer.close``."""
        self._thread.run(self._close(timeout_ms))

    def statistics(self) -> ProducerStatistics:
        return self._thread.call(self._producer.statistics)

    # --- in the loop's thread ----------------------------------------------------------------------------------

    def _take(self) -> None:
        """Hand the queue to the producer, in order; what does not fit makes the rest wait for room."""
        self._scheduled = False
        while self._queue and not self._waiting:
            future, size, arguments, options = self._queue[0]
            if not future.running() and not future.set_running_or_notify_cancel():
                self._drop_first(size)
                continue
            try:
                result = self._producer.send_nowait(*arguments, **options)
            except BufferFull:
                self._waiting = True
                self._wait = self._thread.loop.create_task(self._wait_for_first())
                return
            except Exception as error:
                future.set_exception(error)
            else:
                result.add_done_callback(partial(_copy, future))
            self._drop_first(size)

    async def _wait_for_first(self) -> None:
        future, size, _, _ = self._queue[0]
        try:
            await self._producer._wait_room(size)
        except Exception as error:
            future.set_exception(error)
            self._drop_first(size)
        finally:
            self._waiting = False
        self._take()

    def _drop_first(self, size: int) -> None:
        self._queue.popleft()
        with self._counting:
            self._queued_bytes -= size

    async def _wait_taken(self) -> None:
        """Until the producer has taken all that is queued, for ``block_timeout_ms`` at most."""
        self._take()
        try:
            async with asyncio.timeout(self._producer.settings.block_timeout_ms / 1000):
                while self._waiting:
                    await asyncio.wait([self._wait])
        except TimeoutError:
            raise BufferFull(f"{self._queued_bytes} bytes wait for room in the producer's buffer") from None

    async def _flush(self, timeout_ms: int) -> None:
        """Also what the producer has not taken yet, for want of room."""
        began_s = self._thread.loop.time()
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._wait_taken()
        except (TimeoutError, BufferFull):
            raise TimedOut(
                f"flush took longer than {timeout_ms} ms; {len(self._queue)} records have found no room in the "
                "producer's buffer",
                definite=False,
            ) from None
        spent_ms = int((self._thread.loop.time() - began_s) * 1000)
        await self._producer.flush(max(0, timeout_ms - spent_ms))

    async def _close(self, timeout_ms: int | None) -> None:
        self._take()
        try:
            await self._producer.close(timeout_ms)
        finally:
            if self._waiting:
                await asyncio.wait([self._wait])
            self._take()
        assert not self._queue, "a closed producer takes nothing, so every queued record has failed"

    async def _after_queue(self, work: Callable[[], Awaitable[T]]) -> T:
        await self._wait_taken()
        return await work()


def _copy(target: Future[Receipt], source: asyncio.Future[Receipt]) -> None:
    if source.cancelled():
        target.set_exception(ClientClosed("the producer was closed before the record was acknowledged"))
    elif (error := source.exception()) is not None:
        target.set_exception(error)
    else:
        target.set_result(source.result())


def close_quietly(close: Callable[[], None], kind: type[BaseException] | None) -> None:
    """``close``; records that were left unsettled are only logged if the block ends with an error of its own."""
    try:
        close()
    except TimedOut as error:
        if kind is None:
            raise
        _log.warning("%s", error.detail)
