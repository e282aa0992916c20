"""A partition whose start cannot be found, beside others. Time is virtual."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from minilog.errors import CorruptRange, MinilogError
from minilog.wire.messages import OffsetsResult, Problem
from minilog_client import AsyncClient, Consumer
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.virtual_time import run


class Damaged(FakeCluster):
    """What the leader of partition 0 must read to find a start is damaged."""

    def _offsets(self, broker: int, part: Any) -> OffsetsResult:
        if part.partition == 0:
            error = CorruptRange("offsets 0 to 10 are damaged on this replica")
            return OffsetsResult(part.topic, part.partition, problem=Problem.of(error))
        return super()._offsets(broker, part)


async def read_on(consumer: Consumer, one_by_one: bool, turns: int) -> tuple[Counter[int], list[MinilogError]]:
    """Records by partition, and errors, of an application that reads on after each error at once."""
    seen: Counter[int] = Counter()
    told: list[MinilogError] = []
    for _ in range(turns):
        try:
            records = [await anext(consumer)] if one_by_one else await consumer.batch(max_wait_ms=500)
            seen.update(record.partition for record in records)
        except MinilogError as error:
            told.append(error)
    return seen, told


def damaged(partitions: int, body: Callable[[FakeCluster, AsyncClient], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        cluster = Damaged()
        FakeCoordinator(cluster)
        for log in cluster.create("t", partitions):
            fill(log, 10)
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            await body(cluster, client)

    run(main())


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("group", [None, "g"])
def test_a_partition_that_cannot_be_looked_up_keeps_no_other_from_being_read(
    group: str | None, one_by_one: bool
) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        options: dict[str, Any] = {} if group is None else {"group": group}
        consumer = client.consumer("t", start="@500", **options)
        seen, told = await read_on(consumer, one_by_one, 40)
        assert seen == {1: 10}
        assert {error.info["partition"] for error in told} == {0}

    damaged(2, body)


def test_who_reads_on_after_every_error_leaves_room_for_everything_else() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        consumer = client.consumer("t", start="@500")
        beside = asyncio.ensure_future(asyncio.sleep(1))
        _, told = await read_on(consumer, False, 40)
        assert len(told) == 40
        assert beside.done()

    damaged(1, body)
