"""The cluster image: replaying, snapshots, and what it refuses to become."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from minilog.config import ControllerSettings
from minilog.core.controller.elections.partition_change import (
    candidates,
    with_isr,
    with_leader,
    without_replica,
    without_unclean,
)
from minilog.core.controller.journal.metadata_draft import MetadataDraft
from minilog.core.controller.topics import create_topic, delete_topic
from minilog.core.image import ClusterImage, check_partition, min_isr
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    BrokerFenced,
    BrokerRegistered,
    BrokerShuttingDown,
    BrokerUnfenced,
    ControllerStarted,
    MetadataRecord,
    ProducerIdsAllocated,
    TopicCreated,
    TopicDeleted,
)
from minilog.wire.messages import CreateTopic, DeleteTopic
from tests.unit.core.builders import TOPIC, TOPIC_ID, image_of, partition_state, topic_records


def contents(image: ClusterImage) -> tuple[object, ...]:
    topics = {t.topic: (t.topic_id, t.config, t.settings, t.partitions) for t in image.topics.values()}
    return (
        image.cluster_id, image.controller_epoch, image.metadata_offset, image.next_producer_id, image.brokers, topics
    )  # fmt: skip


def loaded(image: ClusterImage) -> ClusterImage:
    copy = ClusterImage()
    copy.load(image.metadata_offset, image.snapshot())
    return copy


# --- random lives of a cluster --------------------------------------------------------------------


class Cluster:
    """Makes valid records, as a controller would, and journals them."""

    def __init__(self) -> None:
        self.image = ClusterImage()
        self.journal: list[MetadataRecord] = []
        self.write([ControllerStarted("cluster", 1)])

    def write(self, records: list[MetadataRecord]) -> None:
        for record in records:
            self.journal.append(record)
            self.image.apply(len(self.journal), record)
        self.image.check_invariants()

    def step(self, name: str, broker_id: int) -> None:
        draft = MetadataDraft(self.image)
        getattr(self, name)(draft, broker_id)
        self.write(draft.records())

    def register(self, draft: MetadataDraft, broker_id: int) -> None:
        known = self.image.brokers.get(broker_id)
        if known is None or known.fenced:
            for state, _ in list(draft.partitions()):
                draft.change(without_unclean(state, broker_id))
            draft.add(
                BrokerRegistered(broker_id, draft.next_index, f"p{draft.next_index}", "http://x", f"r{broker_id}")
            )

    def unfence(self, draft: MetadataDraft, broker_id: int) -> None:
        known = self.image.brokers.get(broker_id)
        if known is not None and known.fenced:
            draft.add(BrokerUnfenced(broker_id, known.epoch))

    def fence(self, draft: MetadataDraft, broker_id: int) -> None:
        known = self.image.brokers.get(broker_id)
        if known is not None and not known.fenced:
            draft.ineligible.add(broker_id)
            draft.add(BrokerFenced(broker_id, known.epoch))
            for state, minimum in list(draft.partitions()):
                draft.change(without_replica(state, broker_id, minimum, draft.is_eligible))

    def leave(self, draft: MetadataDraft, broker_id: int) -> None:
        known = self.image.brokers.get(broker_id)
        if known is not None and not known.fenced:
            draft.add(BrokerShuttingDown(broker_id, known.epoch))

    def expand(self, draft: MetadataDraft, broker_id: int) -> None:
        for state, minimum in list(draft.partitions()):
            if state.leader != NO_LEADER and broker_id in state.replicas and self.image.is_eligible(broker_id):
                draft.change(with_isr(state, [*state.isr, broker_id], minimum))

    def elect(self, draft: MetadataDraft, broker_id: int) -> None:
        for state, minimum in list(draft.partitions()):
            if state.leader == NO_LEADER and broker_id in candidates(state, self.image.is_eligible):
                draft.change(with_leader(state, broker_id, minimum))

    def create(self, draft: MetadataDraft, broker_id: int) -> None:
        live = [b for b in self.image.brokers if self.image.is_eligible(b)]
        name = f"t{broker_id}"
        if live and name not in self.image.topics:
            request = CreateTopic(name, broker_id, config={"min.insync.replicas": "1"})
            for record in create_topic(request, self.image, ControllerSettings(data_dir="x"), Random(1)):
                draft.add(record)

    def delete(self, draft: MetadataDraft, broker_id: int) -> None:
        if f"t{broker_id}" in self.image.topics:
            for record in delete_topic(DeleteTopic(f"t{broker_id}"), self.image):
                draft.add(record)

    def allocate(self, draft: MetadataDraft, broker_id: int) -> None:
        draft.add(ProducerIdsAllocated(broker_id, self.image.next_producer_id + 1000))

    def restart(self, draft: MetadataDraft, broker_id: int) -> None:
        draft.add(ControllerStarted("cluster", self.image.controller_epoch + 1))


STEPS = ["register", "unfence", "fence", "leave", "expand", "elect", "create", "delete", "allocate", "restart"]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 4)), max_size=40))
@settings(deadline=None, max_examples=50)
def test_a_snapshot_loads_into_what_replaying_the_journal_gives(steps: list[tuple[str, int]]) -> None:
    cluster = Cluster()
    for name in ("register", "unfence"):
        for broker_id in (1, 2, 3):
            cluster.step(name, broker_id)
    for name, broker_id in steps:
        cluster.step(name, broker_id)
    replayed = ClusterImage()
    for index, record in enumerate(cluster.journal, 1):
        replayed.apply(index, record)
    assert contents(replayed) == contents(cluster.image)
    assert contents(loaded(cluster.image)) == contents(cluster.image)
    assert loaded(cluster.image).snapshot() == cluster.image.snapshot()


def test_a_snapshot_goes_on_where_the_journal_goes_on() -> None:
    image = image_of(*topic_records(partition_state()))
    copy = loaded(image)
    for each in (image, copy):
        each.apply(each.metadata_offset + 1, partition_state(partition_epoch=11, isr=[1, 2]))
    assert contents(copy) == contents(image)


def test_loading_forgets_everything_that_was_known_before() -> None:
    image = image_of(*topic_records(partition_state()))
    image.load(7, [ControllerStarted("other", 4)])
    assert contents(image) == ("other", 4, 7, 0, {}, {})


# --- what the image refuses -----------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 2, -1])
def test_a_gap_or_a_repetition_in_the_journal_is_refused(step: int) -> None:
    image = image_of()
    before = contents(image)
    with pytest.raises(AssertionError, match="journal gap"):
        image.apply(image.metadata_offset + step, ProducerIdsAllocated(1, 1000))
    assert contents(image) == before


KNOWN = partition_state(partition_epoch=10, leader_epoch=5)
REFUSED: dict[str, MetadataRecord] = {
    "partition epoch stays": KNOWN,
    "partition epoch leaps": replace(KNOWN, partition_epoch=12),
    "partition epoch goes back": replace(KNOWN, partition_epoch=9),
    "leader epoch goes back": replace(KNOWN, partition_epoch=11, leader_epoch=4),
    "another topic id": replace(KNOWN, partition_epoch=11, topic_id="other"),
    "leader outside the ISR": replace(KNOWN, partition_epoch=11, isr=[2, 3]),
    "ISR and ELR overlap": replace(KNOWN, partition_epoch=11, elr=[3]),
    "ISR outside the replicas": replace(KNOWN, partition_epoch=11, isr=[1, 4]),
    "ELR outside the replicas": replace(KNOWN, partition_epoch=11, elr=[4]),
    "a replica twice": replace(KNOWN, partition_epoch=11, replicas=[1, 2, 2]),
    "a topic twice": TopicCreated(TOPIC, "another", {}),
    "deleting another topic of that name": TopicDeleted(TOPIC, "another"),
    "the controller epoch stays": ControllerStarted("cluster", 1),
    "producer ids again": ProducerIdsAllocated(1, 0),
    "fencing another process": BrokerFenced(1, 99),
    "unfencing another process": BrokerUnfenced(1, 99),
    "another process leaving": BrokerShuttingDown(1, 99),
}


@pytest.mark.parametrize("record", REFUSED.values(), ids=REFUSED)
def test_what_breaks_an_invariant_is_refused(record: MetadataRecord) -> None:
    image = image_of(*topic_records(KNOWN))
    with pytest.raises(AssertionError):
        image.apply(image.metadata_offset + 1, record)
    assert image.partition(TOPIC, 0) == KNOWN


def test_check_partition_accepts_a_sound_one() -> None:
    check_partition(partition_state(isr=[1], elr=[2], last_known_elr=[3]))


def fence(image: ClusterImage) -> None:
    image.apply(image.metadata_offset + 1, BrokerFenced(2, image.brokers[2].epoch))


def fill_elr(image: ClusterImage) -> None:
    image.apply(image.metadata_offset + 1, replace(KNOWN, partition_epoch=11, isr=[1, 2], elr=[3]))


@pytest.mark.parametrize(("breach", "what"), [(fence, "fenced broker 2"), (fill_elr, "ELR must be empty")])
def test_check_invariants_finds_what_single_records_cannot_show(
    breach: Callable[[ClusterImage], None], what: str
) -> None:
    image = image_of(*topic_records(KNOWN, min_isr=2))
    image.check_invariants()
    breach(image)
    with pytest.raises(AssertionError, match=what):
        image.check_invariants()


# --- reading it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "state", "eligible"),
    [
        ([], "fenced", False),
        ([BrokerUnfenced(1, 2)], "running", True),
        ([BrokerUnfenced(1, 2), BrokerShuttingDown(1, 2)], "shutting_down", False),
        ([BrokerUnfenced(1, 2), BrokerShuttingDown(1, 2), BrokerFenced(1, 2)], "fenced", False),
        ([BrokerUnfenced(1, 2), BrokerFenced(1, 2)], "fenced", False),
    ],
)
def test_the_states_of_a_broker(records: list[MetadataRecord], state: str, eligible: bool) -> None:
    image = image_of(BrokerRegistered(1, 2, "process", "http://one"), *records, brokers=())
    assert image.brokers[1].state == state
    assert image.is_eligible(1) is eligible


def test_a_new_process_of_a_broker_starts_fenced_and_is_not_leaving() -> None:
    image = image_of(BrokerShuttingDown(1, 2), BrokerRegistered(1, 9, "next", "http://new", "rack"))
    broker = image.brokers[1]
    assert (broker.epoch, broker.fenced, broker.shutting_down, broker.url) == (9, True, False, "http://new")


def test_asking_for_what_is_not_there() -> None:
    image = image_of(*topic_records(partition_state()))
    assert image.partition("absent", 0) is None
    assert image.partition(TOPIC, 7) is None
    assert not image.is_eligible(99)
    assert [(t.topic_id, s.partition) for t, s in image.partitions()] == [(TOPIC_ID, 0)]


@pytest.mark.parametrize(("wanted", "replicas", "effective"), [(1, 3, 1), (2, 3, 2), (3, 2, 2), (5, 1, 1)])
def test_min_isr_is_never_more_than_the_replicas(wanted: int, replicas: int, effective: int) -> None:
    state = partition_state(replicas=range(1, replicas + 1))
    image = image_of(*topic_records(state, min_isr=wanted))
    assert min_isr(image.topics[TOPIC], state) == effective
