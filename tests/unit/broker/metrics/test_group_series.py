"""Series of groups: told by their coordinator, the furthest behind first, and what is left out is
counted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from minilog.broker.metrics import group_series
from minilog.broker.metrics.group_series import GroupSeries
from minilog.errors import CoordinatorNotAvailable
from minilog.server.exposition import Exposition
from minilog.wire.group_messages import (
    CommittedOffset,
    CommittedOffsets,
    CommittedOffsetsReply,
    DescribeGroup,
    DescribeGroupReply,
    GroupInfo,
    GroupMember,
    ListGroups,
    ListGroupsReply,
    MissingGroups,
    TopicPartitions,
)
from minilog.wire.messages import Message, Offsets, Problem
from tests.unit.broker.http.fake_runtime import FakeCluster, FakeRuntime
from tests.unit.broker.metrics.reading import Samples, samples_of
from tests.unit.broker.test_group_lag import END, START, after_retention, cluster_of, offsets_of


def with_orders(partitions: int = 2) -> tuple[FakeCluster, FakeRuntime]:
    cluster, runtime = cluster_of(1)
    cluster.create("orders", partitions)
    return cluster, runtime


async def scrape(series: GroupSeries) -> Samples:
    page = Exposition()
    await series.write(page, await series.read())
    return samples_of(page)


def told(runtime: FakeRuntime) -> Samples:
    return asyncio.run(scrape(GroupSeries(runtime)))


def test_the_coordinator_tells_of_its_groups() -> None:
    _, runtime = with_orders()
    runtime.groups = [GroupInfo("billing", "rebalancing", 7, 3, rebalances=4)]
    found = told(runtime)
    assert found["minilog_consumergroup_members", "group=billing"] == 3
    assert found["minilog_consumergroup_rebalancing", "group=billing"] == 1
    assert found["minilog_consumergroup_rebalances_total", "group=billing"] == 4
    assert found["minilog_consumergroup_lag", "group=billing,partition=0,topic=orders"] == 9
    assert found["minilog_consumergroup_lag_seconds", "group=billing,partition=0,topic=orders"] == 2.5
    assert found["minilog_consumergroup_committed_offset", "group=billing,partition=1,topic=orders"] == 0
    assert found["minilog_consumergroups", ""] == 1
    assert found["minilog_consumergroups_omitted", ""] == 0


def test_what_was_lost_and_how_far_retention_is_away_are_told() -> None:
    _, runtime = with_orders(1)
    runtime.groups = [GroupInfo("billing", "stable", 7, 3)]

    def ahead(request: Message) -> Message | None:
        if isinstance(request, CommittedOffsets):
            return CommittedOffsetsReply([CommittedOffset("orders", 0, START + 3)])
        return after_retention(request)

    runtime.intercept = after_retention
    place = "group=billing,partition=0,topic=orders"
    found = told(runtime)
    assert found["minilog_consumergroup_lost_records", place] == START - 1
    assert found["minilog_consumergroup_lag", place] == END - START
    assert found["minilog_consumergroup_log_start_distance", place] == 0
    runtime.intercept = ahead
    assert told(runtime)["minilog_consumergroup_log_start_distance", place] == 3


def test_of_an_older_leader_it_is_not_known_how_far_retention_is_away() -> None:
    _, runtime = with_orders(1)
    runtime.groups = [GroupInfo("billing", "stable", 7, 3)]
    assert not [name for name, _ in told(runtime) if name.endswith(("_distance", "_lost_records"))]


def test_partitions_whose_lag_is_not_known_are_counted() -> None:
    _, runtime = with_orders(3)
    runtime.groups = [GroupInfo("billing", "stable", 7, 1)]
    member = GroupMember("m", 7, assignment=[TopicPartitions("orders", [1, 2])])

    def describe(request: Message) -> Message | None:
        described = DescribeGroupReply(runtime.groups[0], [member], 1)
        return described if isinstance(request, DescribeGroup) else offsets_of(request)

    runtime.intercept = describe
    found = told(runtime)
    assert found["minilog_consumergroup_unknown_lag_partitions", "group=billing"] == 1
    assert len([name for name, _ in found if name == "minilog_consumergroup_lag"]) == 2


def test_a_coordinator_that_cannot_answer_does_not_hold_up_the_scrape() -> None:
    async def work() -> Samples:
        _, runtime = with_orders()
        runtime.gate = asyncio.Event()  # submit waits for it, for ever
        return await scrape(GroupSeries(runtime))

    found = asyncio.run(work())
    assert found["minilog_consumergroup_partitions_unanswered", ""] == 1
    assert found["minilog_consumergroups", ""] == 0


def test_parts_that_did_not_answer_are_counted() -> None:
    _, runtime = with_orders()
    missing = [MissingGroups(3, CoordinatorNotAvailable.code, "still reading")]
    runtime.intercept = lambda request: ListGroupsReply([], [1], missing) if isinstance(request, ListGroups) else None
    assert told(runtime)["minilog_consumergroup_partitions_unanswered", ""] == 1


def test_a_leader_is_asked_once_for_a_thousand_partitions_of_whatever_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_series, "PATIENCE_MS", 60_000)
    _, runtime = with_orders()
    runtime.groups = [GroupInfo(f"g{number}", "stable", 1, 1) for number in range(2000)]
    found = told(runtime)
    assert len([call for call in runtime.calls if isinstance(call[1], Offsets)]) == 4
    assert len([name for name, _ in found if name == "minilog_consumergroup_lag"]) == 4000
    assert found["minilog_consumergroups_omitted", ""] == 0


def behind(lags: dict[str, int]) -> Callable[[Message], Message | None]:
    """Each group has committed so much less than END in one partition."""

    def answer(request: Message) -> Message | None:
        if isinstance(request, CommittedOffsets):
            return CommittedOffsetsReply([CommittedOffset("orders", 0, END - lags[request.group])])
        return offsets_of(request)

    return answer


def test_the_groups_furthest_behind_have_series_and_the_others_are_counted() -> None:
    _, runtime = with_orders(1)
    runtime.settings = replace(runtime.settings, metrics_groups_max=2)
    lags = {"a": 0, "b": 7, "c": 1, "d": 9}
    runtime.groups = [GroupInfo(group, "stable", 1, 1) for group in lags]
    runtime.intercept = behind(lags)
    found = told(runtime)
    assert {label for name, label in found if name == "minilog_consumergroup_lag"} == {
        "group=d,partition=0,topic=orders",
        "group=b,partition=0,topic=orders",
    }
    assert found["minilog_consumergroups_omitted", ""] == 2
    assert found["minilog_consumergroups", ""] == 4


def test_what_comes_too_late_is_told_of_by_the_next_scrapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above some number of groups all of them were missing, because not all could be asked."""
    monkeypatch.setattr(group_series, "SLICE", 1)
    monkeypatch.setattr(group_series, "QUESTION_MAX", 1)

    async def work() -> list[set[str]]:
        _, runtime = with_orders(1)
        runtime.groups = [GroupInfo(group, "stable", 1, 0) for group in "abcd"]
        runtime.intercept = behind(dict.fromkeys("abcd", 1))
        series = GroupSeries(runtime)
        answer, budget = runtime.submit, 0

        async def slow(request: Message, timeout_ms: int | None = None) -> Message:
            nonlocal budget
            if isinstance(request, CommittedOffsets):
                budget -= 1
                if budget < 0:
                    raise TimeoutError  # as when PATIENCE_MS is over
            return await answer(request, timeout_ms)

        monkeypatch.setattr(runtime, "submit", slow)
        seen: list[set[str]] = []
        for _ in range(2):
            budget = 2
            found = await scrape(series)
            assert found["minilog_consumergroups_omitted", ""] == 4 - 2 * (len(seen) + 1)
            seen.append({label for name, label in found if name == "minilog_consumergroup_lag"})
        return seen

    first, second = asyncio.run(work())
    assert len(first) == 2
    assert len(second) == 4
    assert first < second


def test_a_group_that_another_broker_coordinates_by_now_is_told_no_more() -> None:
    _, runtime = with_orders(1)
    runtime.groups = [GroupInfo("billing", "stable", 1, 1)]
    series = GroupSeries(runtime)

    async def work(then: Callable[[], object]) -> Samples:
        await scrape(series)
        then()
        return await scrape(series)

    def refuse() -> None:
        runtime.intercept = lambda request: Problem.of(CoordinatorNotAvailable("it moved"))

    for then in (runtime.groups.clear, refuse):
        assert not [name for name, _ in asyncio.run(work(then)) if name == "minilog_consumergroup_lag"]


def test_the_loop_is_free_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand groups, and others go on at least once for each slice of them."""
    monkeypatch.setattr(group_series, "PATIENCE_MS", 60_000)
    _, runtime = with_orders(1)
    runtime.groups = [GroupInfo(f"g{number}", "stable", 1, 1) for number in range(1000)]
    assert asyncio.run(rounds_during(lambda: scrape(GroupSeries(runtime)))) >= 2 * 1000 // group_series.SLICE


async def rounds_during(work: Callable[[], Awaitable[object]]) -> int:
    rounds = 0

    def count() -> None:
        nonlocal rounds
        rounds += 1
        loop.call_soon(count)

    loop = asyncio.get_running_loop()
    loop.call_soon(count)
    await work()
    return rounds
