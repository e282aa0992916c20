"""LeaderState: one partition, led by this broker, for one leader epoch.

Owns: the followers' positions, the high watermark as the leader knows it, the ISR proposal in flight, and the
waiters of produce requests appended in this epoch. A new leader epoch is a new object; nothing survives the
change, which is what binds waiters to the epoch of their append (R10).

Invariants
* ``high_watermark`` never goes back (HighWatermarkMonotonic) and only advances while |committed ISR| >= min ISR (R8).
* Every position counted is from a fetch in this leader epoch (R4) and, under flush.policy commit, durable.
* The ISR used for the high watermark is committed united with proposed (R13); a proposal is given up only when
  the controller proves that it was not applied, or when metadata with a newer partition epoch arrives (R14).
* acks=N counts only members that are in the committed ISR and stay in it by the proposal in flight, because an
  election asks nobody else, and which of both the controller goes by is not known here (R9, R13).

Why pull: a follower's fetch offset is its acknowledgement, so there is no second message and no ack state to
lose. Sources: KIP-101, KIP-279, KIP-320 (epochs), KIP-497 (AlterPartition), KIP-841/903 (eligibility), KIP-966.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from minilog.config import TopicSettings
from minilog.core.image import PartitionState
from minilog.core.ports import ReplicaLog, WrittenBatch
from minilog.core.replication.isr import committed_end, copies_end, is_lagging, may_join
from minilog.core.replication.log_start import LogStart
from minilog.core.replication.produce_waiters import PendingProduce, Place, ProduceWaiters, Waiter
from minilog.core.replication.progress import Progress, Proposal
from minilog.errors import (
    FencedLeaderEpoch,
    InvalidAcks,
    LeadershipLost,
    MinilogError,
    NotEnoughReplicas,
    NotEnoughReplicasAfterAppend,
    OffsetOutOfRange,
    UnknownLeaderEpoch,
    partly_done,
)
from minilog.wire.batch import Batch, acks_level_for, stamp
from minilog.wire.messages import (
    ACKS_ALL,
    IsrMember,
    IsrProposal,
    Problem,
    ProduceResult,
    ReplicaFetchPartition,
)
from minilog.wire.topic_partition import TopicPartition

LACKS_MAX_MS = 60_000
"""How long a replica whose log begins later than its leader's is waited for, unless ``lacks_max_ms`` says otherwise: two rounds
of retention usually even that out."""


class Outcome(NamedTuple):
    """One partition of a produce request is decided."""

    pending: PendingProduce
    position: int
    result: ProduceResult


class LeaderState:
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
        assert state.leader == broker_id
        self.partition = TopicPartition(state.topic, state.partition)
        self.topic_id = state.topic_id
        self.broker_id, self.broker_epoch = broker_id, broker_epoch
        self.leader_epoch = state.leader_epoch
        self.state = state
        self.settings = settings
        self.log = log
        self.is_current = is_current
        """(broker id, broker epoch) -> registered with that very epoch, unfenced, not shutting down (R17)."""
        self.start_offset = log.end_offset
        self.began_ms = now_ms
        self.seen_ms: int | None = None
        """As of when this replica, in its role before, last showed everything that was committed."""
        self.lacks_max_ms = LACKS_MAX_MS
        self.high_watermark = log.high_watermark
        self.log_start = LogStart(log)
        self.proposal: Proposal | None = None
        self.waiters = ProduceWaiters()
        self.followers = {
            r: Progress(now_ms if r in state.isr else now_ms - 2**40) for r in state.replicas if r != broker_id
        }

    # --- what is committed -------------------------------------------------------------------------------

    @property
    def min_isr(self) -> int:
        return min(self.settings.min_insync_replicas, len(self.state.replicas))

    @property
    def position(self) -> int:
        """The leader's own position: durable under flush.policy commit, written otherwise (R8)."""
        return self.log.durable_end if self.settings.flush_policy == "commit" else self.log.end_offset

    @property
    def high_watermark_known(self) -> bool:
        """R7: before the epoch's own start is committed, the true high watermark may be above the known one."""
        return self.high_watermark >= self.start_offset

    @property
    def maximal_isr(self) -> set[int]:
        proposed = self.proposal.isr if self.proposal else ()
        return {*self.state.isr, *proposed}

    @property
    def minimal_isr(self) -> list[int]:
        """Members by the committed ISR and by the proposed one: whichever the controller goes by, these are in it."""
        proposal = self.proposal
        return self.state.isr if proposal is None else [r for r in self.state.isr if r in proposal.isr]

    def position_of(self, broker_id: int) -> int | None:
        return self.position if broker_id == self.broker_id else self.followers[broker_id].position

    def _joining(self, now_ms: int, replica_lag_max_ms: int) -> Iterable[int]:
        """Followers that are in sync but not yet proposed: waiting for them keeps the high watermark within their
        reach, or under steady load none could ever catch up with an ISR of one."""
        for broker_id, progress in self.followers.items():
            in_sync = not is_lagging(progress.caught_up_ms, now_ms, replica_lag_max_ms)
            if in_sync and progress.lacks_since_ms is None and self._catches_up(progress, broker_id):
                yield broker_id

    def advance(self, now_ms: int, replica_lag_max_ms: int) -> list[Outcome]:
        """Move the high watermark as far as R8 allows and complete what that reaches."""
        if len(self.state.isr) >= self.min_isr:
            members = {*self.maximal_isr, *self._joining(now_ms, replica_lag_max_ms)}
            end = committed_end(self.position_of(r) for r in members)
            if end is not None and end > self.high_watermark:
                assert end <= self.log.end_offset, f"{self.partition}: commit {end} beyond the log"
                self.high_watermark = end
                self.log.high_watermark = end
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

    # --- produce -----------------------------------------------------------------------------------------

    def check_acks(self, acks: int) -> None:
        """Refuse before the append what could not be promised now; raises InvalidAcks or NotEnoughReplicas (R11)."""
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
        self, batches: Sequence[Batch], acks: int, pending: PendingProduce, position: int, stamp_ms: int
    ) -> Outcome | None:
        """Stamp, append and park; ``advance`` afterwards completes what is already reached.

        acks=0 is decided at once and names no offset. Batches that this log holds already are not written again:
        they are answered with their offsets, under the same conditions as new ones (R31). Raises what ``check_acks``
        and ``ReplicaLog.find_written`` raise, and DiskFull; nothing was written then. Where some of the batches were
        written before, what goes wrong with the others is indefinite: of the whole it is not true that nothing was written.
        """
        written = self.log.find_written(batches)
        new = [batch for batch, place in zip(batches, written, strict=True) if place is None] if written else batches
        if not new:
            return self._on_duplicates(written, acks, pending, position)
        try:
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

    def _unpromised(self, pending: PendingProduce, position: int, *, duplicate: bool) -> Outcome:
        topic, partition = self.partition
        result = ProduceResult(topic, partition, acks=0, duplicate=duplicate, topic_id=self.topic_id)
        return Outcome(pending, position, result)

    def _on_duplicates(
        self, written: Sequence[WrittenBatch | None], acks: int, pending: PendingProduce, position: int
    ) -> Outcome | None:
        """All of it was written before. What its acks level asks for may be true already, whatever the ISR is now."""
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

    # --- followers -----------------------------------------------------------------------------------------

    def on_fetch(
        self, broker_id: int, broker_epoch: int, fetch: ReplicaFetchPartition, now_ms: int
    ) -> tuple[int, int] | None:
        """Take a follower's position. Returns (epoch, end offset) when its log diverges (R2): then nothing was counted.

        Raises FencedLeaderEpoch, UnknownLeaderEpoch (R4) or OffsetOutOfRange.
        """
        self.check_epoch(fetch.leader_epoch)
        assert broker_id in self.followers, f"{broker_id} is no replica of {self.partition}"
        if fetch.last_epoch >= 0:
            epoch, end_offset = self.log.epoch_end(fetch.last_epoch)
            if epoch < fetch.last_epoch or end_offset < fetch.fetch_offset:
                if fetch.fetch_offset == fetch.start_offset:
                    raise self._out_of_range(f"{self.partition}: the follower's log diverges, and has nothing to cut")
                return epoch, end_offset
        self.check_position(fetch)
        self._check_start(broker_id, fetch, now_ms)
        self.log_start.on_fetch(broker_id)
        self.followers[broker_id].on_fetch(fetch.fetch_offset, broker_epoch, self.log.end_offset, now_ms)
        return None

    def on_forgotten(self, broker_id: int) -> None:
        """The follower has stopped following in this epoch: nobody waits for it to join, and it counts for nothing."""
        if broker_id in self.followers:
            self.followers[broker_id].position = None

    def _check_start(self, broker_id: int, fetch: ReplicaFetchPartition, now_ms: int) -> None:
        """R18: a log that begins later than this one lacks records, and would have the others delete them if it led.

        A member of the ISR may begin later: it has heard of a start that this leader had not yet, as a follower. No log of an
        eligible replica is ever given up: should this leader be lost, it is what is left. Everybody else waits outside until this
        log begins there, too; one that is empty, or has waited for lacks_max_ms, begins anew. Raises OffsetOutOfRange."""
        progress = self.followers[broker_id]
        if self._was_complete(broker_id) or fetch.start_offset <= self.log_start.published:
            progress.lacks_since_ms = None
            return
        if progress.lacks_since_ms is None:
            progress.lacks_since_ms = now_ms
        is_empty = fetch.fetch_offset == fetch.start_offset
        if is_empty or now_ms - progress.lacks_since_ms > self.lacks_max_ms:
            progress.position = None  # it holds nothing of this log any more, and positions only grow
            raise self._out_of_range(
                f"{self.partition}: the follower's log begins at {fetch.start_offset}, this one at {self.log.start_offset}: "
                "it lacks what lies between, and has to begin anew",
                begins_anew=True,
            )

    def _was_complete(self, broker_id: int) -> bool:
        """An eligible replica: as far as anybody knows it holds everything that is committed."""
        return broker_id in {*self.maximal_isr, *self.state.elr, *self.state.last_known_elr}

    def _out_of_range(self, detail: str, **more: Any) -> OffsetOutOfRange:
        """Where the follower is to begin, and which epoch ended there: of the start that has been published."""
        log, start_offset = self.log, self.log_start.published
        epoch = log.start_epoch if start_offset <= log.start_offset else log.epoch_at(start_offset - 1)
        if epoch >= 0:
            more["log_start_epoch"] = epoch
        return OffsetOutOfRange(detail, log_start_offset=log.start_offset, log_end_offset=log.end_offset, **more)

    def check_position(self, fetch: ReplicaFetchPartition) -> None:
        """Raises OffsetOutOfRange: the follower is to begin anew at the log's start, or to ask again.

        Of what ended at the start nothing is left but the epoch it had. A follower that stands there with another one
        diverges further down, where nobody can compare any more (Kafka lets it pass).
        """
        log, offset = self.log, fetch.fetch_offset
        diverged = 0 < offset == log.start_offset and fetch.last_epoch not in (-1, log.start_epoch)
        if diverged or not log.start_offset <= offset <= log.end_offset:
            raise self._out_of_range(
                f"{self.partition}: fetch offset {offset} after epoch {fetch.last_epoch} does not follow what this log "
                f"holds, {log.start_offset} to {log.end_offset} after epoch {log.start_epoch}"
            )

    def check_epoch(self, leader_epoch: int) -> None:
        if leader_epoch < self.leader_epoch:
            raise FencedLeaderEpoch(
                f"{self.partition}: leader epoch {leader_epoch} is over, the current one is {self.leader_epoch}",
                leader_epoch=self.leader_epoch,
            )
        if leader_epoch > self.leader_epoch:
            raise UnknownLeaderEpoch(
                f"{self.partition}: leader epoch {leader_epoch} is newer than mine ({self.leader_epoch}); retry shortly",
                leader_epoch=self.leader_epoch,
            )

    def note_idle_follower(self, broker_id: int, last_fetch_ms: int) -> None:
        """The follower's session was alive at ``last_fetch_ms`` and had nothing to fetch here."""
        progress = self.followers[broker_id]
        if progress.position is not None and progress.position >= self.log.end_offset:
            progress.caught_up_ms = max(progress.caught_up_ms, last_fetch_ms)

    def behind_ms(self, broker_id: int, now_ms: int) -> int:
        """Since when it does not hold this log's end; counted from the begin of this role where nothing older is known."""
        return max(0, now_ms - max(self.followers[broker_id].caught_up_ms, self.began_ms))

    @property
    def drained(self) -> bool:
        """Whoever may lead instead holds everything that was ever appended here (controlled shutdown, R28): the other members
        of the ISR, or where there are none, those of the ELR.

        Not while a proposal is open: the controller may have let somebody in by now, and name it. And not while nobody may
        lead instead, but somebody is catching up.
        """
        others = [r for r in self.state.isr if r != self.broker_id] or self.state.elr
        if not others and any(self._catches_up(p, b) for b, p in self.followers.items()):
            return False
        positions = [self.position_of(r) for r in (self.broker_id, *others)]
        return self.proposal is None and all(p is not None and p >= self.log.end_offset for p in positions)

    def _catches_up(self, progress: Progress, broker_id: int) -> bool:
        return progress.position is not None and self.is_current(broker_id, progress.broker_epoch)

    # --- ISR -----------------------------------------------------------------------------------------------

    def propose(self, now_ms: int, replica_lag_max_ms: int, *, shrink: bool) -> bool:
        """Open a proposal if the ISR should change and none is in flight (R18, R19); True when one was opened.

        Shrinking is looked at on the slow tick only, growing after every fetch."""
        if self.proposal is not None:
            return False
        isr = [r for r in self.state.isr if not (shrink and self._should_leave(r, now_ms, replica_lag_max_ms))]
        isr += [
            r for r in self.followers if r not in self.state.isr and self._should_join(r, now_ms, replica_lag_max_ms)
        ]
        if set(isr) == set(self.state.isr):
            return False
        assert self.broker_id in isr
        if any(self._broker_epoch_of(r) < 0 for r in isr):
            return (
                False  # of one that was not heard in this epoch nobody can say which process it is: it would be refused
            )
        members = tuple(IsrMember(r, self._broker_epoch_of(r)) for r in isr)
        self.proposal = Proposal(members, self.state.partition_epoch, -1)
        return True

    def _should_leave(self, broker_id: int, now_ms: int, replica_lag_max_ms: int) -> bool:
        return broker_id != self.broker_id and is_lagging(
            self.followers[broker_id].caught_up_ms, now_ms, replica_lag_max_ms
        )

    def _should_join(self, broker_id: int, now_ms: int, replica_lag_max_ms: int) -> bool:
        progress = self.followers[broker_id]
        return (
            may_join(progress.position, self.high_watermark, self.start_offset)
            and progress.lacks_since_ms is None
            and not is_lagging(progress.caught_up_ms, now_ms, replica_lag_max_ms)
            and self.is_current(broker_id, progress.broker_epoch)
        )

    def send_proposal(self, sequence: int) -> IsrProposal:
        """The proposal as asked for under ``sequence``; asking again under a higher one is a retry (R14, R15)."""
        assert self.proposal is not None
        assert self.proposal.sequence < sequence
        self.proposal = self.proposal._replace(sequence=sequence)
        topic, partition = self.partition
        epochs = (self.leader_epoch, self.proposal.partition_epoch)
        return IsrProposal(topic, self.topic_id, partition, *epochs, list(self.proposal.members))

    def _broker_epoch_of(self, broker_id: int) -> int:
        return self.broker_epoch if broker_id == self.broker_id else self.followers[broker_id].broker_epoch

    def on_refused(self, sequence: int) -> None:
        """The controller proved that the proposal of ``sequence`` was not and never will be applied (R14)."""
        if self.proposal is not None and self.proposal.sequence == sequence:
            self.proposal = None

    def on_state_changed(self, state: PartitionState, settings: TopicSettings) -> list[Outcome]:
        """Newer metadata of the same leader epoch: the one way the committed ISR changes, and the end of any proposal."""
        assert state.leader_epoch == self.leader_epoch
        assert state.leader == self.broker_id
        self.settings = settings
        if state.partition_epoch <= self.state.partition_epoch:
            return []
        self.state = state
        self.proposal = None
        return self._fail_unreachable()

    def _fail_unreachable(self) -> list[Outcome]:
        """R11, second check: a level the shrunken ISR cannot reach is answered now, and indefinitely."""
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
