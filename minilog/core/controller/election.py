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
  replica to be unfit.

Model: KIP-966's unclean recovery manager, used here for every election of two or more candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from minilog.core.controller.partition_change import candidates, most_up_to_date, recovery_candidates
from minilog.core.effects import Send
from minilog.core.image import ClusterImage, PartitionState
from minilog.wire.messages import Position, PositionQuery, Positions, PositionsReply
from minilog.wire.metadata_records import NO_LEADER
from minilog.wire.topic_partition import TopicPartition

IsFit = Callable[[int, PartitionState], bool]
"""May this broker's replica lead and count, by what its process has said of it?"""


class ElectionKind(StrEnum):
    """What was known of the replica that was elected."""

    CLEAN = "clean"
    """A member of the ISR or the ELR: it holds all that was committed."""
    RECOVERY = "recovery"
    """One of the last that were known to hold all, after their logs were compared."""
    UNCLEAN = "unclean"
    """Neither: committed records may be lost."""


class Asked(NamedTuple):
    """One process of a candidate was asked, under this sequence: an answer to anything else counts
    for nothing (R5)."""

    broker_epoch: int
    sequence: int


@dataclass(slots=True)
class Election:
    """``positions``: (last epoch, end offset) by broker. ``silent``: whose request is over without
    one.

    Both are about the process in ``asked``, and forgotten with it."""

    partition: TopicPartition
    topic_id: str
    leader_epoch: int
    is_recovery: bool
    deadline_ms: int
    asked: dict[int, Asked] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)
    positions: dict[int, tuple[int, int]] = field(default_factory=dict)

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
        """``after`` is about to replace ``before``: a recovery takes a leader that was last known
        to be complete."""
        if before is None or before.topic_id != after.topic_id or after.leader == NO_LEADER:
            return
        if (before.leader, before.leader_epoch) == (after.leader, after.leader_epoch):
            return
        if after.leader in (*before.isr, *before.elr):
            self.held[ElectionKind.CLEAN] += 1
        else:
            self.held[ElectionKind.RECOVERY if after.leader in before.last_known_elr else ElectionKind.UNCLEAN] += 1

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
            for broker_id in runners:
                if broker_id not in election.asked:
                    query = PositionQuery(*_named(state), state.leader_epoch)
                    queries.setdefault(broker_id, []).append(query)
        return [Send(broker_id, self._request(broker_id, asked)) for broker_id, asked in queries.items()]

    def _request(self, broker_id: int, queries: list[PositionQuery]) -> Positions:
        self._sequence += 1
        broker_epoch = self.image.brokers[broker_id].epoch
        for query in queries:
            election = self._open[TopicPartition(query.topic, query.partition)]
            election.asked[broker_id] = Asked(broker_epoch, self._sequence)
        return Positions(broker_id, broker_epoch, self.image.controller_epoch, self._sequence, queries)

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

    # --- answers ----------------------------------------------------------------------------------

    def on_reply(self, broker_id: int, reply: PositionsReply) -> None:
        if reply.broker_id != broker_id:
            return  # another broker answers at this address
        told_by = Asked(reply.broker_epoch, reply.sequence)
        for answer in reply.partitions:
            election = self._open.get(TopicPartition(answer.topic, answer.partition))
            if election is None or not _is_about(election, answer) or election.asked.get(broker_id) != told_by:
                continue
            if answer.problem is None:
                election.positions[broker_id] = (answer.last_epoch, answer.end_offset)
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

    def decide(self, now_ms: int) -> list[tuple[PartitionState, int, bool]]:
        """(leaderless state, winner, is recovery) for every election that can end now.

        It can when every candidate has answered or failed to, or at its deadline with at least one
        answer. A recovery needs the answer of all. One that cannot end at its deadline gets
        another.
        """
        decided = []
        for partition, election in list(self._open.items()):
            state = self._state(partition)
            runners, is_recovery = self._candidates(state)
            known = {r: election.positions[r] for r in runners if r in election.positions}
            heard_all = all(r in known or r in election.silent for r in runners)
            complete = len(known) == len(runners) if is_recovery else heard_all or now_ms >= election.deadline_ms
            winner = most_up_to_date(known, runners)
            if winner is not None and complete and is_recovery == election.is_recovery:
                decided.append((state, winner, is_recovery))
            elif now_ms >= election.deadline_ms and runners:
                election.go_on(now_ms + self.timeout_ms)
            elif now_ms >= election.deadline_ms:
                del self._open[partition]
        return decided

    @property
    def open_count(self) -> int:
        return len(self._open)


def _is_about(election: Election, it: PartitionState | Position) -> bool:
    return (election.topic_id, election.leader_epoch) == (it.topic_id, it.leader_epoch)


def _named(state: PartitionState) -> tuple[str, str, int]:
    return state.topic, state.topic_id, state.partition
