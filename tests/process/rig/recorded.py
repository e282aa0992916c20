"""minilog's clients with a recorder beside them: the same calls, and everything sent and seen is in
the history.

One record is one operation, and a producer has many in flight. Payloads begin with the value that
names the record, so what is polled names itself. A key of the history is "topic-partition".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Final

from minilog.errors import LogTruncated, MinilogError
from minilog_client import AsyncClient
from minilog_client.consumer.consumer import Consumer
from minilog_client.consumer.records import Record
from minilog_client.producer.producer import Producer
from minilog_client.producer.receipts import Receipt
from tests.process.checker.history_format import Invoked, Key, PolledRecord, Recorder, digest

SEPARATOR: Final = b" "
FINAL_PHASE: Final = "final"
_FINAL_WAIT_MS: Final = 5000


def history_key(topic: str, partition: int) -> Key:
    return f"{topic}-{partition}"


class RecordedProducer:
    """``acks`` as the producer was made with. After an outcome nobody knows it goes on under a new
    process name."""

    def __init__(self, recorder: Recorder, producer: Producer, acks: str | int = "all", value_bytes: int = 100) -> None:
        self._recorder, self._producer, self._acks, self._value_bytes = recorder, producer, acks, value_bytes
        self._process = recorder.process("producer")
        self._next = count(1).__next__
        self.errors: list[BaseException] = []

    def send_nowait(self, topic: str, partition: int) -> asyncio.Future[Receipt] | None:
        """Send one record with a value of its own; None when it was refused on the spot."""
        value = f"{self._process}:{self._next()}"
        payload = (value.encode() + SEPARATOR).ljust(self._value_bytes, b"x")
        key = history_key(topic, partition)
        op = self._recorder.invoke_send(self._process, key, value, digest(payload), acks=self._acks)
        try:
            future = self._producer.send_nowait(topic, payload, partition=partition)
        except MinilogError as error:
            self._on_error(op, error)
            return None
        future.add_done_callback(lambda done: self._on_done(op, done))
        return future

    def _on_done(self, op: Invoked, done: asyncio.Future[Receipt]) -> None:
        if done.cancelled():
            self._on_error(op, asyncio.CancelledError("cancelled"))
            return
        error = done.exception()
        if error is not None:
            self._on_error(op, error)
            return
        receipt = done.result()
        # A duplicate is acknowledged by the leader of today for an append of yesterday, so its
        # epoch proves nothing.
        epoch = None if receipt.duplicate else receipt.leader_epoch
        self._recorder.ok_send(op, receipt.offset, epoch=epoch)

    def _on_error(self, op: Invoked, error: BaseException) -> None:
        self._recorder.error(op, error)
        self.errors.append(error)
        if not (isinstance(error, MinilogError) and error.definite) and op.process == self._process:
            self._process = self._recorder.process("producer")


class RecordedConsumer:
    """Reads ``partitions`` of ``topic`` from offset ``start``. ``consumer`` must have been made
    with the same."""

    def __init__(
        self, recorder: Recorder, consumer: Consumer, topic: str, partitions: Sequence[int],
        start: int = 0, name: str = "consumer",
    ) -> None:  # fmt: skip
        self._recorder, self._consumer = recorder, consumer
        self.process = recorder.process(name)
        self._keys = [history_key(topic, partition) for partition in partitions]
        recorder.assign(self.process, dict.fromkeys(self._keys, start))

    async def poll(self, max_records: int = 1000, max_wait_ms: int = 200) -> list[Record]:
        """Raises what the consumer raises, after it was recorded. A truncated partition must then
        be moved by ``seek``."""
        op = self._recorder.invoke_poll(self.process)
        try:
            records = await self._consumer.batch(max_records, max_wait_ms)
        except LogTruncated as error:
            cut = {history_key(error.info["topic"], error.info["partition"]): int(error.info["lost_from"])}
            self._recorder.error(op, error, truncated=cut)
            raise
        except BaseException as error:
            self._recorder.error(op, error)
            raise
        polled: dict[Key, list[PolledRecord]] = {}
        for record in records:
            polled.setdefault(history_key(record.topic, record.partition), []).append(_polled(record))
        self._recorder.ok_poll(op, polled, hw=self._high_watermarks())
        return records

    def seek(self, topic: str, partition: int, offset: int) -> None:
        self._consumer.seek(topic, partition, offset)
        starts: dict[Key, int | None] = dict.fromkeys(self._keys)
        starts[history_key(topic, partition)] = offset
        self._recorder.assign(self.process, starts)

    def _high_watermarks(self) -> dict[Key, int | None]:
        positions = self._consumer.positions()
        found: dict[Key, int | None] = {}
        for (topic, partition), lag in self._consumer.lag().items():
            position = positions.get((topic, partition))
            known = lag.records is not None and position is not None
            found[history_key(topic, partition)] = position + lag.records if known else None  # type: ignore[operator]
        return found


def _polled(record: Record) -> PolledRecord:
    payload = record.value or b""
    value = payload.split(SEPARATOR, 1)[0].decode(errors="replace")
    return [record.offset, value, digest(payload), record.leader_epoch]


async def final_read(recorder: Recorder, client: AsyncClient, topic: str, partitions: Sequence[int]) -> None:
    """Begin the final phase: a fresh consumer reads every partition from its beginning to its end.

    The cluster must have healed and settled. Raises AssertionError when the end does not come."""
    recorder.phase(FINAL_PHASE)
    ends = {partition: (await client.offsets(topic, partition))[1] for partition in partitions}
    async with client.consumer([(topic, partition) for partition in partitions], start="earliest") as consumer:
        reader = RecordedConsumer(recorder, consumer, topic, partitions, name="reader")
        reached = dict.fromkeys(partitions, 0)
        while any(reached[partition] < end for partition, end in ends.items()):
            records = await reader.poll(max_records=10_000, max_wait_ms=_FINAL_WAIT_MS)
            assert records, f"{topic}: nothing more came; reached {reached} of {ends}"
            for record in records:
                reached[record.partition] = record.offset + 1
