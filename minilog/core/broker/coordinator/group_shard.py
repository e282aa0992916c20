"""GroupShard: one partition of ``__groups``, led here in one leader epoch: its log is the journal
of its groups.

Owns the Groups, how far they are loaded, and who waits here for what.

Invariants: what is decided at once is one batch, so that no failover finds half of it. What is
appended is replayed in the same turn. A shard is bound to its LeaderState: when that ends nothing
of it counts any more.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from minilog.core.broker.coordinator.group_waiting import ParkedGroupRequest, WaitingRead
from minilog.core.groups.groups import GroupDecision, Groups
from minilog.core.groups.offsets import Records
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica
from minilog.errors import CorruptBatch, CorruptRange, RecordTooLarge
from minilog.wire.batch import ACKS_MANY, split, stamp
from minilog.wire.journal.group_records import decode_record, encode_record
from minilog.wire.messages import ACKS_ALL
from minilog.wire.records import BatchBuilder, decode_batch
from minilog.wire.topic_partition import TopicPartition

UNBOUNDED: Final = 2**31 - 1


class GroupShard:
    def __init__(self, replica: Replica, role: LeaderState, groups: Groups) -> None:
        self.replica, self.role, self.groups = replica, role, groups
        self.next_offset = replica.log.start_offset
        """The first one that is not replayed yet."""
        self.load_end = replica.log.end_offset
        self.is_loaded = False
        self.loaded_after_ms = 0
        """For people: so long after its leadership began it was loaded."""
        self.damage = ""
        self.waiting: deque[tuple[int, ParkedGroupRequest]] = deque()
        """(offset that must be committed, reply). Offsets never decrease."""
        self.reads: deque[WaitingRead] = deque()
        """What these wait for never decreases either."""

    @property
    def partition(self) -> TopicPartition:
        return self.replica.partition

    def load(self, max_bytes: int) -> bool:
        """Replay the next chunk. True when that was the last."""
        try:
            data = self.replica.log.read(self.next_offset, max_bytes, self.load_end)
            for batch in split(data, UNBOUNDED, stored=True):
                for record in decode_batch(batch, from_offset=self.next_offset):
                    self.groups.replay(decode_record(record.key, record.value))
                self.next_offset = batch.end_offset
        except (CorruptBatch, CorruptRange) as error:
            self.damage = error.detail
            return False
        return not data or self.next_offset >= self.load_end

    def append(self, decision: GroupDecision, wall_ms: int) -> None:
        """Raises NotEnoughReplicas, DiskFull or RecordTooLarge: then nothing has changed."""
        self.role.check_acks(ACKS_ALL)
        max_bytes = self.replica.settings.max_message_bytes
        batches = _batches(decision.records, max_bytes, wall_ms)
        size = max(builder.bytes_total for builder in batches)
        if size > max_bytes:
            raise RecordTooLarge(
                f"group {decision.group!r}: a change of {size} bytes exceeds the {max_bytes} "
                "a coordinator writes at once; use fewer partitions, members or less metadata"
            )
        log = self.replica.log
        offset, stamped = log.end_offset, []
        for builder in batches:
            batch = split(builder.build(acks_level=ACKS_MANY), UNBOUNDED)[0]
            stamped.append(stamp(batch, offset, self.role.leader_epoch, ACKS_MANY))
            offset += batch.record_count
        log.append(stamped)


def _batches(records: Records, max_bytes: int, wall_ms: int) -> list[BatchBuilder]:
    """What is new is one batch. What goes may take several: a coordinator that finds half of that
    gone lets the rest go when it is asked again, or when it looks itself."""
    batches = [BatchBuilder()]
    for record in records:
        if record.value is None and batches[-1].bytes_total > max_bytes // 2:
            batches.append(BatchBuilder())
        batches[-1].append(*encode_record(record), (), wall_ms)
    return batches
