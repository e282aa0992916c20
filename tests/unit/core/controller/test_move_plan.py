"""Plans of moves: who goes where, and that nothing goes that need not."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from minilog.core.controller.moves.plan import plan_replicas
from minilog.core.image import ClusterImage
from minilog.errors import InvalidConfig, InvalidReplication, InvalidRequest, UnknownTopic
from minilog.wire.admin_messages import PlanReplicas, PlanReplicasReply
from minilog.wire.journal.metadata_records import (
    BrokerFenced,
    BrokerRegistered,
    BrokerUnfenced,
    MetadataRecord,
    PartitionChanged,
    TopicCreated,
)


def cluster(
    assignment: list[list[int]], brokers: int = 4, racks: str = "", down: tuple[int, ...] = (), min_isr: int = 1
) -> ClusterImage:
    """``racks``: a letter for each broker."""
    image = ClusterImage()
    records: list[MetadataRecord] = []
    for broker_id in range(1, brokers + 1):
        rack = racks[broker_id - 1] if racks else ""
        epoch = len(records) + 1
        records += [
            BrokerRegistered(broker_id, epoch, f"i{broker_id}", "http://b", rack),
            BrokerUnfenced(broker_id, epoch),
        ]
        if broker_id in down:
            records.append(BrokerFenced(broker_id, epoch))
    records.append(TopicCreated("t", "id", {"min.insync.replicas": str(min_isr)}))
    for partition, replicas in enumerate(assignment):
        isr = [r for r in replicas if r not in down]
        records.append(PartitionChanged("t", "id", partition, replicas, isr[0], 0, 0, isr))
    for index, record in enumerate(records, 1):
        image.apply(index, record)
    return image


def after(image: ClusterImage, plan: PlanReplicasReply) -> list[list[int]]:
    found = [list(state.replicas) for state in image.topics["t"].partitions.values()]
    for move in plan.moves:
        found[move.partition] = list(move.replicas)
    return found


def test_a_broker_is_emptied_and_nothing_else_moves() -> None:
    image = cluster([[1, 2, 3], [2, 3, 4], [3, 4, 1], [2, 4, 1]])
    plan = plan_replicas(PlanReplicas(off=[3]), image)
    placed = after(image, plan)
    assert placed == [[1, 2, 4], [2, 1, 4], [4, 2, 1] if placed[2][0] == 4 else [1, 4, 2], [2, 4, 1]]
    assert [(m.partition, m.partition_epoch, len(m.adding)) for m in plan.moves] == [(0, 0, 1), (1, 0, 1), (2, 0, 1)]
    assert plan.problems == []


def test_racks_are_kept_apart() -> None:
    image = cluster([[1, 3], [1, 3], [1, 3]], 5, racks="aabbc")
    placed = after(image, plan_replicas(PlanReplicas(off=[1]), image))
    assert all({"aabbc"[r - 1] for r in members} in ({"a", "b"}, {"b", "c"}) for members in placed)
    assert {r for members in placed for r in members} >= {2, 5}


def test_who_has_fewest_gets_most_and_leaders_are_shared_out() -> None:
    image = cluster([[1, 2]] * 9, 5)
    placed = after(image, plan_replicas(PlanReplicas(off=[1]), image))
    counts = Counter(r for members in placed for r in members)
    assert counts[2] == 9
    assert sorted(counts[b] for b in (3, 4, 5)) == [3, 3, 3]
    leaders = Counter(members[0] for members in placed)
    assert max(leaders.values()) - min(leaders[b] for b in (2, 3, 4, 5)) <= 2


def test_what_cannot_go_is_named() -> None:
    image = cluster([[1, 2, 3], [1, 2, 3]], 3)
    plan = plan_replicas(PlanReplicas(off=[3]), image)
    assert plan.moves == []
    assert plan.problems[0] == "t-0: no running broker is left that could take the replica of broker 3"


def test_one_broker_takes_the_place_of_another() -> None:
    image = cluster([[1, 2], [3, 1], [2, 3]], 5)
    plan = plan_replicas(PlanReplicas(off=[1], onto=[5]), image)
    assert [sorted(members) for members in after(image, plan)] == [[2, 5], [3, 5], [2, 3]]


def test_a_factor_is_raised_and_lowered() -> None:
    image = cluster([[1, 2], [2, 3], [3, 4], [4, 1]], racks="aabb")
    raised = after(image, plan_replicas(PlanReplicas(topic="t", replication_factor=3), image))
    assert [members[:2] for members in raised] == [[1, 2], [2, 3], [3, 4], [4, 1]]
    assert all(len({"aabb"[r - 1] for r in members}) == 2 for members in raised)
    image = cluster([[1, 2, 3], [2, 3, 4]], down=(3,))
    lowered = after(image, plan_replicas(PlanReplicas(topic="t", replication_factor=2), image))
    assert lowered == [[1, 2], [2, 4]]
    assert plan_replicas(PlanReplicas(topic="t", replication_factor=3), image).moves == []


def test_what_was_added_takes_its_share_with_few_moves() -> None:
    image = cluster([[1, 2], [2, 3], [3, 1], [1, 3], [2, 1], [3, 2]], 4)
    plan = plan_replicas(PlanReplicas(spread=True), image)
    counts = Counter(r for members in after(image, plan) for r in members)
    assert sorted(counts.values()) == [3, 3, 3, 3]
    assert sum(len(move.adding) for move in plan.moves) == 3
    assert plan_replicas(PlanReplicas(spread=True), cluster([[1, 2], [3, 4]])).moves == []


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (PlanReplicas(), InvalidRequest),
        (PlanReplicas(off=[9]), InvalidRequest),
        (PlanReplicas(off=[1], onto=[2]), InvalidReplication),
        (PlanReplicas(off=[1], onto=[1]), InvalidReplication),
        (PlanReplicas(topic="absent", replication_factor=2), UnknownTopic),
        (PlanReplicas(topic="t", replication_factor=5), InvalidReplication),
        (PlanReplicas(topic="t", replication_factor=1), InvalidConfig),
    ],
)
def test_what_makes_no_sense_is_refused(request_: PlanReplicas, error: type[Exception]) -> None:
    with pytest.raises(error):
        plan_replicas(request_, cluster([[1, 2]], down=(2,), min_isr=2))


@pytest.mark.parametrize("seed", range(60))
def test_no_plan_loses_a_replica_or_names_one_twice(seed: int) -> None:
    rng = Random(seed)
    brokers, factor = rng.randint(2, 7), rng.randint(1, 3)
    factor = min(factor, brokers)
    assignment = [rng.sample(range(1, brokers + 1), factor) for _ in range(rng.randint(1, 12))]
    image = cluster(assignment, brokers, racks="".join(rng.choice("abc") for _ in range(brokers)))
    off = rng.sample(range(1, brokers + 1), rng.randint(1, brokers - 1))
    plan = plan_replicas(PlanReplicas(off=off, spread=rng.random() < 0.5), image)
    stays = {problem.partition(":")[0] for problem in plan.problems}
    for partition, members in enumerate(after(image, plan)):
        assert len(set(members)) == len(members) == factor
        assert f"t-{partition}" in stays or not set(members) & set(off)
