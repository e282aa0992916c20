"""A small cluster for consumers, and how tests write to it and read from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from minilog.wire.batch import split
from minilog.wire.records import encode_values
from minilog_client import AsyncClient, Consumer, Record
from tests.unit.client.fake_cluster import FakeCluster, Log
from tests.unit.client.holding import HoldingClient
from tests.unit.client.virtual_time import run

Body = Callable[[FakeCluster, AsyncClient], Coroutine[Any, Any, None]]


def scenario(partitions: int = 1, **options: Any) -> Callable[[Body], None]:
    """Run ``body`` against topic "t" of a fresh cluster."""

    def decorate(body: Body) -> None:
        async def main() -> None:
            cluster = FakeCluster()
            cluster.create("t", partitions)
            async with HoldingClient(cluster.bootstrap, transport=cluster, **options) as client:
                await body(cluster, client)

        run(main())

    return decorate


def write(log: Log, *values: bytes, timestamp_ms: int = 1000) -> None:
    log.append(split(encode_values(values, timestamp_ms), 2**31)[0])


def fill(log: Log, count: int, each: int = 10, size: int = 5) -> list[bytes]:
    """``count`` records in batches of ``each``."""
    values = [(b"%05d" % number).ljust(size, b".") for number in range(log.end_offset, log.end_offset + count)]
    for start in range(0, count, each):
        write(log, *values[start : start + each])
    return values


async def read(consumer: Consumer, count: int) -> list[Record]:
    records: list[Record] = []
    while len(records) < count:
        more = await consumer.batch(max_records=count - len(records), max_wait_ms=5000)
        assert more, f"only {len(records)} of {count} records came"
        records += more
    return records


def values(records: list[Record]) -> list[bytes | None]:
    return [record.value for record in records]


def now() -> float:
    return asyncio.get_running_loop().time()


def later(seconds: float, action: Callable[..., object], *arguments: Any) -> None:
    asyncio.get_running_loop().call_later(seconds, action, *arguments)


def cut_start(log: Log, offset: int) -> None:
    """Retention: everything before ``offset`` (a batch border) is gone."""
    log.start_offset, log.batches = offset, [batch for batch in log.batches if batch.base_offset >= offset]


def lose_tail(cluster: FakeCluster, log: Log, offset: int) -> None:
    log.truncate(offset)
    cluster.move(log, 3)
