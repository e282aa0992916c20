"""The loads of the benchmarks, against one topic of a running cluster: produce, consume,
latency."""

from __future__ import annotations

import asyncio
import os
import time
from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, cast

from minilog.cli.access import client_options
from minilog.errors import BufferFull
from minilog_client import AsyncClient, Consumer, Producer, Receipt
from minilog_client.settings import Codec

CHUNK_BYTES = 1_000_000
CHUNKS_IN_FLIGHT = 6
PACE_S = 0.001
IDLE_TIMEOUT_S = 30.0
STAMP_BYTES = 16


@dataclass(frozen=True)
class Load:
    """``records`` or ``seconds`` bounds it, whichever is set. ``rate`` is records per second
    (latency only)."""

    topic: str
    record_bytes: int = 1024
    records: int = 0
    seconds: float = 0.0
    acks: str = "all"
    rate: int = 1000
    compression: str = "none"
    batch_bytes: int = 256 * 1024
    linger_ms: int = 5

    @property
    def acks_value(self) -> Literal["all"] | int:
        return "all" if self.acks == "all" else int(self.acks)


@dataclass
class Measured:
    """``latencies_ms`` of what ``measured`` says; further series by name."""

    records: int = 0
    bytes_total: int = 0
    seconds: float = 0.0
    measured: str = ""
    latencies_ms: list[float] = field(default_factory=list)
    series: dict[str, list[float]] = field(default_factory=dict)


Progress = Callable[[int], None]


async def produce(url: str, load: Load, progress: Progress) -> Measured:
    """``send_many`` of about a megabyte at a time, a few of them in flight; latency is that of one
    such call."""
    chunk = max(1, CHUNK_BYTES // load.record_bytes)
    values = payloads(load.record_bytes, chunk)
    result = Measured(measured=f"one send_many of {chunk} records")
    began_s = time.monotonic()
    started = 0

    def more() -> int:
        if load.records:
            return min(chunk, load.records - started)
        return chunk if time.monotonic() - began_s < load.seconds else 0

    async def worker(producer: Producer) -> None:
        nonlocal started
        while count := more():
            started += count
            sent_s = time.monotonic()
            await producer.send_many(load.topic, values[:count])
            result.latencies_ms.append((time.monotonic() - sent_s) * 1000)
            result.records += count
            progress(result.records)

    async with AsyncClient(url, **client_options()) as client, _producer(client, load) as producer:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CHUNKS_IN_FLIGHT):
                tasks.create_task(worker(producer))
        await producer.flush()
        result.seconds = time.monotonic() - began_s
    result.bytes_total = result.records * load.record_bytes
    return result


async def consume(url: str, load: Load, progress: Progress) -> Measured:
    """Read ``load.records`` records that are there already, from the first offset; latency is one
    ``batch`` call."""
    result = Measured(measured="one batch call")
    async with (
        AsyncClient(url, **client_options()) as client,
        client.consumer(load.topic, start="earliest") as consumer,
    ):
        began_s = time.monotonic()
        while result.records < load.records:
            asked_s = time.monotonic()
            records = await asyncio.wait_for(consumer.batch(max_records=10_000, max_wait_ms=1000), IDLE_TIMEOUT_S)
            if records:
                result.latencies_ms.append((time.monotonic() - asked_s) * 1000)
            result.records += len(records)
            result.bytes_total += sum(len(record.value or b"") for record in records)
            progress(result.records)
        result.seconds = time.monotonic() - began_s
    return result


async def latency(url: str, load: Load, progress: Progress) -> Measured:
    """Records at a steady rate, each with its time of sending inside; end to end, and until
    acknowledged."""
    end_to_end: list[float] = []
    acknowledged: list[float] = []
    pad = os.urandom(max(0, load.record_bytes - STAMP_BYTES))
    total = load.records or int(load.rate * load.seconds)
    result = Measured(measured="send to receipt by a consumer", latencies_ms=end_to_end)

    async def read(consumer: Consumer) -> None:
        seen = 0
        while seen < total:
            for record in await asyncio.wait_for(consumer.batch(max_records=1000, max_wait_ms=1000), IDLE_TIMEOUT_S):
                assert record.value is not None, "each record carries its time"
                end_to_end.append((time.monotonic_ns() - int.from_bytes(record.value[:8])) / 1e6)
                seen += 1
            progress(seen)

    def on_done(sent_ns: int, future: Future[Receipt]) -> None:
        future.result()
        acknowledged.append((time.monotonic_ns() - sent_ns) / 1e6)

    async with (
        AsyncClient(url, **client_options()) as client,
        _producer(client, load) as producer,
        client.consumer(load.topic, start="latest") as consumer,
    ):
        await consumer.batch(max_records=1, max_wait_ms=200)
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read(consumer))
            for number in range(total):
                await asyncio.sleep(max(0.0, began_s + number / load.rate - time.monotonic()))
                now_ns = time.monotonic_ns()
                value = now_ns.to_bytes(8) + number.to_bytes(8) + pad
                _send(producer, load.topic, value).add_done_callback(partial(on_done, now_ns))
        result.seconds = time.monotonic() - began_s
    result.records = total
    result.bytes_total = total * load.record_bytes
    result.series = {"acknowledged": acknowledged}
    return result


def payloads(record_bytes: int, count: int) -> list[bytes]:
    """Distinct and incompressible, so that neither a codec nor a cache can cheat."""
    noise = os.urandom(record_bytes + count)
    return [noise[start : start + record_bytes] for start in range(count)]


def _producer(client: AsyncClient, load: Load) -> Producer:
    return client.producer(
        acks=load.acks_value,
        linger_ms=load.linger_ms,
        batch_bytes=load.batch_bytes,
        compression=cast(Codec, load.compression),
    )


def _send(producer: Producer, topic: str, value: bytes) -> Future[Receipt]:
    try:
        return producer.send_nowait(topic, value)
    except BufferFull as error:
        raise type(error)("the cluster does not keep up with this rate: lower --rate") from None
