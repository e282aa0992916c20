"""The lag of groups: measured at the leaders, exported by the coordinator, missing where a leader
is silent."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from minilog.broker.group_lag import measure, with_assigned
from minilog.config import Limits
from minilog.wire.group_messages import (
    CommittedOffset,
    GroupMember,
    TopicPartitions,
)
from minilog.wire.json.lag_answers import PartitionLag
from minilog.wire.messages import Message, Offsets, OffsetsReply, OffsetsResult
from tests.unit.broker.http.fake_runtime import NOW_MS, FakeCluster, FakeRuntime

END = 10
START = 6
OLD_MS = 2500
"""Age of the first record a group has not committed."""


def cluster_of(partitions: int) -> tuple[FakeCluster, FakeRuntime]:
    """Topic lagging, partition 0 led by broker 1, 1 by broker 2 and so on. Each leader has END
    records."""
    cluster = FakeCluster()
    cluster.create("lagging", partitions)
    runtimes = [FakeRuntime(cluster, broker_id) for broker_id in (1, 2)]
    for runtime in runtimes:
        runtime.intercept = offsets_of
    return cluster, runtimes[0]


def after_retention(request: Message) -> Message | None:
    """The first START records are gone."""
    reply = offsets_of(request)
    if not isinstance(reply, OffsetsReply):
        return None
    return OffsetsReply([replace(result, log_start_offset=START) for result in reply.partitions])


def offsets_of(request: Message) -> Message | None:
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


def test_what_retention_took_before_it_was_read_is_counted_apart() -> None:
    _, runtime = cluster_of(3)
    runtime.intercept = after_retention
    assert asyncio.run(measure(runtime, [*committed(2), CommittedOffset("lagging", 2, 8)])) == [
        PartitionLag("lagging", 0, 2, END, END - START, OLD_MS / 1000, START - 2),
        PartitionLag("lagging", 2, 8, END, 2, OLD_MS / 1000, 0),
    ]


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


def test_offsets_of_a_topic_that_is_gone_have_no_lag() -> None:
    _, runtime = cluster_of(1)
    assert asyncio.run(measure(runtime, [CommittedOffset("gone", 0, 4)])) == []


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
        return offsets_of(request)

    runtime.intercept = note
    lags = asyncio.run(measure(runtime, committed(1, None, 1, None, 1)))
    assert asked == [2, 1]
    assert [lag.lag for lag in lags] == [END - 1, None, END - 1, None, END - 1]
