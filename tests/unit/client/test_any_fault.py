"""Whatever a request raises, and whichever request it is: all that was asked for is settled, and no
engine stops. Time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from minilog_client import AsyncClient
from tests.unit.client.consumer.consumer_bench import now
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.virtual_time import run

RECORDS = 8
REQUESTS = 40
"""More than are made before the last record is committed."""


class Stumbling(FakeCluster):
    """The request number ``falls_at`` is carried out, and raises what getaddrinfo does when no
    thread can be started."""

    falls_at = -1

    async def request(self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_ms: int) -> Any:
        number = len(self.requests)
        response = await super().request(method, url, headers, body, timeout_ms)
        if number == self.falls_at:
            raise RuntimeError("can't start new thread")
        return response


@pytest.mark.parametrize("falls_at", range(REQUESTS))
def test_a_request_that_raises_anything_ends_nothing(falls_at: int) -> None:
    async def main() -> None:
        cluster = Stumbling()
        cluster.create("t", 2)
        coordinator = FakeCoordinator(cluster)
        cluster.falls_at = falls_at
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            producer = client.producer(delivery_timeout_ms=20_000)
            futures = []
            for _ in range(RECORDS):
                futures.append(producer.send_nowait("t", b"1"))
                await asyncio.sleep(0.003)  # what comes later waits for the answer to what came before
            done, _ = await asyncio.wait(futures, timeout=25)
            assert len(done) == RECORDS, "every record is settled in its time"
            assert [future.exception() for future in done] == [None] * RECORDS
            async with client.consumer("t", group="g") as consumer:
                seen, end = 0, now() + 30
                while seen < RECORDS and now() < end:
                    seen += len(await consumer.batch())
                assert seen == RECORDS
                assert await consumer.batch(max_wait_ms=10) == []
            assert sum(offset or 0 for offset in coordinator.committed("g").values()) == RECORDS
            asked = cluster.count("metadata")
            await asyncio.sleep(30)
            assert cluster.count("metadata") > asked, "the layout is asked for again"

    run(main())


@pytest.mark.parametrize(
    "kind", ["groupheartbeat", "commitoffsets", "committedoffsets", "fetch", "produce", "metadata"]
)
def test_a_kind_of_request_that_raises_for_long_goes_on_when_that_is_over(kind: str) -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t", 2)
        FakeCoordinator(cluster)

        def fall(seen: str, broker: int) -> Any:
            if seen == kind:
                raise UnicodeError("label empty or too long")

        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            consumer, producer = client.consumer("t", group="g"), client.producer()
            await producer.send("t", b"1")
            assert len(await consumer.batch(max_wait_ms=5000)) == 1
            cluster.chaos = fall
            futures = [producer.send_nowait("t", b"1", partition=partition) for partition in (0, 1)]
            await asyncio.sleep(3)
            cluster.chaos = lambda seen, broker: None
            await asyncio.wait(futures, timeout=5)
            assert all(future.done() for future in futures)
            seen, end = 0, now() + 30
            while seen < 2 and now() < end:
                seen += len(await consumer.batch())
            assert seen == 2

    run(main())
