"""What would be if brokers were away."""

from __future__ import annotations

import pytest

from minilog.cli.cluster.what_if import broker_ids, consequences
from minilog.cli.output import CliError
from minilog.wire.messages import BrokerInfo, MetadataReply, PartitionInfo, TopicInfo


def metadata(*partitions: PartitionInfo, min_isr: int = 2) -> MetadataReply:
    brokers = [BrokerInfo(broker_id, f"http://{broker_id}", "running", broker_id) for broker_id in (1, 2, 3)]
    return MetadataReply(
        "c", 1, 1, brokers, [TopicInfo("t", "id", [*partitions], {"min.insync.replicas": str(min_isr)})]
    )


def part(
    isr: list[int], leader: int = 1, replicas: tuple[int, ...] = (1, 2, 3), elr: tuple[int, ...] = ()
) -> PartitionInfo:
    return PartitionInfo(0, leader, 0, 0, [*replicas], isr, [*elr])


@pytest.mark.parametrize(
    ("partition", "away", "min_isr", "state"),
    [
        (part([1, 2, 3]), [1], 2, "moves"),
        (part([1, 2, 3]), [2], 2, None),
        (part([1, 2, 3]), [1, 2], 2, "under-min-isr"),
        (part([1, 2, 3]), [1, 2], 1, "one-copy"),
        (part([1, 2]), [2], 2, "under-min-isr"),
        (part([1, 2]), [3], 3, None),
        (part([1, 2, 3]), [1, 2, 3], 1, "offline"),
        (part([1], replicas=(1,)), [1], 2, "offline"),
        (part([2], leader=2, replicas=(2,)), [1], 1, None),
        (part([], leader=-1, elr=(1, 2)), [1], 2, "offline"),
    ],
)
def test_what_becomes_of_a_partition(
    partition: PartitionInfo, away: list[int], min_isr: int, state: str | None
) -> None:
    rows = consequences(metadata(partition, min_isr=min_isr), away)
    assert [row["state"] for row in rows] == ([] if state is None else [state])


def test_the_worst_comes_first() -> None:
    moves, offline = part([1, 2, 3]), PartitionInfo(1, 1, 0, 0, [1], [1])
    assert [row["partition"] for row in consequences(metadata(moves, offline), [1])] == [1, 0]


def test_a_broker_that_nobody_knows_is_refused() -> None:
    with pytest.raises(CliError, match="there is no broker 7; known are 1, 2, 3"):
        consequences(metadata(), [7, 1])


def test_brokers_are_named_in_either_way() -> None:
    assert broker_ids(["2,1", "3"]) == [1, 2, 3]
    for wrong in ("a", "", "-1", "1,,2"):
        with pytest.raises(CliError, match="is no broker id"):
            broker_ids([wrong])
