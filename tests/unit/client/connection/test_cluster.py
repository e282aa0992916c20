"""Finding and watching brokers: hedged metadata requests, pacing, giving up the silent; time is
virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from minilog.errors import BrokerUnavailable, ClientClosed, InvalidRequest, NotLeader, UnknownTopic
from minilog.wire.messages import Fetch, FetchReply, Produce, ProduceReply
from minilog_client.connection.cluster import Cluster, now_ms
from minilog_client.settings import ClientSettings
from tests.unit.client.fake_cluster import FakeCluster, Fault
from tests.unit.client.virtual_time import run

Body = Callable[[FakeCluster, Cluster], Coroutine[Any, Any, None]]


def scenario(body: Body) -> None:
    async def main() -> None:
        fake = FakeCluster()
        fake.create("t", 2)
        cluster = Cluster(fake.bootstrap, fake, ClientSettings(), Random(1))
        await body(fake, cluster)
        await cluster.aclose()

    run(main())


def test_one_refresh_serves_everybody_who_asks_meanwhile() -> None:
    @scenario
    async def _(fake: FakeCluster, cluster: Cluster) -> None:
        cluster.watch(["t"], lambda: None)
        await asyncio.gather(*[cluster.refresh() for _ in range(20)])
        assert fake.count("metadata") == 1
        assert cluster.routing.topic("t") is not None


def test_refreshes_on_request_keep_a_pace() -> None:
    @scenario
    async def _(fake: FakeCluster, cluster: Cluster) -> None:
        for _ in range(1000):
            cluster.request_refresh()
            await asyncio.sleep(0.001)
        assert 10 <= fake.count("metadata") <= 30


def test_news_are_asked_for_at_a_quick_pace_again() -> None:
    @scenario
    async def _(fake: FakeCluster, cluster: Cluster) -> None:
        async def ask(seconds: float) -> int:
            before, end = fake.count("metadata"), now_ms() + seconds * 1000
            while now_ms() < end:
                cluster.request_refresh()
                await asyncio.sleep(0.001)
            return fake.count("metadata") - before

        cluster.watch(["t"], lambda: None)
        await ask(20)
        assert await ask(20) <= 40, "about once a second"
        fake.move(fake.logs["t"][0], 2)
        assert await ask(1.5) >= 8
        await cluster.refresh()
        await asyncio.sleep(0.9)
        assert await ask(0.2) >= 5, "whoever has asked for nothing for a while is in no row"


def test_a_cluster_that_is_away_is_asked_less_and_less() -> None:
    @scenario
    async def _(fake: FakeCluster, cluster: Cluster) -> None:
        fake.refusing |= {1, 2, 3}
        for _ in range(10_000):
            cluster.request_refresh()
            await asyncio.sleep(0.001)
        assert fake.count("metadata") < 3 * 40
        with pytest.raises(
            BrokerUnavailable, match=r"no broker answers \(no connection to http://broker\d:8082/v1/metadata: refused"
        ):
            await cluster.refresh()


def test_the_next_broker_is_asked_when_one_is_slow_and_the_slow_one_is_remembered() -> None:
    @scenario
    async def _(fake: FakeCluster, cluster: Cluster) -> None:
        fake.silent.add(2)
        for _ in range(6):
            began = now_ms()
            await cluster.refresh()
            assert now_ms() - began < 150
        assert fake.kinds("metadata").count(2) == 1


def test_a_broker_of_another_cluster_is_passed_over() -> None:
    @scenario
    async def _(fake: FakeCluster, cluster: Cluster) -> None:
        await cluster.refresh()
        cluster.routing.cluster_id = "mine"
        with pytest.raises(BrokerUnavailable, match="belongs to cluster mine"):
            await cluster.refresh()


def test_the_layout_is_asked_for_again_while_somebody_listens() -> None:
    @scenario
    async def _(fake: FakeCluster, cluster: Cluster) -> None:
        def listener() -> None:
            pass

        await asyncio.sleep(60)
        assert fake.count("metadata") == 0
        cluster.watch(["t"], listener)
        await asyncio.sleep(60)
        assert 6 <= fake.count("metadata") <= 8
        cluster.unwatch(["t"], listener)
        await asyncio.sleep(60)
        assert fake.count("metadata") <= 9


def test_an_unknown_topic_is_waited_for() -> None:
    @scenario
    async def _(fake: FakeCluster, cluster: Cluster) -> None:
        asyncio.get_running_loop().call_later(1.0, fake.create, "late")
        assert (await cluster.topic("late")).partition_count == 1
        with pytest.raises(UnknownTopic):
            await cluster.topic("never")


def test_closing_ends_every_wait_with_the_same_error() -> None:
    @scenario
    async def _(fake: FakeCluster, cluster: Cluster) -> None:
        fake.silent |= {1, 2, 3}
        waits = [asyncio.create_task(cluster.refresh()), asyncio.create_task(cluster.topic("t"))]
        await asyncio.sleep(0.05)
        await cluster.aclose()
        outcomes = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ClientClosed, ClientClosed]
        with pytest.raises(ClientClosed):
            await cluster.refresh()


async def produce(cluster: Cluster, leads: Callable[[], bool], timeout_ms: int = 10_000) -> ProduceReply:
    return await cluster.call("http://broker1:8082", Produce(1, 5, []), ProduceReply, timeout_ms, 0, leads)


def test_a_late_answer_is_waited_for_while_its_broker_leads() -> None:
    @scenario
    async def _(fake: FakeCluster, cluster: Cluster) -> None:
        fake.silent.add(1)
        asked: list[int] = []

        def leads() -> bool:
            asked.append(now_ms())
            return len(asked) < 5

        began = now_ms()
        with pytest.raises(BrokerUnavailable, match="leads no longer") as caught:
            await produce(cluster, leads)
        assert caught.value.definite is False
        assert 500 <= asked[0] - began < 520
        assert 1400 < now_ms() - began < 1700


def test_a_cancelled_call_stays_cancelled() -> None:
    @scenario
    async def _(fake: FakeCluster, cluster: Cluster) -> None:
        fake.silent.add(1)
        call = asyncio.create_task(produce(cluster, lambda: True))
        await asyncio.sleep(2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await produce(cluster, lambda: True)


def test_an_answer_of_the_wrong_kind_or_an_error_is_an_error() -> None:
    @scenario
    async def _(fake: FakeCluster, cluster: Cluster) -> None:
        fake.faults.append(Fault("produce", NotLeader("moved")))
        with pytest.raises(NotLeader):
            await produce(cluster, lambda: True)
        with pytest.raises(Exception, match="sent a ProduceReply where a FetchReply belongs"):
            await cluster.call("http://broker1:8082", Produce(1, 5, []), FetchReply, 1000)
        reply = await cluster.call("http://broker1:8082", Fetch([]), FetchReply, 1000)
        assert reply.partitions == []


def test_no_broker_to_start_from() -> None:
    with pytest.raises(InvalidRequest, match="no broker to start from"):
        Cluster([], FakeCluster(), ClientSettings(), Random(1))


def test_a_topic_without_partitions_is_not_waited_for_without_end() -> None:
    @scenario
    async def _(fake: FakeCluster, cluster: Cluster) -> None:
        fake.create("bare", 0)
        with pytest.raises(UnknownTopic):
            await asyncio.wait_for(cluster.topic("bare"), 10)
        assert fake.count("metadata") < 100
