from __future__ import annotations

import asyncio

import pytest

from minilog.errors import BrokerUnavailable, InvalidTopic, NotController, TimedOut, TopicExists, UnknownTopic
from minilog_client import AsyncClient
from tests.unit.client.fake_cluster import NO_LEADER, FakeCluster, Fault
from tests.unit.client.virtual_time import run


def now() -> float:
    return asyncio.get_running_loop().time()


def test_topics_come_and_go() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            info = await client.create_topic("orders", partitions=3, config={"max.message.bytes": 5000})
            assert (info.topic, len(info.partitions), info.config) == ("orders", 3, {"max.message.bytes": "5000"})
            assert [topic.topic for topic in await client.list_topics()] == ["orders"]
            assert (await client.describe_topic("orders")).topic_id == info.topic_id
            with pytest.raises(TopicExists):
                await client.create_topic("orders")
            await client.delete_topic("orders")
            with pytest.raises(UnknownTopic):
                await client.delete_topic("orders")
            with pytest.raises(InvalidTopic):
                await client.create_topic("a b")
            assert await client.list_topics() == []

    run(main())


def test_create_waits_for_leaders() -> None:
    async def main() -> None:
        cluster = FakeCluster()

        def elect() -> None:
            cluster.move(cluster.logs["orders"][0], 2)

        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            loop = asyncio.get_running_loop()
            loop.call_later(0.003, lambda: cluster.move(cluster.logs["orders"][0], NO_LEADER))
            loop.call_later(0.2, elect)
            began = now()
            await client.create_topic("orders")
            assert now() - began >= 0.2

    run(main())


def test_offsets() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        log = cluster.create("t")[0]
        log.start_offset = 5
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client, client.producer() as producer:
            await producer.send_many("t", [b"a"] * 10, timestamp_ms=1000)
            await producer.send("t", b"b", timestamp_ms=2000)
            assert await client.offsets("t", 0) == (5, 16)
            assert await client.offset_at("t", 0, "@1500") == 15
            cluster.move(log, 3)
            assert await client.offset_at("t", 0, "latest") == 16
            with pytest.raises(UnknownTopic, match="no partition 4; it has 1"):
                await client.offsets("t", 4)
            with pytest.raises(UnknownTopic):
                await client.offsets("nowhere", 0)

    run(main())


def test_a_dead_broker_is_passed_over() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.refusing |= {1, 2}
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            await client.create_topic("t")
            for _ in range(5):
                await client.list_topics()
            assert cluster.kinds("admin").count(3) == 6

    run(main())


def test_creating_is_repeated_only_when_it_provably_did_nothing() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            cluster.faults.append(Fault("admin", NotController("not yet"), times=5))
            await client.create_topic("first")
            cluster.faults.append(Fault("admin", "lose_answer"))
            with pytest.raises(BrokerUnavailable) as caught:
                await client.create_topic("second")
            assert caught.value.definite is False
            assert "second" in cluster.logs

    run(main())


def test_deleting_again_after_a_lost_answer_is_no_error() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t")
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            actions = iter([None, "lose_answer"])
            cluster.chaos = lambda kind, broker: next(actions, None) if kind == "admin" else None
            await client.delete_topic("t")
            assert cluster.logs == {}

    run(main())


def test_a_deletion_that_may_have_been_carried_out_is_never_told_as_if_it_was_not() -> None:
    async def main() -> None:
        cluster = FakeCluster()
        cluster.create("t")
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            actions = iter([None, "lose_answer"])
            cluster.chaos = lambda kind, broker: next(actions, "refuse") if kind == "admin" else None
            with pytest.raises((BrokerUnavailable, TimedOut), match="an earlier try") as raised:
                await client.delete_topic("t", timeout_ms=1000)
            assert not raised.value.definite
            assert cluster.logs == {}

    run(main())


@pytest.mark.parametrize("refused", [True, False])
def test_no_call_waits_for_ever(refused: bool) -> None:
    async def main() -> None:
        cluster = FakeCluster()
        (cluster.refusing if refused else cluster.silent).update({1, 2, 3})
        async with AsyncClient(cluster.bootstrap, transport=cluster) as client:
            for call in (client.list_topics, client.health, client.brokers, lambda: client.create_topic("t")):
                began = now()
                with pytest.raises((BrokerUnavailable, TimedOut)):
                    await call()
                assert now() - began < 11.1

    run(main())
