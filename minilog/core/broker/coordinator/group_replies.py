"""GroupReplies: who waits at the coordinators of this broker, until what each was told is
committed.

Owns the deadlines of all that wait, and which shards must be looked at when the turn ends.

Invariants
* Nothing that rests on a decision is shown before it is committed: every reply waits until the high
  watermark has reached the end the log had when it was decided, refusals too (R77).
* What was read (committed offsets, a group) waits also for evidence that is younger than the
  question (R91).
* Each is answered once: by what it waits for, by its deadline, or when the leadership ends that it
  belongs to (R34).
"""

from __future__ import annotations

from collections.abc import Mapping

from minilog.core.broker.coordinator.group_shard import GroupShard
from minilog.core.broker.coordinator.group_waiting import ParkedGroupRequest, WaitingRead
from minilog.core.broker.coordinator.successors import Successors
from minilog.core.deadlines import Deadlines
from minilog.core.effects import Effect, Reply
from minilog.errors import MinilogError, TimedOut
from minilog.wire.topic_partition import TopicPartition


class GroupReplies:
    def __init__(self, shards: Mapping[TopicPartition, GroupShard], successors: Successors) -> None:
        self._shards, self._successors = shards, successors
        self._deadlines = Deadlines()
        self._woken: dict[TopicPartition, None] = {}
        self._reading: dict[TopicPartition, None] = {}
        """Partitions in which reads wait."""
        self._failed: list[Effect] = []

    def __len__(self) -> int:
        return len(self._deadlines)

    # --- waiting ----------------------------------------------------------------------------------

    def park(self, parked: ParkedGroupRequest, shards: list[GroupShard], effects: list[Effect]) -> None:
        """Answer when everything decided so far is committed."""
        for shard in shards:
            end_offset = shard.replica.log.end_offset
            if shard.role.high_watermark < end_offset:
                shard.waiting.append((end_offset, parked))
                parked.open.add(shard.partition)
        self._wait(parked, effects)

    def park_read(self, parked: ParkedGroupRequest, shard: GroupShard, effects: list[Effect], now_ms: int) -> None:
        """What the members of a group begin by must not be older than their question."""
        read = WaitingRead(shard.replica.log.end_offset, self._successors.moment(now_ms), parked)
        if not self._may_show(shard, read):
            shard.reads.append(read)
            parked.open.add(shard.partition)
            self._reading[shard.partition] = None
            self._successors.call_back(shard.role)
        self._wait(parked, effects)

    def _may_show(self, shard: GroupShard, read: WaitingRead) -> bool:
        is_committed = shard.role.high_watermark >= read.end_offset
        return is_committed and self._successors.were_silent_at(shard.role, read.asked)

    def _wait(self, parked: ParkedGroupRequest, effects: list[Effect]) -> None:
        if parked.open:
            self._deadlines.add(parked.deadline_ms, parked.request_id, parked)
        else:
            effects.append(Reply(parked.request_id, parked.reply))

    # --- answers ----------------------------------------------------------------------------------

    def wake(self, partition: TopicPartition) -> None:
        """The high watermark of this partition has moved."""
        if partition in self._shards:
            self._woken[partition] = None

    def answer_woken(self) -> list[Effect]:
        effects, self._failed = self._failed, []
        for partition in self._woken:
            shard = self._shards.get(partition)
            while shard is not None and shard.waiting and shard.waiting[0][0] <= shard.role.high_watermark:
                self._confirm(shard.waiting.popleft()[1], partition, effects)
        self._woken.clear()
        for partition in list(self._reading):
            shard = self._shards.get(partition)
            while shard is not None and shard.reads and self._may_show(shard, shard.reads[0]):
                self._confirm(shard.reads.popleft().parked, partition, effects)
            if shard is None or not shard.reads:
                del self._reading[partition]
        return effects

    def _confirm(self, parked: ParkedGroupRequest, partition: TopicPartition, effects: list[Effect]) -> None:
        if partition in parked.open:
            parked.open.remove(partition)
            self._end(parked, effects)

    def fail(self, parked: ParkedGroupRequest, lost: set[TopicPartition], error: MinilogError) -> None:
        lost = lost & parked.open
        if lost:
            parked.fail(lost, error)
            self._end(parked, self._failed)

    def fail_reads(self, shard: GroupShard, error: MinilogError) -> None:
        while shard.reads:
            self.fail(shard.reads.popleft().parked, {shard.partition}, error)

    def _end(self, parked: ParkedGroupRequest, effects: list[Effect]) -> None:
        """It waits for something less: answer if that was the last."""
        if not parked.open:
            self._deadlines.remove(parked.deadline_ms, parked.request_id)
            effects.append(Reply(parked.request_id, parked.reply))

    # --- time -------------------------------------------------------------------------------------

    def expire(self, now_ms: int) -> None:
        for parked in self._deadlines.expire(now_ms):
            assert isinstance(parked, ParkedGroupRequest)
            error = TimedOut(
                "the coordinator's replicas did not confirm in time; the change may count or not",
                definite=not parked.is_write,
            )
            self.fail(parked, parked.open, error)
        for shard in self._shards.values():
            while shard.waiting and not shard.waiting[0][1].open:
                shard.waiting.popleft()  # answered meanwhile, by its deadline
            while shard.reads and not shard.reads[0].parked.open:
                shard.reads.popleft()
