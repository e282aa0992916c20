"""A worker: tries again in order, puts aside what cannot be handled, and commits no record before
it was handled or its dead letter acknowledged."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from minilog.errors import UnknownTopic
from minilog_client import AsyncClient, InvalidRequest, Record, Retries, work, work_blocking
from minilog_client.worker.dead_letter import PREFIX, dead_letter_headers
from tests.unit.client.blocking.test_groups import connected
from tests.unit.client.consumer.consumer_bench import write
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import scenario

QUICK = Retries(attempts_max=3, retry_delay_ms=10)


class Handler:
    """Fails for ``bad`` values, so often; asks ``consumer`` to stop at ``last``."""

    def __init__(self, consumer: Any, last: int, bad: dict[int, int]) -> None:
        self.consumer, self.last, self.bad = consumer, last, bad
        self.seen: list[int] = []

    def __call__(self, record: Record[int]) -> None:
        assert record.value is not None
        self.seen.append(record.value)
        if record.value == self.last:
            self.consumer.stop()
        if self.bad.get(record.value, 0) > 0:
            self.bad[record.value] -= 1
            raise ValueError(f"cannot do {record.value}")

    async def coroutine(self, record: Record[int]) -> None:
        self(record)


async def dead(client: AsyncClient) -> list[Record]:
    return await client.consumer("dead").batch(max_wait_ms=100)


def test_it_tries_again_in_order_puts_aside_and_commits_all() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        cluster.create("dead", 1)
        write(cluster.logs["t"][0], b"0", b"1", b"no number", b"3", b"4")
        consumer = client.consumer("t", group="g")
        handler = Handler(consumer, 4, {1: 2, 3: 9})
        await work(
            consumer, handler.coroutine, producer=client.producer(), dead_letters="dead", retries=QUICK, value=int
        )
        assert handler.seen == [0, 1, 1, 1, 3, 3, 3, 4]
        assert coordinator.committed("g") == {0: 5}
        letters = [(record.value, dict(record.headers)) for record in await dead(client)]
        assert [value for value, _ in letters] == [b"no number", b"3"]
        assert letters[0][1][PREFIX + "attempts"] == b"0"
        assert letters[1][1] == {
            PREFIX + "topic": b"t",
            PREFIX + "partition": b"0",
            PREFIX + "offset": b"3",
            PREFIX + "timestamp": b"1000",
            PREFIX + "attempts": b"3",
            PREFIX + "cause": b"ValueError: cannot do 3",
        }


def test_a_dead_letter_that_cannot_be_written_keeps_its_record_uncommitted() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        write(cluster.logs["t"][0], b"0", b"no number", b"2")
        for _ in range(2):
            consumer = client.consumer("t", group="g")
            handler = Handler(consumer, 2, {})
            with pytest.raises(UnknownTopic):
                await work(consumer, handler.coroutine, producer=client.producer(), dead_letters="gone", value=int)
            await consumer.close()
            assert coordinator.committed("g") == {0: 1}


def test_whoever_is_stopped_between_two_tries_leaves_the_record_to_the_next() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        cluster.create("dead", 1)
        write(cluster.logs["t"][0], b"0", b"1", b"2")
        consumer = client.consumer("t", group="g")
        handler = Handler(consumer, 1, {1: 9})
        long = Retries(retry_delay_ms=10**6, retry_delay_ms_max=10**6)
        await work(
            consumer, handler.coroutine, producer=client.producer(), dead_letters="dead", retries=long, value=int
        )
        assert (handler.seen, consumer.is_closed) == ([0, 1], True)
        assert coordinator.committed("g") == {0: 1}
        assert await dead(client) == []


def test_a_handler_that_raises_anything_ends_no_worker() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("cannot say it")

    class Muddled(Handler):
        async def coroutine(self, record: Record[int]) -> None:
            self(record)
            if record.value == 1:
                raise asyncio.CancelledError  # what it waited for was cancelled, and not the worker
            if record.value == 2:
                raise Mute

    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        cluster.create("dead", 1)
        write(cluster.logs["t"][0], b"0", b"1", b"2", b"3")
        consumer = client.consumer("t", group="g")
        handler = Muddled(consumer, 3, {})
        await work(
            consumer, handler.coroutine, producer=client.producer(), dead_letters="dead", retries=QUICK, value=int
        )
        assert (handler.seen, coordinator.committed("g")) == ([0, 1, 1, 1, 2, 2, 2, 3], {0: 4})
        causes = [dict(record.headers)[PREFIX + "cause"] for record in await dead(client)]
        assert causes == [b"CancelledError: ", b"Mute: its text cannot be told, ValueError"]


def test_who_is_cancelled_in_a_handler_ends_and_leaves_the_record() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        cluster.create("dead", 1)
        write(cluster.logs["t"][0], b"0", b"1")

        async def handle(record: Record[int]) -> None:
            if record.value == 1:
                await asyncio.sleep(1000)

        consumer = client.consumer("t", group="g")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await work(consumer, handle, producer=client.producer(), dead_letters="dead", value=int)
        await consumer.close()
        assert (coordinator.committed("g"), await dead(client)) == ({0: 1}, [])


def test_without_await() -> None:
    with connected(1) as (cluster, coordinator, client):
        cluster.create("dead", 1)
        write(cluster.logs["t"][0], b"0", b"1", b"no number", b"3")
        consumer = client.consumer("t", group="g")
        handler = Handler(consumer, 3, {0: 1, 1: 9})
        work_blocking(consumer, handler, producer=client.producer(), dead_letters="dead", retries=QUICK, value=int)
        assert handler.seen == [0, 0, 1, 1, 1, 3]
        assert coordinator.committed("g") == {0: 4}
        with client.consumer("dead") as letters:
            assert [record.value for record in letters.batch()] == [b"1", b"no number"]


def test_headers_of_an_earlier_death_are_replaced_and_others_stay() -> None:
    record: Record = Record("t", 1, 0, 7, 5, b"k", b"v", (("trace", b"1"), (PREFIX + "offset", b"3")))
    headers = dead_letter_headers(record, ValueError("x" * 5000), 2)
    assert headers[0] == ("trace", b"1")
    assert [value for name, value in headers if name == PREFIX + "offset"] == [b"7"]
    assert len(dict(headers)[PREFIX + "cause"] or b"") == 1000


def test_delays_double_up_to_the_limit() -> None:
    retries = Retries(attempts_max=40, retry_delay_ms=100, retry_delay_ms_max=500)
    assert [retries.delay_s(n) for n in (1, 2, 3, 4, 39, 40)] == [0.1, 0.2, 0.4, 0.5, 0.5, None]
    with pytest.raises(InvalidRequest, match="attempts_max is 0; allowed are whole numbers >= 1"):
        Retries(attempts_max=0)


def test_a_consumer_that_reads_values_already_is_refused() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        consumer: Any = client.consumer("t", value=int)
        handler = Handler(consumer, 1, {})
        with pytest.raises(InvalidRequest, match="give value and key to the worker"):
            await work(consumer, handler.coroutine, producer=client.producer(), dead_letters="dead")
        with pytest.raises(InvalidRequest, match="the name of a topic"):
            await work(client.consumer("t"), handler.coroutine, producer=client.producer(), dead_letters="")
