"""The producer without ``await``: records are handed to the loop's thread through a queue, in
order.

``send`` returns before the loop has seen the record, so a record has three places: the queue here,
the producer's buffer, a request. Whoever waits for all records (``flush``, ``close``) waits for the
queue first, in the same time limit. What is queued when the loop ends is failed: no future is left
that nobody settles."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import Final, NamedTuple, Self, TypeVar
from weakref import finalize

from minilog.errors import BufferFull, ClientClosed, TimedOut
from minilog.wire.codec.codec import Headers
from minilog_client.blocking.receipt_future import ReceiptFuture
from minilog_client.connection.cluster import now_ms
from minilog_client.connection.forgotten import weakly
from minilog_client.connection.loop_thread import LoopThread
from minilog_client.connection.work import Work
from minilog_client.observing.figures import ProducerStatistics
from minilog_client.producer.producer import Producer, size_of
from minilog_client.producer.receipts import BatchReceipt, Receipt
from minilog_client.settings import MIB
from minilog_client.values import HeadersLike, RecordLike, checked_bytes, checked_headers, checked_timeout, counted

T = TypeVar("T")
_log: Final = logging.getLogger("minilog_client")
_QUEUE_BYTES: Final = 4 * MIB


class _Queued(NamedTuple):
    """A record as it was given, and until when it waits for room."""

    future: ReceiptFuture
    size: int
    deadline_s: float
    topic: str
    value: bytes | None
    key: bytes | None
    headers: Headers
    partition: int | None
    timestamp_ms: int | None


class SyncProducer:
    """``send`` returns a ``concurrent.futures.Future`` at once. Everything else waits."""

    def __init__(self, thread: LoopThread, producer: Producer, on_closed: Callable[[SyncProducer], object]) -> None:
        self._thread = thread
        self._on_closed = on_closed
        self._producer = producer
        self._queue: deque[_Queued] = deque()
        self._given_bytes = self._left_bytes = 0
        """Of all that came into the queue, and of all that has left it: each is counted by one side
        of it."""
        self._taken = 0
        """Records that have left the queue, whatever became of them."""
        self._giving = threading.RLock()
        """For the threads that send. The loop's never waits for it: a signal's handler may call
        this within any line, and wait for the loop."""
        self._is_over = False
        """The loop runs no more, so whoever queues something has to fail it himself."""
        self._asked = self._came = 0
        """How often the loop was asked to take the queue, and how often it has come for that."""
        self._waiting = False
        before_end, at_end = weakly(producer._abandon), weakly(self._on_end)
        thread.before_end(before_end)
        thread.at_end(at_end)
        finalize(self, thread.forget, before_end, at_end).atexit = False

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
        """Take one record. Records of one thread keep their order. Blocks while the buffer is full,
        and raises BufferFull after ``block_timeout_ms``. Raises ClientClosed once the client is
        closed. All other errors are in the future."""
        value, key = checked_bytes("value", value), checked_bytes("key", key)
        pairs = checked_headers(headers) if headers else ()
        size = size_of(value, key)
        if self._given_bytes - self._left_bytes > _QUEUE_BYTES:
            self._thread.perform(Work(self._wait_taken))
        future = ReceiptFuture(self._thread)
        entry = _Queued(future, size, self._deadline_s(), topic, value, key, pairs, partition, timestamp_ms)
        if not self._thread.is_open:
            self._thread.check_open()
        with self._giving:
            self._given_bytes += size
            self._queue.append(entry)
        if self._is_over:
            self._on_end()
        elif self._asked <= self._came:
            self._schedule()
        return future

    def _schedule(self) -> None:
        """Have the queue taken. Who interrupts this before it is noted asks once more, and waits
        for nobody."""
        with contextlib.suppress(ClientClosed):  # it is queued, so the end tells its future
            self._thread.post(self._come)
            with self._giving:
                self._asked += 1

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
        options = {"keys": keys, "partition": partition, "timestamp_ms": timestamp_ms}
        send: Callable[..., Awaitable[list[BatchReceipt]]] = self._producer.send_many
        return self._thread.perform(Work(lambda: self._after_queue(lambda: send(topic, values, **options))))

    def append(
        self,
        topic: str,
        values: Iterable[RecordLike],
        *,
        partition: int,
        expected_offset: int,
        keys: Iterable[bytes | None] | None = None,
        timestamp_ms: int | None = None,
    ) -> BatchReceipt:
        """See ``Producer.append``."""
        options = {
            "partition": partition, "expected_offset": expected_offset, "keys": keys, "timestamp_ms": timestamp_ms,
        }  # fmt: skip
        send: Callable[..., Awaitable[BatchReceipt]] = self._producer.append
        return self._thread.perform(Work(lambda: self._after_queue(lambda: send(topic, values, **options))))

    def flush(self, timeout_ms: int | None = None) -> int:
        """See ``Producer.flush``."""
        return self._thread.run(self._flush(checked_timeout(timeout_ms, self._producer.settings.flush_timeout_ms)))

    def close(self, timeout_ms: int | None = None) -> int:
        """See ``Producer.close``. Does nothing once the client is closed, which closed this too."""
        try:
            if self._thread.is_open:
                return self._thread.run(self._close(timeout_ms))
        finally:
            self._on_closed(self)
        return 0

    def statistics(self) -> ProducerStatistics:
        return self._thread.call(self._producer.statistics)

    def _deadline_s(self) -> float:
        return self._thread.loop.time() + self._producer.settings.block_timeout_ms / 1000

    # --- in the loop's thread ---------------------------------------------------------------------

    def _come(self) -> None:
        self._came += 1
        self._take()

    def _take(self) -> None:
        """Hand the queue to the producer, in order. What does not fit makes the rest wait for
        room."""
        while self._queue and not self._waiting:
            entry = self._queue[0]
            future, size = entry[:2]
            if not future.take():
                self._drop_first(size)
                continue
            try:
                self._producer._take(future, *entry[3:])
            except BufferFull:
                self._waiting = True
                self._wait = self._thread.loop.create_task(self._wait_for_first())
                return
            except Exception as error:
                self._producer._refuse(future, entry.topic, error)
            self._drop_first(size)

    async def _wait_for_first(self) -> None:
        """Its time is counted from when it was sent, so all that wait do so beside each other."""
        future, size, deadline_s, topic = self._queue[0][:4]
        try:
            left_ms = max(0, int((deadline_s - self._thread.loop.time()) * 1000))
            await self._producer._wait_room(size, left_ms)
        except Exception as error:
            self._producer._refuse(future, topic, error)
            self._drop_first(size)
        finally:
            self._waiting = False
        self._take()

    def _drop_first(self, size: int) -> None:
        self._queue.popleft()
        self._taken += 1
        self._left_bytes += size

    def _on_end(self) -> None:
        """The loop runs no more: what is queued still goes nowhere. In any thread: each record is
        failed by whoever takes it out."""
        self._is_over = True
        with contextlib.suppress(IndexError):
            while True:
                future = self._queue.popleft().future
                if future.take():
                    future.set_exception(ClientClosed("the client was closed before the record was taken"))

    async def _wait_taken(self) -> None:
        """Until the producer has taken all that is queued. Raises BufferFull after
        ``block_timeout_ms``."""
        if await self._untaken(self._producer.settings.block_timeout_ms):
            waiting = self._given_bytes - self._left_bytes
            raise BufferFull(f"{waiting} bytes wait for room in the producer's buffer")

    async def _untaken(self, limit_ms: int) -> int:
        """Let the producer take what is queued now. Returns how many of these records it has not
        taken in time."""
        end = self._taken + len(self._queue)
        self._take()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_ms / 1000):
                while self._taken < end:
                    await asyncio.wait([self._wait])
        return max(0, end - self._taken)

    async def _flush(self, timeout_ms: int) -> int:
        """Also what the producer has not taken yet, for want of room."""
        deadline_ms = now_ms() + timeout_ms
        untaken = await self._untaken(timeout_ms)
        if untaken:
            raise TimedOut(f"flush took longer than {timeout_ms} ms; {_without_room(untaken)}", definite=False)
        return await self._producer._flush(max(0, deadline_ms - now_ms()), timeout_ms)

    async def _close(self, timeout_ms: int | None) -> int:
        """What finds no room in time is refused by the closed producer: it fails in its future, and
        is told of here."""
        limit_ms = checked_timeout(timeout_ms, self._producer.settings.close_timeout_ms)
        deadline_ms = now_ms() + limit_ms
        untaken = await self._untaken(limit_ms)
        try:
            failed = await self._producer._close(max(0, deadline_ms - now_ms()), limit_ms)
        except TimedOut as error:
            if untaken:
                raise TimedOut(f"{error.detail}; {_without_room(untaken)}", definite=False, **error.info) from None
            raise
        finally:
            if self._waiting:
                await asyncio.wait([self._wait])
            self._take()
        if untaken:
            raise TimedOut(f"close took longer than {limit_ms} ms; {_without_room(untaken)}", definite=False)
        return failed + self._producer._take_failures()

    async def _flush_at_exit(self) -> None:
        await self._flush(self._producer.settings.close_timeout_ms)

    async def _after_queue(self, work: Callable[[], Awaitable[T]]) -> T:
        await self._wait_taken()
        return await work()


def _without_room(records: int) -> str:
    return f"{counted(records, 'record', 'has', 'have')} found no room in the producer's buffer"


def close_quietly(close: Callable[[], object], kind: type[BaseException] | None) -> None:
    """``close``. Records that were left unsettled are only logged if the block ends with an error
    of its own."""
    try:
        close()
    except TimedOut as error:
        if kind is None:
            raise
        _log.warning("%s", error.detail)
