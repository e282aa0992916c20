"""Coordinator: this broker's partitions of ``__groups``, and the requests about the groups that live on them.

A group lives on the leader of partition ``murmur2(group) % partitions``. Becoming that leader means replaying the whole
log, in bounded chunks per tick, before anything is answered; ceasing to be it means forgetting everything at once.

Owns one ``Shard`` per partition led here: its Groups, how far it is loaded, who waits for what to be committed.

Invariants
* What is decided is appended and replayed in one turn, and nothing that rests on it is shown before it is committed:
  every reply waits until the high watermark has reached the end the log had when it was decided, reads and refusals too.
* A waiter belongs to one leadership (a Shard is bound to its LeaderState); when that ends it fails, a write
  indefinitely (R10, R34).
* A coordinator that may have been replaced answers nobody. It knows it was not while the controller hears it, or while
  every member of the ISR and the ELR still fetches from it: a successor would be one of these. A fetch says that of the time
  when the answer before it was sent, for it may be late itself. Either may be old by the broker session timeout, so a new
  coordinator gives every member that much more than its session.
* What is read (committed offsets, a group) is shown on evidence that is younger than the question (R91). Those who may lead
  instead are called back, so that nobody waits for a long poll to end.

Why not the produce path: no request, no receipt, one waiter per decision instead of one per partition. Source: KIP-848.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from minilog.config import KIB
from minilog.core.broker.lookup import Lookup
from minilog.core.broker.state import LocalState
from minilog.core.broker.turn import Turn
from minilog.core.deadlines import Deadlines
from minilog.core.effects import CONTROLLER_ID, Effect, Reply, Send
from minilog.core.groups.checks import check_name
from minilog.core.groups.groups import Groups
from minilog.core.groups.offsets import Records
from minilog.core.replication.follower_sessions import FollowerSessions
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica
from minilog.core.topic_names import is_internal
from minilog.errors import (
    CoordinatorNotAvailable,
    CorruptBatch,
    CorruptRange,
    DiskFull,
    LeadershipLost,
    MinilogError,
    NotCoordinator,
    NotEnoughReplicas,
    Overloaded,
    RecordTooLarge,
    TimedOut,
)
from minilog.wire.batch import ACKS_MANY, split, stamp
from minilog.wire.group_messages import (
    GROUPS_TOPIC,
    CommitOffsets,
    CommittedOffsets,
    DeleteGroup,
    DescribeGroup,
    GroupHeartbeat,
    GroupInfo,
    GroupRequest,
    LeaveGroup,
    ListGroups,
    ListGroupsReply,
    MissingGroups,
)
from minilog.wire.group_records import TopicShape, decode_record, encode_record
from minilog.wire.messages import ACKS_ALL, CreateTopic, Message, Problem
from minilog.wire.murmur2 import partition_of
from minilog.wire.records import BatchBuilder, decode_batch
from minilog.wire.topic_partition import TopicPartition

OneGroupRequest = GroupHeartbeat | LeaveGroup | CommitOffsets | CommittedOffsets | DescribeGroup | DeleteGroup
CREATE_AGAIN_MS: Final = 1000
LOAD_BYTES: Final = 256 * KIB
"""What is replayed per tick, some 12 ms worth: the partition that has least left comes first."""
LOAD_FIRST_BYTES: Final = 64 * KIB
"""What is replayed at once when a leadership begins: all there is, for most."""
READS: Final = (CommittedOffsets, DescribeGroup)
UNBOUNDED: Final = 2**31 - 1
NOT_WRITTEN: Final = (NotEnoughReplicas, DiskFull, RecordTooLarge)
"""Why a decision is not written: then nothing has changed."""


class ParkedGroupRequest:
    """A reply that waits for one partition or, a list of groups, for several. ``open``: those; none: answered."""

    def __init__(self, request_id: int, reply: Message, deadline_ms: int, *, is_write: bool) -> None:
        self.request_id, self.reply, self.deadline_ms, self.is_write = request_id, reply, deadline_ms, is_write
        self.open: set[TopicPartition] = set()

    def fail(self, lost: set[TopicPartition], error: MinilogError) -> None:
        """What ``lost`` decided will not be confirmed."""
        self.reply, self.open = Problem.of(error), set()


class Listing(ParkedGroupRequest):
    """A list of groups: the partition that refuses or does not confirm is missing in it, and the list says so."""

    def __init__(self, request_id: int, deadline_ms: int) -> None:
        super().__init__(request_id, ListGroupsReply([]), deadline_ms, is_write=False)
        self.found: dict[int, list[GroupInfo]] = {}
        self.missing: list[MissingGroups] = []

    def fail(self, lost: set[TopicPartition], error: MinilogError) -> None:
        for partition in sorted(lost):
            self.found.pop(partition.partition, None)
            self.missing.append(MissingGroups(partition.partition, error.code, error.detail))
        self.open = self.open - lost
        self.finish()

    def finish(self) -> None:
        groups = sorted((info for infos in self.found.values() for info in infos), key=lambda info: info.group)
        self.reply = ListGroupsReply(groups, sorted(self.found), sorted(self.missing))


class WaitingRead(NamedTuple):
    """What was read, and what must be known before it is shown: that all of it is committed, and that nobody else had
    coordinated when it was asked for."""

    end_offset: int
    asked_ms: int
    answers_count: int
    """How many replica fetches had been answered then."""
    parked: ParkedGroupRequest


class Shard:
    """One partition of ``__groups``, led here in one leader epoch."""

    def __init__(self, replica: Replica, role: LeaderState, groups: Groups) -> None:
        self.replica, self.role, self.groups = replica, role, groups
        self.next_offset = replica.log.start_offset
        """The first one that is not replayed yet."""
        self.load_end = replica.log.end_offset
        self.is_loaded = False
        self.damage = ""
        self.waiting: deque[tuple[int, ParkedGroupRequest]] = deque()
        """(offset that must be committed, reply); offsets never decrease."""
        self.reads: deque[WaitingRead] = deque()
        """What these wait for never decreases either."""


class Coordinator:
    def __init__(self, state: LocalState, lookup: Lookup, turn: Turn, followers: FollowerSessions) -> None:
        self._state, self._lookup, self._turn, self._followers = state, lookup, turn, followers
        self.shards: dict[TopicPartition, Shard] = {}
        self.deadlines = Deadlines()
        self._woken: dict[TopicPartition, None] = {}
        self._reading: dict[TopicPartition, None] = {}
        """Partitions in which reads wait."""
        self._failed: list[Effect] = []
        self._asked_ms = -(2**60)
        self._topic_refusal = ""
        self._topics: dict[str, TopicShape] = {}
        self._topics_offset = -1

    # --- roles -------------------------------------------------------------------------------------------------

    def on_lead(self, replica: Replica, now_ms: int) -> None:
        assert isinstance(replica.role, LeaderState)
        if replica.partition.topic == GROUPS_TOPIC:
            state, log = self._state, replica.log
            groups = Groups(state.settings, state.broker_id, state.wall_ms, lambda: log.end_offset)
            shard = Shard(replica, replica.role, groups)
            self.shards[replica.partition] = shard
            self._load(shard, LOAD_FIRST_BYTES, now_ms)

    def on_leave(self, partition: TopicPartition) -> None:
        """Leadership ends: forget the groups, and tell everybody who waits."""
        shard = self.shards.pop(partition, None)
        if shard is None:
            return
        changing = CoordinatorNotAvailable(f"the coordinator is changing ({partition}); retry shortly")
        lost = LeadershipLost(f"the coordinator changed while this waited ({partition}); it may count or not")
        for _, parked in shard.waiting:
            self._fail(parked, {partition}, lost if parked.is_write else changing)
        self._refuse_reads(shard, changing)

    def _load(self, shard: Shard, max_bytes: int, now_ms: int) -> None:
        """Replay the next chunk; the last one opens the coordinator."""
        try:
            data = shard.replica.log.read(shard.next_offset, max_bytes, shard.load_end)
            for batch in split(data, UNBOUNDED, stored=True):
                for record in decode_batch(batch, from_offset=shard.next_offset):
                    shard.groups.replay(decode_record(record.key, record.value))
                shard.next_offset = batch.end_offset
        except (CorruptBatch, CorruptRange) as error:
            shard.damage = error.detail
            return
        if not data or shard.next_offset >= shard.load_end:
            shard.is_loaded = True
            shard.groups.on_topics(self._topics_now())
            shard.groups.begin(now_ms, self._state.session_timeout_ms_max)

    # --- requests ----------------------------------------------------------------------------------------------

    def on_request(self, request_id: int, request: GroupRequest, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        if isinstance(request, ListGroups):
            self._check_room()
            self._list(request_id, effects, now_ms)
            return effects
        check_name(request.group)
        if GROUPS_TOPIC not in self._state.image.topics:
            return self._ask_for_topic(request_id, now_ms)
        shard = self._find(request.group)
        try:
            self._open(shard, now_ms)
            self._check_room()
        except (CoordinatorNotAvailable, Overloaded):
            shard.groups.on_refused(request, now_ms)
            raise
        shard.groups.on_topics(self._topics_now())
        is_write = False
        try:
            records, reply = self._decide(shard, request, now_ms)
            if records:
                self._write(shard, request.group, records, effects, now_ms)
                is_write = True
            shard.groups.on_decided(request, now_ms)
        except MinilogError as error:
            if isinstance(error, NOT_WRITTEN):
                shard.groups.on_refused(request, now_ms)
            reply = Problem.of(error)
        parked = ParkedGroupRequest(request_id, reply, now_ms + self._state.settings.group_wait_ms, is_write=is_write)
        if isinstance(request, READS):
            self._park_read(parked, shard, effects, now_ms)
        else:
            self._park(parked, [shard], effects)
        return effects

    def _check_room(self) -> None:
        if len(self.deadlines) >= self._state.settings.limits.parked_requests_max:
            raise Overloaded(f"{len(self.deadlines)} group requests already wait here, the limit; retry later")

    def _list(self, request_id: int, effects: list[Effect], now_ms: int) -> None:
        listing = Listing(request_id, now_ms + self._state.settings.group_wait_ms)
        shards = []
        for partition, shard in self.shards.items():
            try:
                shards.append(self._open(shard, now_ms))
                listing.found[partition.partition] = shard.groups.infos()
            except CoordinatorNotAvailable as error:
                listing.fail({partition}, error)
        listing.finish()
        self._park(listing, shards, effects)

    def _ask_for_topic(self, request_id: int, now_ms: int) -> list[Effect]:
        """First need: the controller makes the topic, with settings of its own."""
        self._lookup.check_informed()
        error = CoordinatorNotAvailable(
            f"the topic of the consumer groups ({GROUPS_TOPIC}) is being made{self._topic_refusal}; retry shortly"
        )
        effects: list[Effect] = [Reply(request_id, Problem.of(error))]
        if now_ms >= self._asked_ms + CREATE_AGAIN_MS:
            self._asked_ms = now_ms
            effects.append(Send(CONTROLLER_ID, CreateTopic(GROUPS_TOPIC)))
        return effects

    def on_topic_answered(self, answer: Message | MinilogError) -> None:
        """Whoever asks next is told what the controller says against making the topic."""
        self._topic_refusal = f"; so far: {answer.detail}" if isinstance(answer, MinilogError) else ""

    def _find(self, group: str) -> Shard:
        """Raises NotCoordinator, which names who is, or CoordinatorNotAvailable."""
        partitions = self._state.image.topics[GROUPS_TOPIC].partitions
        partition = TopicPartition(GROUPS_TOPIC, partition_of(group.encode(), len(partitions)))
        shard = self.shards.get(partition)
        if shard is not None:
            return shard
        state = partitions[partition.partition]
        broker = self._state.image.brokers.get(state.leader)
        if broker is None or broker.broker_id == self._state.broker_id:
            raise CoordinatorNotAvailable(
                f"{partition}, where group {group!r} lives, has no leader at the moment; retry shortly"
            )
        raise NotCoordinator(
            f"group {group!r} is coordinated by broker {broker.broker_id} at {broker.url}",
            coordinator=broker.broker_id,
            coordinator_url=broker.url,
        )

    def _open(self, shard: Shard, now_ms: int) -> Shard:
        """The shard, if it may answer now; raises CoordinatorNotAvailable."""
        partition = shard.replica.partition
        if shard.damage:
            raise CoordinatorNotAvailable(f"the groups in {partition} cannot be read: {shard.damage}")
        if not shard.is_loaded:
            raise CoordinatorNotAvailable(
                f"broker {self._state.broker_id} is still reading {partition} ({shard.next_offset} of {shard.load_end}); retry shortly"
            )
        if not self._state.accepts_writes:
            raise CoordinatorNotAvailable(f"broker {self._state.broker_id} is handing {partition} over; retry shortly")
        if not self._is_sure(shard, now_ms):
            raise self._unsure(shard)
        return shard

    def _unsure(self, shard: Shard) -> CoordinatorNotAvailable:
        return CoordinatorNotAvailable(
            f"broker {self._state.broker_id} may not lead {shard.replica.partition} any more; retry or ask another"
        )

    def _is_sure(self, shard: Shard, now_ms: int) -> bool:
        """Nobody can have coordinated instead of this broker for longer than a broker session."""
        if self._state.session_over_ms(now_ms) == 0:
            return True
        since_ms, partition = now_ms - self._state.session_timeout_ms, shard.replica.partition
        return all(self._followers.followed(other, partition).sent_ms >= since_ms for other in self._heirs(shard))

    def _heirs(self, shard: Shard) -> set[int]:
        """Who may lead instead of this broker: whoever follows it does not yet."""
        return {*shard.role.maximal_isr, *shard.role.state.elr} - {self._state.broker_id}

    def _decide(self, shard: Shard, request: OneGroupRequest, now_ms: int) -> tuple[Records, Message]:
        groups = shard.groups
        match request:
            case GroupHeartbeat():
                return groups.on_heartbeat(request, now_ms)
            case CommitOffsets():
                return groups.on_commit(request, now_ms)
            case LeaveGroup():
                return groups.on_leave(request, now_ms)
            case CommittedOffsets():
                return [], groups.on_committed(request)
            case DescribeGroup():
                return [], groups.on_describe(request, now_ms)
            case DeleteGroup():
                return groups.on_delete(request)

    # --- writing -------------------------------------------------------------------------------------------------

    def _write(self, shard: Shard, group: str, records: Records, effects: list[Effect], now_ms: int) -> None:
        """Append and replay. Raises NotEnoughReplicas, DiskFull or RecordTooLarge: then nothing has changed."""
        replica = shard.replica
        shard.role.check_acks(ACKS_ALL)
        batches = self._batches(records, replica.settings.max_message_bytes, now_ms)
        size = max(builder.bytes_total for builder in batches)
        if size > replica.settings.max_message_bytes:
            raise RecordTooLarge(
                f"group {group!r}: a change of {size} bytes exceeds the {replica.settings.max_message_bytes} "
                "a coordinator writes at once; use fewer partitions, members or less metadata"
            )
        self._append(shard, [builder.build(acks_level=ACKS_MANY) for builder in batches])
        for record in records:
            shard.groups.replay(record)
        self._followers.on_append(replica.partition)
        self._turn.advance(replica.partition)
        effects += self._turn.appended(replica, now_ms)

    def _batches(self, records: Records, max_bytes: int, now_ms: int) -> list[BatchBuilder]:
        """What is new is one batch, so that no failover finds half of it. What goes may take several: a coordinator that
        finds half of that gone lets the rest go when it is asked again, or when it looks itself."""
        batches = [BatchBuilder()]
        for record in records:
            if record.value is None and batches[-1].bytes_total > max_bytes // 2:
                batches.append(BatchBuilder())
            batches[-1].append(*encode_record(record), (), self._state.wall_ms(now_ms))
        return batches

    def _append(self, shard: Shard, built: list[bytes]) -> None:
        log = shard.replica.log
        offset, stamped = log.end_offset, []
        for data in built:
            batch = split(data, UNBOUNDED)[0]
            stamped.append(stamp(batch, offset, shard.role.leader_epoch, ACKS_MANY))
            offset += batch.record_count
        log.append(stamped)

    # --- waiting -------------------------------------------------------------------------------------------------

    def _park(self, parked: ParkedGroupRequest, shards: list[Shard], effects: list[Effect]) -> None:
        """Answer when everything decided so far is committed."""
        for shard in shards:
            end_offset = shard.replica.log.end_offset
            if shard.role.high_watermark < end_offset:
                shard.waiting.append((end_offset, parked))
                parked.open.add(shard.replica.partition)
        self._wait(parked, effects)

    def _park_read(self, parked: ParkedGroupRequest, shard: Shard, effects: list[Effect], now_ms: int) -> None:
        """What the members of a group begin by must not be older than their question: answer also when it is known that
        nobody else had coordinated then. Those who would, are called back."""
        read = WaitingRead(shard.replica.log.end_offset, now_ms, self._followers.answers_count, parked)
        if not self._may_show(shard, read):
            shard.reads.append(read)
            parked.open.add(shard.replica.partition)
            self._reading[shard.replica.partition] = None
            for broker_id in self._heirs(shard):
                self._followers.call_back(broker_id)
        self._wait(parked, effects)

    def _may_show(self, shard: Shard, read: WaitingRead) -> bool:
        """The controller has answered what this broker asked it after the read came, or all who may lead instead have come
        back after an answer that was sent since."""
        if shard.role.high_watermark < read.end_offset:
            return False
        heard_ms, partition = self._state.registration.heard_ms, shard.replica.partition
        if heard_ms is not None and heard_ms > read.asked_ms:
            return True
        heirs = self._heirs(shard)
        return all(self._followers.followed(heir, partition).number > read.answers_count for heir in heirs)

    def _wait(self, parked: ParkedGroupRequest, effects: list[Effect]) -> None:
        if parked.open:
            self.deadlines.add(parked.deadline_ms, parked.request_id, parked)
        else:
            effects.append(Reply(parked.request_id, parked.reply))

    def wake(self, partition: TopicPartition) -> None:
        """The high watermark of this partition has moved."""
        if partition in self.shards:
            self._woken[partition] = None

    def answer_woken(self) -> list[Effect]:
        effects, self._failed = self._failed, []
        for partition in self._woken:
            shard = self.shards.get(partition)
            while shard is not None and shard.waiting and shard.waiting[0][0] <= shard.role.high_watermark:
                self._confirm(shard.waiting.popleft()[1], partition, effects)
        self._woken.clear()
        for partition in list(self._reading):
            shard = self.shards.get(partition)
            while shard is not None and shard.reads and self._may_show(shard, shard.reads[0]):
                self._confirm(shard.reads.popleft().parked, partition, effects)
            if shard is None or not shard.reads:
                del self._reading[partition]
        return effects

    def _confirm(self, parked: ParkedGroupRequest, partition: TopicPartition, effects: list[Effect]) -> None:
        if partition in parked.open:
            parked.open.remove(partition)
            self._end(parked, effects)

    def _refuse_reads(self, shard: Shard, error: MinilogError) -> None:
        while shard.reads:
            self._fail(shard.reads.popleft().parked, {shard.replica.partition}, error)

    def _fail(self, parked: ParkedGroupRequest, lost: set[TopicPartition], error: MinilogError) -> None:
        lost = lost & parked.open
        if lost:
            parked.fail(lost, error)
            self._end(parked, self._failed)

    def _end(self, parked: ParkedGroupRequest, effects: list[Effect]) -> None:
        """It waits for something less: answer if that was the last."""
        if not parked.open:
            self.deadlines.remove(parked.deadline_ms, parked.request_id)
            effects.append(Reply(parked.request_id, parked.reply))

    # --- time ----------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        for parked in self.deadlines.expire(now_ms):
            assert isinstance(parked, ParkedGroupRequest)
            error = TimedOut(
                "the coordinator's replicas did not confirm in time; the change may count or not",
                definite=not parked.is_write,
            )
            self._fail(parked, parked.open, error)
        for shard in self.shards.values():
            while shard.waiting and not shard.waiting[0][1].open:
                shard.waiting.popleft()  # answered meanwhile, by its deadline
            while shard.reads and not shard.reads[0].parked.open:
                shard.reads.popleft()
            if shard.reads and not self._is_sure(shard, now_ms):
                self._refuse_reads(shard, self._unsure(shard))
        loading = [shard for shard in self.shards.values() if not shard.is_loaded and not shard.damage]
        if loading:
            self._load(min(loading, key=lambda shard: shard.load_end - shard.next_offset), LOAD_BYTES, now_ms)
        for shard in self.shards.values():
            if shard.is_loaded and self._state.accepts_writes:
                shard.groups.on_topics(self._topics_now())
                self._decide_tick(shard, effects, now_ms)
        return effects

    def _decide_tick(self, shard: Shard, effects: list[Effect], now_ms: int) -> None:
        for group, records in shard.groups.tick(now_ms):
            try:
                if records:
                    self._write(shard, group, records, effects, now_ms)
            except NOT_WRITTEN as error:
                shard.groups.postpone(group, now_ms, is_alone=isinstance(error, RecordTooLarge))

    def _topics_now(self) -> dict[str, TopicShape]:
        """The topics groups may share out, as of the metadata this broker knows."""
        image = self._state.image
        if self._topics_offset != image.metadata_offset:
            self._topics_offset = image.metadata_offset
            topics = {
                name: TopicShape(topic.topic_id, len(topic.partitions))
                for name, topic in image.topics.items()
                if not is_internal(name)
            }
            if topics != self._topics:
                self._topics = topics
        return self._topics
