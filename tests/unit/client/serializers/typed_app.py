"""What type checkers see of typed producers and consumers. test_typed.py runs it and has mypy look:
each ``type: ignore`` here stands for a mistake that must be found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

import msgspec

from minilog_client import JSON, AsyncClient, Client, Consumer, GroupConsumer, Record, Serializer, SyncGroupConsumer


class Order(msgspec.Struct):
    item: str
    count: int = 1


@dataclass
class Visit:
    page: str


FLAG: Serializer[bool] = Serializer(lambda flag: b"y" if flag else b"n", lambda data: data == b"y")


async def asynchronous(client: AsyncClient) -> None:
    producer = client.producer(value=Order, key=str, acks="all")
    await producer.send("orders", Order("pen"), "alice")
    await producer.send("orders", None, "alice")
    await producer.send_many("orders", [Order("ink", 2), Order("cap", 3)], keys=["bob", None])
    await producer.flush()
    plain = client.producer()
    await plain.send("orders", b"bytes")
    assert_type(client.consumer("orders"), Consumer[bytes, bytes])
    async with client.consumer("orders", value=Order, key=str, undecodable="skip") as consumer:
        assert_type(consumer, Consumer[Order, str])
        record = await anext(consumer)
        assert_type(record, Record[Order, str])
        assert_type(record.value, Order | None)
        assert_type(record.key, str | None)
        assert record.value == Order("pen")
    member = client.consumer("orders", group="g", value=Visit)
    assert_type(member, GroupConsumer[Visit, bytes])
    assert_type(client.consumer("orders", value=JSON), Consumer[Any, bytes])
    assert_type(client.consumer("orders", value=FLAG, key=dict[str, int]), Consumer[bool, dict[str, int]])


def synchronous(client: Client) -> list[Order | None]:
    with client.producer(value=Order) as producer:
        producer.send("orders", Order("pen")).result()
        producer.send_many("orders", [Order("ink")])
    with client.consumer("orders", group="g", value=Order) as consumer:
        assert_type(consumer, SyncGroupConsumer[Order, bytes])
        records: list[Record[Order]] = consumer.batch(max_records=2, max_wait_ms=5000)
        consumer.commit(records)
        return [record.value for record in records]


def mistakes(client: Client) -> None:
    client.producer(value=Order).send("orders", b"bytes")  # type: ignore[arg-type]
    client.producer(value=Order, key=str).send("orders", Order("pen"), 7)  # type: ignore[arg-type]
    client.consumer("orders", value="json")  # type: ignore[call-overload]
    for record in client.consumer("orders", value=Order):
        record.value.item  # type: ignore[union-attr]  # noqa: B018
