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
from functools import partial
from typing import Any, Final, Self, TypeVar

from minilog.errors import BufferFull, ClientClosed, TimedOut
from minilog_client.connection.cluster import now_ms
from minilog_client.connection.loop_thread import CLIENT_CLOSED, LoopThread
from minilog_client.producer.producer import Producer, size_of
from minilog_client.producer.receipts import BatchReceipt, Receipt
from minilog_client.producer.sender import ProducerStatistics
from minilog_client.settings import MIB
from minilog_client.values import HeadersLike, RecordLike, checked_bytes, checked_headers, checked_timeout

T = TypeVar("T")
_log: Final = logging.getLogger("minilog_client")
_QUEUE_BYTES: Final = 4 * MIB


class SyncProducer:
    """``send`` returns a ``concurrent.futures.Future`` at once. Everything else waits."""

    def __init__(self, thread: LoopThread, producer: Producer) -> None:
        self._thread = thread
        self._producer = producer
        self._queue: deque[tuple[Future[Receipt], int, tuple[Any, ...], dict[str, Any]]] = deque()
        self._queued_bytes = 0
        self._taken = 0
        """Records that have left the queue, whatever became of them."""
        self._counting = threading.Lock()
        self._is_over = False
        """The loop runs no more, so nothing may be queued."""
        self._scheduled = False
        self._waiting = False
        thread.at_end(self._on_end)

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
        pairs = checked_headers(headers) if headers else None
        size = size_of(value, key)
        if self._queued_bytes > _QUEUE_BYTES:
            self._thread.run(self._wait_taken())
        future: Future[Receipt] = Future()
        options = {"partition": partition, "timestamp_ms": timestamp_ms}
        with self._counting:
            if self._is_over or not self._thread.is_open:
                raise ClientClosed(CLIENT_CLOSED)
            self._queued_bytes += size
            self._queue.append((future, size, (topic, value, key, pairs), options))
        if not self._scheduled:
            self._scheduled = True
            with contextlib.suppress(ClientClosed):  # it is queued, so the end tells its future
                self._thread.post(self._take)
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
        """See ``Producer.close``. Does nothing once the client is closed, which closed this too."""
        if self._thread.is_open:
            self._thread.run(self._close(timeout_ms))

    def statistics(self) -> ProducerStatistics:
        return self._thread.call(self._producer.statistics)

    # --- in the loop's thread ---------------------------------------------------------------------

    def _take(self) -> None:
        """Hand the queue to the producer, in order. What does not fit makes the rest wait for
        room."""
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
        self._taken += 1
        with self._counting:
            self._queued_bytes -= size

    def _on_end(self) -> None:
        """The loop runs no more: what is queued still goes nowhere."""
        with self._counting:
            self._is_over = True
        while self._queue:
            future, size, _, _ = self._queue[0]
            if future.running() or future.set_running_or_notify_cancel():
                future.set_exception(ClientClosed("the client was closed before the record was taken"))
            self._drop_first(size)

    async def _wait_taken(self) -> None:
        """Until the producer has taken all that is queued. Raises BufferFull after
        ``block_timeout_ms``."""
        if await self._untaken(self._producer.settings.block_timeout_ms):
            raise BufferFull(f"{self._queued_bytes} bytes wait for room in the producer's buffer")

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

    async def _flush(self, timeout_ms: int) -> None:
        """Also what the producer has not taken yet, for want of room."""
        deadline_ms = now_ms() + timeout_ms
        untaken = await self._untaken(timeout_ms)
        if untaken:
            raise TimedOut(f"flush took longer than {timeout_ms} ms; {_without_room(untaken)}", definite=False)
        await self._producer._flush(max(0, deadline_ms - now_ms()), timeout_ms)

    async def _close(self, timeout_ms: int | None) -> None:
        """What finds no room in time is refused by the closed producer: it fails in its future, and
        is told of here."""
        limit_ms = checked_timeout(timeout_ms, self._producer.settings.close_timeout_ms)
        deadline_ms = now_ms() + limit_ms
        untaken = await self._untaken(limit_ms)
        try:
            await self._producer._close(max(0, deadline_ms - now_ms()), limit_ms)
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

    async def _after_queue(self, work: Callable[[], Awaitable[T]]) -> T:
        await self._wait_taken()
        return await work()


def _without_room(records: int) -> str:
    return f"{records} records have found no room in the producer's buffer"


def _copy(target: Future[Receipt], source: asyncio.Future[Receipt]) -> None:
    if source.cancelled():
        target.set_exception(ClientClosed("the producer was closed before the record was acknowledged"))
    elif (error := source.exception()) is not None:
        target.set_exception(error)
    else:
        target.set_result(source.result())


def close_quietly(close: Callable[[], None], kind: type[BaseException] | None) -> None:
    """``close``. Records that were left unsettled are only logged if the block ends with an error
    of its own."""
    try:
        close()
    except TimedOut as error:
        if kind is None:
            raise
        _log.warning("%s", error.detail)
