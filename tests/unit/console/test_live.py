"""What is told to those who watch: once for all of them, only what has changed, and nothing is done
for nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from minilog.console import live, sections
from minilog.console.live import Live
from minilog.core.health import Knowledge
from minilog.core.image import BrokerState, ClusterImage
from minilog.errors import Overloaded
from minilog.wire.figure_messages import DescribeBrokerReply, LostTold
from minilog.wire.journal.metadata_records import BrokerFenced
from tests.unit.broker.http.fake_runtime import EPOCH, FakeCluster

TAIL = LostTold("orders-0:0-1-3", 1, "orders", "x", 0, 5, 1, 3, 0, 2, (0, 0, 2, 0), 2, 100)


class FakeSource:
    role = "broker"
    broker_id = 1

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.asked = 0
        self.silent: set[int] = set()
        self.lost: list[LostTold] = []

    @property
    def image(self) -> ClusterImage:
        return self.cluster.image

    def wall_ms(self) -> int:
        return 1000 + self.asked

    async def knowledge(self) -> Knowledge:
        self.asked += 1
        return Knowledge(1, None, "http://controller.test", 250, "refused", 1000, 60_000)

    async def figures(self, broker: BrokerState) -> DescribeBrokerReply | None:
        if broker.broker_id in self.silent:
            return None
        lost = self.lost if broker.broker_id == 1 else []
        return DescribeBrokerReply(broker.broker_id, "0.1.0", True, 5000, 2, 1, 10, 7, 70, 3, 20, 2, 4, 1, 0, lost=lost)


def run(check: Callable[[FakeSource, Live], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        source = FakeSource()
        async with asyncio.timeout(10):
            await check(source, Live(source))

    asyncio.run(main())


def test_the_first_news_are_everything_and_the_next_what_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "ASK_S", 30.0)

    async def check(source: FakeSource, told: Live) -> None:
        source.cluster.create("orders", 2)
        async with told.watching() as watcher:
            first = json.loads(await watcher.next())
            assert set(first) == {"about", "health", "brokers", "topics", "behind", "failovers", "events", "lost"}
            assert [topic["topic"] for topic in first["topics"]] == ["orders"]
            assert first["topics"][0]["partitions"] == [[0, 1, EPOCH, [1, 2], [1, 2]], [1, 2, EPOCH, [2, 1], [2, 1]]]
            source.cluster.lead("orders", 1, 1)
            second = json.loads(await watcher.next())
            assert second["topics"][0]["partitions"][1][:3] == [1, 1, EPOCH + 1]
            assert set(second) == {"about", "topics"}

    run(check)


def test_an_answer_older_than_the_metadata_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a broker that was just fenced would be called well, or late, for a second."""
    monkeypatch.setattr(live, "LOOK_S", 0.001)
    monkeypatch.setattr(live, "ASK_S", 30.0)

    async def check(source: FakeSource, told: Live) -> None:
        async with told.watching() as watcher:
            await watcher.next()
            asked = source.asked
            source.cluster.apply(BrokerFenced(2, source.image.brokers[2].epoch))
            news = json.loads(await watcher.next())
            while "health" not in news:
                news = json.loads(await watcher.next())
            assert news["health"]["brokers_not_running"] == [2]
            assert source.asked > asked

    run(check)


def test_nothing_is_asked_for_nobody_and_once_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "ASK_S", 0.0)

    async def check(source: FakeSource, told: Live) -> None:
        await asyncio.sleep(0.05)
        assert source.asked == 0
        async with told.watching() as one, told.watching() as other:
            assert await one.next() == await other.next()
        asked = source.asked
        assert asked == 1
        await asyncio.sleep(0.05)
        assert source.asked == asked, "they have left"
        async with told.watching() as late:
            assert "topics" in json.loads(await late.next()), "who comes later is told everything, too"

    run(check)


def test_who_does_not_take_the_news_finds_the_latest_and_no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "ASK_S", 30.0)
    monkeypatch.setattr(live, "LOOK_S", 0.001)

    async def check(source: FakeSource, told: Live) -> None:
        source.cluster.create("orders", 1)
        async with told.watching() as slow, told.watching() as quick:
            await slow.next()
            await quick.next()
            for leader in (2, 1, 2):
                source.cluster.lead("orders", 0, leader)
                await quick.next()
            news = json.loads(await slow.next())
            assert news["topics"][0]["partitions"][0][1:3] == [2, EPOCH + 3]

    run(check)


def test_what_brokers_do_not_tell_is_null_and_named() -> None:
    async def check(source: FakeSource, told: Live) -> None:
        source.silent, source.lost = {2}, [TAIL]
        state = json.loads(await told.once())
        assert [broker["written_records"] for broker in state["brokers"]] == [7, None]
        assert [tail["tail"] for tail in state["lost"]["tails"]] == [TAIL.tail]
        assert state["lost"]["unheard"] == [2]

    run(check)


def test_a_controller_that_is_silent_is_a_finding() -> None:
    async def check(source: FakeSource, told: Live) -> None:
        source.cluster.apply(BrokerFenced(2, source.image.brokers[2].epoch))
        health = json.loads(await told.once())["health"]
        assert (health["healthy"], health["brokers_not_running"]) == (False, [2])
        assert [finding["kind"] for finding in health["findings"]] == ["controller_unheard", "broker_not_running"]
        assert "was last heard 0.2 s ago" in health["findings"][0]["sentence"]

    run(check)


def test_there_is_a_bound_on_what_is_told_and_on_who_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "PARTITIONS_MAX", 3)
    monkeypatch.setattr(live, "WATCHERS_MAX", 1)

    async def check(source: FakeSource, told: Live) -> None:
        source.cluster.create("a", 2)
        source.cluster.create("b", 2)
        state = json.loads(await told.once())
        assert [len(topic["partitions"]) for topic in state["topics"]] == [2, 1]
        assert (state["about"]["partitions"], state["about"]["left_out"]) == (4, 1)
        async with told.watching():
            with pytest.raises(Overloaded, match="watch it at another broker"):
                async with told.watching():
                    pass

    run(check)


def test_a_fault_ends_the_streams_and_the_next_watcher_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(source: FakeSource, told: Live) -> None:
        async def broken() -> Knowledge:
            raise RuntimeError("a fault")

        with monkeypatch.context() as patch:
            patch.setattr(source, "knowledge", broken)
            with pytest.raises(RuntimeError):
                await told.once()
        assert json.loads(await told.once())["about"]["role"] == "broker"

    run(check)


def test_when_asking_has_failed_nothing_goes_on_behind_it() -> None:
    async def check(source: FakeSource, told: Live) -> None:
        async def fail() -> Knowledge:
            raise RuntimeError("a fault")

        source.knowledge = fail  # type: ignore[method-assign]
        others = asyncio.all_tasks()
        async with told.watching() as watcher:
            with pytest.raises(RuntimeError, match="a fault"):
                await watcher.next()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == others

    run(check)
