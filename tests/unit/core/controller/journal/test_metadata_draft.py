"""One journal step in the making: one record per partition, in an order that replays."""

from __future__ import annotations

from msgspec.structs import replace

from minilog.core.controller.journal.metadata_draft import MetadataDraft
from minilog.wire.journal.metadata_records import BrokerFenced, PartitionChanged
from tests.unit.core.builders import TOPIC, image_of, partition_state, topic_records

STATES = [partition_state(partition=p, partition_epoch=10 * p) for p in range(3)]


def draft() -> MetadataDraft:
    return MetadataDraft(image_of(*topic_records(*STATES, min_isr=2)))


def test_nothing_changed_is_no_record() -> None:
    assert draft().records() == []


def test_however_often_a_partition_changes_it_is_one_record_and_one_epoch() -> None:
    step = draft()
    step.change(replace(STATES[1], isr=[1, 2]))
    step.change(replace(STATES[1], isr=[1]))
    (record,) = step.records()
    assert record == replace(STATES[1], isr=[1], partition_epoch=11)


def test_a_change_taken_back_is_no_record() -> None:
    step = draft()
    step.change(replace(STATES[0], isr=[1, 2]))
    step.change(STATES[0])
    assert step.records() == []


def test_later_looks_see_what_the_step_has_changed() -> None:
    step = draft()
    changed = replace(STATES[2], isr=[1, 2])
    step.change(changed)
    assert [state for state, _ in step.partitions()] == [STATES[0], STATES[1], changed]
    assert step.image.partition(TOPIC, 2) == STATES[2], "the image itself is not touched"


def test_the_effective_min_isr_is_never_more_than_the_replicas() -> None:
    few = partition_state(replicas=[1, 2], partition=0)
    step = MetadataDraft(image_of(*topic_records(few, min_isr=3)))
    assert [minimum for _, minimum in step.partitions()] == [2]


def test_broker_records_come_first_and_know_their_index() -> None:
    step = draft()
    start = step.image.metadata_offset
    step.change(replace(STATES[0], isr=[1, 2]))
    assert step.next_index == start + 1
    step.add(BrokerFenced(3, 6))
    assert step.next_index == start + 2
    first, second = step.records()
    assert first == BrokerFenced(3, 6)
    assert isinstance(second, PartitionChanged)
    image = step.image
    for record in step.records():
        image.apply(image.metadata_offset + 1, record)
    assert image.partition(TOPIC, 0) == second


def test_who_leaves_in_this_step_is_not_eligible_within_it() -> None:
    step = draft()
    assert step.is_eligible(3)
    step.ineligible.add(3)
    assert not step.is_eligible(3)
    assert not step.is_eligible(99)
