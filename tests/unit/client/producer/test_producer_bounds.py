"""No call of a producer waits for ever, and none fails without saying why. What ``send_many``
takes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from minilog.errors import ClientClosed, InvalidRequest, MinilogError, RecordTooLarge, TimedOut
from minilog.wire.batch import split
from minilog.wire.messages import Produce
from minilog.wire.records import decode_batch, expand
from minilog_client import AsyncClient, Producer, Record
from minilog_client.settings import MIB, Codec
from tests.unit.client.fake_cluster import FakeCluster, Log
from tests.unit.client.producer.test_producer import now, scenario
from tests.unit.client.virtual_time import run

DOWN: list[Callable[[FakeCluster], Any]] = [
    lambda cluster: cluster.refusing.update({1, 2, 3}),
    lambda cluster: cluster.silent.update({1, 2, 3}),
]


@pytest.mark.parametrize("fall", DOWN, ids=["refused", "silent"])
@pytest.mark.parametrize("warm", [True, False])
def test_with_every_broker_down_each_call_ends_in_time(fall: Callable[[FakeCluster], Any], warm: bool) -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t")
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            producer = client.producer(delivery_timeout_ms=3000, flush_timeout_ms=900)
            if warm:
                await producer.send("t", b"warm")
            fall(cluster)
            futures = [producer.send_nowait("t", b"x") for _ in range(5)]
            await _ends("flush", 0.9, producer.flush())
            await _ends("flush", 0.2, producer.flush(timeout_ms=200))
            await _ends("sending", 3.3, producer.send("t", b"y"))
            assert all(future.done() and future.exception() for future in futures)
            last = producer.send_nowait("t", b"z")
            await _ends("close", 0.5, producer.close(timeout_ms=500))
            assert isinstance(last.exception(), ClientClosed)
            with pytest.raises(ClientClosed):
                await producer.send("t", b"x")

    run(main())


async def _ends(name: str, seconds: float, call: Any) -> None:
    began = now()
    with pytest.raises(TimedOut) as caught:
        await call
    assert now() - began <= seconds + 0.1, name
    if name != "sending":
        assert "not settled" in caught.value.detail
        assert caught.value.info["records_unsettled"] == sum(e["record_count"] for e in caught.value.info["unsettled"])


def test_closing_a_client_with_unsettled_records_says_so_after_closing_everything() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t")
        client = AsyncClient(cluster.bootstrap, transport=cluster)
        producers = [client.producer(close_timeout_ms=300) for _ in range(2)]
        for producer in producers:
            await producer.send("t", b"warm")
        cluster.refusing |= {1, 2, 3}
        futures = [producer.send_nowait("t", b"x") for producer in producers]
        with pytest.raises(TimedOut, match="close took longer than 300 ms; 1 record is not settled"):
            await client.close()
        assert cluster.closed
        assert all(future.done() for future in futures)
        assert [type(future.exception()) for future in futures] == [ClientClosed] * 2

    run(main())


def test_an_error_inside_the_block_is_not_hidden_by_closing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t")
        async with (
            AsyncClient(cluster.bootstrap, transport=cluster) as client,
            client.producer(close_timeout_ms=300) as producer,
        ):
            await producer.send("t", b"warm")
            cluster.refusing |= {1, 2, 3}
            producer.send_nowait("t", b"x").add_done_callback(lambda future: future.exception())
            raise KeyError("the application's own")

    with pytest.raises(KeyError):
        run(main())
    assert "close took longer than 300 ms" in caplog.text


def test_a_blocked_event_loop_costs_time_and_nothing_else() -> None:
    """The application computes for longer than any timeout of a try. The records are sent once it
    lets go."""

    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t")
        async with (
            AsyncClient(cluster.bootstrap, transport=cluster, request_timeout_ms=50) as client,
            client.producer(try_timeout_ms=50, delivery_timeout_ms=5000) as producer,
        ):
            futures = [producer.send_nowait("t", b"%d" % number) for number in range(5)]
            await asyncio.sleep(0.006)
            time.sleep(0.2)  # noqa: ASYNC251 - this is the mistake that is tested
            receipts = await asyncio.gather(*futures)
        assert [receipt.offset for receipt in receipts] == list(range(5))

    asyncio.run(main())


# --- send_many ------------------------------------------------------------------------------------


def rows(log: Log) -> list[tuple[Any, ...]]:
    records = [record for batch in log.batches for record in decode_batch(batch)]
    return [(record.key, record.value, record.headers, record.timestamp) for record in records]


RECORD = Record("elsewhere", 3, 1, 17, 55, b"k", b"v", (("h", b"1"),))


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ([b"a", b"b"], [(None, b"a", (), 9), (None, b"b", (), 9)]),
        ((value for value in (b"a", bytearray(b"b"))), [(None, b"a", (), 9), (None, b"b", (), 9)]),
        ([(b"k", b"a"), (None, b"b"), (b"k", None)], [(b"k", b"a", (), 9), (None, b"b", (), 9), (b"k", None, (), 9)]),
        ([RECORD, b"a", (b"k", memoryview(b"b"))], [(b"k", b"v", (("h", b"1"),), 55), (None, b"a", (), 9), (b"k", b"b", (), 9)]),
        ({b"k": b"v"}.items(), [(b"k", b"v", (), 9)]),
    ],
)  # fmt: skip
def test_send_many_takes_values_pairs_and_records(given: Any, written: list[tuple[Any, ...]]) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        receipts = await producer.send_many("t", given, partition=0, timestamp_ms=9)
        assert rows(cluster.logs["t"][0]) == written
        assert sum(receipt.record_count for receipt in receipts) == len(written)


@pytest.mark.parametrize(
    ("given", "options", "error", "said"),
    [
        (5, {}, TypeError, "values must be many bytes objects, got one int"),
        (None, {}, TypeError, "values must be many bytes objects, got one NoneType"),
        (b"one", {}, TypeError, "use send"),
        ([b"a", "text"], {}, TypeError, r"values\[1\] must be bytes, got str"),
        ([(b"k", b"v"), (b"k",)], {}, TypeError, r"values\[1\] is a tuple of 1"),
        ([(5, b"v")], {}, TypeError, r"the key of values\[0\] must be bytes, got int"),
        ([b"a"], {"keys": [5]}, TypeError, r"keys\[0\] must be bytes, got int"),
        ([b"a"], {"keys": 5}, TypeError, "keys must be many"),
        ([(b"k", b"v")], {"keys": [b"k"]}, TypeError, r"values\[0\] must be bytes, got tuple"),
        ([b"a"], {"partition": -1}, InvalidRequest, "partition is -1"),
        ([b"a"], {"timestamp_ms": 1.5}, TypeError, "timestamp_ms must be a whole number"),
        ([(b"k", b"x" * 2_000_000)], {}, RecordTooLarge, "a value of 2000000 bytes"),
    ],
)
def test_send_many_refuses_as_a_whole(given: Any, options: Any, error: type[Exception], said: str) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        with pytest.raises(error, match=said):
            await producer.send_many("t", given, **options)
        assert cluster.logs["t"][0].batches == []
        assert producer.statistics().buffered_bytes == 0


def test_rows_larger_than_the_buffer_go_through_it_one_after_the_other() -> None:
    @scenario(1, buffer_bytes=5000, batch_bytes=2000)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        pairs = [(b"k", b"%04d" % n + b"x" * (3000 if n % 50 == 0 else 20)) for n in range(500)]
        await producer.send_many("t", pairs)
        assert [value for _, value, _, _ in rows(cluster.logs["t"][0])] == [value for _, value in pairs]


@pytest.mark.parametrize("timeout_ms", ["1", 1.5, True])
def test_a_timeout_is_a_whole_number(timeout_ms: Any) -> None:
    @scenario(1)
    async def _(cluster: FakeCluster, producer: Producer) -> None:
        for call in (producer.flush, producer.close):
            with pytest.raises(TypeError, match="timeout_ms must be a whole number of ms"):
                await call(timeout_ms)
            with pytest.raises(MinilogError, match="timeout_ms is -1"):
                await call(-1)


@pytest.mark.filterwarnings("error")
def test_failed_records_whose_futures_nobody_looks_at_are_told_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The first soon, the others together now and then, and the rest at the end. asyncio does not tell
    of each of them once more."""

    async def main() -> None:
        cluster = FakeCluster()
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            producer = client.producer(delivery_timeout_ms=500)
            for _ in range(3):
                producer.send_nowait("missing", b"x")
                await asyncio.sleep(2)
            await asyncio.sleep(10)
            producer.send_nowait("missing", b"x")
            assert await producer.flush() == 4

    run(main())
    gc.collect()
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.split(" not", 1)[0] for line in told] == [
        "1 record of topic missing was", "2 records of topic missing were", "1 record of topic missing was",
    ]  # fmt: skip


HOW_LOOKED_AT: dict[str, Callable[[asyncio.Future[Any]], Any]] = {
    "awaited": lambda future: future,
    "gathered": lambda future: asyncio.gather(future, return_exceptions=True),
    "waited for, and looked at then": lambda future: asyncio.wait([future]),
    "called back": lambda future: future.add_done_callback(asyncio.Future.exception),
}


@pytest.mark.parametrize("how", HOW_LOOKED_AT)
def test_a_failure_that_somebody_looks_at_is_not_told_to_the_log(how: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        cluster = FakeCluster()
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            producer = client.producer(delivery_timeout_ms=500)
            future = producer.send_nowait("missing", b"x")
            with contextlib.suppress(MinilogError):
                if (waits := HOW_LOOKED_AT[how](future)) is not None:
                    await waits
            await asyncio.sleep(0.7)
            assert future.done()
            assert how.startswith("called") or future.exception()
            await asyncio.sleep(20)
            assert await producer.flush() == 1

    run(main())
    assert not caplog.records


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_what_compresses_well_travels_in_requests_that_brokers_may_expand(compression: Codec) -> None:
    """The first partition's share is judged alone: were it too large, its records could never be
    written."""
    cluster = FakeCluster()

    async def main() -> None:
        cluster.create("t", 1, **{"max.message.bytes": str(4 * MIB)})
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            producer = client.producer(compression=compression, batch_bytes=4 * MIB)
            await producer.send_many("t", [bytes(100_000)] * 300)

    run(main())
    expanded = [
        sum(len(expand(batch)) for entry in message.partitions for batch in split(entry.batches, 2**31))
        for message in cluster.messages
        if isinstance(message, Produce)
    ]
    assert sum(expanded) > 30_000_000
    assert max(expanded) <= 8 * MIB
