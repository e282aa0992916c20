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
    warm_up_s: float = 0.0
    """The same load before, which is not measured: connections, caches, first batches."""
    connections: int = 1
    request_records: int = 1
    """These two of ``bench http``."""

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
    requests: int = 0
    refused: int = 0
    """By the cluster, for the time being."""
    rate: float | None = None
    """At which records were really sent, where one was asked for."""
    latencies_ms: list[float] = field(default_factory=list)
    series: dict[str, list[float]] = field(default_factory=dict)


Progress = Callable[[int], None]
Begin = Callable[[], None]
"""Called once, when the warm-up is over."""


async def produce(url: str, load: Load, progress: Progress, begin: Begin = lambda: None) -> Measured:
    """``send_many`` of about a megabyte at a time, a few of them in flight; latency is that of one
    such call."""
    chunk = max(1, CHUNK_BYTES // load.record_bytes)
    values = payloads(load.record_bytes, chunk)
    result = Measured(measured=f"one send_many of {chunk} records")
    started = 0
    began_s = ends_s = 0.0

    def more() -> int:
        if not began_s:
            return chunk if time.monotonic() < ends_s else 0
        if load.records:
            return min(chunk, load.records - started)
        return chunk if time.monotonic() < ends_s else 0

    async def worker(producer: Producer) -> None:
        nonlocal started
        while count := more():
            started += count
            sent_s = time.monotonic()
            await producer.send_many(load.topic, values[:count])
            if not began_s:
                continue
            result.latencies_ms.append((time.monotonic() - sent_s) * 1000)
            result.records += count
            progress(result.records)

    async def work(producer: Producer) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CHUNKS_IN_FLIGHT):
                tasks.create_task(worker(producer))
        await producer.flush()

    async with AsyncClient(url, **client_options()) as client, _producer(client, load) as producer:
        if load.warm_up_s:
            ends_s = time.monotonic() + load.warm_up_s
            await work(producer)
        begin()
        started, began_s = 0, time.monotonic()
        ends_s = began_s + load.seconds
        await work(producer)
        result.seconds = time.monotonic() - began_s
    result.bytes_total = result.records * load.record_bytes
    return result


async def consume(url: str, load: Load, progress: Progress, begin: Begin = lambda: None) -> Measured:
    """Read ``load.records`` records that are there already, from the first offset; latency is one
    ``batch`` call."""
    result = Measured(measured="one batch call")
    async with (
        AsyncClient(url, **client_options()) as client,
        client.consumer(load.topic, start="earliest") as consumer,
    ):
        begin()
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


async def latency(url: str, load: Load, progress: Progress, begin: Begin = lambda: None) -> Measured:
    """Records at a steady rate, each with the time inside at which it was due. Measured end to end,
    and until acknowledged. One that is sent late, because the one before took long, counts from
    when it was due: else the worst moments would count least."""
    end_to_end: list[float] = []
    acknowledged: list[float] = []
    pad = os.urandom(max(0, load.record_bytes - STAMP_BYTES))
    warm = int(load.rate * load.warm_up_s)
    total = warm + (load.records or int(load.rate * load.seconds))
    result = Measured(measured="send to receipt by a consumer", latencies_ms=end_to_end)

    async def read(consumer: Consumer) -> None:
        seen = 0
        while seen < total:
            for record in await asyncio.wait_for(consumer.batch(max_records=1000, max_wait_ms=1000), IDLE_TIMEOUT_S):
                assert record.value is not None, "each record carries its time"
                if seen >= warm:
                    end_to_end.append((time.monotonic_ns() - int.from_bytes(record.value[:8])) / 1e6)
                seen += 1
            progress(max(0, seen - warm))

    def on_done(due_ns: int, is_measured: bool, future: Future[Receipt]) -> None:
        future.result()
        if is_measured:
            acknowledged.append((time.monotonic_ns() - due_ns) / 1e6)

    async with (
        AsyncClient(url, **client_options()) as client,
        _producer(client, load) as producer,
        client.consumer(load.topic, start="latest") as consumer,
    ):
        await consumer.batch(max_records=1, max_wait_ms=200)
        first_s = measured_s = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read(consumer))
            for number in range(total):
                due_s = first_s + number / load.rate
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                if number == warm:
                    begin()
                    measured_s = time.monotonic()
                due_ns = int(due_s * 1e9)
                value = due_ns.to_bytes(8) + number.to_bytes(8) + pad
                _send(producer, load.topic, value).add_done_callback(partial(on_done, due_ns, number >= warm))
            sending_s = time.monotonic() - measured_s
        result.seconds = time.monotonic() - measured_s
    result.records = total - warm
    result.rate = (result.records - 1) / sending_s if result.records > 1 else None
    result.bytes_total = result.records * load.record_bytes
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
