"""The lag of groups: measured at the leaders, exported by the coordinator, missing where a leader
is silent."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

from minilog.broker import group_metrics
from minilog.broker.group_lag import measure, with_assigned
from minilog.config import Limits
from minilog.wire.group_messages import (
    CommittedOffset,
    CommittedOffsets,
    DescribeGroup,
    DescribeGroupReply,
    GroupInfo,
    GroupMember,
    TopicPartitions,
)
from minilog.wire.json_answers import PartitionLag
from minilog.wire.messages import Message, Offsets, OffsetsReply, OffsetsResult
from tests.unit.broker.http.fake_runtime import NOW_MS, FakeCluster, FakeRuntime

END = 10
OLD_MS = 2500
"""Age of the first record a group has not committed."""


def cluster_of(partitions: int) -> tuple[FakeCluster, FakeRuntime]:
    """Topic lagging, partition 0 led by broker 1, 1 by broker 2 and so on. Each leader has END
    records."""
    cluster = FakeCluster()
    cluster.create("lagging", partitions)
    runtimes = [FakeRuntime(cluster, broker_id) for broker_id in (1, 2)]
    for runtime in runtimes:
        runtime.intercept = _offsets
    return cluster, runtimes[0]


def _offsets(request: Message) -> Message | None:
    """As a leader answers, for all the partitions it is asked about."""
    if not isinstance(request, Offsets):
        return None
    results = []
    for query in request.partitions:
        timestamp = NOW_MS - OLD_MS if query.behind is not None and query.behind < END else None
        results.append(OffsetsResult(query.topic, query.partition, None, END, timestamp))
    return OffsetsReply(results)


def committed(*offsets: int | None) -> list[CommittedOffset]:
    return [CommittedOffset("lagging", partition, offset) for partition, offset in enumerate(offsets)]


def test_every_leader_is_asked_once_and_told_apart() -> None:
    _, runtime = cluster_of(4)
    lags = asyncio.run(measure(runtime, committed(END, 7, 0, None)))
    assert lags == [
        PartitionLag("lagging", 0, END, END, 0, 0.0),
        PartitionLag("lagging", 1, 7, END, 3, OLD_MS / 1000),
        PartitionLag("lagging", 2, 0, END, END, OLD_MS / 1000),
        PartitionLag("lagging", 3, None, END, None, None),
    ]
    assert len([call for call in runtime.calls if isinstance(call[1], Offsets)]) == 1


def test_what_a_leader_does_not_tell_is_unknown_and_not_zero() -> None:
    cluster, runtime = cluster_of(2)
    cluster.down.add(2)
    lags = asyncio.run(measure(runtime, committed(4, 4)))
    assert lags[1] == PartitionLag("lagging", 1, 4, None, None, None)


def test_what_members_have_without_a_committed_offset_counts_too() -> None:
    owned, wanted = TopicPartitions("lagging", [0, 1]), TopicPartitions("lagging", [1, 2])
    found = with_assigned(committed(7), [GroupMember("m", 1, owned=[owned], assignment=[wanted])])
    assert found == committed(7, None, None)


def test_of_a_partition_that_has_never_held_a_record_nothing_is_left_to_read() -> None:
    _, runtime = cluster_of(1)
    runtime.intercept = lambda r: (
        OffsetsReply([OffsetsResult("lagging", 0, None, 0)]) if isinstance(r, Offsets) else None
    )
    assert asyncio.run(measure(runtime, committed(None))) == [PartitionLag("lagging", 0, None, 0, 0, 0.0)]


def test_partitions_whose_lag_is_not_known_are_counted() -> None:
    cluster, runtime = cluster_of(1)
    cluster.create("orders", 3)
    runtime.groups = [GroupInfo("billing", "stable", 7, 1)]
    member = GroupMember("m", 7, assignment=[TopicPartitions("orders", [1, 2])])

    def describe(request: Message) -> Message | None:
        return (
            DescribeGroupReply(runtime.groups[0], [member], 1)
            if isinstance(request, DescribeGroup)
            else _offsets(request)
        )

    runtime.intercept = describe
    samples = {family.name: family.samples for family in asyncio.run(group_metrics.collect(runtime))}
    assert [sample.value for sample in samples["minilog_consumergroup_unknown_lag_partitions"]] == [1]
    assert len(samples["minilog_consumergroup_lag"]) == len(samples["minilog_consumergroup_committed_offset"]) == 2


def test_offsets_of_a_topic_that_is_gone_have_no_lag() -> None:
    _, runtime = cluster_of(1)
    assert asyncio.run(measure(runtime, [CommittedOffset("gone", 0, 4)])) == []


def test_the_coordinator_exports_its_groups() -> None:
    cluster, runtime = cluster_of(1)
    cluster.create("orders", 2)
    runtime.groups = [GroupInfo("billing", "rebalancing", 7, 3)]
    families = asyncio.run(group_metrics.collect(runtime))
    registry = CollectorRegistry()
    registry.register(type("Found", (), {"collect": lambda self: families})())
    text = generate_latest(registry).decode()
    assert 'minilog_consumergroup_members{group="billing"} 3.0' in text
    assert 'minilog_consumergroup_rebalancing{group="billing"} 1.0' in text
    assert 'minilog_consumergroup_lag{group="billing",partition="0",topic="orders"} 9.0' in text
    assert 'minilog_consumergroup_lag_seconds{group="billing",partition="0",topic="orders"} 2.5' in text
    assert 'minilog_consumergroup_committed_offset{group="billing",partition="1",topic="orders"} 0.0' in text


def test_a_coordinator_that_cannot_answer_does_not_hold_up_the_scrape() -> None:
    async def scrape() -> list[str]:
        _, runtime = cluster_of(1)
        runtime.gate = asyncio.Event()  # submit waits for it, for ever
        return [family.name for family in await group_metrics.collect(runtime)]

    assert "minilog_consumergroup_members" in asyncio.run(scrape())


def test_a_leader_is_asked_once_however_many_groups_there_are() -> None:
    """One question per group was answered too late with some thousand groups, and then none of them
    was shown."""
    cluster, runtime = cluster_of(1)
    cluster.create("orders", 2)
    runtime.groups = [GroupInfo(f"g{number}", "stable", 1, 1) for number in range(2000)]
    families = asyncio.run(group_metrics.collect(runtime))
    assert len([call for call in runtime.calls if isinstance(call[1], Offsets)]) == 2, "a thousand partitions in each"
    samples = {family.name: len(family.samples) for family in families}
    assert samples["minilog_consumergroup_members"] == 2000
    assert samples["minilog_consumergroup_lag"] == 4000


def test_groups_with_too_many_partitions_are_shown_without_and_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_metrics, "GROUP_SERIES_MAX", 3)
    cluster, runtime = cluster_of(1)
    cluster.create("orders", 2)
    runtime.groups = [GroupInfo(name, "stable", 1, 1) for name in "ab"]
    samples = {family.name: len(family.samples) for family in asyncio.run(group_metrics.collect(runtime))}
    assert not [message for message in runtime.submitted if isinstance(message, Offsets)]
    assert (samples["minilog_consumergroup_members"], samples["minilog_consumergroup_lag"]) == (2, 0)


def test_groups_are_shown_when_their_offsets_come_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    async def collect() -> list[Metric]:
        _, runtime = cluster_of(1)
        runtime.groups = [GroupInfo("billing", "stable", 1, 3)]
        answer = runtime.submit

        async def slow(request: Message, timeout_ms: int | None = None) -> Message:
            if isinstance(request, CommittedOffsets):
                await asyncio.sleep(10)
            return await answer(request, timeout_ms)

        monkeypatch.setattr(runtime, "submit", slow)
        return await group_metrics.collect(runtime)

    (members,) = [family for family in asyncio.run(collect()) if family.name == "minilog_consumergroup_members"]
    assert [sample.value for sample in members.samples] == [3]


def test_an_answer_of_another_length_than_the_question_tells_nothing() -> None:
    _, runtime = cluster_of(2)
    runtime.intercept = lambda request: OffsetsReply([]) if isinstance(request, Offsets) else None
    assert asyncio.run(measure(runtime, committed(4))) == [PartitionLag("lagging", 0, 4, None, None, None)]


def test_a_leader_is_asked_in_pieces_when_the_group_has_more_than_a_question_may_name() -> None:
    _, runtime = cluster_of(6)
    runtime.settings = replace(runtime.settings, limits=Limits(partitions_max=2))
    asked: list[int] = []

    def note(request: Message) -> Message | None:
        if isinstance(request, Offsets):
            asked.append(len(request.partitions))
        return _offsets(request)

    runtime.intercept = note
    lags = asyncio.run(measure(runtime, committed(1, None, 1, None, 1)))
    assert asked == [2, 1]
    assert [lag.lag for lag in lags] == [END - 1, None, END - 1, None, END - 1]
