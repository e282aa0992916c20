"""Elections under way: asking the live candidates how far their logs reach, and taking the longest.

Owns soft state only: an election is begun again from the image after a controller restart, in the same leader
epoch, which the leaderless partition record has already taken. Any ISR member holds every committed record, so
whoever wins is safe; the longest log also keeps what was acknowledged at weaker levels (R9).

Invariants: a position counts only for the leader epoch it was asked in (answering has fenced older ones); a
winner is always a candidate by the image of the moment of decision. Model: KIP-966's unclean recovery manager,
used here for every election of two or more candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from minilog.core.effects import Send, TopicPartition
from minilog.core.image import ClusterImage, PartitionState
from minilog.core.isr import most_up_to_date
from minilog.core.partition_change import IsEligible, candidates, recovery_candidates
from minilog.wire.messages import PositionQuery, Positions, PositionsReply
from minilog.wire.metadata import NO_LEADER


@dataclass(slots=True)
class Election:
    """``positions``: (last epoch, end offset) by broker; ``silent``: who could not answer this time.

    ``asked``: sequence of the request by broker; a late answer to an earlier one counts for nothing (R5)."""

    partition: TopicPartition
    leader_epoch: int
    is_recovery: bool
    deadline_ms: int
    asked: dict[int, int] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)
    positions: dict[int, tuple[int, int]] = field(default_factory=dict)


class Elections:
    def __init__(self, image: ClusterImage, timeout_ms: int) -> None:
        self.image = image
        self.timeout_ms = timeout_ms
        self.leaderless: dict[TopicPartition, None] = {}
        self.held: dict[str, int] = {}
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
        self.held = {"clean": 0, "recovery": 0, "unclean": 0}

    def count(self, before: PartitionState | None, after: PartitionState) -> None:
        """``after`` is about to replace ``before``: a recovery takes a leader that was last known to be complete."""
        if before is None or before.topic_id != after.topic_id or after.leader == NO_LEADER:
            return
        if (before.leader, before.leader_epoch) == (after.leader, after.leader_epoch):
            return
        if after.leader in (*before.isr, *before.elr):
            self.held["clean"] += 1
        else:
            self.held["recovery" if after.leader in before.last_known_elr else "unclean"] += 1

    def on_deleted(self, topic: str) -> None:
        for partition in [p for p in self.leaderless if p.topic == topic]:
            del self.leaderless[partition]
            self._open.pop(partition, None)

    # --- asking --------------------------------------------------------------------------------------------

    def ask(self, now_ms: int) -> list[Send]:
        """Open elections for leaderless partitions with candidates; one request per broker for all of them."""
        queries: dict[int, list[PositionQuery]] = {}
        for partition in self.leaderless:
            state = self._state(partition)
            runners, is_recovery = self._candidates(state)
            election = self._open.get(partition)
            if election is None or election.leader_epoch != state.leader_epoch or election.is_recovery != is_recovery:
                if not runners:
                    continue
                election = Election(partition, state.leader_epoch, is_recovery, now_ms + self.timeout_ms)
                self._open[partition] = election
            for broker_id in runners:
                if broker_id not in election.asked:
                    query = PositionQuery(*_named(state), state.leader_epoch)
                    queries.setdefault(broker_id, []).append(query)
        return [Send(broker_id, self._request(broker_id, asked)) for broker_id, asked in queries.items()]

    def _request(self, broker_id: int, queries: list[PositionQuery]) -> Positions:
        self._sequence += 1
        for query in queries:
            self._open[TopicPartition(query.topic, query.partition)].asked[broker_id] = self._sequence
        return Positions(self.image.controller_epoch, self._sequence, queries)

    def _state(self, partition: TopicPartition) -> PartitionState:
        state = self.image.partition(*partition)
        assert state is not None
        assert state.leader == NO_LEADER
        return state

    def _candidates(self, state: PartitionState) -> tuple[list[int], bool]:
        eligible: IsEligible = self.image.is_eligible
        runners = candidates(state, eligible)
        return (runners, False) if runners else (recovery_candidates(state, eligible), True)

    # --- answers -------------------------------------------------------------------------------------------

    def on_reply(self, broker_id: int, reply: PositionsReply) -> None:
        for answer in reply.partitions:
            election = self._open.get(TopicPartition(answer.topic, answer.partition))
            if election is None or election.leader_epoch != answer.leader_epoch:
                continue
            if election.asked.get(broker_id) != reply.sequence:
                continue
            if answer.problem is None:
                election.positions[broker_id] = (answer.last_epoch, answer.end_offset)
            else:
                election.silent.add(broker_id)

    def on_failed(self, broker_id: int, request: Positions) -> None:
        for query in request.partitions:
            election = self._open.get(TopicPartition(query.topic, query.partition))
            if election is not None and election.asked.get(broker_id) == request.sequence:
                election.silent.add(broker_id)

    # --- deciding --------------------------------------------------------------------------------------------

    def decide(self, now_ms: int) -> list[tuple[PartitionState, int, bool]]:
        """(leaderless state, winner, is recovery) for every election that can end now.

        It can when every candidate has answered or failed to, or at its deadline with at least one answer; a
        recovery needs the answer of all. One that cannot end at its deadline asks again.
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
            elif now_ms >= election.deadline_ms:
                del self._open[partition]
        return decided

    @property
    def open_count(self) -> int:
        return len(self._open)


def _named(state: PartitionState) -> tuple[str, str, int]:
    return state.topic, state.topic_id, state.partition
