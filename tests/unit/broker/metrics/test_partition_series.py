"""Series of partitions: read in slices, those in trouble first, and what is left out is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from minilog.broker.metrics import partition_series
from minilog.broker.metrics.catch_up import CatchUp, Pace
from minilog.broker.metrics.partition_series import PartitionSeries
from minilog.core.broker.statistics import PartitionStatistics
from minilog.core.replication.at_risk import EARLIER
from minilog.server.exposition import Exposition
from minilog.wire.topic_partition import TopicPartition
from tests.unit.broker.http.fake_runtime import FakeCluster, FakeRuntime
from tests.unit.broker.metrics.reading import Samples, samples_of
from tests.unit.broker.metrics.test_group_series import rounds_during


def broker_with(partitions: int, most: int = 5000) -> FakeRuntime:
    cluster = FakeCluster()
    cluster.create("orders", partitions)
    runtime = FakeRuntime(cluster)
    runtime.settings = replace(runtime.settings, metrics_partitions_max=most)
    return runtime


def told(runtime: FakeRuntime, **changed: Any) -> Samples:
    """``changed``: of partition 0."""

    async def work() -> Samples:
        series, page = PartitionSeries(runtime), Exposition()
        found = await series.read()
        found[0] = found[0]._replace(**changed)
        await series.write(page, found)
        return samples_of(page)

    return asyncio.run(work())


def test_sums_are_told_of_all_and_series_of_those_in_trouble_first() -> None:
    runtime = broker_with(8, most=2)
    runtime.cluster.lead("orders", 5, -1)
    found = told(runtime, under_replicated=True, under_min_isr=True)
    named = {label for name, label in found if name == "minilog_partition_offline"}
    assert named == {"broker=1,partition=0,topic=orders", "broker=1,partition=5,topic=orders"}
    assert found["minilog_partitions_omitted", ""] == 6
    assert found["minilog_replicas_hosted", ""] == 8
    assert found["minilog_partitions_led", "state=all"] == 4
    assert found["minilog_partitions_led", "state=under_replicated"] == 1
    assert found["minilog_partitions_led", "state=under_min_isr"] == 1
    assert found["minilog_partition_offline", "broker=1,partition=5,topic=orders"] == 1


def test_with_no_series_by_partition_at_all_the_sums_are_there() -> None:
    found = told(broker_with(3, most=0))
    assert found["minilog_partitions_omitted", ""] == 3
    assert found["minilog_partitions_led", "state=all"] == 2
    assert not [name for name, _ in found if name.startswith("minilog_partition_")]


def test_counters_of_followers_start_at_0_so_that_the_first_shrink_is_an_increase() -> None:
    found = told(broker_with(2))
    followed = "broker=1,partition=1,topic=orders"
    assert ("minilog_partition_isr_size", followed) not in found
    assert ("minilog_isr_shrinks_total", followed) in found
    assert ("minilog_partition_records_in_total", followed) in found


def test_records_at_risk_are_told_by_topic_and_are_0_where_nothing_is() -> None:
    found = told(broker_with(1), at_risk={1: 7, EARLIER: 2})
    assert found["minilog_records_at_risk", "acks=1,topic=orders"] == 7
    assert found["minilog_records_at_risk", "acks=unknown,topic=orders"] == 2
    assert found["minilog_records_at_risk", "acks=0,topic=orders"] == 0


def test_a_scrape_of_a_thousand_partitions_is_made_of_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = broker_with(1000)
    asked: list[int] = []
    answer = runtime.core.replica_statistics

    def note(partitions: Sequence[TopicPartition], now_ms: int) -> list[PartitionStatistics]:
        asked.append(len(partitions))
        return answer(partitions, now_ms)

    monkeypatch.setattr(runtime.core, "replica_statistics", note)

    async def scrape() -> None:
        series = PartitionSeries(runtime)
        await series.write(Exposition(), await series.read())

    rounds = asyncio.run(rounds_during(scrape))
    assert max(asked) <= partition_series.SLICE
    assert rounds >= 2 * 1000 // partition_series.SLICE


def test_how_fast_a_follower_catches_up_and_when_it_will_have() -> None:
    found = CatchUp()
    assert found.paces({2: 1000}, 0) == {2: Pace(1000, None, None)}
    assert found.paces({2: 900}, 1000) == {2: Pace(900, None, None)}, "too soon to say"
    assert found.paces({2: 500}, 5000) == {2: Pace(500, 100.0, 5.0)}
    assert found.paces({2: 700, 3: 1}, 10_000)[2] == Pace(700, -40.0, None)
    assert found.paces({2: 100}, 500_000) == {2: Pace(100, None, None)}, "of another time"


def test_two_scrapers_do_not_shorten_what_the_rate_is_taken_over() -> None:
    found, rates = CatchUp(), []
    for at_ms in range(0, 60_000, 500):
        (pace,) = found.paces({2: 100_000 - at_ms}, at_ms).values()
        rates.append(pace.per_second)
    assert set(rates[10:]) == {1000.0}
