"""LeaderState: one partition, led by this broker, for one leader epoch.

Owns: the high watermark as the leader knows it, and the waiters of produce requests appended in
this epoch. What it knows of followers, and of the ISR, is the other half of it (``leader_isr.py``).
A new leader epoch is a new object. Nothing survives the change, which is what binds waiters to the
epoch of their append (R10).

Invariants
* ``high_watermark`` never goes back (HighWatermarkMonotonic) and only advances while |committed
  ISR| >= min ISR (R8).
* The ISR used for the high watermark is committed united with proposed (R13).
* acks=N counts only members that are in the committed ISR and stay in it by the proposal in flight,
  because an election asks nobody else, and which of both the controller goes by is not known here
  (R9, R13).

Sources: KIP-101, KIP-279, KIP-320 (epochs), KIP-966.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from minilog.config import TopicSettings
from minilog.core.image import PartitionState
from minilog.core.ports import ReplicaLog, WrittenBatch
from minilog.core.replication.at_risk import AtRisk
from minilog.core.replication.isr import committed_end, copies_end
from minilog.core.replication.leader_isr import LeaderIsr
from minilog.core.replication.produce_waiters import PendingProduce, Place, ProduceWaiters, Waiter
from minilog.errors import (
    EndOffsetMismatch,
    InvalidAcks,
    LeadershipLost,
    MinilogError,
    NotEnoughReplicas,
    NotEnoughReplicasAfterAppend,
    partly_done,
)
from minilog.wire.batch import Batch, acks_level_for, stamp
from minilog.wire.messages import (
    ACKS_ALL,
    Problem,
    ProduceResult,
)


class Outcome(NamedTuple):
    """One partition of a produce request is decided."""

    pending: PendingProduce
    position: int
    result: ProduceResult


class LeaderState(LeaderIsr):
    def __init__(
        self,
        broker_id: int,
        broker_epoch: int,
        state: PartitionState,
        settings: TopicSettings,
        log: ReplicaLog,
        is_current: Callable[[int, int], bool],
        now_ms: int,
    ) -> None:
        super().__init__(broker_id, broker_epoch, state, settings, log, is_current, now_ms)
        self.seen_ms: int | None = None
        """As of when this replica, in its role before, last showed everything that was
        committed."""
        self.waiters = ProduceWaiters()
        self.has_acknowledged = False
        """A write, in this leadership: for people."""
        self._at_risk = AtRisk(self.high_watermark, self.start_offset)

    # --- what is committed ------------------------------------------------------------------------

    @property
    def high_watermark_known(self) -> bool:
        """R7: before the epoch's own start is committed, the true high watermark may be above the
        known one."""
        return self.high_watermark >= self.start_offset

    def advance(self, now_ms: int, replica_lag_max_ms: int) -> list[Outcome]:
        """Move the high watermark as far as R8 allows and complete what that reaches."""
        if len(self.state.isr) >= self.min_isr:
            members = {*self.maximal_isr, *self._joining(now_ms, replica_lag_max_ms)}
            end = committed_end(self.position_of(r) for r in members)
            if end is not None and end > self.high_watermark:
                assert end <= self.log.end_offset, f"{self.partition}: commit {end} beyond the log"
                self.high_watermark = end
                self.log.high_watermark = end
                self._at_risk.advance(end)
        outcomes = self._complete()
        if self.log_start.published > self.log.start_offset:
            self.log_start.advance(self.maximal_isr - {self.broker_id})
        return outcomes

    def _complete(self) -> list[Outcome]:
        outcomes = []
        for acks in self.waiters.levels():
            for waiter in self.waiters.complete_up_to(acks, self._reached(acks)):
                epoch = self.log.epoch_at(waiter.base_offset)  # -1: sent again after retention has taken it
                assert epoch in (-1, waiter.leader_epoch), "an ack from another epoch (R10)"
                outcomes.append(Outcome(waiter.pending, waiter.position, self._receipt(waiter)))
        return outcomes

    def _reached(self, acks: int) -> int:
        if acks == ACKS_ALL:
            return self.high_watermark
        if acks == 1:
            return self.position
        return min(self.position, copies_end((self.position_of(r) for r in self.minimal_isr), acks))

    @property
    def records_at_risk(self) -> dict[int, int]:
        """By acks level."""
        return self._at_risk.count(self.high_watermark, self._reached)

    def _receipt(self, waiter: Waiter) -> ProduceResult:
        return ProduceResult(
            self.partition.topic,
            self.partition.partition,
            base_offset=waiter.base_offset,
            end_offset=waiter.end_offset,
            leader_epoch=waiter.leader_epoch,
            timestamp=waiter.timestamp,
            crc=waiter.crc,
            acks=waiter.acks,
            isr=list(self.state.isr),
            duplicate=waiter.duplicate,
            base_offsets=list(waiter.base_offsets),
            topic_id=self.topic_id,
        )

    # --- produce ----------------------------------------------------------------------------------

    def check_acks(self, acks: int) -> None:
        """Refuse before the append what could not be promised now; raises InvalidAcks or
        NotEnoughReplicas (R11)."""
        self._check_possible(acks)
        isr, needed = self.state.isr, self._needed(acks)
        if acks not in (0, 1) and len(isr) < needed:
            raise NotEnoughReplicas(
                f"{self.partition} has {len(isr)} in-sync replicas {isr}, and acks={_acks_text(acks)} needs {needed}; "
                "nothing was written, retry when replicas are back",
                isr=list(isr),
                needed=needed,
            )

    def on_produce(
        self,
        batches: Sequence[Batch],
        acks: int,
        pending: PendingProduce,
        position: int,
        stamp_ms: int,
        expected_offset: int | None = None,
    ) -> Outcome | None:
        """Stamp, append and park. ``advance`` afterwards completes what is already reached.

        acks=0 is decided at once and names no offset. Batches that this log holds already are not
        written again: they are answered with their offsets, under the same conditions as new ones
        (R31). Raises what ``check_acks`` and ``ReplicaLog.find_written`` raise, and DiskFull.
        Nothing was written then. Where some of the batches were written before, what goes wrong
        with the others is indefinite: of the whole it is not true that nothing was written.
        """
        written = self.log.find_written(batches)
        new = [batch for batch, place in zip(batches, written, strict=True) if place is None] if written else batches
        if not new:
            return self._on_duplicates(written, acks, pending, position)
        try:
            self._check_end(expected_offset, written)
            return self._append(new, written, acks, pending, position, stamp_ms)
        except MinilogError as error:
            raise _partly(error) if written else error from None

    def _append(
        self,
        new: Sequence[Batch],
        written: Sequence[WrittenBatch | None],
        acks: int,
        pending: PendingProduce,
        position: int,
        stamp_ms: int,
    ) -> Outcome | None:
        self.check_acks(acks)
        append_ms = stamp_ms if self.settings.message_timestamp_type == "LogAppendTime" else None
        stamped = self._stamp(new, self.log.end_offset, acks_level_for(acks), append_ms)
        self.log.append(stamped)
        assert self.log.end_offset == stamped[-1].end_offset
        self._at_risk.note(stamped[0].base_offset, self.log.end_offset, acks)
        if acks == 0:
            return self._unpromised(pending, position, duplicate=bool(written))
        if written:  # some lie in the log since before, the others follow now: one receipt for all of them
            appended = iter(stamped)
            places = [Place.of(next(appended)) if place is None else place for place in written]
            self.waiters.park(Waiter.again(pending, position, places, acks))
        else:
            timestamp, crc = stamped[-1].max_timestamp, stamped[0].crc
            span = stamped[0].base_offset, self.log.end_offset
            self.waiters.park(Waiter(pending, position, *span, timestamp, crc, acks, self.leader_epoch))
        return None

    def _check_end(self, expected: int | None, written: Sequence[WrittenBatch | None]) -> None:
        """R101. What an earlier try of the same request has ``written`` counts as not yet there, if
        nothing has come behind it."""
        end_offset = self.log.end_offset
        before = [place for place in written if place is not None]
        stands = before[0].base_offset if before and before[-1].end_offset == end_offset else end_offset
        if expected is not None and stands != expected:
            raise EndOffsetMismatch(
                f"{self.partition} ends at offset {end_offset}, and the request expects {expected}: others have written; "
                "read what is new, then decide anew",
                end_offset=end_offset,
                expected_offset=expected,
            )

    def _unpromised(self, pending: PendingProduce, position: int, *, duplicate: bool) -> Outcome:
        topic, partition = self.partition
        result = ProduceResult(topic, partition, acks=0, duplicate=duplicate, topic_id=self.topic_id)
        return Outcome(pending, position, result)

    def _on_duplicates(
        self, written: Sequence[WrittenBatch | None], acks: int, pending: PendingProduce, position: int
    ) -> Outcome | None:
        """All of it was written before. What its acks level asks for may be true already, whatever
        the ISR is now."""
        self._check_possible(acks)
        if acks == 0:
            return self._unpromised(pending, position, duplicate=True)
        places = [place for place in written if place is not None]
        if max(place.end_offset for place in places) > self._reached(acks) and not self._is_reachable(acks):
            raise self._not_enough_after_append(acks)
        self.waiters.park(Waiter.again(pending, position, places, acks))
        return None

    def _check_possible(self, acks: int) -> None:
        replicas = self.state.replicas
        if acks > len(replicas):
            raise InvalidAcks(
                f"acks={acks} asks for more copies than {self.partition} has replicas ({len(replicas)}); use 0 to {len(replicas)} or all"
            )

    def _needed(self, acks: int) -> int:
        """How many members the ISR must have, so that this level can be reached."""
        return self.min_isr if acks == ACKS_ALL else acks

    def _stamp(self, batches: Sequence[Batch], offset: int, level: int, append_ms: int | None) -> list[Batch]:
        stamped = []
        for batch in batches:
            stamped.append(stamp(batch, offset, self.leader_epoch, level, append_ms))
            offset = stamped[-1].end_offset
        return stamped

    def resign(self) -> list[Outcome]:
        """The role ends: everything that waited gets an indefinite error (R10, R34)."""
        error = LeadershipLost(
            f"{self.partition}: leadership of epoch {self.leader_epoch} ended while the record waited for its acks; "
            "it may or may not survive, refresh metadata and retry"
        )
        return self._fail(error)

    def _fail(self, error: MinilogError, acks: int | None = None) -> list[Outcome]:
        result = ProduceResult(*self.partition, Problem.of(error), topic_id=self.topic_id)
        return [Outcome(w.pending, w.position, result) for w in self.waiters.fail_all(acks)]

    # --- metadata ---------------------------------------------------------------------------------

    def on_state_changed(self, state: PartitionState, settings: TopicSettings) -> list[Outcome]:
        """Newer metadata of the same leader epoch: the one way the committed ISR changes, and the
        end of any proposal."""
        assert state.leader_epoch == self.leader_epoch
        assert state.leader == self.broker_id
        self.settings = settings
        if state.partition_epoch > self.state.partition_epoch:
            before, self.state = self.state, state
            self.proposal = None
            self._follow_moves(before)
        return self._fail_unreachable()

    def _fail_unreachable(self) -> list[Outcome]:
        """R11, second check: a level the shrunken ISR cannot reach is answered now, and
        indefinitely."""
        outcomes = []
        for acks in self.waiters.levels():
            if not self._is_reachable(acks):
                outcomes += self._fail(self._not_enough_after_append(acks), acks)
        return outcomes

    def _is_reachable(self, acks: int) -> bool:
        return len(self.state.isr) >= self._needed(acks)

    def _not_enough_after_append(self, acks: int) -> NotEnoughReplicasAfterAppend:
        isr, needed = self.state.isr, self._needed(acks)
        return NotEnoughReplicasAfterAppend(
            f"{self.partition}: the ISR has shrunk to {isr} since the record was appended, and acks={_acks_text(acks)} "
            f"needs {needed}; the record may still commit",
            isr=list(isr),
            needed=needed,
        )


def _partly(error: MinilogError) -> MinilogError:
    """The same refusal of batches whose first ones had been written by an earlier attempt."""
    if isinstance(error, NotEnoughReplicas):
        detail = f"{error.detail.removesuffix('; nothing was written, retry when replicas are back')}; a part of the batches was written before"
        return NotEnoughReplicasAfterAppend(detail, **error.info)
    return partly_done(error)


def _acks_text(acks: int) -> str:
    return "all" if acks == ACKS_ALL else str(acks)
