"""The producer as applications see it; ``sender.py`` is its engine, ``batching.py`` its mind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Self

from minilog.errors import MinilogError, RecordTooLarge, TimedOut
from minilog_client.batching import TopicLanes
from minilog_client.cluster import now_ms
from minilog_client.lanes import RECORD_OVERHEAD_BYTES
from minilog_client.receipts import BatchReceipt, ManyCall, Receipt
from minilog_client.sender import ProducerStatistics, Sender
from minilog_client.settings import MIB
from minilog_client.values import HeadersLike, checked_bytes, checked_headers, checked_keys, checked_values

_YIELD_BYTES: Final = MIB
"""How much is encoded before other tasks get a turn."""


class Producer:
    """Sends records to topics; made by ``client.producer(...)``.

    ```python
    async with client.producer(acks="all") as producer:
        receipt = await producer.send("orders", b"hello", key=b"k1", headers={"trace": b"1"})
        future = producer.send_nowait("orders", b"hello again")   # an asyncio.Future[Receipt]
        receipts = await producer.send_many("orders", [b"a", b"b", b"c"])
        await producer.flush()
    ```

    Records of one partition are written in the order in which they were given, also across retries. A failed
    record raises its error: ``error.definite`` says whether it is proven not to be in the log.

    The producer is not idempotent: when a try ends without a clear answer (a timeout, a broken connection, a
    leader that lost its place) the same batch is sent again and may then be in the log twice, in rare cases the
    second time after later records. ``retries="definite"`` forbids that: such a record fails at once, with
    ``definite=False``, and the application decides.
    """

    def __init__(self, sender: Sender, on_closed: Callable[[Producer], None]) -> None:
        self.settings = sender.settings
        self._sender = sender
        self._accumulator = sender.accumulator
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._new_future: Callable[[], asyncio.Future[Receipt]] = partial(asyncio.Future, loop=self._loop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- sending ---------------------------------------------------------------------------------------

    async def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: HeadersLike | None = None,
        *,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Receipt:
        """Send one record and wait for its receipt; waits for room when the buffer is full.

        Raises the record's error after at most ``delivery_timeout_ms``, BufferFull after ``block_timeout_ms``
        without room, RecordTooLarge, UnknownTopic, ClientClosed; TypeError for what is not bytes."""
        size = size_of(checked_bytes("value", value), checked_bytes("key", key))
        if self._sender.is_crowded or not self._accumulator.has_room(size):
            await self._sender.wait_room(size)
        return await self.send_nowait(topic, value, key, headers, partition=partition, timestamp_ms=timestamp_ms)

    def send_nowait(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: HeadersLike | None = None,
        *,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[Receipt]:
        """Take one record and return at once; the future ends as ``send`` would.

        Raises BufferFull when ``buffer_bytes`` are waiting already, and what ``send`` raises for bad input."""
        lanes = self._accumulator.topics.get(topic)
        if lanes is None or self._sender.closed:
            lanes = self._sender.meet(topic)
        if type(value) is not bytes:
            value = checked_bytes("value", value)
        if key is not None and type(key) is not bytes:
            key = checked_bytes("key", key)
        accumulator = self._accumulator
        size = size_of(value, key)
        if not accumulator.has_room(size):
            raise self._sender.buffer_full(size)
        pairs = checked_headers(headers) if headers else ()
        timestamp = _timestamp(timestamp_ms)
        future = self._new_future()
        if not accumulator.join(lanes, value, key, pairs, partition, timestamp, future):
            due_ms = accumulator.append(lanes, value, key, pairs, partition, timestamp, future, now_ms())
            if due_ms is not None:
                self._sender.wake(due_ms)
        return future

    async def send_many(
        self,
        topic: str,
        values: Iterable[bytes],
        *,
        keys: Iterable[bytes | None] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> list[BatchReceipt]:
        """Send many records, with the key of the same index if there are ``keys``, and wait for all of them.

        Returns a receipt per batch, by partition and offset. When records fail, the first error is raised, with
        ``info["records_failed"]``, ``info["records_acknowledged"]`` and ``info["receipts"]`` of those that did not;
        it is definite only if none of the records can be in the log."""
        data = checked_values(values)
        lanes = await self._sender.placed(topic)
        _check_sizes(topic, data, lanes.message_bytes_max)
        timestamp = _timestamp(timestamp_ms)
        call = ManyCall(self._loop.create_future())
        try:
            if keys is None:
                await self._feed_values(lanes, data, partition, timestamp, call)
            else:
                await self._feed_keyed(lanes, data, checked_keys(keys, len(data)), partition, timestamp, call)
        except MinilogError as error:
            call.refuse(len(data), error)
        call.seal()
        return await call.outcome

    async def _feed_values(
        self, lanes: TopicLanes, values: Sequence[bytes], partition: int | None, timestamp: int, call: ManyCall
    ) -> None:
        batch_bytes = self.settings.batch_bytes
        index, unyielded_bytes = 0, 0
        while index < len(values):
            if self._sender.is_crowded or not self._accumulator.has_room(batch_bytes):
                await self._sender.wait_room(batch_bytes)
                unyielded_bytes = 0
            self._sender.check_open()
            before = index
            index = self._accumulator.extend(lanes, values, index, partition, timestamp, call, now_ms())
            call.accept(index - before)
            self._sender.wake(0 if index < len(values) else self.settings.linger_ms)
            unyielded_bytes += batch_bytes
            if unyielded_bytes >= _YIELD_BYTES:
                await asyncio.sleep(0)
                unyielded_bytes = 0

    async def _feed_keyed(
        self,
        lanes: TopicLanes,
        values: Sequence[bytes],
        keys: Sequence[bytes | None],
        partition: int | None,
        timestamp: int,
        call: ManyCall,
    ) -> None:
        accumulator, sender = self._accumulator, self._sender
        unyielded_bytes = 0
        for value, key in zip(values, keys, strict=True):
            size = size_of(value, key)
            unyielded_bytes += size
            if unyielded_bytes >= _YIELD_BYTES:
                await asyncio.sleep(0)
                unyielded_bytes = 0
            if sender.is_crowded or not accumulator.has_room(size):
                await sender.wait_room(size)
            if sender.closed or not accumulator.join(lanes, value, key, (), partition, timestamp, call):
                sender.check_open()
                due_ms = accumulator.append(lanes, value, key, (), partition, timestamp, call, now_ms())
                if due_ms is not None:
                    sender.wake(due_ms)
            call.accept(1)

    # --- flush and close ---------------------------------------------------------------------------------

    async def flush(self, timeout_ms: int | None = None) -> None:
        """Send what lingers and wait until every record given so far is acknowledged or has failed.

        Raises TimedOut after ``timeout_ms`` (default ``flush_timeout_ms``); the records are still on their way
        then. Failures of records are in their own futures, not here."""
        await self._sender.flush(self.settings.flush_timeout_ms if timeout_ms is None else timeout_ms)

    async def close(self, timeout_ms: int | None = None) -> None:
        """Flush, then stop; what is not acknowledged within ``timeout_ms`` (default ``close_timeout_ms``) fails
        with ClientClosed, definite or not as the case is. May be called twice."""
        if self._sender.closed:
            return
        try:
            if self._accumulator.buffered_bytes:
                await self.flush(self.settings.close_timeout_ms if timeout_ms is None else timeout_ms)
        except TimedOut:
            pass
        finally:
            await self._sender.stop()
            self._on_closed(self)

    async def wait_room(self, size_bytes: int) -> None:
        """Wait in line for room in the buffer; raises BufferFull after ``block_timeout_ms``."""
        await self._sender.wait_room(size_bytes)

    def statistics(self) -> ProducerStatistics:
        return self._sender.statistics()


def size_of(value: Any, key: Any) -> int:
    return (0 if value is None else len(value)) + (0 if key is None else len(key)) + RECORD_OVERHEAD_BYTES


def _timestamp(timestamp_ms: int | None) -> int:
    if timestamp_ms is None:
        return time.time_ns() // 1_000_000
    if isinstance(timestamp_ms, bool) or not isinstance(timestamp_ms, int) or timestamp_ms < 0:
        raise TypeError(f"timestamp_ms must be ms since the epoch, got {timestamp_ms!r}")
    return timestamp_ms


def _check_sizes(topic: str, values: Sequence[bytes], message_bytes_max: int) -> None:
    largest = max(map(len, values), default=0)
    if largest > message_bytes_max:
        raise RecordTooLarge(f"a value of {largest} bytes exceeds max.message.bytes {message_bytes_max} of {topic}")
