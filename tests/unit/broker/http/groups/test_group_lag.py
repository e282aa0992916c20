"""The lag of a group over JSON: what is committed, what members have, and sums that do not claim
more than is known."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from minilog.wire.group_messages import (
    CommittedOffset,
    CommittedOffsets,
    CommittedOffsetsReply,
    DescribeGroup,
    DescribeGroupReply,
    GroupInfo,
    GroupMember,
    TopicPartitions,
)
from minilog.wire.messages import Message, Offsets, OffsetsReply, OffsetsResult
from tests.unit.broker.http.fake_runtime import FakeCluster
from tests.unit.broker.http.harness import serving

END = 40


def lag_of(committed: dict[int, int], assigned: list[int] | None, log_start: int | None = None) -> Any:
    """What ``GET /v1/groups/g/lag`` says of topic t, whose even partitions are led here and hold
    END records. None: there is no such group."""

    def answer(request: Message) -> Message | None:
        match request:
            case CommittedOffsets():
                return CommittedOffsetsReply([CommittedOffset("t", *item) for item in committed.items()])
            case DescribeGroup() if assigned is not None:
                members = [GroupMember("m", 1, assignment=[TopicPartitions("t", assigned)])]
                return DescribeGroupReply(GroupInfo("g", "stable", 1, 1), members, 1)
            case Offsets():
                results = [OffsetsResult(e.topic, e.partition, None, END) for e in request.partitions]
                return OffsetsReply([replace(result, log_start_offset=log_start) for result in results])
        return None

    async def ask() -> Any:
        cluster = FakeCluster()
        cluster.create("t", 6)
        async with serving(cluster) as broker, broker.connect() as connection:
            broker.runtime.intercept = answer
            return (await connection.request("GET", "/v1/groups/g/lag")).json()

    return asyncio.run(ask())


def row(partition: int, committed: int | None, lost: int | None = None) -> dict[str, Any]:
    lag = None if committed is None else END - committed
    seconds = None if committed is None else 0.0
    place = {"topic": "t", "partition": partition}
    return {**place, "committed": committed, "high_watermark": END, "lag": lag, "lag_seconds": seconds, "lost": lost}


def test_a_group_that_has_begun_and_committed_nothing_is_not_said_to_be_up_to_date() -> None:
    found = lag_of({}, [0])
    assert found == {"group": "g", "lag": None, "lag_seconds": None, "partitions": [row(0, None)], "lost": 0}


def test_one_partition_without_a_committed_offset_makes_the_sums_unknown() -> None:
    found = lag_of({2: 30}, [0, 2])
    rows = [row(0, None), row(2, 30)]
    assert found == {"group": "g", "lag": None, "lag_seconds": None, "partitions": rows, "lost": 0}


@pytest.mark.parametrize("assigned", [[], [2, 4], None])
def test_the_sums_of_what_is_committed(assigned: list[int] | None) -> None:
    found = lag_of({2: 30, 4: 20}, assigned)
    rows = [row(2, 30), row(4, 20)]
    assert found == {"group": "g", "lag": 30, "lag_seconds": 0.0, "partitions": rows, "lost": 0}


def test_what_retention_took_is_lost_and_lags_no_more() -> None:
    found = lag_of({2: 30, 4: 5}, [], log_start=10)
    rows = [row(2, 30, lost=0), {**row(4, 5, lost=5), "lag": END - 10}]
    assert found == {"group": "g", "lag": 40, "lag_seconds": 0.0, "partitions": rows, "lost": 5}


def test_of_a_group_that_there_is_not_no_lag_is_told() -> None:
    problem = lag_of({}, None)
    assert (problem["status"], problem["code"]) == (404, "UNKNOWN_GROUP")
