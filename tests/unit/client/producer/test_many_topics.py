"""Topics that a producer sends to: many of them, some that are gone, and others of the same name.
Time is virtual."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from minilog.wire.messages import Produce
from minilog_client import AsyncClient, MinilogError, UnknownTopic
from tests.unit.client.fake_cluster import NO_LEADER, FakeCluster, Fault
from tests.unit.client.producer.test_producer import now
from tests.unit.client.virtual_time import run


@pytest.mark.parametrize("many", [0, 60])
def test_an_unknown_topic_is_told_soon_also_beside_so_many_others_that_all_are_asked_for(many: int) -> None:
    async def main() -> None:
        cluster = FakeCluster()
        names = [f"topic-{number:03}-" + "x" * 70 for number in range(many)]
        for name in names:
            cluster.create(name)
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client, client.producer() as producer:
            for name in names:
                await producer.send(name, b"1")
            before, began = cluster.count("metadata"), now()
            with pytest.raises(UnknownTopic):
                await producer.send("misspelt", b"1")
            assert now() - began < 5
            assert cluster.count("metadata") - before < 40

    run(main())


def test_a_topic_without_its_first_partition_is_not_asked_for_as_fast_as_possible() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t", 2)
        first = cluster.logs["t"].pop(0)
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client, client.producer() as producer:
            future = producer.send_nowait("t", b"1")
            await asyncio.sleep(30)
            assert cluster.count("metadata") < 90
            cluster.logs["t"].insert(0, first)
            cluster.metadata_offset += 1
            await future

    run(main())


def test_topics_that_are_not_there_are_forgotten() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t")
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client, client.producer() as producer:
            await producer.send("t", b"1")
            for number in range(20):
                with pytest.raises(UnknownTopic):
                    await producer.send(f"misspelt-{number}", b"1")
            assert list(producer._accumulator.topics) == ["t"]
            assert list(client._cluster._interest) == ["t"]
            cluster.create("misspelt-3")
            assert (await producer.send("misspelt-3", b"1")).offset == 0

    run(main())


@pytest.mark.parametrize("many", [False, True])
def test_a_topic_that_goes_while_much_is_sent_to_it_is_an_error(many: bool) -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t")
        options: dict[str, Any] = {"buffer_bytes": 20_000, "batch_bytes": 1000, "delivery_timeout_ms": 10_000}
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client, client.producer(**options) as producer:
            rows = [b"x" * 100] * 3000 if many else [(b"k", b"x" * 100)] * 3000
            sending = asyncio.create_task(producer.send_many("t", rows))
            await asyncio.sleep(0.02)
            assert not sending.done()
            del cluster.logs["t"]
            cluster.metadata_offset += 1
            with pytest.raises(MinilogError):
                await asyncio.wait_for(sending, 60)

    run(main())


@pytest.mark.parametrize("partitions", [2, 1], ids=["as many", "fewer"])
@pytest.mark.parametrize("fault", ["leaderless", "hang", "reset", "lose_answer", "sent late"])
def test_nothing_is_sent_to_another_topic_of_the_name(fault: str, partitions: int) -> None:
    """It is an error soon, and says whether the topic that is gone may have had the record."""

    async def main() -> None:
        cluster = FakeCluster()
        logs = cluster.create("t", 2)
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client, client.producer() as producer:
            for partition in (0, 1):
                await producer.send("t", b"old", partition=partition)
            if fault == "leaderless":
                cluster.move(logs[1], NO_LEADER)
            elif fault != "sent late":
                cluster.faults.append(Fault("produce", fault, times=1 if fault == "hang" else 8))
            else:
                cluster.create("t", partitions)  # nobody has told the client yet
            future = producer.send_nowait("t", b"old", partition=1)
            await asyncio.sleep(0.1)
            if fault != "sent late":
                cluster.create("t", partitions)
            began = now()
            with pytest.raises(UnknownTopic, match="anew") as caught:
                await future
            assert now() - began < 15
            assert caught.value.definite is (fault in ("leaderless", "sent late"))
            assert (await producer.send("t", b"new", partition=0)).offset == 0
            assert [log.values() for log in cluster.logs["t"]] == [[b"new"], []][:partitions]
        assert all(part.topic_id for m in cluster.messages if isinstance(m, Produce) for part in m.partitions)

    run(main())
