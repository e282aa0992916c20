"""Times and offsets that cannot be meant are told at once: seconds for ms, and offsets beyond an
end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from minilog_client import AsyncClient, OffsetOutOfRange, Record
from tests.unit.client.consumer.consumer_bench import fill
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.group.group_rig import scenario

NOW_S = 1_700_000_000
OWN = Record("t", 0, 0, 0, NOW_S, None, b"x", ())


async def sought(client: AsyncClient) -> None:
    consumer = client.consumer("t")
    await consumer.batch()
    consumer.seek_to_time(NOW_S)


TIMES: dict[str, Callable[[AsyncClient], Awaitable[Any]]] = {
    "send": lambda client: client.producer().send("t", b"x", timestamp_ms=NOW_S),
    "send_many": lambda client: client.producer().send_many("t", [b"x"], timestamp_ms=NOW_S),
    "records": lambda client: client.producer().send_many("t", [OWN] * 3),
    "start": lambda client: client.consumer("t", start=f"@{NOW_S}").batch(),
    "seek_to_time": sought,
    "offset_at": lambda client: client.offset_at("t", 0, f"@{NOW_S}"),
}


@pytest.mark.parametrize("how", TIMES)
def test_a_time_in_seconds_is_warned_of_once_for_each_topic(how: str, caplog: pytest.LogCaptureFixture) -> None:
    @scenario(2)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 5)
        for _ in range(2):
            await TIMES[how](client)

    assert [record.getMessage() for record in caplog.records] == [
        "a time given for topic t is 1700000000 ms since the epoch, 1970-01-20; if seconds were meant, it is "
        "1700000000000, 2023-11-14"
    ]


@pytest.mark.parametrize(("scale", "unit"), [(10**6, "microseconds"), (10**9, "nanoseconds")])
def test_so_is_one_in_a_smaller_unit(scale: int, unit: str, caplog: pytest.LogCaptureFixture) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        await client.producer().send("t", b"x", timestamp_ms=NOW_S * scale)

    assert f"if {unit} were meant, it is 1700000000000, 2023-11-14" in caplog.text


def test_times_in_ms_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        producer = client.producer()
        for timestamp_ms in (None, 0, NOW_S * 1000):
            await producer.send("t", b"x", timestamp_ms=timestamp_ms)
        for start in ("earliest", "latest", f"@{NOW_S * 1000}", 0):
            await client.consumer("t", start=start).batch(max_wait_ms=10)

    assert not caplog.records


WAITS: dict[str, Callable[[Any, Any, Any], Awaitable[Any]]] = {
    "batch": lambda consumer, producer, wait: consumer.batch(10, wait),
    "commit": lambda consumer, producer, wait: consumer.commit(timeout_ms=wait),
    "committed": lambda consumer, producer, wait: consumer.committed(timeout_ms=wait),
    "close of a consumer": lambda consumer, producer, wait: consumer.close(wait),
    "flush": lambda consumer, producer, wait: producer.flush(wait),
    "close of a producer": lambda consumer, producer, wait: producer.close(wait),
}


@pytest.mark.parametrize("how", WAITS)
def test_a_wait_in_seconds_is_refused_and_says_what_it_is_in_ms(how: str) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 5)
        consumer, producer = client.consumer("t", group="g"), client.producer()
        await consumer.batch(2)
        with pytest.raises(TypeError, match=r"whole number of ms, got 0\.5; 0\.5 s are 500 ms"):
            await WAITS[how](consumer, producer, 0.5)
        assert len(await consumer.batch()) == 3, "as usable as before"
        await producer.send("t", b"x")


def test_an_offset_beyond_the_end_is_not_committed() -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, coordinator: FakeCoordinator, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        fill(log, 20)
        consumer = client.consumer("t", group="g", auto_commit=False)
        await consumer.batch()
        with pytest.raises(OffsetOutOfRange, match=r"the offset to commit for t-0 is 1000, and .* ends at 20"):
            await consumer.commit({("t", 0): 1000})
        assert coordinator.committed("g") == {}
        await consumer.commit({("t", 0): 20})
        consumer.pause("t", 0)
        fill(log, 10)
        await consumer.commit({("t", 0): 30})
        assert coordinator.committed("g") == {0: 30}, "what was written since is asked for"
