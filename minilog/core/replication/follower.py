"""FollowerState: one partition replicated by this broker from ``leader`` in one leader epoch, or
waiting for one.

Owns: where to fetch next, and how stale a read from here may be. A new leader or epoch is a new
object.

Invariants
* It truncates only to the point where its log and the leader's diverge, as told by a leader of the
  same epoch (R1, R2, R4), never to its high watermark.
* Appends are exact: the first base offset equals the log's end, epochs never decrease (R6).
  Otherwise the whole reply is dropped and fetched again.
* Its high watermark is min(leader's, own end) and decides nothing (R7).
* A copy of a log that was cleaned knows how far it was swept: only up to there in one epoch is it
  the copy of one log. One that ends below when an epoch begins acknowledges nothing of what it
  holds, and begins anew.

Source: KIP-101, KIP-279, KIP-595 (truncation on fetch).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from minilog.config import MIB, TopicSettings
from minilog.core.image import PartitionState
from minilog.core.ports import ReplicaLog
from minilog.core.replication.log_start import end_epoch, follow_start
from minilog.errors import CorruptBatch
from minilog.wire.batch import Batch, split
from minilog.wire.messages import ReplicaFetchPartition, ReplicaFetchResult
from minilog.wire.topic_partition import TopicPartition

REPLICA_BATCH_BYTES_MAX = 64 * MIB + 1024
"""The topic setting's own bound: a follower takes whatever its leader once accepted."""


class FollowerState:
    def __init__(
        self, state: PartitionState, leader_epoch: int, leader: int, settings: TopicSettings, log: ReplicaLog
    ) -> None:
        self.partition = TopicPartition(state.topic, state.partition)
        self.topic_id = state.topic_id
        self.leader = leader
        """NO_LEADER while nobody leads or this broker has been fenced off by an election."""
        self.leader_epoch = leader_epoch
        self.state = state
        self.settings = settings
        self.log = log
        self.leader_high_watermark = -1
        self.leader_is_exact = False
        """The leader's high watermark is the true one, not the floor that a new leader begins with
        (R7)."""
        self.leader_start = 0
        """The log start that the leader has published."""
        self.caught_up_ms: int | None = None
        """As of when this log last held everything that was committed."""
        self.quiet_ms: Callable[[TopicPartition], int | None] | None = None
        """The fetcher's word: as of when the leader last had nothing to say of this partition."""
        self._lacks_values = log.end_offset < log.swept_end

    @property
    def must_flush(self) -> bool:
        """The next fetch acknowledges what this log holds, and under flush.policy commit that means
        durably (R8)."""
        return self.settings.flush_policy == "commit" and self.log.durable_end < self.log.end_offset

    @property
    def high_watermark(self) -> int:
        return self.log.high_watermark

    def next_fetch(self) -> ReplicaFetchPartition:
        """Raises DiskFull or CorruptRange when the log cannot begin anew, which it has to before it
        acknowledges anything."""
        if self._lacks_values:
            self.begin_anew(self.log.start_offset, self.log.start_epoch)
            self._lacks_values = False
        assert not self.must_flush, f"{self.partition}: a fetch would acknowledge what is not durable"
        topic, partition = self.partition
        log = self.log
        return ReplicaFetchPartition(
            topic, self.topic_id, partition, self.leader_epoch, log.end_offset, end_epoch(log), log.start_offset
        )

    def on_fetched(self, result: ReplicaFetchResult, seen_ms: int) -> None:
        """Apply one matched, current, error-free answer, which shows the leader as of ``seen_ms``:
        truncate or append.

        Raises CorruptBatch, RecordTooLarge or DiskFull. Then nothing changed."""
        assert result.leader_epoch == self.leader_epoch
        assert result.fetch_offset == self.log.end_offset
        if result.diverging is not None:
            self.truncate(*result.diverging)
            return
        if len(result.batches):
            batches = split(result.batches, REPLICA_BATCH_BYTES_MAX, stored=True)
            self._check(batches)
            if any(batch.record_count <= batch.last_offset_delta for batch in batches):
                # A leader cleans what it knows to be committed, so whatever it does not say lies
                # below its high watermark.
                self.log.note_copied(result.swept_end if result.swept_end >= 0 else result.high_watermark)
            self.log.append(batches)
            if result.written is not None:
                self.log.note_written(*result.written)
        self._learn_high_watermark(result, seen_ms)
        self.leader_start = result.log_start_offset
        self.follow_start()

    def follow_start(self) -> None:
        """Delete what the leader lets go, as far as this log may by now; said again when more of it
        is durable."""
        follow_start(self.log, self.leader_start)

    def _check(self, batches: Sequence[Batch]) -> None:
        expected, epoch = self.log.end_offset, self.log.last_epoch
        for batch in batches:
            if batch.base_offset != expected:
                raise CorruptBatch(f"{self.partition}: leader sent offset {batch.base_offset}, expected {expected}")
            if not epoch <= batch.leader_epoch <= self.leader_epoch:
                raise CorruptBatch(
                    f"{self.partition}: batch at {batch.base_offset} has leader epoch {batch.leader_epoch}, "
                    f"allowed are {epoch} to {self.leader_epoch}"
                )
            expected, epoch = batch.end_offset, batch.leader_epoch

    def _learn_high_watermark(self, result: ReplicaFetchResult, seen_ms: int) -> None:
        self.leader_high_watermark, self.leader_is_exact = result.high_watermark, result.is_exact
        end = min(result.high_watermark, self.log.end_offset)
        if end > self.log.high_watermark:
            self.log.high_watermark = end
        if self._holds_all:
            self.caught_up_ms = seen_ms if self.caught_up_ms is None else max(self.caught_up_ms, seen_ms)

    @property
    def _holds_all(self) -> bool:
        return self.leader_is_exact and self.log.end_offset >= self.leader_high_watermark

    def truncate(self, epoch: int, end_offset: int) -> None:
        """Cut to the divergence point (R2): where the leader's ``epoch`` ends, or where this log's
        last epoch below it does."""
        own_epoch, own_end = self.log.epoch_end(epoch)
        target = own_end if own_epoch != epoch else min(own_end, end_offset)
        assert target <= self.log.end_offset
        with self._cutting():
            self.log.truncate(max(target, self.log.start_offset))
            if target < self.log.start_offset:
                self.log.reset(target)

    def begin_anew(self, start_offset: int, start_epoch: int) -> None:
        """Drop everything, as the leader says. Raises DiskFull or CorruptRange."""
        with self._cutting():
            self.log.reset(start_offset, start_epoch)

    @contextmanager
    def _cutting(self) -> Iterator[None]:
        """A log that loses records which it had shown is not as fresh as it was, also when the cut
        fails half-way."""
        shown_end = self.log.high_watermark
        try:
            yield
        finally:
            if self.log.high_watermark < shown_end:
                self.caught_up_ms = None

    def lag_ms(self, now_ms: int) -> int | None:
        """How stale a read up to this high watermark may be; None when that is not known."""
        if self.caught_up_ms is None:
            return None
        quiet_ms = self.quiet_ms(self.partition) if self.quiet_ms is not None else None
        seen_ms = max(self.caught_up_ms, quiet_ms) if self._holds_all and quiet_ms is not None else self.caught_up_ms
        return max(0, now_ms - seen_ms)

    @property
    def lag_records(self) -> int:
        return max(0, self.leader_high_watermark - self.log.high_watermark)
