"""No record is given to two who would write it again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from minilog.core.controller.told.lost_claims import claim_lost
from minilog.core.image import ClusterImage
from minilog.core.lost_replay import without
from minilog.errors import InconsistentTopicId, InvalidRequest, UnknownPartition, UnknownTopic
from minilog.wire.bounded import FEW_MAX
from minilog.wire.journal.metadata_records import (
    BrokerRegistered,
    ControllerStarted,
    MetadataRecord,
    PartitionChanged,
    TopicCreated,
)
from minilog.wire.messages import ClaimLost, ClaimLostReply, LostRun

CLAIM = ClaimLost(1, "t-0:1-10-20@5", "t", "id", 0, [LostRun(1, 10, 20)], "t", "id", 0, 7)


def image_of() -> ClusterImage:
    image = ClusterImage()
    records: list[MetadataRecord] = [
        ControllerStarted("c", 1),
        TopicCreated("t", "id", {}),
        PartitionChanged("t", "id", 0, [1], 1, 0, 0, [1]),
    ]
    for record in records:
        image.apply(image.metadata_offset + 1, record)
    return image


def claim(image: ClusterImage, request: ClaimLost) -> ClaimLostReply:
    records, reply = claim_lost(request, image)
    for record in records:
        image.apply(image.metadata_offset + 1, record)
    assert reply.metadata_offset == image.metadata_offset
    return reply


def test_who_asks_first_has_it_and_is_told_the_same_again() -> None:
    image = image_of()
    first = claim(image, CLAIM)
    assert first.runs == [LostRun(1, 10, 20)]
    again = claim(image, replace(CLAIM, producer_id=99, runs=[LostRun(1, 10, 30)]))
    assert (again.runs, again.producer_id) == (first.runs, 7), "as it was decided"


def test_another_copy_of_the_same_records_gets_only_what_nobody_has() -> None:
    image = image_of()
    claim(image, CLAIM)
    runs = [LostRun(0, 5, 8), LostRun(1, 8, 25), LostRun(2, 25, 30)]
    other = claim(image, replace(CLAIM, broker_id=2, runs=runs))
    assert other.runs == [LostRun(0, 5, 8), LostRun(1, 8, 10), LostRun(1, 20, 25), LostRun(2, 25, 30)]
    assert claim(image, replace(CLAIM, broker_id=3, tail="x")).runs == []


def test_the_same_offsets_of_another_epoch_topic_or_partition_are_other_records() -> None:
    image = image_of()
    claim(image, CLAIM)
    others = [
        replace(CLAIM, broker_id=2, runs=[LostRun(2, 10, 20)]),
        replace(CLAIM, broker_id=3, topic_id="older"),
        replace(CLAIM, broker_id=4, partition=1),
    ]
    for other in others:
        assert claim(image, other).runs == other.runs


def test_where_an_id_is_not_known_the_name_has_to_do() -> None:
    image = image_of()
    claim(image, CLAIM)
    assert claim(image, replace(CLAIM, broker_id=2, topic_id="")).runs == []


def test_a_copy_with_holes_leaves_them_to_others() -> None:
    image = image_of()
    holed = [LostRun(1, 10, 13), LostRun(1, 15, 20)]
    assert claim(image, replace(CLAIM, runs=holed)).runs == holed
    assert claim(image, replace(CLAIM, broker_id=2)).runs == [LostRun(1, 13, 15)]


def test_a_claim_in_more_pieces_than_an_answer_can_have_is_refused_and_takes_nothing() -> None:
    image = image_of()
    even = [LostRun(1, 2 * i, 2 * i + 1) for i in range(FEW_MAX)]
    claim(image, replace(CLAIM, runs=even))
    claim(image, replace(CLAIM, tail="x", runs=[LostRun(1, 2 * FEW_MAX, 2 * FEW_MAX + 1)]))
    with pytest.raises(InvalidRequest, match="export"):
        claim(image, replace(CLAIM, broker_id=2, runs=[LostRun(1, 0, 3 * FEW_MAX)]))
    assert claim(image, replace(CLAIM, broker_id=3, runs=[LostRun(1, 1, 2)])).runs == [LostRun(1, 1, 2)]


def test_claims_outlive_a_snapshot() -> None:
    image = image_of()
    claim(image, CLAIM)
    other = ClusterImage()
    other.load(image.metadata_offset, image.snapshot())
    assert claim(other, replace(CLAIM, broker_id=2)).runs == []


def test_what_cannot_be_is_refused_and_changes_nothing() -> None:
    image = image_of()
    claim(image, CLAIM)
    stood = image.metadata_offset
    fresh = replace(CLAIM, broker_id=2, tail="y")
    refused: list[tuple[type[Exception], ClaimLost]] = [
        (UnknownTopic, replace(fresh, into="gone")),
        (UnknownPartition, replace(fresh, into_partition=9)),
        (InconsistentTopicId, replace(fresh, into_topic_id="older")),
        (InvalidRequest, replace(CLAIM, into_partition=1)),
        (InvalidRequest, replace(fresh, runs=[])),
        (InvalidRequest, replace(fresh, runs=[LostRun(1, 5, 5)])),
        (InvalidRequest, replace(fresh, runs=[LostRun(2, 0, 5), LostRun(1, 5, 6)])),
        (InvalidRequest, replace(fresh, runs=[LostRun(1, 5, 9), LostRun(2, 8, 12)])),
        (InvalidRequest, replace(fresh, runs=[LostRun(1, 5, 9), LostRun(1, 8, 12)])),
        (InvalidRequest, replace(fresh, topic="../x")),
        (InvalidRequest, replace(fresh, partition=-1)),
    ]
    for error, request in refused:
        with pytest.raises(error):
            claim(image, request)
    assert image.metadata_offset == stood


RUNS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(0, 12)), max_size=5).map(
    lambda found: [LostRun(epoch, min(a, b), max(a, b)) for epoch, a, b in found if a != b]
)


@given(RUNS, RUNS)
def test_without_is_what_it_is_for_sets(runs: list[LostRun], taken: list[LostRun]) -> None:
    def records(of: list[LostRun]) -> set[tuple[int, int]]:
        return {(run.leader_epoch, offset) for run in of for offset in range(run.base_offset, run.end_offset)}

    assert records(without(runs, taken)) == records(runs) - records(taken)


def registered(image: ClusterImage, broker_id: int, directory_id: str) -> None:
    index = image.metadata_offset + 1
    image.apply(index, BrokerRegistered(broker_id, index, "p", "http://b", "", directory_id))


def test_what_a_broker_had_claimed_and_lost_with_its_disk_is_written_by_another_copy() -> None:
    image = image_of()
    registered(image, 1, "old")
    mine, other = replace(CLAIM, directory_id="old"), replace(CLAIM, broker_id=2, directory_id="two")
    claim(image, mine)
    assert claim(image, replace(other, tail="a", runs=[LostRun(1, 12, 15)])).runs == [], "it may be writing them"
    registered(image, 1, "new")
    assert claim(image, replace(other, tail="b", runs=[LostRun(1, 5, 15)])).runs == [LostRun(1, 5, 15)]
    assert claim(image, replace(other, tail="c", runs=[LostRun(1, 5, 18)])).runs == [LostRun(1, 15, 18)]
    assert claim(image, mine).runs == [LostRun(1, 18, 20)], "what nobody has taken over"


def test_what_is_said_to_be_written_is_taken_over_by_nobody() -> None:
    image = image_of()
    registered(image, 1, "old")
    mine = replace(CLAIM, directory_id="old")
    claim(image, mine)
    claim(image, replace(mine, finished=True))
    stood = image.metadata_offset
    assert claim(image, replace(mine, finished=True)).metadata_offset == stood
    registered(image, 1, "new")
    assert claim(image, replace(CLAIM, broker_id=2, directory_id="two")).runs == []
    assert image.open_claims() == []


def test_the_end_of_a_claim_that_is_forgotten_changes_nothing() -> None:
    image = image_of()
    stood = image.metadata_offset
    assert claim(image, replace(CLAIM, into="gone", finished=True)).metadata_offset == stood
