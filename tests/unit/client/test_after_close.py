"""What is closed hands out nothing more, on both faces."""

from __future__ import annotations

from typing import Any

import pytest

from minilog_client import AsyncClient, ClientClosed
from tests.unit.client.blocking.test_groups import connected
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import scenario

KINDS = [{}, {"group": "g"}]


@pytest.mark.parametrize("closes", ["consumer", "client"])
@pytest.mark.parametrize("options", KINDS)
def test_iteration_ends_where_it_was_closed(options: dict[str, Any], closes: str) -> None:
    """Another member has the partition by then."""

    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 20)
        consumer = client.consumer("t", **options)
        for _ in range(3):
            await anext(consumer)
        await {"consumer": consumer, "client": client}[closes].close()
        with pytest.raises(ClientClosed):
            await anext(consumer)


@pytest.mark.parametrize("how", ["next", "batch"])
@pytest.mark.parametrize("closes", ["consumer", "client"])
@pytest.mark.parametrize("options", KINDS)
def test_so_it_does_without_await(options: dict[str, Any], closes: str, how: str) -> None:
    with connected(1) as (cluster, _, client):
        fill(cluster.logs["t"][0], 20)
        consumer = client.consumer("t", **options)
        for _ in range(3):
            next(consumer)
        {"consumer": consumer, "client": client}[closes].close()
        with pytest.raises(ClientClosed):
            next(consumer) if how == "next" else consumer.batch()
