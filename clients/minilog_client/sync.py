"""The same client without ``await``: a thread owns an event loop, and every call is carried out there.

There is no second implementation: each method hands its work to the asynchronous object of the same name. Objects
here may be used from any thread; a consumer from one at a time.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, Final, Self, TypeVar

from minilog.errors import BufferFull, ClientClosed
from minilog.wire.messages import BrokerInfo, TopicInfo
from minilog_client.admin import TIMEOUT_MS, ClusterInfo, Health
from minilog_client.client import AsyncClient
from minilog_client.consumer import Consumer, Lag, TopicsLike
from minilog_client.fetching import StartLike
from minilog_client.prefetch import TopicPartition
from minilog_client.producer import Producer, size_of
from minilog_client.receipts import BatchReceipt, Receipt
from minilog_client.records import Record
from minilog_client.sender import ProducerStatistics
from minilog_client.settings import MIB
from minilog_client.transport import Transport
from minilog_client.values import HeadersLike, checked_bytes, checked_headers

T = TypeVar("T")
_QUEUE_BYTES: Final = 4 * MIB
_READ_AHEAD_RECORDS: Final = 1000


class _LoopThread:
    """The thread, and the only way into it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="minilog_client", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry out ``work`` and wait for it; interrupting the wait cancels the work."""
        if not self.is_alive:
            work.close()
            raise ClientClosed("the client is closed; make a new one")
        assert threading.current_thread() is not self._thread, "a callback must not wait for its own thread"
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except CancelledError:
            raise ClientClosed("the client was closed while this call waited") from None
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """The same for something that does not wait."""

        async def work() -> T:
            return function()

        return self.run(work())

    def stop(self) -> None:
        if not self.is_alive:
            return
        self.run(_cancel_others())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class Client:
    """Connects to the cluster that the brokers at ``bootstrap`` belong to; see ``AsyncClient`` for the options.

    ```python
    with Client("http://127.0.0.1:8082") as client:
        producer = client.producer()
        print(producer.send("orders", b"hello").result())
        for record in client.consumer("orders", start="earliest"):
            print(record.offset, record.value)
            break
    ```
    """

    def __init__(self, bootstrap: str | Sequence[str], *, transport: Transport | None = None, **options: Any) -> None:
        self._thread = _LoopThread()
        self._producers: list[SyncProducer] = []
        try:
            self._client = self._thread.call(lambda: AsyncClient(bootstrap, transport=transport, **options))
        except BaseException:
            self._thread.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def producer(self, **options: Any) -> SyncProducer:
        producer = SyncProducer(self._thread, self._thread.call(lambda: self._client.producer(**options)))
        self._producers.append(producer)
        return producer

    def consumer(
        self, topics: TopicsLike, *, start: StartLike = "earliest", group: str | None = None, **options: Any
    ) -> SyncConsumer:
        consumer = self._thread.call(lambda: self._client.consumer(topics, start=start, group=group, **options))
        return SyncConsumer(self._thread, consumer)

    def close(self) -> None:
        """Close all producers (flushing them first) and consumers, the connections and the thread."""
        if not self._thread.is_alive:
            return
        for producer in self._producers:
            producer.close()
        self._thread.run(self._client.close())
        self._thread.stop()

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


class SyncProducer:
    """``send`` returns a ``concurrent.futures.Future`` at once; everything else waits."""

    def __init__(self, thread: _LoopThread, producer: Producer) -> None:
        self._thread = thread
        self._producer = producer
        self._queue: deque[tuple[Future[Receipt], int, tuple[Any, ...], dict[str, Any]]] = deque()
        self._queued_bytes = 0
        self._counting = threading.Lock()
        self._scheduled = False
        self._waiting = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        values: Iterable[bytes],
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
        self._thread.run(self._after_queue(lambda: self._producer.flush(timeout_ms)))

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
            await self._producer.wait_room(size)
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

    async def _close(self, timeout_ms: int | None) -> None:
        self._take()
        await self._producer.close(timeout_ms)
        if self._waiting:
            await asyncio.wait([self._wait])
        self._take()
        assert not self._queue, "a closed producer takes nothing, so every queued record has failed"

    async def _after_queue(self, work: Callable[[], Awaitable[T]]) -> T:
        await self._wait_taken()
        return await work()


class SyncConsumer:
    """Iterating waits for records as long as it takes; ``batch`` for ``max_wait_ms`` at most."""

    def __init__(self, thread: _LoopThread, consumer: Consumer) -> None:
        self._thread = thread
        self._consumer = consumer
        self._records: Sequence[Record] = ()
        self._index = 0

    def __enter__(self) -> Self:
        self._thread.run(self._consumer.start())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record:
        while self._index >= len(self._records):
            self._records, self._index = self._thread.run(self._consumer.batch(_READ_AHEAD_RECORDS)), 0
        record = self._records[self._index]
        self._index += 1
        return record

    def batch(self, max_records: int = 1000, max_wait_ms: int = 1000) -> list[Record]:
        """See ``Consumer.batch``."""
        if self._index < len(self._records):
            records = list(self._records[self._index : self._index + max_records])
            self._index += len(records)
            return records
        return self._thread.run(self._consumer.batch(max_records, max_wait_ms))

    @property
    def assignment(self) -> list[TopicPartition]:
        return self._thread.call(lambda: self._consumer.assignment)

    def position(self, topic: str, partition: int) -> int | None:
        unread = self._unread().get((topic, partition))
        return self._thread.call(lambda: self._consumer.position(topic, partition)) if unread is None else unread

    def positions(self) -> dict[TopicPartition, int | None]:
        return {**self._thread.call(self._consumer.positions), **self._unread()}

    def lag(self) -> dict[TopicPartition, Lag]:
        """See ``Consumer.lag``; what the iteration has read ahead counts as read."""
        return self._thread.call(self._consumer.lag)

    def seek(self, topic: str, partition: int, to: StartLike) -> None:
        self._forget(topic, partition)
        self._thread.call(lambda: self._consumer.seek(topic, partition, to))

    def seek_to_time(self, to: StartLike, topic: str | None = None) -> None:
        for name, partition in self.assignment:
            if topic in (None, name):
                self._forget(name, partition)
        self._thread.call(lambda: self._consumer.seek_to_time(to, topic))

    def pause(self, topic: str, partition: int) -> None:
        unread = self._unread().get((topic, partition))
        if unread is not None:
            self.seek(topic, partition, unread)
        self._thread.call(lambda: self._consumer.pause(topic, partition))

    def resume(self, topic: str, partition: int) -> None:
        self._thread.call(lambda: self._consumer.resume(topic, partition))

    def close(self) -> None:
        self._thread.run(self._consumer.close())

    def _unread(self) -> dict[TopicPartition, int]:
        """The first offset per partition that iteration has read ahead but not handed out."""
        first: dict[TopicPartition, int] = {}
        for record in self._records[self._index :]:
            first.setdefault((record.topic, record.partition), record.offset)
        return first

    def _forget(self, topic: str, partition: int) -> None:
        left = self._records[self._index :]
        self._records = [r for r in left if (r.topic, r.partition) != (topic, partition)]
        self._index = 0


def _copy(target: Future[Receipt], source: asyncio.Future[Receipt]) -> None:
    if source.cancelled():
        target.set_exception(ClientClosed("the producer was closed before the record was acknowledged"))
    elif (error := source.exception()) is not None:
        target.set_exception(error)
    else:
        target.set_result(source.result())
