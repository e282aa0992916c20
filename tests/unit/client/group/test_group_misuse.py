"""Consumers in groups that are used wrongly: refused at once, and nothing is committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from minilog_client import (
    AsyncClient,
    ClientClosed,
    InvalidGroup,
    InvalidRequest,
    NotAssigned,
    Record,
    StaleMemberEpoch,
    UnknownTopic,
)
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import read, scenario


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda c: c.consumer("t", group="g", pattern="t.*"), InvalidRequest, "exactly one"),
        (lambda c: c.consumer(group="g"), InvalidRequest, "exactly one"),
        (lambda c: c.consumer([("t", 0)], group="g"), InvalidRequest, "assigns the partitions itself"),
        (lambda c: c.consumer("t", group=""), InvalidGroup, "1 to 249"),
        (lambda c: c.consumer("t", group=7), InvalidGroup, "1 to 249"),
        (lambda c: c.consumer("t", group="g", assignor="roundrobin"), InvalidRequest, "sticky, range"),
        (lambda c: c.consumer("t", group="g", auto_commit="yes"), InvalidRequest, "True and False"),
        (lambda c: c.consumer("t", group="g", session_timeout_ms=0), InvalidRequest, "session_timeout_ms is 0"),
        (lambda c: c.consumer("t", group="g", on_lost=3), TypeError, "on_lost must be a function"),
        (lambda c: c.consumer("t", group="g", sesion_timeout_ms=1), InvalidRequest, "session_timeout_ms"),
        (lambda c: c.consumer("t", session_timeout_ms=5), InvalidRequest, "consumers with a group"),
        (lambda c: c.consumer("t", on_lost=print), InvalidRequest, "consumers with a group"),
        (lambda c: c.consumer(pattern="t"), InvalidRequest, "consumers with a group"),
        (lambda c: c.consumer(), InvalidRequest, "name at least one"),
    ],
)
def test_misuse_when_made(make: Callable[[AsyncClient], Any], error: type[Exception], said: str) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        with pytest.raises(error, match=said):
            make(client)
        assert coordinator.groups == {}


@pytest.mark.parametrize(
    ("what", "error", "said"),
    [
        ({("t", 0): -1}, InvalidRequest, "allowed are 0 to 9223372036854775807"),
        ({("t", 0): 2**63}, InvalidRequest, "allowed are 0 to 9223372036854775807"),
        ({("t", 0): 2**64}, InvalidRequest, "allowed are 0 to 9223372036854775807"),
        ({("t", 0): 3, ("t", 7): 1}, NotAssigned, "t-7 is not assigned to this member"),
        ({("t", 0): 3, ("u", 0): 1}, NotAssigned, "u-0 is not assigned"),
        ({("t", 0): True}, TypeError, "whole number"),
        ({"t": 3}, TypeError, "named by"),
        ("t", TypeError, "commit takes a record"),
        ([1], TypeError, "must hold records"),
        (5, TypeError, "got int"),
        (Record("t", 0, 0, 99, 0, None, None, ()), StaleMemberEpoch, "was not handed out"),
    ],
)
def test_a_wrong_commit_commits_nothing(what: Any, error: type[Exception], said: str) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        async with client.consumer("t", group="g", auto_commit=False) as consumer:
            await read(consumer, 10)
            with pytest.raises(error, match=said):
                await consumer.commit(what)
        assert coordinator.group("g").commits == []


def test_other_misuse() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        async with client.consumer("t") as alone:
            with pytest.raises(InvalidRequest, match="no group"):
                await alone.commit()
            with pytest.raises(InvalidRequest, match="no group"):
                await alone.committed()
        with pytest.raises(UnknownTopic):
            await client.consumer("nowhere", group="g").start()
        consumer = client.consumer("t", group="g")
        reader = asyncio.ensure_future(anext(consumer))
        await asyncio.sleep(1)
        with pytest.raises(InvalidRequest, match="being read already"):
            await consumer.batch()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert await consumer.batch(max_wait_ms=10) == []
        await client.close()
        for use in (consumer.batch, consumer.commit, consumer.committed, consumer.start):
            with pytest.raises(ClientClosed):
                await use()
        with pytest.raises(ClientClosed):
            client.consumer("t", group="g")
