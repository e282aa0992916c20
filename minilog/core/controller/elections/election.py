"""Elections under way: asking the live candidates how far their logs reach, and taking the longest.

Owns soft state only: an election is begun again from the image after a controller restart, in the
same leader epoch, which the leaderless partition record has already taken. Any ISR member holds
every committed record, so whoever wins is safe. The longest log also keeps what was acknowledged at
weaker levels (R9).

Invariants
* A position counts only for the leader epoch it was asked in (answering has fenced older ones), and
  only as long as the process that told it is the registered one: the next process of that broker
  may have another disk.
* How long an election waits for all is one thing, how long an answer may be on its way another. A
  position counts as long as the election is open, and nobody is asked again before the outcome of
  the first request is known. So candidates that are far away are heard, too.
* A winner is always a candidate by the image of the moment of decision, and none that knows its
  replica to be unfit. In a recovery whoever else is there is asked as a *witness*: one that holds
  all of the longest log of the last known members, and more, is elected. A later leader epoch alone
  does not show that (``longest``).
* A log that ends before what is known to be committed is an older copy: it is elected by nobody,
  and who was last known to be complete with it counts as lost (R37).

Model: KIP-966's unclean recovery manager, used here for every election of two or more candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from minilog.core.controller.elections.lone_ends import LoneEnds
from minilog.core.controller.elections.partition_change import candidates, held_end, longest, recovery_candidates
from minilog.core.effects import Send
from minilog.core.image import ClusterImage, PartitionState
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import Position, PositionQuery, Positions, PositionsReply
from minilog.wire.topic_partition import TopicPartition

IsFit = Callable[[int, PartitionState], bool]
"""May this broker's replica lead and count, by what its process has said of it?"""


class ElectionKind(StrEnum):
    """What was known of the replica that was elected."""

    CLEAN = "clean"
    """A member of the ISR or the ELR: it holds all that was committed."""
    RECOVERY = "recovery"
    """The longest log, after all of the last that were known to hold all were asked."""
    UNCLEAN = "unclean"
    """Neither: committed records may be lost."""


class Asked(NamedTuple):
    """One process of a candidate was asked, under this sequence: an answer to anything else counts
    for nothing (R5)."""

    broker_epoch: int
    sequence: int


class Verdict(NamedTuple):
    """``winner`` leads next, None where the longest log is among the ``lacking``: those are older
    copies. At least so many committed records are ``missing`` in all logs, after a power cut."""

    state: PartitionState
    winner: int | None
    is_recovery: bool
    lacking: list[int]
    missing: int = 0


@dataclass(slots=True)
class Election:
    """``silent``: whose request is over without a position.

    Both are about the process in ``asked``, and forgotten with it."""

    partition: TopicPartition
    topic_id: str
    leader_epoch: int
    is_recovery: bool
    deadline_ms: int
    asked: dict[int, Asked] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)
    positions: dict[int, Position] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    """By the last epoch of the log of who has told it: so much is committed."""

    def committed_end(self, last_epoch: int) -> int:
        """What a log that ends in that epoch must hold, or it is an older copy. What was committed
        before the epoch began it has held: where it ends before that, it was given up since."""
        return max((end for epoch, end in self.committed.items() if epoch >= last_epoch), default=0)

    def go_on(self, deadline_ms: int) -> None:
        """Ask again whoever could not answer. The others may still do so."""
        self.deadline_ms = deadline_ms
        for broker_id in list(self.silent):
            self.forget(broker_id)

    def forget(self, broker_id: int) -> None:
        self.asked.pop(broker_id, None)
        self.silent.discard(broker_id)
        self.positions.pop(broker_id, None)


class Elections:
    def __init__(self, image: ClusterImage, timeout_ms: int, is_fit: IsFit) -> None:
        self.image = image
        self.is_fit = is_fit
        self.timeout_ms = timeout_ms
        self.lone_ends = LoneEnds(image)
        self.leaderless: dict[TopicPartition, None] = {}
        self.held: dict[ElectionKind, int] = {}
        """Leaders that took over since this controller started, by kind."""
        self.forget_counts()
        self._open: dict[TopicPartition, Election] = {}
        self._sequence = 0

    def on_changed(self, state: PartitionState) -> None:
        partition = TopicPartition(state.topic, state.partition)
        if state.leader == NO_LEADER:
            self.leaderless[partition] = None
        else:
            self.leaderless.pop(partition, None)
            self._open.pop(partition, None)

    def forget_counts(self) -> None:
        self.held = dict.fromkeys(ElectionKind, 0)

    def counts(self) -> dict[str, int]:
        """Elections since the controller started, by kind."""
        return {kind.value: count for kind, count in self.held.items()}

    def count(self, before: PartitionState | None, after: PartitionState) -> None:
        """``after`` is about to replace ``before``."""
        if before is None or before.topic_id != after.topic_id or after.leader == NO_LEADER:
            return
        if before.leader == after.leader:  # the same leader goes on, be it in another epoch
            return
        if after.leader in (*before.isr, *before.elr):
            self.held[ElectionKind.CLEAN] += 1
        else:
            self.held[ElectionKind.UNCLEAN if self._is_unclean(after) else ElectionKind.RECOVERY] += 1

    def _is_unclean(self, state: PartitionState) -> bool:
        """The journal has just said so."""
        named = state.topic_id, state.partition, state.leader_epoch
        return any((e.topic_id, e.partition, e.leader_epoch) == named for e in self.image.unclean_elections)

    def on_deleted(self, topic: str) -> None:
        for partition in [p for p in self.leaderless if p.topic == topic]:
            del self.leaderless[partition]
            self._open.pop(partition, None)

    def on_registered(self, broker_id: int) -> None:
        """Another process has the broker id now: what the one before told of its logs is about its
        logs."""
        for election in self._open.values():
            election.forget(broker_id)

    # --- asking -----------------------------------------------------------------------------------

    def ask(self, now_ms: int) -> list[Send]:
        """Open elections for leaderless partitions with candidates. One request per broker for all
        of them."""
        queries: dict[int, list[PositionQuery]] = {}
        for partition in self.leaderless:
            state = self._state(partition)
            runners, is_recovery = self._candidates(state)
            election = self._open.get(partition)
            if election is None or not _is_about(election, state) or election.is_recovery != is_recovery:
                if not runners:
                    continue
                deadline_ms = now_ms + self.timeout_ms
                election = Election(partition, state.topic_id, state.leader_epoch, is_recovery, deadline_ms)
                self._open[partition] = election
            for broker_id in (*runners, *self._witnesses(state, runners, is_recovery=is_recovery)):
                if broker_id not in election.asked:
                    query = PositionQuery(*_named(state), state.leader_epoch)
                    queries.setdefault(broker_id, []).append(query)
        return [Send(broker_id, self._request(broker_id, asked)) for broker_id, asked in queries.items()]

    def _request(self, broker_id: int, queries: list[PositionQuery]) -> Positions:
        sequence = self.next_sequence()
        broker_epoch = self.image.brokers[broker_id].epoch
        for query in queries:
            election = self._open[TopicPartition(query.topic, query.partition)]
            election.asked[broker_id] = Asked(broker_epoch, sequence)
        return Positions(broker_id, broker_epoch, self.image.controller_epoch, sequence, queries)

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def kind_of(self, state: PartitionState) -> ElectionKind | None:
        """The election that can be held without losing what was committed; None when nobody is
        there for one."""
        runners, is_recovery = self._candidates(state)
        if not runners:
            return None
        return ElectionKind.RECOVERY if is_recovery else ElectionKind.CLEAN

    def _state(self, partition: TopicPartition) -> PartitionState:
        state = self.image.partition(*partition)
        assert state is not None
        assert state.leader == NO_LEADER
        return state

    def _candidates(self, state: PartitionState) -> tuple[list[int], bool]:
        def eligible(broker_id: int) -> bool:
            return self.image.is_eligible(broker_id) and self.is_fit(broker_id, state)

        runners = candidates(state, eligible)
        return (runners, False) if runners else (recovery_candidates(state, eligible), True)

    def _witnesses(self, state: PartitionState, runners: list[int], *, is_recovery: bool) -> list[int]:
        if not is_recovery or not runners:
            return []
        return [r for r in state.replicas if r not in runners and self.image.is_eligible(r)]

    # --- answers ----------------------------------------------------------------------------------

    def on_reply(self, broker_id: int, reply: PositionsReply) -> None:
        if reply.broker_id != broker_id:
            return  # another broker answers at this address
        told_by, counts_from = Asked(reply.broker_epoch, reply.sequence), self.lone_ends.counts_from()
        for answer in reply.partitions:
            election = self._open.get(TopicPartition(answer.topic, answer.partition))
            if election is None or not _is_about(election, answer) or election.asked.get(broker_id) != told_by:
                continue
            if answer.problem is None:
                election.positions[broker_id] = answer
                if answer.last_epoch >= counts_from.get((answer.topic_id, answer.partition), answer.last_epoch):
                    known = election.committed.get(answer.last_epoch, 0)
                    election.committed[answer.last_epoch] = max(known, answer.high_watermark)
            else:
                election.silent.add(broker_id)

    def on_ended(self, request: Positions) -> None:
        """The request has had its outcome: nobody will tell by it what has not been told."""
        asked = Asked(request.broker_epoch, request.sequence)
        for query in request.partitions:
            election = self._open.get(TopicPartition(query.topic, query.partition))
            if election is None or election.asked.get(request.broker_id) != asked:
                continue
            if request.broker_id not in election.positions:
                election.silent.add(request.broker_id)

    # --- deciding ---------------------------------------------------------------------------------

    def decide(self, now_ms: int) -> list[Verdict]:
        """For every election that can end now.

        It can when every candidate has answered or failed to, or at its deadline with at least one
        answer. A recovery needs the answer of all, and waits as long for its witnesses. One that
        cannot end at its deadline gets another.
        """
        verdicts = []
        for partition, election in list(self._open.items()):
            state = self._state(partition)
            runners, is_recovery = self._candidates(state)
            witnesses = self._witnesses(state, runners, is_recovery=is_recovery)
            known = {r: election.positions[r] for r in (*runners, *witnesses) if r in election.positions}
            winner = longest(known, runners, witnesses)
            is_over = now_ms >= election.deadline_ms
            if winner is not None and is_recovery == election.is_recovery and self._is_complete(state, now_ms):
                lacking = self._lacking(state, election, known)
                missing = 0
                if is_recovery and winner not in lacking:
                    missing = self.lone_ends.on_recovered(state, known[winner].last_epoch, known[winner].end_offset)
                verdicts.append(Verdict(state, None if winner in lacking else winner, is_recovery, lacking, missing))
            elif is_over and runners:
                election.go_on(now_ms + self.timeout_ms)
            elif is_over:
                del self._open[partition]
        return verdicts

    def _is_complete(self, state: PartitionState, now_ms: int) -> bool:
        """Everybody was heard whom this election hears."""
        election = self._open[TopicPartition(state.topic, state.partition)]
        runners, is_recovery = self._candidates(state)
        heard = election.silent.union(election.positions)
        if is_recovery and not election.positions.keys() >= {*runners}:
            return False
        asked = {*runners, *self._witnesses(state, runners, is_recovery=is_recovery)}
        return heard >= asked or now_ms >= election.deadline_ms

    def _lacking(self, state: PartitionState, election: Election, known: Mapping[int, Position]) -> list[int]:
        """Those whose logs end before what is known to be committed. What an unclean stop may lose
        by ``flush.policy`` is no proof."""
        if state.isr:
            return []
        least = 0
        if not election.is_recovery or self.image.topics[state.topic].settings.flush_policy == "commit":
            least = self.lone_ends.of(state)
        counts_from = self.lone_ends.counts_from().get((state.topic_id, state.partition), 0)
        later = [log for log in known.values() if log.last_epoch >= counts_from]
        return [
            r
            for r, log in known.items()
            if log.end_offset < max(least, election.committed_end(log.last_epoch)) or _has_parted(log, later)
        ]

    @property
    def open_count(self) -> int:
        return len(self._open)


def _is_about(election: Election, it: PartitionState | Position) -> bool:
    return (election.topic_id, election.leader_epoch) == (it.topic_id, it.leader_epoch)


def _has_parted(log: Position, others: Iterable[Position]) -> bool:
    """Somebody who has gone on without it tells that more is committed than both hold."""
    return any(held_end(log, one) < one.high_watermark for one in others if one.last_epoch > log.last_epoch)


def _named(state: PartitionState) -> tuple[str, str, int]:
    return state.topic, state.topic_id, state.partition
