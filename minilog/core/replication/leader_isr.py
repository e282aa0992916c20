"""LeaderIsr: what a leader knows of its followers, who is in sync with it, and the ISR change it
has proposed.

Owns: the followers' positions, the ISR proposal in flight, and the log start that is published to
the followers.

Invariants
* Every position counted is from a fetch in this leader epoch (R4) and, under flush.policy commit,
  durable.
* A proposal is given up only when the controller proves that it was not applied, or when metadata
  with a newer partition epoch arrives (R14).

Why pull: a follower's fetch offset is its acknowledgement, so there is no second message and no ack
state to lose. Sources: KIP-497 (AlterPartition), KIP-841/903 (eligibility), KIP-966.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from minilog.config import TopicSettings
from minilog.core.image import PartitionState
from minilog.core.moves.moving import parting_isr
from minilog.core.ports import ReplicaLog
from minilog.core.replication.isr import is_lagging, may_join
from minilog.core.replication.log_start import LogStart
from minilog.core.replication.progress import Progress, Proposal
from minilog.errors import FencedLeaderEpoch, OffsetOutOfRange, UnknownLeaderEpoch
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import ACKS_ALL, IsrLeaver, IsrMember, IsrProposal, ReplicaFetchPartition
from minilog.wire.topic_partition import TopicPartition

LACKS_MAX_MS = 60_000
"""How long a replica whose log begins later than its leader's is waited for, unless
``lacks_max_ms`` says otherwise: two rounds of retention usually even that out."""


NEVER_MS = 2**40
"""Longer ago than anything."""
QUIET_MS = 1000
"""So long a leader takes no writes, so that all of the ISR can hold all that it has."""
REFUSED_MS = 500
"""So long after a refusal nobody is proposed, and nobody waited for."""


class LeaderIsr:
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
        """(broker id, broker epoch) -> registered with that very epoch, unfenced, not shutting down
        (R17)."""
        self.start_offset = log.end_offset
        self.began_ms = now_ms
        self.lacks_max_ms = LACKS_MAX_MS
        self.high_watermark = log.high_watermark
        self.log_start = LogStart(log)
        self.is_eligible: Callable[[int], bool] = lambda broker_id: True
        """May this broker be in an ISR, whichever process it is?"""
        self._grows_ms = 0
        self._succession_ms: int | None = None
        """Since when a successor is named."""
        self._is_quiet = False
        self._parts_at: int | None = None
        """Where this log ended when those who are to go were counted last (R115)."""
        self.proposal: Proposal | None = None
        self.followers = {
            r: Progress(now_ms if r in state.isr else now_ms - NEVER_MS) for r in state.replicas if r != broker_id
        }

    @property
    def min_isr(self) -> int:
        return min(self.settings.min_insync_replicas, len(self.state.replicas))

    @property
    def position(self) -> int:
        """The leader's own position: durable under flush.policy commit, written otherwise (R8)."""
        return self.log.durable_end if self.settings.flush_policy == "commit" else self.log.end_offset

    @property
    def maximal_isr(self) -> set[int]:
        proposed = self.proposal.isr if self.proposal else ()
        return {*self.state.isr, *proposed}

    @property
    def minimal_isr(self) -> list[int]:
        """Members by the committed ISR and by the proposed one: whichever the controller goes by,
        these are in it. And without those who are about to go (R115)."""
        proposal, members = self.proposal, self.state.isr
        if self._parts_at is not None:
            members = [r for r in members if r in self.state.target]
        return members if proposal is None else [r for r in members if r in proposal.isr]

    def position_of(self, broker_id: int) -> int | None:
        return self.position if broker_id == self.broker_id else self.followers[broker_id].position

    def _joining(self, now_ms: int, replica_lag_max_ms: int) -> Iterable[int]:
        """Followers that are in sync but not yet proposed: waiting for them keeps the high
        watermark within their reach, or under steady load none could ever catch up with an ISR of
        one."""
        for broker_id, progress in self.followers.items() if now_ms >= self._grows_ms else ():
            in_sync = not is_lagging(progress.caught_up_ms, now_ms, replica_lag_max_ms)
            if in_sync and progress.lacks_since_ms is None and self._catches_up(progress, broker_id):
                yield broker_id

    def _follow_moves(self, before: PartitionState) -> None:
        """Who was added to the replicas follows from now on. Nobody goes within a leader epoch
        (R114). Others may be to go, where it was sent elsewhere: what was promised by them counts
        anew (R115)."""
        if self.state.target != before.target:
            self._parts_at = None
        for broker_id in self.state.replicas:
            if broker_id not in (self.broker_id, *self.followers):
                self.followers[broker_id] = Progress(self.began_ms - NEVER_MS)

    # --- followers --------------------------------------------------------------------------------

    def on_fetch(
        self, broker_id: int, broker_epoch: int, fetch: ReplicaFetchPartition, now_ms: int
    ) -> tuple[int, int] | None:
        """Take a follower's position. Returns (epoch, end offset) when its log diverges (R2): then
        nothing was counted.

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
        """The follower has stopped following in this epoch: nobody waits for it to join, and it
        counts for nothing."""
        if broker_id in self.followers:
            self.followers[broker_id].position = None

    def _check_start(self, broker_id: int, fetch: ReplicaFetchPartition, now_ms: int) -> None:
        """R18: a log that begins later than this one lacks records, and would have the others
        delete them if it led.

        A member of the ISR may begin later: it has heard of a start that this leader had not yet,
        as a follower. No log of an eligible replica is ever given up: should this leader be lost,
        it is what is left. Everybody else waits outside until this log begins there, too. One that
        is empty, or has waited for lacks_max_ms, begins anew. Raises OffsetOutOfRange."""
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
        """Where the follower is to begin, and which epoch ended there: of the start that has been
        published."""
        log, start_offset = self.log, self.log_start.published
        epoch = log.start_epoch if start_offset <= log.start_offset else log.epoch_at(start_offset - 1)
        if epoch >= 0:
            more["log_start_epoch"] = epoch
        return OffsetOutOfRange(detail, log_start_offset=log.start_offset, log_end_offset=log.end_offset, **more)

    def check_position(self, fetch: ReplicaFetchPartition) -> None:
        """Raises OffsetOutOfRange: the follower is to begin anew at the log's start, or to ask
        again.

        Of what ended at the start nothing is left but the epoch it had. A follower that stands
        there with another one diverges further down, where nobody can compare any more (Kafka lets
        it pass).
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

    def note_idle_follower(self, broker_id: int, followed_ms: int) -> None:
        """The follower surely followed at ``followed_ms``, and had nothing to fetch here."""
        progress = self.followers[broker_id]
        if progress.position is not None and progress.position >= self.log.end_offset:
            progress.note_caught_up(followed_ms)

    def behind_ms(self, broker_id: int, now_ms: int) -> int:
        """Since when it does not hold this log's end; counted from the begin of this role where
        nothing older is known."""
        return max(0, now_ms - max(self.followers[broker_id].caught_up_ms, self.began_ms))

    @property
    def drained(self) -> bool:
        """Whoever may lead instead holds everything that was ever appended here (controlled
        shutdown, R28): the other members of the ISR, or where there are none, those of the ELR.

        Not while a proposal is open: the controller may have let somebody in by now, and name it.
        And not while nobody may lead instead, but somebody is catching up.
        """
        own = self.position_of(self.broker_id)
        return own is not None and own >= self.log.end_offset and self.others_hold_all

    @property
    def others_hold_all(self) -> bool:
        """As ``drained``, whatever of it is durable here."""
        others = [r for r in self.state.isr if r != self.broker_id] or self.state.elr
        if not others and any(self._catches_up(p, b) for b, p in self.followers.items()):
            return False
        positions = [self.position_of(r) for r in others]
        return self.proposal is None and all(p is not None and p >= self.log.end_offset for p in positions)

    def _catches_up(self, progress: Progress, broker_id: int) -> bool:
        return progress.position is not None and self.is_current(broker_id, progress.broker_epoch)

    # --- the ISR ----------------------------------------------------------------------------------

    def propose(self, now_ms: int, replica_lag_max_ms: int, *, shrink: bool) -> bool:
        """Open a proposal if the ISR should change and none is in flight (R18, R19); True when one
        was opened.

        Shrinking is looked at on the slow tick only, growing after every fetch."""
        self._look_at_successor(now_ms)
        if self.proposal is not None:
            return False
        if self._is_quiet and self.drained:
            return self._hand_over()
        isr = [r for r in self.state.isr if not (shrink and self._should_leave(r, now_ms, replica_lag_max_ms))]
        parting = self._parting_isr()
        if parting is not None and set(parting) <= {*isr}:
            isr = parting
        elif now_ms >= self._grows_ms:
            others = [r for r in self.followers if r not in self.state.isr]
            isr += [r for r in others if self._should_join(r, now_ms, replica_lag_max_ms)]
        if set(isr) == set(self.state.isr):
            return False
        assert self.broker_id in isr
        if any(self._broker_epoch_of(r) < 0 for r in isr):
            return (
                False  # of one that was not heard in this epoch nobody can say which process it is: it would be refused
            )
        members = tuple(IsrMember(r, self._broker_epoch_of(r)) for r in isr)
        leaving = tuple(self._leaver(r, now_ms) for r in self.state.isr if r not in isr)
        self.proposal = Proposal(members, self.state.partition_epoch, -1, leaving)
        return True

    def _parting_isr(self) -> list[int] | None:
        """R115: the ISR without those who are to go, when those who stay hold all that was
        acknowledged because those held it."""
        parting = parting_isr(self.state, self.min_isr, self.is_eligible)
        if parting is None:
            self._parts_at = None
        elif self._parts_at is None:
            self._parts_at = self.log.end_offset
        return parting if self._parts_at is not None and self.high_watermark >= self._parts_at else None

    # --- a successor ------------------------------------------------------------------------------

    def refuses(self, acks: int) -> bool:
        """R111: what is appended while a successor takes over may be lost by that. What waits for
        all of the ISR is acknowledged only when the successor has it."""
        return self._is_quiet or (self.asks_for_successor and acks != ACKS_ALL)

    @property
    def asks_for_successor(self) -> bool:
        """It may lead already."""
        return self.proposal is not None and self.proposal.leader != NO_LEADER

    def _look_at_successor(self, now_ms: int) -> None:
        if self.state.successor == NO_LEADER:
            self._succession_ms, self._is_quiet = None, False
            return
        if self._succession_ms is None:
            self._succession_ms = now_ms
        self._is_quiet = now_ms - self._succession_ms < QUIET_MS

    def _hand_over(self) -> bool:
        if any(self._broker_epoch_of(r) < 0 for r in self.state.isr):
            return False
        members = tuple(IsrMember(r, self._broker_epoch_of(r)) for r in self.state.isr)
        self.proposal = Proposal(members, self.state.partition_epoch, -1, leader=self.state.successor)
        return True

    def _leaver(self, broker_id: int, now_ms: int) -> IsrLeaver:
        position = self.followers[broker_id].position
        behind = -1 if position is None else self.log.end_offset - position
        return IsrLeaver(broker_id, behind, self.behind_ms(broker_id, now_ms))

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
        """The proposal as asked for under ``sequence``; asking again under a higher one is a retry
        (R14, R15)."""
        assert self.proposal is not None
        assert self.proposal.sequence < sequence
        self.proposal = self.proposal._replace(sequence=sequence)
        topic, partition = self.partition
        epochs = (self.leader_epoch, self.proposal.partition_epoch)
        members, leaving, leader = self.proposal.members, self.proposal.leaving, self.proposal.leader
        return IsrProposal(topic, self.topic_id, partition, *epochs, list(members), list(leaving), leader)

    def _broker_epoch_of(self, broker_id: int) -> int:
        return self.broker_epoch if broker_id == self.broker_id else self.followers[broker_id].broker_epoch

    def on_refused(self, sequence: int, now_ms: int) -> None:
        """The controller proved that the proposal of ``sequence`` was not and never will be applied
        (R14). Who may not join is not proposed again at once: it would be waited for."""
        if self.proposal is not None and self.proposal.sequence == sequence:
            self.proposal = None
            self._grows_ms = now_ms + REFUSED_MS
