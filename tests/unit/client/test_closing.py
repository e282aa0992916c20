"""Closing a client closes all that it made, beside each other and in a bounded time, whatever the
application's callbacks do. And every public coroutine lets others run."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pytest

from minilog_client import (
    AsyncClient,
    ClientClosed,
    GroupConsumer,
    InvalidRequest,
    MinilogError,
    Producer,
    TimedOut,
    UnknownTopic,
)
from tests.unit.client.blocking.test_groups import connected
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import NO_LEADER, FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import scenario

GROUPS: Final = ("a", "b", "c", "d")


async def hangs(_: object) -> None:
    await asyncio.sleep(10**6)


async def hangs_on(_: object) -> None:
    """A time limit does not end it the first time."""
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(10**6)
    await asyncio.sleep(20)


def raising(error: BaseException) -> Callable[[object], None]:
    def callback(_: object) -> None:
        raise error

    return callback


def finished(coordinator: FakeCoordinator, group: str) -> int:
    return sum(offset or 0 for offset in coordinator.committed(group).values())


BREAKING: Final = {
    "ValueError": raising(ValueError("the application's own")),
    "MinilogError": raising(UnknownTopic("the application's own")),
    "CancelledError": raising(asyncio.CancelledError()),
    "TimeoutError": raising(TimeoutError("the application's own")),
    "StopAsyncIteration": raising(StopAsyncIteration()),
    "hangs": hangs,
    "hangs on": hangs_on,
}


@pytest.mark.parametrize("how", BREAKING)
@pytest.mark.parametrize("which", ["on_revoked", "on_lost"])
def test_a_client_closes_all_whatever_callbacks_do(how: str, which: str) -> None:
    @scenario(4)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 20)
        producers = [client.producer() for _ in range(3)]
        futures = [producer.send_nowait("t", b"x", partition=0) for producer in producers]
        broken: dict[str, Any] = {which: BREAKING[how]}
        consumers = [
            client.consumer("t", group=group, auto_commit_interval_ms=10**6, **(broken if group < "c" else {}))
            for group in GROUPS
        ]
        for consumer in consumers:
            for _ in range(6):
                await anext(consumer)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        if which == "on_lost":
            coordinator.groups["a"].members.clear()
            await asyncio.sleep(3)
        with suppress(ValueError, MinilogError, TimeoutError, StopAsyncIteration):
            await client.close()
        assert loop.time() - began_s < 3 + 5 + 1.5, "the time limit of one of them, and a moment"
        await asyncio.sleep(30 if how == "hangs on" else 0)
        for future in futures:
            assert future.done(), "flushed or failed"
            assert not future.exception()
        for group in GROUPS:
            assert coordinator.group(group).members == {}, "left, and not only silent"
        for group in GROUPS if which == "on_revoked" else ("c", "d"):
            assert finished(coordinator, group) == 5
        for consumer in consumers:
            with pytest.raises(ClientClosed):
                await consumer.batch()
        assert cluster.closed


@pytest.mark.parametrize(
    "error", [ValueError("own"), UnknownTopic("own"), TimeoutError("own"), SystemExit(3), KeyboardInterrupt()]
)
def test_so_does_a_synchronous_one(error: BaseException) -> None:
    before = threading.active_count()
    with suppress(type(error)), connected(4) as (cluster, coordinator, client):
        for log in cluster.logs["t"]:
            fill(log, 20)
        future = client.producer().send("t", b"x", partition=0)
        consumers = [
            client.consumer("t", group=group, on_revoked=raising(error) if group < "c" else None) for group in GROUPS
        ]
        for consumer in consumers:
            for _ in range(6):
                next(consumer)
        with pytest.raises(type(error)):
            client.close()
        assert future.result(0).offset == 20
        for group in GROUPS:
            assert coordinator.group(group).members == {}
        for group in ("c", "d"):
            assert finished(coordinator, group) == 5
        assert threading.active_count() == before


@pytest.mark.parametrize("limit_ms", [None, 800])
def test_closing_a_client_has_one_time_limit_and_not_one_after_the_other(limit_ms: int | None) -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 20)
        producers = [client.producer(close_timeout_ms=4000) for _ in range(2)]
        consumers = [client.consumer("t", group=group, on_revoked=hangs) for group in ("a", "b")]
        for consumer in consumers:
            await consumer.batch()
        cluster.move(cluster.logs["t"][1], NO_LEADER)
        futures = [producer.send_nowait("t", b"x", partition=1) for producer in producers]
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with pytest.raises(TimedOut):
            await client.close(limit_ms)
        assert loop.time() - began_s < (limit_ms or 5000) / 1000 + 1.2, "callbacks that do not end are left behind"
        assert {type(future.exception()) for future in futures} == {ClientClosed}
        assert [coordinator.group(group).members for group in ("a", "b")] == [{}, {}]


def test_so_has_closing_a_synchronous_one() -> None:
    with connected(2) as (cluster, coordinator, client):
        fill(cluster.logs["t"][0], 20)
        producer = client.producer()
        consumer = client.consumer("t", group="a", on_revoked=lambda _: time.sleep(0.3))
        consumer.batch()
        cluster.move(cluster.logs["t"][1], NO_LEADER)
        future = producer.send("t", b"x", partition=1)
        began_s = time.monotonic()
        with pytest.raises(TimedOut, match="800 ms"):
            client.close(timeout_ms=800)
        assert time.monotonic() - began_s < 1.5
        assert isinstance(future.exception(0), ClientClosed)
        assert coordinator.group("a").members == {}


@pytest.mark.parametrize("limit", [-1, 0.5, "5"])
def test_a_time_limit_that_cannot_be_closes_nothing(limit: Any) -> None:
    with connected() as (_, _, client):
        with pytest.raises((InvalidRequest, TypeError)):
            client.close(limit)
        assert client.producer().send("t", b"x").result(5).offset == 0


# --- nobody is starved ----------------------------------------------------------------------------

Make = Callable[[AsyncClient, GroupConsumer, Any, Producer], Any]
IDLE: Final[dict[str, Make]] = {
    "consumer.batch": lambda client, member, plain, producer: member.batch(max_wait_ms=0),
    "consumer.batch_columns": lambda client, member, plain, producer: member.batch_columns(max_wait_ms=0),
    "consumer.batch without a group": lambda client, member, plain, producer: plain.batch(max_wait_ms=0),
    "consumer.start": lambda client, member, plain, producer: member.start(),
    "consumer.commit": lambda client, member, plain, producer: member.commit({}),
    "consumer.commit of nothing": lambda client, member, plain, producer: member.commit(),
    "consumer.committed": lambda client, member, plain, producer: member.committed([]),
    "producer.flush": lambda client, member, plain, producer: producer.flush(),
    "producer.send_many": lambda client, member, plain, producer: producer.send_many("t", []),
}
"""Calls that hand out nothing. An application may make them again and again."""


@pytest.mark.parametrize("name", IDLE)
def test_a_call_that_hands_out_nothing_lets_others_run(name: str) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        member, plain, producer = client.consumer("t", group="g"), client.consumer("t"), client.producer()
        await member.batch(max_wait_ms=10)
        await plain.batch(max_wait_ms=10)
        await producer.send("t", b"x")
        await member.batch()
        await plain.batch()
        for _ in range(20):
            ran: list[int] = []
            asyncio.get_running_loop().call_soon(ran.append, 1)
            await IDLE[name](client, member, plain, producer)
            assert ran, f"{name} has not suspended"


def test_every_public_coroutine_is_looked_at() -> None:
    """What is in no row asks a broker each time, or ends what it is called on."""
    asks = {"append", "send", "read_ahead", "close"}
    for kind in (GroupConsumer, Producer):
        found = {
            name for name in dir(kind) if not name.startswith("_") and inspect.iscoroutinefunction(getattr(kind, name))
        }
        rows = {name.split(".")[1].split()[0] for name in IDLE}
        assert found - asks <= rows, kind
