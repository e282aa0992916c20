"""Invariants: what must hold after every event, by the names that the public TLA+ models of Kafka
use, where they have one.

AckedBatchesSurvive          an acks=all answer names a committed batch. Every leader has all of the committed log
OneLeaderPerEpoch            (with EpochMonotonic: no epoch ever goes back, in logs, roles or metadata)
HighWatermarkMonotonic       per role, and as shown to clients across epochs
LogMatching, OffsetsContiguous, ConsistentRead, DurableSurvives, EpochCacheMatchesLog          history.py
LogStartMonotonic, LogStartCommitted, LogStartByRetention, LogStartPublished, ZombiesDeleteNothing     log_starts.py
MinIsrAtAck                  an acks=all answer to a new write names an ISR of at least min.insync.replicas
IsrWithinReplicas            ClusterImage.check_invariants on the journalled truth
LeaderFromIsr                a new leader was in the ISR or the ELR, or holds what all last known members hold
LeaderCandidateCompleteness  every running member of ISR and ELR holds the committed log
ReplicationQuorumSuperset    what a current leader counts with contains all the controller may elect
MetadataLogMatching          what brokers are told is the journal, record by record
HighWatermarkCommitted       no follower has, and no reader is told, a high watermark above what is committed
LagIsTrue                    a follower that says it is X ms behind shows all that was committed before     freshness.py
CopiesAtAck                  acks=N was answered when N members of the ISR held the record, the leader among them
WeakAcksSurvive              acks=1, acks=N: lost only where no holder could answer. At no planned stop     weak_acks.py
ProducerStateOfLog           (R32) what a replica knows of producers is what its batches say: at recovery, cuts, the end
ProducerIdsNeverReused       (R33) ProducerSequences, in order and once: numbered.py, schedule.py
CompleteCopies               replicas go by a move, when all of its target hold the committed log and the ISR is no smaller
RemovedCopiesOnly            no broker deletes the copy of a partition that counts on it, or may do so again
WaitersEndOnce               no request is answered twice (broker_node.py) or later than it may be
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from minilog.config import BrokerSettings
from minilog.core.image import ClusterImage, PartitionState
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.log_start import end_epoch
from minilog.core.replication.progress import Proposal
from minilog.core.replication.replica import Replica
from minilog.errors import OffsetOutOfRange
from minilog.wire.group_messages import GroupRequest
from minilog.wire.journal.metadata_records import (
    NO_LEADER,
    BrokerShuttingDown,
    BrokerUnfenced,
    MetadataRecord,
    PartitionChanged,
    TopicDeleted,
)
from minilog.wire.messages import (
    ACKS_ALL,
    Fetch,
    FetchPartition,
    FetchReply,
    FetchResult,
    HeartbeatReply,
    InitProducer,
    InitProducerReply,
    Message,
    OffsetsReply,
    Problem,
    Produce,
    ProduceReply,
    ProduceResult,
)
from minilog.wire.topic_partition import TopicPartition
from tests.sim.checks.ballots import Ballots
from tests.sim.checks.freshness import CLOCK_DRIFT_MAX, promised_since
from tests.sim.checks.history import Entry, History, PartitionHistory, WatchedLog
from tests.sim.checks.weak_acks import Witness
from tests.sim.nodes.broker_node import BrokerNode
from tests.sim.nodes.network import Inbound
from tests.sim.nodes.world import Violation

GROUP_WAIT_MS = BrokerSettings(broker_id=0, data_dir="/").group_wait_ms


class Seen(NamedTuple):
    """A replica as it was after the last turn."""

    role: LeaderState | FollowerState
    topic_id: str
    high_watermark: int
    state: PartitionState
    proposal: Proposal | None
    published_start: int

    @property
    def counted(self) -> frozenset[int]:
        """Whom a leader counts, proposed members included."""
        proposed = self.proposal.members if self.proposal is not None else ()
        return frozenset(self.state.isr) | {member.broker_id for member in proposed}


class Invariants:
    def __init__(self, history: History, brokers: dict[int, BrokerNode]) -> None:
        self.history = history
        self.brokers = brokers
        self.truth = ClusterImage()
        self.ballots = Ballots(brokers)
        self.journal: list[MetadataRecord] = []
        self.figures: Counter[str] = Counter()
        self.producer_ids: set[int] = set()
        """Every one ever given away (R33)."""
        history.check_deletion = self._check_deletion
        self._seen: dict[tuple[int, int, TopicPartition], Seen] = {}

    # --- brokers ----------------------------------------------------------------------------------

    def after_broker_turn(self, node: BrokerNode) -> None:
        assert node.core is not None
        for partition, replica in node.core.replicas.items():
            self._look_at(node, partition, replica)
        if node.core.image.metadata_offset > len(self.journal):
            raise Violation(
                "MetadataLogMatching", f"{node.name} stands at {node.core.image.metadata_offset} of {len(self.journal)}"
            )

    def _look_at(self, node: BrokerNode, partition: TopicPartition, replica: Replica) -> None:
        key = (node.node_id, node.life, partition)
        seen, role = self._seen.get(key), replica.role
        proposal, published = (role.proposal, role.log_start.published) if isinstance(role, LeaderState) else (None, -1)
        log = replica.log
        assert isinstance(log, WatchedLog)
        log.history.starts.on_end(log.mirror.end_offset, node.world.now_ms)
        now = Seen(role, replica.topic_id, role.high_watermark, role.state, proposal, published)
        unchanged = seen is not None and seen[0] is role and seen[2:] == now[2:]
        if unchanged and not log.truncated and not log.start_moved:
            return
        self._seen[key] = now
        self.figures["checks"] += 1
        history = self.history.of(*_names(partition, replica.topic_id))
        self._check_epochs(node, partition, seen, now)
        if isinstance(role, LeaderState):
            self._check_leader(node, role, log, history, seen)
        elif role.high_watermark > history.committed.end_offset:
            self._fail_high_watermark(node, partition, role.high_watermark, history)
        self._check_start(node, role, log, history, seen)
        if log.truncated:
            log.truncated = False
            self._check_candidates(partition, [node.node_id])

    def _check_epochs(self, node: BrokerNode, partition: TopicPartition, seen: Seen | None, now: Seen) -> None:
        if seen is None or seen.topic_id != now.topic_id:
            return
        if now.role.leader_epoch < seen.role.leader_epoch:
            raise Violation(
                "EpochMonotonic", f"{node.name} {partition}: {seen.role.leader_epoch} to {now.role.leader_epoch}"
            )
        if now.role is seen.role and isinstance(now.role, LeaderState) and now.high_watermark < seen.high_watermark:
            raise Violation(
                "HighWatermarkMonotonic", f"{node.name} {partition}: {seen.high_watermark} to {now.high_watermark}"
            )

    def _check_leader(
        self, node: BrokerNode, role: LeaderState, log: WatchedLog, history: PartitionHistory, seen: Seen | None
    ) -> None:
        if seen is None or seen.role is not role:
            history.on_lead(node.name, node.node_id, role.leader_epoch, log.mirror)
            self.figures["leaderships"] += 1
        if history.on_commit(node.name, role.leader_epoch, log.mirror, role.high_watermark):
            history.commits.add(node.world.now_ms, role.high_watermark)
            self._check_candidates(role.partition)
        self._check_quorum(role)

    def _check_start(
        self,
        node: BrokerNode,
        role: LeaderState | FollowerState,
        log: WatchedLog,
        history: PartitionHistory,
        seen: Seen | None,
    ) -> None:
        is_new_role = seen is None or seen.role is not role
        if is_new_role:
            history.starts.on_role(node.node_id, role.leader_epoch)
        if isinstance(role, LeaderState):
            history.starts.on_published(node.name, role, log, node.wall_ms, node.world.now_ms, is_new_role=is_new_role)
        if log.start_moved:
            counted = frozenset(role.maximal_isr) if isinstance(role, LeaderState) else frozenset()
            if seen is not None and seen.role is role:  # whom this turn has proposed came after the log had moved
                counted = counted & seen.counted
            history.starts.on_moved(node.name, role, log.mirror, history.committed, log.inner.start_offset, counted)
            log.settle_start()

    def _check_quorum(self, role: LeaderState) -> None:
        state = self.truth.partition(*role.partition)
        if state is None or state.topic_id != role.topic_id or state.leader_epoch != role.leader_epoch:
            return
        if len(role.state.isr) >= role.min_isr and not role.maximal_isr >= {*state.isr, *state.elr}:
            raise Violation(
                "ReplicationQuorumSuperset",
                f"{role.partition}: the leader counts {role.maximal_isr}, the truth is {state}",
            )

    def _check_candidates(self, partition: TopicPartition, only: Iterable[int] | None = None) -> None:
        state = self.truth.partition(*partition)
        if state is None:
            return
        topic = self.truth.topics[state.topic]
        history = self.history.of(state.topic, state.topic_id, state.partition)
        for broker_id in {*state.isr, *state.elr}.intersection(state.replicas if only is None else only):
            node = self.brokers[broker_id]
            log = node.store.open_log(*partition, state.topic_id)
            excused = node.wiped or (node.lossy and topic.settings.flush_policy != "commit")
            if log is None or excused:
                continue
            self.figures["checks"] += 1
            history.check_complete("LeaderCandidateCompleteness", f"{node.name} ({state})", log.mirror)

    # --- answers ----------------------------------------------------------------------------------

    def on_broker_reply(self, node: BrokerNode, request: Message, response: Message) -> None:
        match response:
            case ProduceReply():
                assert isinstance(request, Produce)
                self._on_produced(node, request, response)
            case FetchReply():
                assert isinstance(request, Fetch)
                self._on_fetched(node, request, response)
            case InitProducerReply():
                if response.producer_id in self.producer_ids:
                    raise Violation("ProducerIdsNeverReused", f"{node.name} gives {response.producer_id} away again")
                self.producer_ids.add(response.producer_id)
            case OffsetsReply():
                for result in response.partitions:
                    if result.problem is None and result.offset is not None and result.timestamp is None:
                        self.figures["checks"] += 1

    def _history(self, node: BrokerNode, topic: str, partition: int) -> PartitionHistory:
        assert node.core is not None
        replica = node.core.replicas[TopicPartition(topic, partition)]
        return self.history.of(topic, replica.topic_id, partition)

    def _on_produced(self, node: BrokerNode, request: Produce, reply: ProduceReply) -> None:
        assert len(reply.partitions) == len(request.partitions)
        for result in reply.partitions:
            if result.problem is not None or result.base_offset is None:
                continue
            assert result.end_offset is not None
            assert result.leader_epoch is not None
            assert result.crc is not None
            self.figures["checks"] += 1
            history = self._history(node, result.topic, result.partition)
            history.receipts.add((result.base_offset, result.crc))
            if result.acks == ACKS_ALL:
                # The commit that woke the waiter happened in this very turn.
                self.after_broker_turn(node)
                history.on_acked(node.name, result.base_offset, result.end_offset, result.leader_epoch, result.crc)
                self._check_min_isr(node, result)
                self.figures["acked_all"] += result.end_offset - result.base_offset
            else:
                self._on_weakly_acked(node, result, history)
                self.figures["acked_less"] += result.end_offset - result.base_offset

    def _on_weakly_acked(self, node: BrokerNode, result: ProduceResult, history: PartitionHistory) -> None:
        assert node.core is not None
        replica = node.core.replicas[TopicPartition(result.topic, result.partition)]
        assert isinstance(replica.log, WatchedLog)
        assert result.base_offset is not None
        assert result.end_offset is not None
        assert result.acks is not None
        mirror = replica.log.mirror
        entries = [e for b in result.base_offsets if (e := mirror.at(b)) is not None]
        state = self.truth.partition(result.topic, result.partition)
        deposed = state is None or state.topic_id != replica.topic_id or state.leader_epoch > replica.leader_epoch
        entries = entries or mirror.between(result.base_offset, result.end_offset)
        if not deposed:
            self._check_copies(node, replica, entries, result.acks)
        history.weak.on_acked(entries, history.committed.end_offset, deposed=deposed)

    def _check_copies(self, node: BrokerNode, replica: Replica, entries: list[Entry], acks: int) -> None:
        """acks=N was said when N members of the ISR held it. Whoever is not there to be looked at
        is believed."""
        name = replica.partition
        holders = [b for b in replica.role.state.isr if all(self._may_hold(b, replica, entry) for entry in entries)]
        self.figures["checks"] += 1
        if len(holders) < acks:
            raise Violation("CopiesAtAck", f"{node.name} {name}: acks={acks} of {entries}, and only {holders} hold it")

    def _may_hold(self, broker_id: int, replica: Replica, entry: Entry) -> bool:
        node = self.brokers[broker_id]
        log = node.store.open_log(*replica.partition, replica.topic_id)
        other = None if node.core is None else node.core.replicas.get(replica.partition)
        if log is None or other is None or other.leader_epoch > replica.leader_epoch:
            return True
        is_commit = replica.settings.flush_policy == "commit"
        end_offset = log.inner.durable_end if is_commit else log.inner.end_offset
        return end_offset >= entry.end_offset and log.mirror.at(entry.base_offset) in (entry, None)

    def _check_min_isr(self, node: BrokerNode, result: ProduceResult) -> None:
        """R11, against the settings of the topic itself. A repeated batch was committed before:
        nothing new is promised."""
        assert node.core is not None
        replica = node.core.replicas[TopicPartition(result.topic, result.partition)]
        needed = min(replica.settings.min_insync_replicas, len(replica.role.state.replicas))
        if len(result.isr) < needed and not result.duplicate:
            raise Violation("MinIsrAtAck", f"{node.name} acknowledged with an ISR of {result.isr}, needed are {needed}")

    def _on_fetched(self, node: BrokerNode, request: Fetch, reply: FetchReply) -> None:
        for fetch, result in zip(request.partitions, reply.partitions, strict=True):
            if result.problem is not None:
                self._check_range(node, fetch, result.problem)
                continue
            self.figures["checks"] += 1
            self.after_broker_turn(node)
            history = self._history(node, result.topic, result.partition)
            history.on_read(node.name, result.batches)
            if result.high_watermark is not None and result.high_watermark > history.committed.end_offset:
                self._fail_high_watermark(
                    node, TopicPartition(fetch.topic, fetch.partition), result.high_watermark, history
                )
            self._check_lag(node, TopicPartition(fetch.topic, fetch.partition), result, history)
            if result.high_watermark is not None and not request.any_replica:
                history.on_shown(node.name, result.leader_epoch, result.high_watermark)

    def _fail_high_watermark(
        self, node: BrokerNode, partition: TopicPartition, high_watermark: int, history: PartitionHistory
    ) -> None:
        committed = history.committed.end_offset
        raise Violation(
            "HighWatermarkCommitted", f"{node.name} {partition}: {high_watermark}, committed is up to {committed}"
        )

    def _check_lag(
        self, node: BrokerNode, partition: TopicPartition, result: FetchResult, history: PartitionHistory
    ) -> None:
        """What a follower says of its own age is true."""
        assert node.core is not None
        role = node.core.replicas[partition].role
        if not isinstance(role, FollowerState) or result.lag_ms is None or result.high_watermark is None:
            return
        state = self.truth.partition(*partition)
        if state is None or (state.topic_id, state.leader_epoch) != (role.topic_id, role.leader_epoch):
            self.figures["lags told of a replaced leader"] += 1
            return
        self.figures["lags told"] += 1
        now_ms = node.world.now_ms
        since_ms = promised_since(now_ms, result.lag_ms, node.transits)
        committed = history.commits.end_at(since_ms)
        if result.high_watermark < committed:
            raise Violation(
                "LagIsTrue",
                f"{node.name} {partition} says it is {result.lag_ms} ms behind and shows {result.high_watermark}; "
                f"{now_ms - since_ms:.0f} ms ago {committed} was committed{self._doubt(state)}",
            )

    def _doubt(self, state: PartitionState) -> str:
        """Why the leader's high watermark may itself be behind."""
        core = self.brokers[state.leader].core if state.leader in self.brokers else None
        replica = None if core is None else core.replicas.get(TopicPartition(state.topic, state.partition))
        role = None if replica is None else replica.role
        unknown = isinstance(role, LeaderState) and not role.high_watermark_known
        return ", and its new leader does not know the true high watermark yet (R7)" if unknown else ""

    def _check_range(self, node: BrokerNode, fetch: FetchPartition, problem: Problem) -> None:
        """Whoever is told to be outside the log is, and is told where the log begins."""
        if problem.code != OffsetOutOfRange.code:
            return
        assert node.core is not None
        log = node.core.replicas[TopicPartition(fetch.topic, fetch.partition)].log
        told = problem.error().info["log_start_offset"]
        if told != log.start_offset or log.start_offset <= fetch.offset <= log.end_offset:
            raise Violation(
                "ConsistentRead", f"{node.name} of {fetch}: {problem}, it is {log.start_offset} to {log.end_offset}"
            )

    def check_waiting(self, who: str, requests: Iterable[Inbound], now_ms: int, overtime_ms: int) -> None:
        """Nobody waits longer than was agreed (R34)."""
        for inbound in requests:
            request = inbound.request
            wait_ms = getattr(request, "timeout_ms", getattr(request, "max_wait_ms", 0))
            if isinstance(request, GroupRequest):
                wait_ms = GROUP_WAIT_MS
            elif isinstance(request, InitProducer):  # for the controller's answer, or the end of that request
                wait_ms = int(self.brokers[1].settings.peer_timeout_ms * CLOCK_DRIFT_MAX)
            if now_ms - inbound.received_ms > wait_ms + overtime_ms:
                waited_ms = now_ms - inbound.received_ms
                raise Violation("WaitersEndOnce", f"{who}: {request} waits for {waited_ms} ms")

    # --- controller -------------------------------------------------------------------------------

    def on_journalled(self, first: int, records: list[MetadataRecord]) -> None:
        assert first == len(self.journal) + 1
        leaving = {r.broker_id for r in records if isinstance(r, BrokerShuttingDown)}
        leaving = {b for b in leaving if self.ballots.has_drained(b, self.truth.brokers[b].epoch)}
        for index, record in enumerate(records, first):
            self.figures["checks"] += 1
            if isinstance(record, PartitionChanged):
                self._check_move(self.truth.partition(record.topic, record.partition), record)
                self._check_transition(self.truth.partition(record.topic, record.partition), record, leaving)
            if isinstance(record, BrokerUnfenced):
                self._on_unfenced(record)
            if isinstance(record, TopicDeleted):
                self._on_deleted(record)
            self.journal.append(record)
            self.truth.apply(index, record)
        self.truth.check_invariants()
        for _, state in self.truth.partitions():
            self._check_candidates(TopicPartition(state.topic, state.partition))
        for node in self.brokers.values():
            if node.core is not None:
                for replica in node.core.replicas.values():
                    if isinstance(replica.role, LeaderState):
                        self._check_quorum(replica.role)

    def _on_unfenced(self, record: BrokerUnfenced) -> None:
        node = self.brokers[record.broker_id]
        if node.core is not None and node.core.broker_epoch == record.broker_epoch:
            node.lossy = node.wiped = False

    def _on_deleted(self, record: TopicDeleted) -> None:
        for partition in self.truth.topics[record.topic].partitions:
            self.history.of(record.topic, record.topic_id, partition).deleted = True

    def _check_transition(self, old: PartitionState | None, new: PartitionState, leaving: set[int]) -> None:
        if old is None or old.topic_id != new.topic_id or new.leader == NO_LEADER:
            return
        if new.leader == old.leader and new.leader_epoch == old.leader_epoch:
            return
        self.figures["elections"] += 1
        recovery = bool(old.last_known_elr) and not old.isr and not old.elr
        self.figures["recoveries"] += recovery
        if self._is_unclean(new):
            self._on_unclean(new)
            return
        if not recovery and new.leader not in old.isr and new.leader not in old.elr:
            raise Violation("LeaderFromIsr", f"{new} after {old}")
        if recovery:
            self._check_holds_most(old, new)
        asked = next(pool for pool in (old.isr, old.elr, new.replicas) if new.leader in pool)  # R20: the ELR, if no ISR
        heard = (
            self.ballots.voters(new) if self.ballots.is_asked(new) else [b for b in asked if self.brokers[b].running]
        )
        voters = [b for b in heard if b in asked and self.truth.is_eligible(b)]
        witnesses = self._witnesses(new, [*voters, *(leaving & {old.leader})])
        self.history.of(*_names(TopicPartition(new.topic, new.partition), new.topic_id)).weak.on_elected(
            new.leader_epoch, witnesses
        )

    def _check_move(self, old: PartitionState | None, new: PartitionState) -> None:
        """Replicas go when those who stay are complete: all of a target, and of the former replicas,
        where a move goes back and complete ones go, all that run, and as many as acks=all asks
        for."""
        if old is None or old.topic_id != new.topic_id:
            return
        self.figures["moves begun"] += not old.target and bool(new.target)
        goes_back = new.target == old.former if new.target else new.replicas == old.former
        self.figures["moves cancelled"] += [] != old.target != old.former and goes_back
        if set(old.replicas) <= {*new.replicas}:
            self.figures["moves completed"] += bool(old.target) and not new.target
            return
        self.figures["moves completed"] += 1
        minimum = min(self.truth.topics[old.topic].settings.min_insync_replicas, len(new.replicas))
        if {*new.replicas} == {*old.former}:
            going = {*old.replicas} - {*new.replicas}
            coming_back = [r for r in new.replicas if r not in new.isr and self.truth.is_eligible(r)]
            counted = going & {*old.isr, *old.elr, *old.last_known_elr}
            is_whole = not counted or (len(new.isr) >= minimum and not coming_back)
        else:
            is_whole = {*new.isr} == {*new.replicas}
        if not (is_whole and new.leader in new.isr):
            raise Violation("CompleteCopies", f"{new} after {old}, and min.insync.replicas is {minimum}")

    def _check_deletion(self, broker_id: int, topic: str, topic_id: str, partition: int) -> None:
        state = self.truth.partition(topic, partition)
        if state is None or state.topic_id != topic_id:
            return
        self.figures["copies removed"] += 1
        counts = {*state.isr, *state.elr, *state.last_known_elr}
        counts |= {r for r in state.replicas if r in state.former or not state.target}
        if broker_id in counts:
            raise Violation("RemovedCopiesOnly", f"broker {broker_id} deletes its copy of {state}")

    def _check_holds_most(self, old: PartitionState, new: PartitionState) -> None:
        """Who is elected in a recovery holds at least what each of the last known members holds.
        Whose process has died meanwhile is not there to be looked at."""
        places = {}
        for broker_id in (new.leader, *old.last_known_elr):
            log = self.brokers[broker_id].store.open_log(new.topic, new.partition, new.topic_id)
            if log is not None:
                places[broker_id] = (end_epoch(log.inner), log.inner.end_offset)
        if new.leader in places and places[new.leader] < max(places.values()):
            raise Violation("LeaderFromIsr", f"{new} after {old}, which hold {places}")

    def _is_unclean(self, new: PartitionState) -> bool:
        """The journal says so, in the same step."""
        return any(
            (e.topic_id, e.partition, e.leader, e.leader_epoch)
            == (new.topic_id, new.partition, new.leader, new.leader_epoch)
            for e in self.truth.unclean_elections
        )

    def _on_unclean(self, new: PartitionState) -> None:
        node = self.brokers[new.leader]
        log = node.store.open_log(new.topic, new.partition, new.topic_id)
        if log is not None:
            history = self.history.of(new.topic, new.topic_id, new.partition)
            self.figures["lost_uncleanly"] += history.on_unclean(log.mirror)
        self.figures["unclean"] += 1

    def _witnesses(self, state: PartitionState, brokers: Iterable[int]) -> Iterable[Witness]:
        """Those whose word the choice rests on, with what they hold as firmly as the topic asks
        for."""
        for broker_id in brokers:
            node = self.brokers[broker_id]
            log = node.store.open_log(state.topic, state.partition, state.topic_id)
            if log is not None:
                is_commit = log.inner.settings.flush_policy == "commit"
                end_offset = log.inner.durable_end if is_commit else log.inner.end_offset
                left = self.truth.brokers[broker_id].shutting_down
                word = "leaving in order" if left else "a candidate"
                yield Witness(f"{node.name}, {word},", log.mirror, end_offset)

    def on_controller_reply(self, request_id: int, response: Message) -> None:
        if not isinstance(response, HeartbeatReply):
            return
        self.figures["checks"] += 1
        told, truth = list(response.records), self.journal[response.base_offset : response.metadata_offset]
        if response.snapshot:
            if response.metadata_offset < self.truth.metadata_offset:
                return
            told, truth = sorted(told, key=repr), sorted(self.truth.snapshot(), key=repr)
        if told != truth:
            raise Violation("MetadataLogMatching", f"told {told}, the truth is {truth}")


def _names(partition: TopicPartition, topic_id: str) -> tuple[str, str, int]:
    return partition.topic, topic_id, partition.partition
