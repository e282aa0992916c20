"""Several consumers of a group while requests fail, answers get lost, the coordinator moves and
members come and go: every record is handed out, never by somebody who does not own its partition,
and the group never goes back. Time is virtual, one seed one story."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from minilog.errors import CoordinatorNotAvailable, MinilogError, NotCoordinator
from minilog.wire.group_messages import CommitOffsets, CommitOffsetsReply
from minilog_client import AsyncClient, GroupConsumer
from tests.unit.client.consumer.consumer_bench import write
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.group.fake_coordinator import FakeCoordinator
from tests.unit.client.virtual_time import run

PARTITIONS = 4
CHAOS_S = 60
OPTIONS: dict[str, Any] = {"session_timeout_ms": 6000, "max_poll_interval_ms": 15_000, "auto_commit_interval_ms": 500}
_GROUP_KINDS = ("groupheartbeat", "commitoffsets", "committedoffsets", "leavegroup")


class Story:
    patience_s = 120

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.cluster = FakeCluster()
        self.cluster.create("t", PARTITIONS)
        self.coordinator = FakeCoordinator(self.cluster)
        self.seen: dict[int, list[int]] = {partition: [] for partition in range(PARTITIONS + 1)}
        self.trouble: list[str] = []
        self.is_over = False
        self._commit = self.coordinator._commit
        self.coordinator._commit = self.commit  # type: ignore[method-assign]

    def commit(self, message: CommitOffsets) -> CommitOffsetsReply:
        """Nobody seeks and no log loses anything, so the group never goes back, whoever commits."""
        before = dict(self.coordinator.group("g").offsets)
        reply = self._commit(message)
        for entry in message.offsets:
            last = before.get((entry.topic, entry.partition))
            if last is not None and last.offset is not None and entry.offset < last.offset:
                self.trouble.append(f"{message.member_id} took {entry.partition} back from {last.offset}: {entry}")
            if entry.offset > max(self.seen[entry.partition], default=-1) + 1:
                self.trouble.append(f"{message.member_id} committed what nobody has been given: {entry}")
        return reply

    def chaos(self, kind: str, broker: int) -> str | MinilogError | None:
        roll = self.random.random()
        if self.is_over or roll > 0.15:
            return None
        if kind in _GROUP_KINDS and roll < 0.05:
            return self.random.choice([NotCoordinator("elsewhere"), CoordinatorNotAvailable("loading")])
        return self.random.choice(["refuse", "reset", "lose_answer", "lose_answer", "hang"])

    async def consume(self, client: AsyncClient, number: int) -> None:
        """Reads, now and then slowly, and closes and begins anew."""
        while not self.is_done():
            consumer = client.consumer("t", group="g", **OPTIONS)
            lifetime = self.random.randrange(5, 60)
            for _ in range(lifetime):
                if self.is_done():
                    break
                await self.read(consumer)
                if not self.is_over and self.random.random() < 0.05:
                    await asyncio.sleep(self.random.choice([1, 5, 20]))
            await consumer.close()

    async def read(self, consumer: GroupConsumer) -> None:
        try:
            records = await consumer.batch(max_records=self.random.randrange(1, 8), max_wait_ms=500)
        except MinilogError:
            return
        for group in self.coordinator.groups.values():
            self.coordinator.expire(group)
        owners = self.coordinator.group("g").owners
        for record in records:
            owner = owners.get((record.topic, record.partition))
            if owner != consumer.member_id:
                self.trouble.append(f"{consumer.member_id} handed out {record.partition}, which is {owner}'s")
            self.seen[record.partition].append(record.offset)

    def is_done(self) -> bool:
        if not self.is_over:
            return False
        return all(set(self.seen[log.partition]) >= set(range(log.end_offset)) for log in self.cluster.logs["t"])

    def values(self) -> list[bytes]:
        return [b"x"] * self.random.randrange(1, 4)

    async def attack(self) -> None:
        for _ in range(CHAOS_S):
            await asyncio.sleep(1)
            for log in self.cluster.logs["t"]:
                write(log, *self.values())
            self.cluster._wake()
            event = self.random.random()
            if event < 0.05:
                self.coordinator.move(self.random.randrange(1, 4))
            elif event < 0.08:
                self.cluster.silent = {self.random.randrange(1, 4)}
            elif event < 0.2:
                self.cluster.silent = set()
            elif event < 0.21 and len(self.cluster.logs["t"]) == PARTITIONS:
                self.cluster.grow("t", PARTITIONS + 1)
        self.cluster.silent = set()
        self.is_over = True

    async def main(self) -> None:
        self.cluster.chaos = self.chaos
        async with AsyncClient(self.cluster.bootstrap, transport=self.cluster) as client, asyncio.TaskGroup() as tasks:
            tasks.create_task(self.attack())
            readers = [tasks.create_task(self.consume(client, number)) for number in range(3)]
            _, left = await asyncio.wait(readers, timeout=CHAOS_S + self.patience_s)
            for reader in left:
                reader.cancel()
        if left:
            missing = {
                log.partition: log.end_offset - len(set(self.seen[log.partition])) for log in self.cluster.logs["t"]
            }
            self.trouble.append(f"never read: {missing}")


@pytest.mark.parametrize("seed", [0, 4, 5])
def test_every_record_is_handed_out_and_only_by_its_owner(seed: int) -> None:
    story = Story(seed)
    run(story.main())
    assert story.trouble == []
    repeated = sum(len(offsets) - len(set(offsets)) for offsets in story.seen.values())
    assert repeated < sum(map(len, story.seen.values())) // 2, "repetitions are the exception"
