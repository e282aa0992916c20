"""The producer as applications see it: ``sender.py`` is its engine, ``accumulator.py`` its mind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from time import time_ns
from typing import Any, Final, Self

from minilog.errors import MinilogError, RecordTooLarge, TimedOut
from minilog.wire.codec.codec import Headers
from minilog_client.connection.cluster import now_ms
from minilog_client.connection.own_loop import check_loop
from minilog_client.observing.figures import ProducerStatistics
from minilog_client.producer.conditional import check_condition
from minilog_client.producer.partition_queue import RECORD_OVERHEAD_BYTES, TopicQueues
from minilog_client.producer.receipts import BatchReceipt, ManyCall, Receipt
from minilog_client.producer.sender import Sender
from minilog_client.settings import MIB
from minilog_client.values import (
    HeadersLike,
    RecordLike,
    Row,
    Rows,
    check_partition,
    checked_bytes,
    checked_headers,
    checked_rows,
    checked_timeout,
    checked_timestamp,
)

_YIELD_BYTES: Final = MIB
"""How much is encoded before other tasks get a turn."""
_CHUNK_ROWS: Final = 100
_running_loop: Final = asyncio._get_running_loop
_Future: Final = asyncio.Future
_log: Final = logging.getLogger("minilog_client.producer.producer")


class Producer:
    """Sends records to topics; made by ``client.producer(...)``.

    ```python
    async with client.producer(acks="all") as producer:
        receipt = await producer.send("orders", b"hello", key=b"k1", headers={"trace": b"1"})
        future = producer.send_nowait("orders", b"hello again")   # an asyncio.Future[Receipt]
        receipts = await producer.send_many("orders", [b"a", b"b", b"c"])
        await producer.flush()
    ```

    Records of one partition are written in the order in which they were given, also across retries.
    A failed record raises its error: ``error.definite`` says whether it is proven not to be in the
    log.

    The producer is idempotent: when a try ends without a clear answer (a timeout, a broken
    connection, a leader that lost its place) the same batch is sent again, and if it was written
    the first time its leader says so. The receipt then has the first offset and ``duplicate=True``.
    Nothing is written twice and nothing is overtaken for as long as the producer tries. What that
    is worth with ``acks`` less than "all", and what ``idempotent=False`` means, is said in
    ``ProducerSettings``.

    A record whose future fails with ``definite=False`` may be in the log (after
    ``delivery_timeout_ms``, or when the producer is closed first). Later records are written after
    it or without it, never before it. Sending it again is the application's decision, and a new
    record.

    No call waits for ever: ``send`` ends within ``block_timeout_ms`` + ``delivery_timeout_ms``,
    ``flush`` and ``close`` within their own timeouts. All methods belong to the event loop the
    producer was made in. From other threads use ``Client``.
    """

    def __init__(self, sender: Sender, on_closed: Callable[[Producer], None]) -> None:
        self.settings = sender.settings
        self._sender = sender
        self._accumulator = sender.accumulator
        self._topics = sender.accumulator.topics
        self._buffer_bytes = sender.settings.buffer_bytes
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"Producer({', '.join(sorted(self._topics)) or 'nothing sent'})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await self.close()
        except TimedOut as error:
            if kind is None:
                raise
            _log.warning("%s", error.detail)  # the block's own error is the one to raise

    # --- sending ----------------------------------------------------------------------------------

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

        Raises the record's error after at most ``delivery_timeout_ms``, BufferFull after
        ``block_timeout_ms`` without room, RecordTooLarge, UnknownTopic, InvalidTopic, ClientClosed;
        TypeError for what is of the wrong type, InvalidRequest for a partition or timestamp that
        cannot be."""
        size = size_of(checked_bytes("value", value), checked_bytes("key", key))
        if self._sender.is_crowded or not self._accumulator.has_room(size):
            await self._sender._wait_room(size)
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
        """Take one record and return at once. The future ends as ``send`` would.

        Raises BufferFull when ``buffer_bytes`` are waiting already, and what ``send`` raises for
        bad input."""
        if type(value) is not bytes:
            value = checked_bytes("value", value)
        if key is not None and type(key) is not bytes:
            key = checked_bytes("key", key)
        pairs = checked_headers(headers) if headers else ()
        if _running_loop() is not self._loop:
            check_loop(self._loop)
        future: asyncio.Future[Receipt] = _Future(loop=self._loop)
        self._take(future, topic, value, key, pairs, partition, timestamp_ms)
        return future

    def _take(
        self,
        token: Any,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        partition: int | None,
        timestamp_ms: int | None,
    ) -> None:
        """Take one record for ``token``; raises what ``send_nowait`` does. Value, key and headers
        were looked at."""
        if type(topic) is not str or (queues := self._topics.get(topic)) is None or self._sender.closed:
            queues = self._sender.topic_queues(topic)
        size = size_of(value, key)
        accumulator = self._accumulator
        buffered_bytes = accumulator.buffered_bytes
        if buffered_bytes and buffered_bytes + size > self._buffer_bytes:
            raise self._sender.buffer_full(size)
        if partition is not None:
            check_partition(partition)
        timestamp = time_ns() // 1_000_000 if timestamp_ms is None else self._checked_time(topic, timestamp_ms)
        if not accumulator.join(queues, value, key, headers, partition, timestamp, token):
            due_ms = accumulator.append(queues, value, key, headers, partition, timestamp, token, now_ms())
            if due_ms is not None:
                self._sender.wake(due_ms)

    def _refuse(self, token: Any, topic: str, error: Exception) -> None:
        """See ``Sender.refuse``."""
        self._sender.refuse(token, topic, error)

    async def send_many(
        self,
        topic: str,
        values: Iterable[RecordLike],
        *,
        keys: Iterable[bytes | None] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> list[BatchReceipt]:
        """Send many records and wait for all of them. By far the fastest way.

        ``values`` are bytes; or (key, value) pairs; or records, which keep their key, headers and
        timestamp, for instance those a consumer has read. With ``keys``, each value has the key of
        the same index.

        Returns a receipt per batch, by partition and offset. When records fail, the first error is
        raised, with ``info["records_failed"]``, ``info["records_acknowledged"]`` and
        ``info["receipts"]`` of those that did not. It is definite only if none of the records can
        be in the log. Raises what ``send`` raises for bad input, and ValueError when there are not
        as many keys as values. Nothing was sent then."""
        if partition is not None:
            check_partition(partition)
        timestamp = time_ns() // 1_000_000 if timestamp_ms is None else self._checked_time(topic, timestamp_ms)
        self._sender.check_open()
        rows = checked_rows(values, keys)
        for own in rows.timestamps or ():
            if own is not None:
                self._sender.time_units.look_at(topic, own)
        _check_sizes(topic, rows.values, (await self._sender.placed(topic)).message_bytes_max)
        if partition is not None:
            await self._sender.new_partitions.know(topic, partition)
        call = ManyCall(self._loop.create_future())
        try:
            if rows.is_plain:
                await self._feed_values(topic, rows.values, partition, timestamp, call)
            else:
                await self._feed_rows(topic, rows, partition, timestamp, call)
        except MinilogError as error:
            call.refuse(len(rows.values), error)
        except BaseException:
            call.outcome.cancel()  # nobody waits for it any more
            raise
        call.seal()
        if call.outcome.done():
            await asyncio.sleep(0)  # whoever sends nothing lets others run
        return await call.outcome

    async def append(
        self,
        topic: str,
        values: Iterable[RecordLike],
        *,
        partition: int,
        expected_offset: int,
        keys: Iterable[bytes | None] | None = None,
        timestamp_ms: int | None = None,
    ) -> BatchReceipt:
        """Write ``values`` where the partition ends at ``expected_offset``, all of them as one
        batch, or nothing. Of several writers that expect the same end one wins.

        ``values`` and ``keys`` as for ``send_many``. Raises EndOffsetMismatch when others have
        written: ``info["end_offset"]`` says where the partition ends. Retries are safe: what was
        written by an earlier try is acknowledged. Raises InvalidRequest with acks=0 or
        ``idempotent=False``, RecordTooLarge for what does not fit one batch, and what ``send``
        raises."""
        check_partition(partition)
        rows = checked_rows(values, keys)
        check_condition(expected_offset, len(rows.values), self.settings)
        timestamp = time_ns() // 1_000_000 if timestamp_ms is None else checked_timestamp(timestamp_ms)
        self._sender.check_open()
        await self._sender.placed(topic)
        await self._sender.new_partitions.know(topic, partition)
        if self._sender.is_crowded or not self._accumulator.has_room(rows.bytes_max):
            await self._sender._wait_room(rows.bytes_max)
        call = ManyCall(self._loop.create_future())
        queues = await self._sender.placed(topic)
        self._accumulator.append_if(queues, rows.rows(), partition, timestamp, expected_offset, call, now_ms())
        call.accept(len(rows.values))
        call.seal()
        self._sender.wake(0)
        (receipt,) = await call.outcome
        return receipt

    def _checked_time(self, topic: str, timestamp_ms: int) -> int:
        return self._sender.time_units.look_at(topic, checked_timestamp(timestamp_ms))

    async def _feed_values(
        self, topic: str, values: Sequence[Any], partition: int | None, timestamp: int, call: ManyCall
    ) -> None:
        batch_bytes = self.settings.batch_bytes
        index, unyielded_bytes = 0, 0
        while index < len(values):
            if self._sender.is_crowded or not self._accumulator.has_room(batch_bytes):
                await self._sender._wait_room(batch_bytes)
                unyielded_bytes = 0
            queues = self._sender.topic_queues(topic)
            if not queues.partition_count:  # the topic has gone meanwhile
                await self._sender.placed(topic)
                continue
            before = index
            index = self._accumulator.extend(queues, values, index, partition, timestamp, call, now_ms())
            call.accept(index - before)
            self._sender.wake(0 if index < len(values) else self.settings.linger_ms)
            unyielded_bytes += batch_bytes
            if unyielded_bytes >= _YIELD_BYTES:
                await asyncio.sleep(0)
                unyielded_bytes = 0

    async def _feed_rows(self, topic: str, rows: Rows, partition: int | None, timestamp: int, call: ManyCall) -> None:
        sender, unyielded_bytes = self._sender, 0
        for chunk, size in rows.chunks(_CHUNK_ROWS, self.settings.batch_bytes):
            unyielded_bytes += size
            if unyielded_bytes >= _YIELD_BYTES:
                await asyncio.sleep(0)
                unyielded_bytes = 0
            if sender.is_crowded or not self._accumulator.has_room(size):
                await sender._wait_room(size)
            self._feed_chunk(await sender.placed(topic), chunk, partition, timestamp, call)

    def _feed_chunk(
        self, queues: TopicQueues, chunk: Iterable[Row], partition: int | None, timestamp: int, call: ManyCall
    ) -> None:
        """There is room for all of it."""
        join, append = self._accumulator.join, self._accumulator.append
        accepted = 0
        try:
            for value, key, headers, own_timestamp in chunk:
                at = timestamp if own_timestamp is None else own_timestamp
                if not join(queues, value, key, headers, partition, at, call):
                    due_ms = append(queues, value, key, headers, partition, at, call, now_ms())
                    if due_ms is not None:
                        self._sender.wake(due_ms)
                accepted += 1
        finally:
            call.accept(accepted)

    # --- flush and close --------------------------------------------------------------------------

    async def flush(self, timeout_ms: int | None = None) -> int:
        """Send what lingers and wait until every record given so far is acknowledged or has failed.
        Returns how many have failed since the last ``flush``. Why is in their futures, and in the
        log. What ``send_many`` has raised is not counted.

        Raises TimedOut after ``timeout_ms`` (default ``flush_timeout_ms``). The records are still
        on their way then. The error says how many there are and what their last tries ended with,
        ``info["unsettled"]`` by partition."""
        limit_ms = checked_timeout(timeout_ms, self.settings.flush_timeout_ms)
        return await self._flush(limit_ms, limit_ms)

    async def close(self, timeout_ms: int | None = None) -> int:
        """Flush, then stop. May be called twice. Returns what ``flush`` does.

        What is not acknowledged within ``timeout_ms`` (default ``close_timeout_ms``) fails with
        ClientClosed, definite or not as the case is. The producer is closed then all the same, and
        TimedOut is raised, which says how many records that were and why."""
        limit_ms = checked_timeout(timeout_ms, self.settings.close_timeout_ms)
        return await self._close(limit_ms, limit_ms)

    async def _flush(self, left_ms: int, limit_ms: int) -> int:
        """``left_ms`` is what is left of the ``limit_ms`` that the caller was given."""
        check_loop(self._loop)
        await asyncio.sleep(0)  # whoever has nothing to flush lets others run
        await self._sender.flush(left_ms, f"flush took longer than {limit_ms} ms")
        return self._take_failures()

    async def _close(self, left_ms: int, limit_ms: int) -> int:
        if self._sender.closed:
            return 0
        try:
            if self._accumulator.buffered_bytes:
                await self._sender.flush(left_ms, f"close took longer than {limit_ms} ms")
        finally:
            self._on_closed(self)
            await self._sender.stop()
        return self._take_failures()

    def _take_failures(self) -> int:
        """How many records have failed since this was asked last."""
        return self._sender.failures.take_count()

    async def _wait_room(self, size_bytes: int, limit_ms: int) -> None:
        """Wait in line for room in the buffer; raises BufferFull after ``limit_ms``."""
        await self._sender._wait_room(size_bytes, limit_ms)

    def _abandon(self) -> None:
        """The loop ends: what is not acknowledged by now fails, definitely or not as the case
        is."""
        self._sender.abandon()

    def statistics(self) -> ProducerStatistics:
        return self._sender.statistics()


def size_of(value: bytes | None, key: bytes | None) -> int:
    """An upper bound of what the record takes in the buffer, but for headers."""
    size = RECORD_OVERHEAD_BYTES if value is None else RECORD_OVERHEAD_BYTES + len(value)
    return size if key is None else size + len(key)


def _check_sizes(topic: str, values: Sequence[bytes | None], message_bytes_max: int) -> None:
    largest = max(map(len, filter(None, values)), default=0)
    if largest > message_bytes_max:
        raise RecordTooLarge(f"a value of {largest} bytes exceeds max.message.bytes {message_bytes_max} of {topic}")
