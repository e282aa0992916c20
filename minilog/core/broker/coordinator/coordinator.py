"""Coordinator: this broker's partitions of ``__groups``, and the requests about the groups that
live on them.

A group lives on the leader of partition ``murmur2(group) % partitions``. Becoming that leader means
replaying the whole log, in bounded chunks per tick, before anything is answered. Ceasing to be it
means forgetting everything at once.

Owns one ``GroupShard`` per partition led here. Who waits, and for what, is in ``GroupReplies``.

Invariants
* What is decided is appended and applied in one turn, and nothing that rests on it is shown before
  it is committed (R77).
* What waits belongs to one leadership (a GroupShard is bound to its LeaderState). When that ends it
  fails, a write indefinitely (R10, R34).
* A coordinator that may have been replaced answers nobody (R84). It knows it was not by evidence
  (``Successors``) that may be old by the broker session timeout, so a new coordinator gives every
  member that much more than its session.
* What is read (committed offsets, a group) is shown on evidence that is younger than the question
  (R91). Those who may lead instead are called back, so that nobody waits for a long poll to end.
* Who is refused for want of replicas, room or certainty is heard all the same (R87).

Why not the produce path: no request, no receipt, one waiter per decision instead of one per
partition. Source: KIP-848.
"""

from __future__ import annotations

from typing import Final

from minilog.config import KIB
from minilog.core.broker.coordinator.group_events import GroupEvents
from minilog.core.broker.coordinator.group_replies import GroupReplies
from minilog.core.broker.coordinator.group_shard import GroupShard
from minilog.core.broker.coordinator.group_waiting import Listing, ParkedGroupRequest
from minilog.core.broker.coordinator.successors import Successors
from minilog.core.broker.lookup import Lookup
from minilog.core.broker.state import LocalState
from minilog.core.broker.turn import Turn
from minilog.core.effects import CONTROLLER_ID, Effect, Reply, Send
from minilog.core.groups.checks import check_name
from minilog.core.groups.groups import GroupDecision, Groups
from minilog.core.replication.follower_sessions import FollowerSessions
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica
from minilog.core.topic_names import is_internal
from minilog.errors import (
    CoordinatorNotAvailable,
    DiskFull,
    LeadershipLost,
    MinilogError,
    NotCoordinator,
    NotEnoughReplicas,
    Overloaded,
    RecordTooLarge,
)
from minilog.wire.codec.murmur2 import partition_of
from minilog.wire.group_messages import (
    GROUPS_TOPIC,
    CommittedOffsets,
    DescribeGroup,
    GroupRequest,
    ListGroups,
)
from minilog.wire.journal.group_records import TopicShape
from minilog.wire.messages import ACKS_ALL, CreateTopic, Message, Ok, Problem
from minilog.wire.topic_partition import TopicPartition

CREATE_AGAIN_MS: Final = 1000
LOAD_BYTES: Final = 256 * KIB
"""What is replayed per tick, some 12 ms worth: the partition that has least left comes first."""
LOAD_FIRST_BYTES: Final = 64 * KIB
"""What is replayed at once when a leadership begins: all there is, for most."""
READS: Final = (CommittedOffsets, DescribeGroup)
NOT_WRITTEN: Final = (NotEnoughReplicas, DiskFull, RecordTooLarge)
"""Why a decision is not written: then nothing has changed."""


class Coordinator:
    def __init__(self, state: LocalState, lookup: Lookup, turn: Turn, followers: FollowerSessions) -> None:
        self._state, self._lookup, self._turn, self._followers = state, lookup, turn, followers
        self.shards: dict[TopicPartition, GroupShard] = {}
        self.successors = Successors(state, followers)
        self.replies = GroupReplies(self.shards, self.successors)
        self._seen = GroupEvents(state)
        self._asked_ms = -(2**60)
        self._topic_refusal = ""
        self._topics: dict[str, TopicShape] = {}
        """The topics that groups may share out, as of the metadata that this broker knows."""

    # --- topics -----------------------------------------------------------------------------------

    def on_metadata(self) -> None:
        """The image has changed: tell the groups, for topics may have come or gone."""
        self._seen.on_metadata()
        if self.shards:
            topics = self._topics_now()
            for shard in self.shards.values():
                if shard.is_loaded:
                    shard.groups.on_topics(topics)

    def _topics_now(self) -> dict[str, TopicShape]:
        """The same object as long as nothing has changed: comparing takes as long as there are
        topics."""
        topics = {
            name: TopicShape(topic.topic_id, len(topic.partitions))
            for name, topic in self._state.image.topics.items()
            if not is_internal(name)
        }
        if topics != self._topics:
            self._topics = topics
        return self._topics

    # --- roles ------------------------------------------------------------------------------------

    def on_lead(self, replica: Replica, now_ms: int) -> None:
        assert isinstance(replica.role, LeaderState)
        if replica.partition.topic == GROUPS_TOPIC:
            state, log = self._state, replica.log
            groups = Groups(state.settings, state.broker_id, state.wall_ms, lambda: log.end_offset)
            shard = GroupShard(replica, replica.role, groups)
            self.shards[replica.partition] = shard
            self._seen.on_lead(replica.role)
            self._load(shard, LOAD_FIRST_BYTES, now_ms)

    def on_leave(self, partition: TopicPartition) -> None:
        """Leadership ends: forget the groups, and tell everybody who waits."""
        shard = self.shards.pop(partition, None)
        if shard is None:
            return
        self._seen.on_leave(partition.partition)
        changing = CoordinatorNotAvailable(f"the coordinator is changing ({partition}); retry shortly")
        lost = LeadershipLost(f"the coordinator changed while this waited ({partition}); it may count or not")
        for _, parked in shard.waiting:
            self.replies.fail(parked, {partition}, lost if parked.is_write else changing)
        self.replies.fail_reads(shard, changing)

    def _load(self, shard: GroupShard, max_bytes: int, now_ms: int) -> None:
        """Replay the next chunk. The last one opens the coordinator."""
        if shard.load(max_bytes):
            shard.is_loaded = True
            shard.groups.on_topics(self._topics_now())
            shard.groups.begin(now_ms, self._state.session_timeout_ms_max)
            self._seen.on_loaded(shard, now_ms)
        elif shard.damage:
            self._seen.on_damage(shard, now_ms)

    # --- requests ---------------------------------------------------------------------------------

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
        parked = ParkedGroupRequest(request_id, Ok(), now_ms + self._state.settings.group_wait_ms)
        try:
            decision = shard.groups.decide(request, now_ms)
            self._apply(shard, decision, effects)
            parked.reply, parked.is_write = decision.reply, bool(decision.records)
        except MinilogError as error:
            if isinstance(error, NOT_WRITTEN):
                shard.groups.on_refused(request, now_ms)
            parked.reply = Problem.of(error)
        if isinstance(request, READS):
            self.replies.park_read(parked, shard, effects, now_ms)
        else:
            self.replies.park(parked, [shard], effects)
        return effects

    def _check_room(self) -> None:
        if len(self.replies) >= self._state.settings.limits.parked_requests_max:
            raise Overloaded(f"{len(self.replies)} group requests already wait here, the limit; retry later")

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
        self.replies.park(listing, shards, effects)

    def _ask_for_topic(self, request_id: int, now_ms: int) -> list[Effect]:
        """First need: the controller makes the topic, with settings of its own."""
        self._lookup.check_informed()
        error = CoordinatorNotAvailable(
            f"the topic of the consumer groups ({GROUPS_TOPIC}) is being made{self._topic_refusal}; retry shortly"
        )
        effects: list[Effect] = [Reply(request_id, Problem.of(error))]
        if now_ms >= self._asked_ms + CREATE_AGAIN_MS:
            self._asked_ms = now_ms
            asked_by = f"broker {self._state.broker_id}, for the first consumer group"
            effects.append(Send(CONTROLLER_ID, CreateTopic(GROUPS_TOPIC, asked_by=asked_by)))
        return effects

    def on_topic_answered(self, answer: Message | MinilogError) -> None:
        """Whoever asks next is told what the controller says against making the topic."""
        self._topic_refusal = f"; so far: {answer.detail}" if isinstance(answer, MinilogError) else ""

    def _find(self, group: str) -> GroupShard:
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

    def _open(self, shard: GroupShard, now_ms: int) -> GroupShard:
        """The shard, if it may answer now; raises CoordinatorNotAvailable."""
        partition = shard.partition
        if shard.damage:
            raise CoordinatorNotAvailable(f"the groups in {partition} cannot be read: {shard.damage}")
        if not shard.is_loaded:
            raise CoordinatorNotAvailable(
                f"broker {self._state.broker_id} is still reading {partition} ({shard.next_offset} of {shard.load_end}); retry shortly"
            )
        if not self._state.accepts_writes or shard.role.refuses(ACKS_ALL):
            raise CoordinatorNotAvailable(f"broker {self._state.broker_id} is handing {partition} over; retry shortly")
        if not self.successors.are_silent(shard.role, now_ms):
            raise self._unsure(shard)
        return shard

    def _unsure(self, shard: GroupShard) -> CoordinatorNotAvailable:
        return CoordinatorNotAvailable(
            f"broker {self._state.broker_id} may not lead {shard.partition} any more; retry or ask another"
        )

    # --- writing ----------------------------------------------------------------------------------

    def _apply(self, shard: GroupShard, decision: GroupDecision, effects: list[Effect]) -> None:
        """Append what was decided, and act on it. Raises NotEnoughReplicas, DiskFull or
        RecordTooLarge: then nothing has changed."""
        if decision.records:
            shard.append(decision, self._state.wall_ms(decision.decided_ms))
            self._followers.on_append(shard.partition)
            self._turn.advance(shard.partition)
            effects += self._turn.appended(shard.replica, decision.decided_ms)
        shard.groups.applied(decision)

    # --- time -------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        self.replies.expire(now_ms)
        for shard in self.shards.values():
            if shard.reads and not self.successors.are_silent(shard.role, now_ms):
                self.replies.fail_reads(shard, self._unsure(shard))
        loading = [shard for shard in self.shards.values() if not shard.is_loaded and not shard.damage]
        if loading:
            self._load(min(loading, key=lambda shard: shard.load_end - shard.next_offset), LOAD_BYTES, now_ms)
        for shard in self.shards.values():
            if shard.is_loaded and self._state.accepts_writes and not shard.role.refuses(ACKS_ALL):
                self._decide_tick(shard, effects, now_ms)
        self._seen.tick(now_ms)
        return effects

    def _decide_tick(self, shard: GroupShard, effects: list[Effect], now_ms: int) -> None:
        for decision in shard.groups.tick(now_ms):
            out = decision.out
            try:
                self._apply(shard, decision, effects)
            except NOT_WRITTEN as error:
                shard.groups.postpone(decision, is_alone=isinstance(error, RecordTooLarge))
                out = tuple(one for one in out if one.is_expelled)
            self._seen.on_out(out, now_ms)
