"""Whoever gives up waiting leaves no record without an end, and none that is not counted."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from minilog_client import ClientClosed, Producer, TimedOut
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.producer.test_producer import scenario


def test_a_close_under_its_own_time_limit_ends_every_future() -> None:
    """Both limits are over in the same moment."""

    @scenario(close_timeout_ms=1000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        cluster.silent |= {1, 2, 3}
        future = producer.send_nowait("t", b"x")
        with contextlib.suppress(TimeoutError, TimedOut):
            await asyncio.wait_for(producer.close(), 1)
        await asyncio.sleep(0)
        assert isinstance(future.exception(), ClientClosed)


def test_so_does_one_that_is_cancelled_twice() -> None:
    @scenario()
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"x")
        cluster.silent |= {1, 2, 3}
        future = producer.send_nowait("t", b"y")
        closing = asyncio.create_task(producer.close())
        await asyncio.sleep(0.1)
        for _ in range(2):
            closing.cancel()
            await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        assert isinstance(future.exception(), ClientClosed)


@pytest.mark.parametrize("how", ["send", "send_many"])
def test_a_record_whose_sender_gave_up_is_counted_when_it_fails(how: str) -> None:
    @scenario(delivery_timeout_ms=500, try_timeout_ms=200)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        await producer.send("t", b"x")
        assert await producer.flush() == 0
        cluster.silent |= {1, 2, 3}
        sending = producer.send("t", b"x") if how == "send" else producer.send_many("t", [b"x"])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sending, 0.1)
        await asyncio.sleep(10)
        assert await producer.flush() == 1
