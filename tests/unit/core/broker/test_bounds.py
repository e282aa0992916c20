"""No message of a client names more than limits.partitions_max allows, wherever in the message."""

from __future__ import annotations

import pytest

from minilog.core.bounds import check_bounds
from minilog.errors import InvalidRequest
from minilog.wire.group_messages import (
    CommitOffsets,
    CommittedOffsets,
    DeleteGroup,
    GroupHeartbeat,
    OffsetCommit,
    TopicPartitions,
)
from minilog.wire.messages import Message, Metadata, Offsets, OffsetsPartition, Problem
from tests.unit.core.broker.broker_bench import BrokerBench
from tests.unit.core.builders import TOPIC, partition_state

BENCH = BrokerBench.started(partition_state())
MAX = BENCH.settings.limits.partitions_max


def naming(count: int) -> list[Message]:
    many = TopicPartitions(TOPIC, [0] * count)
    bare = [TopicPartitions(TOPIC, [])] * count
    return [
        Offsets([OffsetsPartition(TOPIC, 0, 5)] * count),
        Metadata([TOPIC] * count),
        GroupHeartbeat("g", "m", 1, topics=["t"] * count),
        GroupHeartbeat("g", "m", 1, owned=[many]),
        GroupHeartbeat("g", "m", 1, owned=bare),
        CommitOffsets("g", [OffsetCommit(TOPIC, 0, 0)] * count),
        CommittedOffsets("g", [many]),
        CommittedOffsets("g", bare),
        DeleteGroup("g", [many]),
        DeleteGroup("g", bare),
    ]


@pytest.mark.parametrize("request_", naming(MAX + 1), ids=lambda request: type(request).__name__)
def test_a_broker_refuses_a_message_that_names_too_much(request_: Message) -> None:
    bench = BrokerBench.started(partition_state())
    reply = bench.replies[bench.send(request_)]
    assert isinstance(reply, Problem)
    assert reply.code == InvalidRequest.code
    assert str(MAX) in reply.detail
    assert str(MAX + 1) in reply.detail


@pytest.mark.parametrize("request_", naming(MAX), ids=lambda request: type(request).__name__)
def test_as_much_as_is_allowed_is_no_fault(request_: Message) -> None:
    check_bounds(request_, BENCH.settings.limits)


def test_metadata_of_everything_is_no_list() -> None:
    check_bounds(Metadata(None), BENCH.settings.limits)
    check_bounds(CommittedOffsets("g", None), BENCH.settings.limits)
