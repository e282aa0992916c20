"""Produce requests on their way through a broker: checks, append, park, answer.

Owns the pending requests and their deadlines. Offset assignment and the append happen in one
synchronous block, so two requests can never interleave in a log.

Invariants: what is refused here was not written (``definite``). What times out after the append
says so (indefinite, R14). Each request is answered once, when its last partition is decided (R34).
"""

from __future__ import annotations

from collections.abc import Iterable

from minilog.core.broker.allowance import Allowance
from minilog.core.broker.lookup import Lookup
from minilog.core.broker.state import LocalState
from minilog.core.broker.turn import Turn
from minilog.core.deadlines import Deadlines
from minilog.core.effects import Effect, Reply
from minilog.core.replication.follower_sessions import FollowerSessions
from minilog.core.replication.leader import LeaderState, Outcome
from minilog.core.replication.produce_waiters import PendingProduce
from minilog.core.replication.replica import Replica
from minilog.core.topic_names import check_not_internal
from minilog.errors import (
    InvalidAcks,
    InvalidRequest,
    LeaderNotAvailable,
    MinilogError,
    Overloaded,
    TimedOut,
)
from minilog.wire.batch import Batch, split
from minilog.wire.messages import ACKS_ALL, Problem, Produce, ProducePartition, ProduceReply, ProduceResult
from minilog.wire.topic_partition import TopicPartition

ACKS_MAX = 32


class ProduceRequests:
    def __init__(self, state: LocalState, lookup: Lookup, turn: Turn, followers: FollowerSessions) -> None:
        self._state, self._lookup, self._turn, self._followers = state, lookup, turn, followers
        self.deadlines = Deadlines()

    def on_produce(self, request_id: int, request: Produce, now_ms: int) -> list[Effect]:
        self._check(request)
        pending = PendingProduce(request_id, request.partitions, now_ms + request.timeout_ms)
        self.deadlines.add(pending.deadline_ms, request_id, pending)
        effects: list[Effect] = []
        allowance = Allowance()
        for position, entry in enumerate(request.partitions):
            try:
                effects += self._append(request.acks, entry, pending, position, allowance, now_ms)
            except MinilogError as error:
                topic_id = self._lookup.topic_id_of(entry.topic)
                result = ProduceResult(entry.topic, entry.partition, Problem.of(error), topic_id=topic_id)
                self._turn.add_outcomes([Outcome(pending, position, result)])
        return effects

    def _check(self, request: Produce) -> None:
        limits = self._state.settings.limits
        if not ACKS_ALL <= request.acks <= ACKS_MAX:
            raise InvalidAcks(
                f"acks={request.acks} is not allowed; use 0, 1, a number of copies up to {ACKS_MAX}, or all (-1)"
            )
        if not 1 <= request.timeout_ms <= limits.timeout_ms_max:
            raise InvalidRequest(f"timeout_ms={request.timeout_ms} is not allowed; use 1 to {limits.timeout_ms_max}")
        if not 1 <= len(request.partitions) <= limits.partitions_max:
            raise InvalidRequest(
                f"a produce request names 1 to {limits.partitions_max} partitions, this one {len(request.partitions)}"
            )
        _check_named_once(request.partitions)
        if len(self.deadlines) >= limits.parked_requests_max:
            raise Overloaded(
                f"{len(self.deadlines)} produce requests already wait here, the limit; nothing was written, retry later"
            )

    def _append(
        self,
        acks: int,
        entry: ProducePartition,
        pending: PendingProduce,
        position: int,
        allowance: Allowance,
        now_ms: int,
    ) -> list[Effect]:
        check_not_internal(entry.topic, "written to")
        replica = self._lookup.find(entry.topic, entry.partition, entry.topic_id)
        leader = self._leader(replica, now_ms)
        batches = _batches(entry, replica)
        allowance.take(batches, replica)
        stamp_ms = self._state.stamps.take(self._state.wall_ms(now_ms))
        outcome = leader.on_produce(batches, acks, pending, position, stamp_ms)
        if outcome is not None:
            self._turn.add_outcomes([outcome])
        self._followers.on_append(replica.partition)
        self._turn.advance(replica.partition)
        return self._turn.appended(replica, now_ms)

    def _leader(self, replica: Replica, now_ms: int) -> LeaderState:
        if not isinstance(replica.role, LeaderState):
            raise self._lookup.not_leader(replica.partition, replica.role.leader)
        if not self._state.accepts_writes:
            raise LeaderNotAvailable(
                f"broker {self._state.broker_id} is handing {replica.partition} over; retry shortly"
            )
        self._lookup.check_not_isolated(replica, now_ms)
        return replica.role

    # --- answering --------------------------------------------------------------------------------

    def resolve(self, outcomes: Iterable[Outcome]) -> list[Effect]:
        """Set results. A request whose last partition is decided is answered."""
        effects: list[Effect] = []
        for pending, position, result in outcomes:
            if pending.resolve(position, result):
                self.deadlines.remove(pending.deadline_ms, pending.request_id)
                effects.append(_reply(pending))
        return effects

    def expire(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        for parked in self.deadlines.expire(now_ms):
            assert isinstance(parked, PendingProduce)
            effects.append(_reply(parked, timed_out=True))
        return effects


def _check_named_once(entries: Iterable[ProducePartition]) -> None:
    """What an append costs besides its bytes, a new segment for example, a request costs once for
    each partition."""
    named: set[TopicPartition] = set()
    for entry in entries:
        partition = TopicPartition(entry.topic, entry.partition)
        if partition in named:
            raise InvalidRequest(
                f"{partition} is named twice; put all of its batches into one entry, one after the other. Nothing was written"
            )
        named.add(partition)


def _batches(entry: ProducePartition, replica: Replica) -> list[Batch]:
    batches = split(entry.batches, replica.settings.max_message_bytes)
    if not batches:
        raise InvalidRequest(f"no records for {replica.partition}: the batches field is empty")
    return batches


def _reply(pending: PendingProduce, *, timed_out: bool = False) -> Reply:
    if timed_out:
        error = TimedOut("the record was appended but its acks level was not reached in time; it may still commit")
        for position, result in enumerate(pending.results):
            if result is None:
                entry = pending.entries[position]
                pending.resolve(position, ProduceResult(entry.topic, entry.partition, Problem.of(error)))
    return Reply(pending.request_id, ProduceReply([r for r in pending.results if r is not None]))
