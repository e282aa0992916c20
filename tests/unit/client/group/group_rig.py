"""Consumers in groups, a naive coordinator and a fake cluster put together, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from minilog_client import (
    AsyncClient,
    GroupConsumer,
    Record,
)
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.holding import HoldingClient
from tests.unit.client.virtual_time import run

Body = Callable[[FakeCluster, FakeCoordinator, AsyncClient], Coroutine[Any, Any, None]]


def scenario(partitions: int = 1, **options: Any) -> Callable[[Body], None]:
    """Run ``body`` against topic "t" of a fresh cluster with a coordinator."""

    def decorate(body: Body) -> None:
        async def main() -> None:
            cluster = FakeCluster()
            cluster.create("t", partitions)
            coordinator = FakeCoordinator(cluster)
            async with HoldingClient(cluster.bootstrap, transport=cluster, **options) as client:
                await asyncio.wait_for(body(cluster, coordinator, client), 3600)

        run(main())

    return decorate


async def read(consumer: GroupConsumer, count: int) -> list[Record]:
    records: list[Record] = []
    while len(records) < count:
        more = await consumer.batch(max_records=count - len(records), max_wait_ms=20_000)
        assert more, f"only {len(records)} of {count} records came"
        records += more
    return records
