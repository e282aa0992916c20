"""What an application looks like; uses nothing but the public names. test_sample_app.py runs it and
checks its types."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from minilog_client import (
    AsyncClient,
    Client,
    GroupConsumer,
    GroupLag,
    LogTruncated,
    MinilogError,
    OffsetOutOfRange,
    Receipt,
    Record,
    StaleMemberEpoch,
    SyncGroupConsumer,
    UnknownMember,
)

TOPIC = "orders"
TopicPartition = tuple[str, int]


class Totals:
    """Keeps a sum per partition, and lets go of what it does not own any more."""

    def __init__(self) -> None:
        self.by_partition: dict[TopicPartition, int] = {}

    def on_assigned(self, partitions: list[TopicPartition]) -> None:
        self.by_partition.update(dict.fromkeys(partitions, 0))

    def on_gone(self, partitions: list[TopicPartition]) -> None:
        for key in partitions:
            del self.by_partition[key]

    def add(self, record: Record) -> None:
        value: bytes | None = record.value
        self.by_partition[record.topic, record.partition] += int(value or b"0")


async def produce(client: AsyncClient, numbers: Sequence[int]) -> None:
    async with client.producer(acks="all", linger_ms=5) as producer:
        receipt: Receipt = await producer.send(TOPIC, b"%d" % numbers[0], key=b"first", headers={"trace": b"1"})
        assert receipt.offset is not None
        await producer.send_many(TOPIC, [b"%d" % number for number in numbers[1:]])


async def consume(client: AsyncClient, count: int) -> dict[TopicPartition, int]:
    """Adds up ``count`` records; commits each one as soon as it is counted."""
    totals = Totals()
    async with client.consumer(
        TOPIC,
        group="totals",
        start="earliest",
        assignor="sticky",
        auto_commit=False,
        on_assigned=totals.on_assigned,
        on_revoked=totals.on_gone,
        on_lost=totals.on_gone,
    ) as consumer:
        return await add_up(consumer, totals, count)


async def add_up(consumer: GroupConsumer, totals: Totals, count: int) -> dict[TopicPartition, int]:
    try:
        async for record in consumer:
            totals.add(record)
            count -= 1
            try:
                await consumer.commit(record)
            except (UnknownMember, StaleMemberEpoch) as error:
                print(f"somebody else goes on from here: {error.detail}", file=sys.stderr)
            if count == 0:
                break
    except (OffsetOutOfRange, LogTruncated) as error:
        print(f"records are gone: {error.info}", file=sys.stderr)
        consumer.seek_to_time(0)
    committed: dict[TopicPartition, int | None] = await consumer.committed()
    assert all(offset == consumer.position(*key) for key, offset in committed.items() if offset)
    return dict(totals.by_partition)


async def main(client: AsyncClient, numbers: Sequence[int]) -> dict[TopicPartition, int]:
    await client.create_topic(TOPIC, partitions=2)
    await produce(client, numbers)
    totals = await consume(client, len(numbers))
    lags: list[GroupLag] = await client.group_lag("totals")
    assert sum(lag.records or 0 for lag in lags) == 0
    return totals


def report(client: Client) -> list[int]:
    """The same without await: every value, in batches, in a group of its own."""
    values: list[int] = []
    consumer: SyncGroupConsumer = client.consumer(TOPIC, group="report", instance_id="report-1")
    with consumer:
        while records := consumer.batch(max_records=100, max_wait_ms=50):
            values += [int(record.value or b"0") for record in records]
        consumer.commit()
    return values


if __name__ == "__main__":
    try:
        with Client(sys.argv[1]) as sync_client:
            print(asyncio.run(main(AsyncClient(sys.argv[1]), range(100))), report(sync_client))
    except MinilogError as failure:
        sys.exit(f"{failure.code}: {failure.detail}")
