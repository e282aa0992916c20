"""Produce requests on their way through a broker: checks, append, park, answer.

Owns the pending requests and their deadlines. Offset assignment and the append happen in one
synchronous block, so two requests can never interleave in a log.

Invariants: what is refused here was not written (``definite``). What times out after the append
says so (indefinite, R14). Each request is answered once, when its last partition is decided (R34).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from minilog.core.broker.lookup import Lookup
from minilog.core.broker.requests.allowance import Inspected, Share, inspect
from minilog.core.broker.requests.timestamps import check_timestamps
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
from minilog.wire.messages import ACKS_ALL, Problem, Produce, ProducePartition, ProduceReply, ProduceResult
from minilog.wire.topic_partition import TopicPartition

ACKS_MAX = 32
CROWD = 64
"""So many that wait are a queue."""
TURN_WORK: Final = 512
"""What one turn appends, in batches. Each costs some 40 µs."""
APPEND_WORK: Final = 32
"""What an append costs besides, a file written to for example."""


class Unwritten(NamedTuple):
    """What one partition is sent."""

    entry: ProducePartition
    share: Share | MinilogError
    acks: int
    pending: PendingProduce
    position: int

    @property
    def work(self) -> int:
        return APPEND_WORK + (0 if isinstance(self.share, MinilogError) else len(self.share.batches))


class ProduceRequests:
    def __init__(self, state: LocalState, lookup: Lookup, turn: Turn, followers: FollowerSessions) -> None:
        self._state, self._lookup, self._turn, self._followers = state, lookup, turn, followers
        self.deadlines = Deadlines()
        self._since_ms: dict[int, int] = {}
        """When each that waits has come, the oldest first."""
        self._unwritten: dict[TopicPartition, dict[int, Unwritten]] = {}
        """What is to be appended in later turns (R42), by request. Whatever comes for one of these
        partitions goes behind it. The partition whose turn is next comes first."""

    def on_produce(self, request_id: int, sent: Produce | Inspected, now_ms: int) -> list[Effect]:
        """``sent`` was looked into before, or is now."""
        request = sent.request if isinstance(sent, Inspected) else sent
        self._check(request)
        self._check_in_time(request, now_ms)
        shares = (sent if isinstance(sent, Inspected) else inspect(sent)).shares
        pending = PendingProduce(request_id, request.partitions, now_ms + request.timeout_ms)
        self.deadlines.add(pending.deadline_ms, request_id, pending)
        self._since_ms[request_id] = now_ms
        effects: list[Effect] = []
        room = TURN_WORK
        for position, (entry, share) in enumerate(zip(request.partitions, shares, strict=True)):
            item = Unwritten(entry, share, request.acks, pending, position)
            if room > 0 and pending.entries[position] not in self._unwritten:
                room -= item.work
                effects += self._write(item, now_ms)
            else:
                self._leave(item)
        return effects

    def _leave(self, item: Unwritten) -> None:
        pending = item.pending
        pending.unwritten.add(item.position)
        self._unwritten.setdefault(pending.entries[item.position], {})[pending.request_id] = item
        self._turn.leave(self.go_on)

    def go_on(self, now_ms: int) -> list[Effect]:
        """R42: the next appends. Partitions take turns: who writes much to one waits there."""
        effects: list[Effect] = []
        room = TURN_WORK
        while room > 0 and self._unwritten:
            partition, queue = next(iter(self._unwritten.items()))
            item = self._take(partition, next(iter(queue)))
            room -= item.work
            effects += self._write(item, now_ms)
            if queue:
                self._unwritten[partition] = self._unwritten.pop(partition)
        if self._unwritten:
            self._turn.leave(self.go_on)
        return effects

    def _take(self, partition: TopicPartition, request_id: int) -> Unwritten:
        queue = self._unwritten[partition]
        item = queue.pop(request_id)
        if not queue:
            del self._unwritten[partition]
        item.pending.unwritten.discard(item.position)
        return item

    def _write(self, item: Unwritten, now_ms: int) -> list[Effect]:
        entry = item.entry
        try:
            return self._append(item.acks, entry, item.share, item.pending, item.position, now_ms)
        except MinilogError as error:
            topic_id = self._lookup.topic_id_of(entry.topic)
            result = ProduceResult(entry.topic, entry.partition, Problem.of(error), topic_id=topic_id)
            self._turn.add_outcomes([Outcome(item.pending, item.position, result)])
            return []

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
        if request.acks == 0 and any(entry.expected_offset is not None for entry in request.partitions):
            raise InvalidRequest(
                "expected_offset is a question, and with acks=0 nobody is answered; use acks=1, N or all. "
                "Nothing was written"
            )
        _check_named_once(request.partitions)
        if len(self.deadlines) >= limits.parked_requests_max:
            raise Overloaded(
                f"{len(self.deadlines)} produce requests already wait here, the limit; nothing was written, retry later"
            )

    def _check_in_time(self, request: Produce, now_ms: int) -> None:
        """R45: with many waiting, a new write will wait as long as the oldest has. One that would
        not be answered in time is refused before it is written. Else everybody's time is over when
        the answers come. A few that wait for a replica are no overload."""
        if len(self._since_ms) < CROWD:
            return
        waited_ms = now_ms - next(iter(self._since_ms.values()))
        if 2 * waited_ms > request.timeout_ms:
            raise Overloaded(
                f"{len(self._since_ms)} produce requests wait here, the oldest for {waited_ms} ms, and timeout_ms is "
                f"{request.timeout_ms}; nothing was written, retry later or with less at a time"
            )

    def _append(
        self,
        acks: int,
        entry: ProducePartition,
        share: Share | MinilogError,
        pending: PendingProduce,
        position: int,
        now_ms: int,
    ) -> list[Effect]:
        check_not_internal(entry.topic, "written to")
        replica = self._lookup.find(entry.topic, entry.partition, entry.topic_id)
        leader = self._leader(replica, acks, now_ms)
        if isinstance(share, MinilogError):
            raise share
        share.check(replica)
        check_timestamps(share.batches, replica.partition, replica.settings, self._state, now_ms)
        stamp_ms = self._state.stamps.take(self._state.wall_ms(now_ms))
        end_offset = replica.log.end_offset
        outcome = leader.on_produce(share.batches, acks, pending, position, stamp_ms, entry.expected_offset)
        if replica.log.end_offset > end_offset:
            replica.records_in += replica.log.end_offset - end_offset
            replica.bytes_in += len(entry.batches)
        if outcome is not None:
            self._turn.add_outcomes([outcome])
        self._followers.on_append(replica.partition)
        self._turn.advance(replica.partition)
        return self._turn.appended(replica, now_ms)

    def _leader(self, replica: Replica, acks: int, now_ms: int) -> LeaderState:
        if not isinstance(replica.role, LeaderState):
            raise self._lookup.not_leader(replica.partition, replica.role.leader)
        if not self._state.accepts_writes or replica.role.refuses(acks):
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
                self._since_ms.pop(pending.request_id, None)
                effects.append(_reply(pending))
        return effects

    def expire(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        for parked in self.deadlines.expire(now_ms):
            assert isinstance(parked, PendingProduce)
            self._since_ms.pop(parked.request_id, None)
            unwritten = frozenset(parked.unwritten)
            for position in unwritten:
                self._take(parked.entries[position], parked.request_id)
            effects.append(_timed_out(parked, unwritten))
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


def _reply(pending: PendingProduce) -> Reply:
    return Reply(pending.request_id, ProduceReply([r for r in pending.results if r is not None]))


def _timed_out(pending: PendingProduce, unwritten: Collection[int]) -> Reply:
    for position, result in enumerate(pending.results):
        if result is None:
            entry = pending.entries[position]
            error = _unbegun() if position in unwritten else _unfinished()
            pending.resolve(position, ProduceResult(entry.topic, entry.partition, Problem.of(error)))
    return _reply(pending)


def _unfinished() -> TimedOut:
    return TimedOut("the record was appended but its acks level was not reached in time; it may still commit")


def _unbegun() -> TimedOut:
    return TimedOut("this partition's turn did not come in time; nothing was written to it, retry", definite=True)
