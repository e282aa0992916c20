"""Workers and typed consumers of a group while requests fail, members come and go, and whoever reads
is stopped, cancelled or late: nothing is committed that was neither handled, put aside nor told of
as unreadable. Time is virtual, one seed one story."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from minilog.errors import MinilogError
from minilog.wire.group_messages import CommitOffsets, CommitOffsetsReply
from minilog.wire.records import decode_batch
from minilog_client import AsyncClient, GroupConsumer, Record, Retries, UndecodableRecord, work
from minilog_client.worker.dead_letter import PREFIX
from tests.unit.client.group.test_groups_chaos import CHAOS_S, OPTIONS, PARTITIONS, Story
from tests.unit.client.virtual_time import run

GOOD, BAD = b"7", b"no number"


class TypedStory(Story):
    """``settled``: what the application has handled, or was told of and has stepped over."""

    patience_s = 600

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.cluster.create("dead", 1)
        self.settled: dict[int, set[int]] = {partition: set() for partition in range(PARTITIONS + 1)}

    def put_aside(self, partition: int) -> set[int]:
        letters = [dict(r.headers) for log in self.cluster.logs["dead"] for b in log.batches for r in decode_batch(b)]
        mine = [letter for letter in letters if letter[PREFIX + "partition"] == b"%d" % partition]
        return {int(letter[PREFIX + "offset"] or b"") for letter in mine}

    def commit(self, message: CommitOffsets) -> CommitOffsetsReply:
        reply = self._commit(message)
        for entry in message.offsets:
            known = self.settled[entry.partition] | self.put_aside(entry.partition)
            if unseen := set(range(entry.offset)) - known:
                self.trouble.append(f"{entry.partition} is committed up to {entry.offset} without {sorted(unseen)[:5]}")
        return reply

    def is_done(self) -> bool:
        return self.is_over and all(
            self.settled[log.partition] | self.put_aside(log.partition) >= set(range(log.end_offset))
            for log in self.cluster.logs["t"]
        )

    def values(self) -> list[bytes]:
        return self.random.choices([GOOD, BAD], [8, 1], k=self.random.randrange(1, 4))


class Working(TypedStory):
    async def consume(self, client: AsyncClient, number: int) -> None:
        while not self.is_done():
            with suppress(MinilogError):
                await self.work(client)

    async def work(self, client: AsyncClient) -> None:
        """Until it is stopped, cancelled, or its consumer is closed."""
        consumer, producer = client.consumer("t", group="g", **OPTIONS), client.producer(delivery_timeout_ms=5000)
        retries = Retries(attempts_max=2, retry_delay_ms=self.random.choice([1, 300, 3000]))
        handling = work(consumer, self.handle, producer=producer, dead_letters="dead", retries=retries, value=int)
        working = asyncio.ensure_future(handling)
        await asyncio.wait([working], timeout=self.random.choice([0.01, 0.5, 3, 10, 30]))
        ways: list[Callable[[], Any]] = [consumer.stop, working.cancel, consumer.close]
        how = self.random.choice(ways)
        if (closing := how()) is not None and asyncio.iscoroutine(closing):
            await closing
        _, left = await asyncio.wait([working], timeout=60)
        if left:
            self.trouble.append(f"a worker does not end after {how}")
        working.cancel()
        await asyncio.gather(working, consumer.close(), producer.close(2000), return_exceptions=True)

    async def handle(self, record: Record[int]) -> None:
        roll = self.random.random()
        if roll < 0.1:
            await asyncio.sleep(self.random.choice([0.01, 1, 4, 20]))
        if roll < 0.3:
            raise ValueError("cannot do it")
        self.settled[record.partition].add(record.offset)


class Reading(TypedStory):
    async def consume(self, client: AsyncClient, number: int) -> None:
        while not self.is_done():
            consumer = client.consumer("t", group="g", value=int, **OPTIONS)
            for _ in range(self.random.randrange(5, 60)):
                with suppress(MinilogError, TimeoutError):
                    await self.read_typed(consumer)
            await consumer.close()

    async def read_typed(self, consumer: GroupConsumer[Any, Any]) -> None:
        """Within a time limit. What cannot be read is stepped over now and then."""
        try:
            async with asyncio.timeout(self.random.choice([0.01, 0.3, 2])):
                records = await consumer.batch(self.random.randrange(1, 8), 500)
        except UndecodableRecord as error:
            where = error.info
            if self.random.random() < 0.6:
                consumer.seek(where["topic"], where["partition"], where["end_offset"])
                self.settled[where["partition"]].add(where["offset"])
            return
        for record in records:
            self.settled[record.partition].add(record.offset)


@pytest.mark.parametrize(("kind", "seed"), [(Working, 0), (Reading, 34), (Reading, 48)])
def test_nothing_is_committed_that_nobody_has_seen(kind: type[TypedStory], seed: int) -> None:
    story = kind(seed)
    run(story.main())
    assert story.trouble == []
    assert sum(map(len, story.settled.values())) > CHAOS_S
