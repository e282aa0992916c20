"""A journal made anew from brokers' copies (R38): which copy is taken, and where the journal
begins."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from minilog.config import ControllerSettings
from minilog.core.controller.controller import ControllerCore
from minilog.core.controller.journal.journal_recovery import (
    EPOCHS_SKIPPED,
    PRODUCER_IDS_SKIPPED,
    choose,
    left_out,
    recovered,
)
from minilog.core.image import ClusterImage
from minilog.errors import InvalidRequest, RefusesToStart
from minilog.wire.journal.metadata_copy import BrokerCopy, MetadataCopy
from minilog.wire.journal.metadata_records import NO_LEADER, ProducerIdsAllocated
from minilog.wire.messages import Register
from tests.unit.core.controller.controller_bench import ControllerBench


def copy_of(bench: ControllerBench, broker_id: int, records: int | None = None, **noted: Any) -> BrokerCopy:
    """What a broker has that has applied so many records of the journal."""
    image = ClusterImage()
    for index, record in enumerate(bench.journal[:records], 1):
        image.apply(index, record)
    metadata = MetadataCopy(
        image.cluster_id,
        image.controller_epoch,
        image.term_id,
        image.metadata_offset,
        image.snapshot(),  # type: ignore[arg-type]
    )
    numbers = {"broker_epoch": 1, "controller_epoch": image.controller_epoch} | noted
    return BrokerCopy(broker_id, metadata=metadata, **numbers)


def eventful() -> ControllerBench:
    bench = ControllerBench()
    bench.create([1, 2, 3])
    bench.restart()
    bench.run(500)
    bench.kill(2)
    bench.run(500)
    return bench


def test_the_copy_that_holds_all_others_is_taken() -> None:
    bench = eventful()
    whole = len(bench.journal)
    copies = [copy_of(bench, 1, whole - 3), copy_of(bench, 2), copy_of(bench, 3, 4)]
    assert choose(copies).source.broker_id == 2
    assert choose(copies).image.snapshot() == bench.core.snapshot()
    assert choose(copies[::2]).source.broker_id == 1
    assert choose([copies[2], BrokerCopy(4, 0, 0, MetadataCopy())]).source.broker_id == 3


def test_brokers_that_differ_are_named_and_nothing_is_taken() -> None:
    """One followed the right journal, the other one an older copy of it that was used."""
    right, other = eventful(), eventful()
    assert right.core.image.cluster_id == other.core.image.cluster_id
    other.journal[:] = right.journal[: len(right.journal) - 4]
    copy = copy_of(other, 2)
    branch = ControllerCore(ControllerSettings(data_dir="/ctl"), Random(99))
    branch.load(copy.metadata.metadata_offset, copy.metadata.records)
    for index, record in enumerate(branch.start(0).records, branch.metadata_offset + 1):
        other.journal.append(record)
        branch.replay(index, record)
    with pytest.raises(InvalidRequest, match="different journals") as refused:
        choose([copy_of(right, 1), copy_of(other, 2)])
    for broker_id in (1, 2):
        assert f"broker {broker_id} stands at record" in refused.value.detail


@pytest.mark.parametrize("copies", [[], [BrokerCopy(1, 5, 2, MetadataCopy())]])
def test_nothing_is_made_from_nothing(copies: list[BrokerCopy]) -> None:
    with pytest.raises(InvalidRequest, match="none of the brokers has a copy"):
        choose(copies)


def test_brokers_of_two_clusters_are_told_apart() -> None:
    copies = [copy_of(ControllerBench(cluster_id=name), at) for at, name in enumerate(("one", "two"), 1)]
    with pytest.raises(InvalidRequest, match="different clusters: one, two"):
        choose(copies)


def test_every_number_goes_on_beyond_what_any_broker_has_noted() -> None:
    bench = eventful()
    copies = [copy_of(bench, 1, broker_epoch=3), copy_of(bench, 2, 5, broker_epoch=500, controller_epoch=9)]
    chosen = choose(copies)
    index, records = recovered(chosen, copies, "recovery")
    core = ControllerCore(ControllerSettings(data_dir="/ctl"), Random(3))
    core.load(index, records)
    assert core.metadata_offset >= 500
    assert core.image.controller_epoch == 10
    assert core.image.topics.keys() == chosen.image.topics.keys()
    assert core.image.brokers == chosen.image.brokers
    assert core.image.next_producer_id == chosen.image.next_producer_id + PRODUCER_IDS_SKIPPED
    assert sum(isinstance(record, ProducerIdsAllocated) for record in records) == 1
    assert core.image.holds(chosen.image.term_id, chosen.image.metadata_offset)


@pytest.mark.parametrize(
    ("live", "isr", "last_known"),
    [((1, 3), [1, 3], []), ((1, 2, 3), [1, 3], []), ((1,), [], [1, 3]), ((), [], [1, 3])],
)
def test_partitions_go_on_in_an_epoch_that_nobody_can_have_led_in(
    live: tuple[int, ...], isr: list[int], last_known: list[int]
) -> None:
    """R38: who was complete by a copy that was saved may be so no more."""
    bench = eventful()
    before = bench.state()
    assert before.isr == [1, 3]
    copies = [copy_of(bench, broker_id, is_live=broker_id in live) for broker_id in (1, 2, 3)]
    index, records = recovered(choose(copies), copies, "recovery")
    image = ClusterImage()
    image.load(index, records)
    image.check_invariants()
    state = image.partition(before.topic, before.partition)
    assert state is not None
    assert state.leader == NO_LEADER
    assert state.leader_epoch == before.leader_epoch + EPOCHS_SKIPPED
    assert state.partition_epoch == before.partition_epoch + EPOCHS_SKIPPED
    assert (state.isr, state.last_known_elr) == (isr, last_known)


@pytest.mark.parametrize(("noted", "said"), [({}, []), ({"broker_epoch": 500}, [2]), ({"controller_epoch": 9}, [2])])
def test_what_no_copy_has_is_said(noted: dict[str, int], said: list[int]) -> None:
    bench = eventful()
    copies = [copy_of(bench, 1), copy_of(bench, 2, 5, **noted)]
    assert left_out(choose(copies), copies) == said


def test_a_broker_that_comes_later_with_more_is_noticed() -> None:
    bench = eventful()
    late, copies = copy_of(bench, 3), [copy_of(bench, 1, len(bench.journal) - 1)]
    index, records = recovered(choose(copies), copies, "recovery")
    core = ControllerCore(ControllerSettings(data_dir="/ctl"), Random(3))
    core.load(index, records)
    core.start(0)
    metadata = late.metadata
    register = Register(3, "p", core.image.cluster_id, "http://b3", "", True, metadata.controller_epoch)
    register.term_id, register.metadata_offset = metadata.term_id, metadata.metadata_offset
    with pytest.raises(RefusesToStart, match="broker 3 has applied"):
        core.handle(1, register, 0)
