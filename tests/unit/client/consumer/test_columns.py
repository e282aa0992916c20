"""Records by column: the same records as ``batch`` hands out, at both faces, and as Arrow."""

from __future__ import annotations

import asyncio
import sys
from array import array
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.wire.batch import split
from minilog.wire.records import encode_values
from minilog_client import AsyncClient, Columns, InvalidRequest, Record, UndecodableRecord
from minilog_client.consumer.columns import columns_of, decode_columns, joined
from minilog_client.consumer.records import decode
from tests.unit.client.blocking.test_client import connected
from tests.unit.client.consumer.consumer_bench import cut_start, fill, lose_tail, scenario, write
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.wire import oracles

RECORDS = [
    Record("t", 1, 5, 7, 1000, b"k", b"v", (("a", b"1"), ("b", None))),
    Record("t", 0, -1, 2**40, 2**41, None, None, ()),
]


@dataclass
class Order:
    amount: int


class Model(pydantic.BaseModel):
    amount: int


async def drain(consumer: object, count: int, each: int) -> list[Record]:
    found: list[Record] = []
    while len(found) < count:
        columns = await consumer.batch_columns(each)  # type: ignore[attr-defined]
        assert isinstance(columns, Columns)
        assert 0 < len(columns) <= each
        found += columns
    return found


@given(items=oracles.contents, start=st.integers(0, 8))
@settings(max_examples=40, deadline=None)
def test_a_batch_has_the_same_records_either_way(items: list[tuple[int, Any, Any, Any]], start: int) -> None:
    (batch,) = split(oracles.encode(oracles.AIOKAFKA, oracles.records_of(items), 0), 2**20)
    assert list(decode_columns("t", 3, batch, start)) == decode("t", 3, batch, start)


def test_columns_are_arrays_and_a_sequence_of_records() -> None:
    columns = columns_of(RECORDS)
    assert columns.offset == array("q", [7, 2**40])
    assert columns.partition == array("i", [1, 0])
    assert (columns.topic, columns.key, columns.value) == (["t", "t"], [b"k", None], [b"v", None])
    assert (len(columns), list(columns), columns[1], columns[-1]) == (2, RECORDS, RECORDS[1], RECORDS[1])
    assert columns[1:] == columns_of(RECORDS[1:])
    assert isinstance(columns[1:], Columns)
    assert joined([RECORDS[:1], columns_of(RECORDS[1:])]) == columns
    assert not joined([])
    with pytest.raises(IndexError):
        columns[2]
    assert list(columns.as_dict()) == ["topic", "partition", "offset", "timestamp_ms", "key", "value"]
    assert columns.as_dict(headers=True)["headers"] == [RECORDS[0].headers, ()]


def test_they_are_read_in_turn_with_records_and_batches() -> None:
    @scenario(3)
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        for log in cluster.logs["t"]:
            fill(log, 90)
        async with client.consumer("t") as consumer:
            seen: list[Record] = [await anext(consumer), *(await consumer.batch(7)), *(await consumer.batch_columns(7))]
            seen += [*(await consumer.batch(5)), await anext(consumer), await anext(consumer)]
            seen += await drain(consumer, 270 - len(seen), 25)
            for partition in range(3):
                assert [each.offset for each in seen if each.partition == partition] == list(range(90))
            assert not await consumer.batch_columns(max_wait_ms=10)
            assert {lag.records for lag in consumer.lag().values()} == {0}


@pytest.mark.parametrize("group", [None, "g"])
def test_they_are_read_at_the_synchronous_face(group: str | None) -> None:
    with connected() as (cluster, client):
        fill(cluster.logs["t"][0], 50)
        with client.consumer("t") as consumer:
            seen = [next(consumer), next(consumer), *consumer.batch_columns(3), *consumer.batch(4), next(consumer)]
            while len(seen) < 50:
                seen += consumer.batch_columns(7)
            assert [record.offset for record in seen] == list(range(50))
            assert consumer.position("t", 0) == 50
            consumer.stop()
            assert not consumer.batch_columns()


def test_what_is_lost_or_cut_off_is_told_once_the_columns_before_it_are_read() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        log = cluster.logs["t"][0]
        fill(log, 30)
        async with client.consumer("t", start=25) as consumer:
            assert [record.offset for record in await drain(consumer, 5, 3)] == [25, 26, 27, 28, 29]
            lose_tail(cluster, log, 20)
            with pytest.raises(Exception, match="lossy election"):
                await consumer.batch_columns(max_wait_ms=5000)
        cut_start(log, 10)
        async with client.consumer("t", start=0, out_of_range="earliest") as consumer:
            assert (await drain(consumer, 10, 10))[0].offset == 10


def test_values_are_read_as_the_consumer_was_told_and_what_is_not_stops_it() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        write(cluster.logs["t"][0], b'{"amount":1}', b'{"amount":2}', b"x", b'{"amount":4}')
        async with client.consumer("t", value=Order) as consumer:
            columns = await consumer.batch_columns()
            assert columns.value == [Order(1), Order(2)]
            assert columns.to_arrow()["value"].to_pylist() == [{"amount": 1}, {"amount": 2}]
            with pytest.raises(UndecodableRecord) as told:
                await consumer.batch_columns()
            consumer.seek("t", 0, told.value.info["end_offset"])
            assert (await consumer.batch_columns()).value == [Order(4)]


def test_a_table_of_arrow_has_every_column() -> None:
    table = columns_of(RECORDS).to_arrow(headers=True)
    assert table.schema.field("offset").type == pa.int64()
    assert table.schema.field("value").type == pa.binary()
    assert table.to_pylist() == [
        {
            "topic": each.topic, "partition": each.partition, "offset": each.offset, "timestamp_ms": each.timestamp,
            "key": each.key, "value": each.value, "headers": [{"name": n, "value": v} for n, v in each.headers],
        }
        for each in RECORDS
    ]  # fmt: skip
    assert columns_of(RECORDS).to_arrow().column_names == [
        "topic",
        "partition",
        "offset",
        "timestamp_ms",
        "key",
        "value",
    ]
    assert joined([]).to_arrow(headers=True).num_rows == 0


def test_arrow_takes_models_and_says_what_it_does_not_take() -> None:
    models = columns_of([Record("t", 0, 0, 0, 0, "k", Model(amount=3), ())])
    assert models.to_arrow()["value"].to_pylist() == [{"amount": 3}]
    with pytest.raises(InvalidRequest, match="Arrow cannot hold a object"):
        columns_of([Record("t", 0, 0, 0, 0, None, object(), ())]).to_arrow()


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidRequest, match=r"pip install .*\[arrow\]"):
        columns_of(RECORDS).to_arrow()


def test_what_was_handed_out_belongs_to_the_application() -> None:
    @scenario()
    async def _(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster.logs["t"][0], 10)
        async with client.consumer("t") as consumer:
            first = await consumer.batch_columns(10)
            first.value.clear()
            consumer.return_unread(columns_of([Record("t", 0, 0, 9, 1000, None, b"00009", ())]))
            assert [record.offset for record in await consumer.batch_columns()] == [9]
        await asyncio.sleep(0)


def test_control_batches_and_empty_ones_have_no_columns() -> None:
    (batch,) = split(encode_values([b"a"], 1000), 2**20)
    assert len(decode_columns("t", 0, batch, 0)) == 1
    assert not decode_columns("t", 0, batch, 1)
