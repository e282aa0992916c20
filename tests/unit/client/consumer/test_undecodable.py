"""Batches with a right checksum that cannot be decoded: reading stops before them and says where it
can go on, or goes on behind them when it was told to."""

from __future__ import annotations

import asyncio
import logging

import pytest

from minilog.errors import CorruptBatch
from minilog.wire.batch import split
from minilog.wire.records import encode_values
from minilog_client import AsyncClient, Consumer
from tests.unit.client.consumer.consumer_bench import write
from tests.unit.client.fake_cluster import FakeCluster, Log
from tests.unit.client.virtual_time import run
from tests.unit.wire.batches import unreadable


def fill(log: Log) -> None:
    """Offsets 0 and 1, three that cannot be decoded, and 5."""
    for data in (encode_values([b"0", b"1"], 1000), unreadable(3), encode_values([b"5"], 1000)):
        log.append(split(data, 2**31)[0])


async def values(consumer: Consumer, count: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    while len(found) < count:
        found += [record.value for record in await consumer.batch()]
    return found


def test_reading_stops_before_them_again_and_again_and_goes_on_where_the_error_says() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t", 1)
        fill(cluster.logs["t"][0])
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client, client.consumer("t") as consumer:
            assert await values(consumer, 2) == [b"0", b"1"]
            for _ in range(3):
                with pytest.raises(
                    CorruptBatch, match=r"t-0: the records from 2 up to 5 .*seek to 5 .*errors_tolerance"
                ) as told:
                    await consumer.batch()
            info = told.value.info
            assert (info["topic"], info["partition"], info["offset"], info["end_offset"]) == ("t", 0, 2, 5)
            consumer.seek("t", 0, info["end_offset"])
            assert await values(consumer, 1) == [b"5"]

    run(main())


def test_what_comes_while_reading_stands_before_them_is_not_handed_out() -> None:
    """A poll is under way that was begun behind them."""

    async def main() -> None:
        cluster = FakeCluster()
        log = cluster.create("t", 1)[0]
        fill(log)
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client, client.consumer("t") as consumer:
            await asyncio.sleep(0.1)
            assert await values(consumer, 2) == [b"0", b"1"]
            with pytest.raises(CorruptBatch, match="from 2 up to 5"):
                await consumer.batch()
            write(log, b"6")
            cluster._wake()
            await asyncio.sleep(0.1)
            with pytest.raises(CorruptBatch, match="from 2 up to 5"):
                await consumer.batch()
            consumer.seek("t", 0, 5)
            assert await values(consumer, 2) == [b"5", b"6"]

    run(main())


def test_who_begins_within_them_is_told_of_the_rest() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t", 1)
        fill(cluster.logs["t"][0])
        async with (
            AsyncClient(cluster.bootstrap, transport=cluster) as client,
            client.consumer("t", start=3) as consumer,
        ):
            with pytest.raises(CorruptBatch, match="the records from 3 up to 5"):
                await consumer.batch()

    run(main())


def test_they_are_skipped_when_that_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t", 1)
        fill(cluster.logs["t"][0])
        async with (
            AsyncClient(cluster.bootstrap, transport=cluster) as client,
            client.consumer("t", errors_tolerance="all") as consumer,
        ):
            assert await values(consumer, 3) == [b"0", b"1", b"5"]
            assert consumer.position("t", 0) == 6

    with caplog.at_level(logging.WARNING, logger="minilog_client"):
        run(main())
    assert "skipped: t-0: the records from 2 up to 5 cannot be decoded" in caplog.text
