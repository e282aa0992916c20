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

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from minilog.config import TopicSettings, topic_settings
from minilog.errors import InconsistentTopicId
from minilog.wire.journal.failovers import FailoverInfo
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    BrokerFenced,
    BrokerRegistered,
    BrokerRemoved,
    BrokerShuttingDown,
    BrokerUnfenced,
    ControllerStarted,
    DiskState,
    EventNoted,
    FailoverNoted,
    LostClaimed,
    MetadataRecord,
    PartitionChanged,
    ProducerIdsAllocated,
    ReplicaName,
    TopicConfigured,
    TopicCreated,
    TopicDeleted,
    UncleanElection,
    UnusedRegistration,
)

PartitionState = PartitionChanged
TERMS_MAX = 1000
"""Whoever was away for longer than so many starts of the controller has its metadata compared with
nothing."""
UNCLEAN_ELECTIONS_MAX = 100
EVENTS_MAX = 1000
FAILOVERS_MAX = 100
LOST_CLAIMS_MAX = 10_000


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
    directory_id: str = ""
    used_directory_id: str = ""
    used_epoch: int = -1
    """The last broker epoch in which a directory of this broker may have been written to, because
    it was unfenced, and which one (R36)."""
    disk: DiskState = DiskState.SAME
    lost: tuple[ReplicaName, ...] = ()
    shown_epoch: int = -1
    unused: tuple[UnusedRegistration, ...] = ()
    """The registrations since it was last unfenced, without this one."""
    version: str = ""

    @property
    def is_used(self) -> bool:
        """It was unfenced: from then on its process may write, and what was found of its disk has
        been acted on."""
        return self.used_epoch == self.epoch

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


class Term(NamedTuple):
    """One start of a controller: ``first_index`` is where its records begin in the journal."""

    controller_epoch: int
    term_id: str
    first_index: int
    session_timeout_ms: int = 0
    version: str = ""


class ClusterImage:
    def __init__(self) -> None:
        self.cluster_id = ""
        self.controller_epoch = 0
        self.terms: list[Term] = []
        """The last ones, in order: those of older versions have no id and are not here."""
        self.metadata_offset = 0
        self.next_producer_id = 0
        self.brokers: dict[int, BrokerState] = {}
        self.topics: dict[str, TopicImage] = {}
        self.unclean_elections: list[UncleanElection] = []
        """The last ones."""
        self.events: deque[EventNoted] = deque(maxlen=EVENTS_MAX)
        """The last ones, in the order of their numbers."""
        self.failovers: list[FailoverInfo] = []
        """The last ones, in the order in which they began."""
        self.lost_claims: dict[tuple[int, str, str, int], LostClaimed] = {}
        """The last ones: which lost records were given to whom, to be written again. By broker and
        tail."""
        self.noted: dict[str, int] = {}
        """By the incarnation of a broker's process: of its events those up to this number are
        noted."""

    # --- reading ----------------------------------------------------------------------------------

    def partition(self, topic: str, partition: int) -> PartitionState | None:
        found = self.topics.get(topic)
        return None if found is None else found.partitions.get(partition)

    @property
    def term_id(self) -> str:
        return self.terms[-1].term_id if self.terms else ""

    @property
    def controller_version(self) -> str:
        """Of the program that began this term, "" where it has not said so."""
        return self.terms[-1].version if self.terms else ""

    def holds(self, term_id: str, metadata_offset: int) -> bool:
        """R38: is that place in a journal one of this journal, so far as its terms are known?"""
        for term, end in self._spans():
            if term.term_id == term_id:
                return metadata_offset < end
        return False

    def _spans(self) -> Iterator[tuple[Term, int]]:
        """Every term, and where its records end."""
        ends = [term.first_index for term in self.terms[1:]] + [self.metadata_offset + 1]
        return zip(self.terms, ends, strict=False)

    def told_ms(self, broker_epoch: int) -> int:
        """The longest session that the process of that epoch may have been told of."""
        return max((term.session_timeout_ms for term, end in self._spans() if end > broker_epoch), default=0)

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
        records: list[MetadataRecord] = [ControllerStarted(self.cluster_id, *term) for term in self.terms]
        if not records:
            records.append(ControllerStarted(self.cluster_id, self.controller_epoch))
        for b in self.brokers.values():
            records.append(
                BrokerRegistered(
                    b.broker_id,
                    b.epoch,
                    b.incarnation,
                    b.url,
                    b.rack,
                    b.directory_id,
                    b.used_directory_id,
                    b.used_epoch,
                    b.disk,
                    list(b.lost),
                    b.shown_epoch,
                    list(b.unused),
                    b.version,
                )
            )
            if not b.fenced:
                records.append(BrokerUnfenced(b.broker_id, b.epoch))
            if b.shutting_down:
                records.append(BrokerShuttingDown(b.broker_id, b.epoch))
        for t in self.topics.values():
            records.append(TopicCreated(t.topic, t.topic_id, t.config))
            records.extend(t.partitions.values())
        records += self.unclean_elections
        records += self.lost_claims.values()
        records += self.events
        records += [FailoverNoted(info) for info in self.failovers]
        if self.next_producer_id:
            records.append(ProducerIdsAllocated(-1, self.next_producer_id))
        return records

    def _apply(self, record: MetadataRecord, *, in_order: bool) -> None:
        match record:
            case PartitionChanged():
                self._apply_partition(record, in_order=in_order)
            case BrokerRegistered():
                before = self.brokers.get(record.broker_id)
                if before is not None and before.incarnation != record.incarnation:
                    self.noted.pop(before.incarnation, None)
                self.brokers[record.broker_id] = BrokerState(
                    record.broker_id,
                    record.broker_epoch,
                    record.incarnation,
                    record.url,
                    record.rack,
                    directory_id=record.directory_id,
                    used_directory_id=record.used_directory_id,
                    used_epoch=record.used_epoch,
                    disk=record.disk,
                    lost=tuple(record.lost),
                    shown_epoch=record.shown_epoch,
                    unused=tuple(record.unused),
                    version=record.version,
                )
            case BrokerFenced() | BrokerUnfenced() | BrokerShuttingDown() | BrokerRemoved():
                self._apply_broker_change(record)
            case TopicCreated():
                assert record.topic not in self.topics, f"topic {record.topic} created twice"
                settings = topic_settings(record.config)
                self.topics[record.topic] = TopicImage(record.topic, record.topic_id, record.config, settings)
            case TopicConfigured() | TopicDeleted():
                self._apply_to_topic(record)
            case ControllerStarted():
                assert record.controller_epoch > self.controller_epoch, "controller epoch must grow (R25)"
                self.cluster_id, self.controller_epoch = record.cluster_id, record.controller_epoch
                if record.term_id:
                    term = Term(
                        record.controller_epoch,
                        record.term_id,
                        record.first_index,
                        record.session_timeout_ms,
                        record.version,
                    )
                    self.terms = [*self.terms[1 - TERMS_MAX :], term]
            case UncleanElection():
                self.unclean_elections = [*self.unclean_elections[1 - UNCLEAN_ELECTIONS_MAX :], record]
            case FailoverNoted():
                self._apply_failover(record.info)
            case EventNoted():
                self.events.append(record)
                if record.source:
                    self.noted[record.source] = max(record.source_number, self.noted.get(record.source, 0))
            case LostClaimed():
                self._apply_claim(record)
            case ProducerIdsAllocated():
                assert record.next_producer_id > self.next_producer_id, "producer ids are never handed out twice (R33)"
                self.next_producer_id = record.next_producer_id
            case _:
                raise AssertionError(f"unknown metadata record {record!r}")

    def _apply_broker_change(self, record: BrokerFenced | BrokerUnfenced | BrokerShuttingDown | BrokerRemoved) -> None:
        broker = self.brokers[record.broker_id]
        assert broker.epoch == record.broker_epoch, f"{record!r} is about another process than {broker!r}"
        match record:
            case BrokerRemoved():
                assert broker.fenced, f"{broker!r} runs"
                del self.brokers[record.broker_id]
                self.noted.pop(broker.incarnation, None)
                return
            case BrokerFenced():
                broker = replace(broker, fenced=True)
            case BrokerUnfenced():
                used = broker.directory_id, broker.epoch
                broker = replace(broker, fenced=False, used_directory_id=used[0], used_epoch=used[1], unused=())
            case BrokerShuttingDown():
                broker = replace(broker, shutting_down=True)
        self.brokers[record.broker_id] = broker

    def _apply_to_topic(self, record: TopicConfigured | TopicDeleted) -> None:
        topic = self.topics[record.topic]
        assert topic.topic_id == record.topic_id
        match record:
            case TopicConfigured():
                topic.config, topic.settings = record.config, topic_settings(record.config)
            case TopicDeleted():
                del self.topics[record.topic]

    def _apply_claim(self, claim: LostClaimed) -> None:
        self.lost_claims[claim.broker_id, claim.tail, claim.topic, claim.partition] = claim
        if len(self.lost_claims) > LOST_CLAIMS_MAX:
            del self.lost_claims[next(iter(self.lost_claims))]

    def open_claims(self) -> list[LostClaimed]:
        """Whose records are not all written again yet, as far as that is said."""
        return [claim for claim in self.lost_claims.values() if _is_open(claim)]

    def is_given_up(self, claim: LostClaimed) -> bool:
        """It is open, and its broker has another data directory by now."""
        broker = self.brokers.get(claim.broker_id)
        return _is_open(claim) and broker is not None and broker.directory_id not in ("", claim.directory_id)

    def _apply_failover(self, info: FailoverInfo) -> None:
        for place, known in enumerate(self.failovers):
            if known.number == info.number:
                self.failovers = [*self.failovers[:place], info, *self.failovers[place + 1 :]]
                return
        self.failovers = [*self.failovers[1 - FAILOVERS_MAX :], info]

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
    if state.target or state.former:
        assert set(state.replicas) >= {*state.target, *state.former}, f"a move outside the replicas: {state!r}"
        assert state.target, f"a move that leads nowhere: {state!r}"
        assert state.former, f"a move from nowhere: {state!r}"
    if state.successor != NO_LEADER:
        assert state.successor in state.isr, f"successor outside the ISR: {state!r}"
        assert state.leader not in (NO_LEADER, state.successor), f"nobody to succeed: {state!r}"


def _is_open(claim: LostClaimed) -> bool:
    return bool(claim.directory_id and claim.runs) and not claim.finished
