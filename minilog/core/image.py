"""ClusterImage: what the journal says, as a value both the controller and every broker hold.

Owns: brokers, topics, partitions and their epochs as of ``metadata_offset``. Nothing else changes
it than ``apply`` and ``load``: the live path, the restart path and the brokers' metadata path are
the same code (R29).

Invariants (checked on every apply, fail-stop):
* indexes are contiguous: record ``metadata_offset + 1`` comes next, nothing is skipped or repeated;
* a partition's ``partition_epoch`` grows by exactly one per record (R16), its ``leader_epoch``
  never shrinks;
* ISR and ELR are disjoint subsets of the replicas, and a leader is in the ISR (R20);
* a fenced broker is in no ISR and leads nothing (R26): ``check_invariants``.

Soft state (heartbeats, elections under way, fetch positions) is deliberately not here: it is
relearnt after a restart. Source: Kafka's MetadataImage and KIP-631. The partition record with ELR
is KIP-966's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from minilog.config import TopicSettings, topic_settings
from minilog.errors import InconsistentTopicId
from minilog.wire.metadata_records import (
    NO_LEADER,
    BrokerFenced,
    BrokerRegistered,
    BrokerShuttingDown,
    BrokerUnfenced,
    ControllerStarted,
    MetadataRecord,
    PartitionChanged,
    ProducerIdsAllocated,
    TopicCreated,
    TopicDeleted,
)

PartitionState = PartitionChanged


@dataclass(frozen=True, slots=True)
class BrokerState:
    """One registration. ``epoch`` names the process lifetime (R26)."""

    broker_id: int
    epoch: int
    incarnation: str
    url: str
    rack: str
    fenced: bool = True
    shutting_down: bool = False

    @property
    def state(self) -> str:
        if self.fenced:
            return "fenced"
        return "shutting_down" if self.shutting_down else "running"

    @property
    def eligible(self) -> bool:
        """May be in an ISR or lead (R17, without the broker epoch, which the asker must
        compare)."""
        return not self.fenced and not self.shutting_down


@dataclass(slots=True)
class TopicImage:
    topic: str
    topic_id: str
    config: dict[str, str]
    settings: TopicSettings
    partitions: dict[int, PartitionState] = field(default_factory=dict)


def check_topic_id(topic: str, meant: str, topic_id: str) -> None:
    """``meant``: the id a request names, "" for none. Which of the two is the newer topic is not
    known here.

    Raises InconsistentTopicId."""
    if meant not in ("", topic_id):
        raise InconsistentTopicId(
            f"{topic!r} is topic id {topic_id} here, the request means {meant}: one of the two was deleted, or is not "
            "known here yet; refresh metadata and look which",
            topic_id=topic_id,
        )


def min_isr(topic: TopicImage, state: PartitionState) -> int:
    """The effective min.insync.replicas: never more than there are replicas."""
    return min(topic.settings.min_insync_replicas, len(state.replicas))


class ClusterImage:
    def __init__(self) -> None:
        self.cluster_id = ""
        self.controller_epoch = 0
        self.metadata_offset = 0
        self.next_producer_id = 0
        self.brokers: dict[int, BrokerState] = {}
        self.topics: dict[str, TopicImage] = {}

    # --- reading ----------------------------------------------------------------------------------

    def partition(self, topic: str, partition: int) -> PartitionState | None:
        found = self.topics.get(topic)
        return None if found is None else found.partitions.get(partition)

    def partitions(self) -> Iterator[tuple[TopicImage, PartitionState]]:
        for topic in self.topics.values():
            for state in topic.partitions.values():
                yield topic, state

    def is_eligible(self, broker_id: int) -> bool:
        broker = self.brokers.get(broker_id)
        return broker is not None and broker.eligible

    # --- changing ---------------------------------------------------------------------------------

    def apply(self, index: int, record: MetadataRecord) -> None:
        assert index == self.metadata_offset + 1, f"journal gap: record {index} after {self.metadata_offset}"
        self._apply(record, in_order=True)
        self.metadata_offset = index

    def load(self, metadata_offset: int, records: Iterable[MetadataRecord]) -> None:
        """Replace everything by a snapshot that was taken at ``metadata_offset``."""
        self.__init__()  # type: ignore[misc]
        for record in records:
            self._apply(record, in_order=False)
        self.metadata_offset = metadata_offset

    def snapshot(self) -> list[MetadataRecord]:
        """The image as the shortest list of records that rebuilds it."""
        records: list[MetadataRecord] = [ControllerStarted(self.cluster_id, self.controller_epoch)]
        for b in self.brokers.values():
            records.append(BrokerRegistered(b.broker_id, b.epoch, b.incarnation, b.url, b.rack))
            if not b.fenced:
                records.append(BrokerUnfenced(b.broker_id, b.epoch))
            if b.shutting_down:
                records.append(BrokerShuttingDown(b.broker_id, b.epoch))
        for t in self.topics.values():
            records.append(TopicCreated(t.topic, t.topic_id, t.config))
            records.extend(t.partitions.values())
        if self.next_producer_id:
            records.append(ProducerIdsAllocated(-1, self.next_producer_id))
        return records

    def _apply(self, record: MetadataRecord, *, in_order: bool) -> None:
        match record:
            case PartitionChanged():
                self._apply_partition(record, in_order=in_order)
            case BrokerRegistered():
                self.brokers[record.broker_id] = BrokerState(
                    record.broker_id, record.broker_epoch, record.incarnation, record.url, record.rack
                )
            case BrokerFenced() | BrokerUnfenced() | BrokerShuttingDown():
                self._apply_broker_change(record)
            case TopicCreated():
                assert record.topic not in self.topics, f"topic {record.topic} created twice"
                settings = topic_settings(record.config)
                self.topics[record.topic] = TopicImage(record.topic, record.topic_id, record.config, settings)
            case TopicDeleted():
                assert self.topics[record.topic].topic_id == record.topic_id
                del self.topics[record.topic]
            case ControllerStarted():
                assert record.controller_epoch > self.controller_epoch, "controller epoch must grow (R25)"
                self.cluster_id, self.controller_epoch = record.cluster_id, record.controller_epoch
            case ProducerIdsAllocated():
                assert record.next_producer_id > self.next_producer_id, "producer ids are never handed out twice (R33)"
                self.next_producer_id = record.next_producer_id
            case _:
                raise AssertionError(f"unknown metadata record {record!r}")

    def _apply_broker_change(self, record: BrokerFenced | BrokerUnfenced | BrokerShuttingDown) -> None:
        broker = self.brokers[record.broker_id]
        assert broker.epoch == record.broker_epoch, f"{record!r} is about another process than {broker!r}"
        match record:
            case BrokerFenced():
                broker = replace(broker, fenced=True)
            case BrokerUnfenced():
                broker = replace(broker, fenced=False)
            case BrokerShuttingDown():
                broker = replace(broker, shutting_down=True)
        self.brokers[record.broker_id] = broker

    def _apply_partition(self, state: PartitionState, *, in_order: bool) -> None:
        check_partition(state)
        topic = self.topics[state.topic]
        assert topic.topic_id == state.topic_id
        old = topic.partitions.get(state.partition)
        if old is not None and in_order:
            assert state.partition_epoch == old.partition_epoch + 1, f"{state!r} after {old!r}"
            assert state.leader_epoch >= old.leader_epoch, f"{state!r} after {old!r}"
        topic.partitions[state.partition] = state

    def check_invariants(self) -> None:
        """R26 over the whole image. For tests and the simulator, after each decision."""
        for topic, state in self.partitions():
            check_partition(state)
            for broker_id in state.isr:
                assert not self.brokers[broker_id].fenced, f"fenced broker {broker_id} in ISR of {state!r}"
            if len(state.isr) >= min_isr(topic, state):
                assert not state.elr, f"ELR must be empty while the ISR has min.insync.replicas: {state!r}"


def check_partition(state: PartitionState) -> None:
    assert len(set(state.replicas)) == len(state.replicas), f"a replica twice: {state!r}"
    assert set(state.isr) <= set(state.replicas), f"ISR outside the replicas: {state!r}"
    assert set(state.elr) <= set(state.replicas), f"ELR outside the replicas: {state!r}"
    assert not set(state.isr) & set(state.elr), f"ISR and ELR overlap: {state!r}"
    assert state.leader == NO_LEADER or state.leader in state.isr, f"leader outside the ISR: {state!r}"
