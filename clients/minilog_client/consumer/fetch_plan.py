"""What a consumer asks for next, of whom, and what it hands out. Pure. ``consumer.py`` sends and
waits.

One request covers all partitions of one leader that want something, and the broker holds it until
there is news. A partition that comes to want something while such a poll is held (its buffer was
full, it was paused, it has just been found) does not wait for the poll to end: it travels in a poll
of its own, which ends when the first one does, so that they merge again. A leader holds at most
``POLLS_MAX`` of them, and a partition is in one at most.

Invariants:
* At most ``prefetch_bytes`` are fetched ahead, plus one batch per partition where a batch is larger
  than its share.
* A partition that fails, waits or is full never keeps another one from being asked for.
* Partitions are handed out in turn, a batch each, and asked for in that turn: brokers fill their
  answers from the front, so whoever got nothing lately comes first.
* An error that stopped a partition has its turn like records, so no busy neighbour hides it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from random import Random
from typing import Final, NamedTuple

from minilog.errors import (
    InternalError,
    InvalidRequest,
    LeaderNotAvailable,
    LogTruncated,
    MinilogError,
    OffsetOutOfRange,
    UnknownTopic,
)
from minilog.wire.messages import Fetch, FetchReply, FetchResult, Offsets, OffsetsReply
from minilog_client.connection.routing import Leader, Routing
from minilog_client.consumer.columns import joined
from minilog_client.consumer.decoding import Decoding
from minilog_client.consumer.fetched import Arrived, arrived, owned_batches, resolved
from minilog_client.consumer.partition_fetch import PartitionFetch, Taken, is_final, unreachable
from minilog_client.consumer.records import AnyRecord
from minilog_client.consumer.start import StartLike
from minilog_client.settings import MIB, ConsumerSettings
from minilog_client.values import PartitionKey

POLLS_MAX: Final = 4
FETCH_BYTES: Final = 16 * MIB
_WAIT_MIN_MS: Final = 10
_LEADER_ONLY_MS: Final = 5000
_log = logging.getLogger("minilog_client")


class Entry(NamedTuple):
    """One partition in one request, as it was when the request was made."""

    state: PartitionFetch
    generation: int
    is_leader: bool


@dataclass(eq=False, slots=True)
class Request:
    """To be sent to ``leader``; identity is what partitions remember of it."""

    leader: Leader
    message: Fetch | Offsets
    entries: list[Entry]
    sent_ms: int
    wait_ms: int
    is_over: bool = False

    def current(self) -> list[Entry]:
        """The entries still waiting for this very request."""
        return [entry for entry in self.entries if self.is_current(entry)]

    def is_current(self, entry: Entry) -> bool:
        return entry.state.request is self and entry.state.generation == entry.generation


@dataclass(slots=True)
class _Polls:
    """Polls held by one broker. Those begun later end with the first, at ``end_ms``."""

    count: int = 0
    end_ms: int = 0


@dataclass(slots=True)
class _Group:
    leader: Leader
    fetches: list[tuple[PartitionFetch, int, bool]] = field(default_factory=list)
    lookups: list[PartitionFetch] = field(default_factory=list)


class FetchPlan:
    def __init__(self, routing: Routing, settings: ConsumerSettings, rack: str, random: Random) -> None:
        self.settings = settings
        self.states: dict[PartitionKey, PartitionFetch] = {}
        self._routing = routing
        self._rack = rack
        self._random = random
        self._polls: dict[str, _Polls] = {}
        self._turn: dict[PartitionKey, None] = {}
        self.taken: list[Taken] = []
        self.arrived: list[Arrived] = []
        """What the last reply brought."""
        self._unreachable_told_ms = 0
        self.decoding: Decoding | None = None
        """How values and keys are read; None: as bytes. Set before anything is added."""

    def state(self, topic: str, partition: int) -> PartitionFetch:
        """Raises InvalidRequest for a partition that is not read."""
        state = self.states.get((topic, partition))
        if state is None:
            assigned = ", ".join(f"{name}-{number}" for name, number in sorted(self.states)[:10]) or "none yet"
            raise InvalidRequest(f"{topic}-{partition} is not read by this consumer; it reads {assigned}")
        return state

    def add(self, topic: str, partition: int, start: StartLike, last_epoch: int = -1) -> PartitionFetch:
        state = PartitionFetch(topic, partition, start, last_epoch, self.settings.errors_tolerance, self.decoding)
        self.states[topic, partition] = state
        self._turn[topic, partition] = None
        return state

    def remove(self, key: PartitionKey) -> None:
        state = self.states.pop(key)
        state.generation += 1
        del self._turn[key]

    # --- asking -----------------------------------------------------------------------------------

    def plan(self, now_ms: int) -> tuple[list[Request], bool]:
        """Requests to send now, and whether some partition has nobody to ask (metadata are
        wanted)."""
        groups: dict[str, _Group] = {}
        leaderless = False
        share = max(1, self.settings.prefetch_bytes // (2 * max(1, len(self.states))))
        for key in self._turn:
            state = self.states[key]
            if not state.wants(now_ms, share):
                continue
            leader, is_leader = self._locate(state, now_ms)
            if not state.attempts.may_try(now_ms, leader.leader_epoch if leader else -1):
                continue
            if leader is None:
                leaderless = True
                self._on_leaderless(state, now_ms)
                continue
            group = groups.setdefault(leader.url, _Group(leader))
            state.attempts.tried_epoch = leader.leader_epoch
            if state.position is None:
                group.lookups.append(state)
            else:
                group.fetches.append((state, leader.leader_epoch, is_leader))
        requests: list[Request] = []
        for group in groups.values():
            requests += self._requests(group, min(share, self.settings.partition_fetch_bytes), now_ms)
        return requests, leaderless

    def _on_leaderless(self, state: PartitionFetch, now_ms: int) -> None:
        error: MinilogError = LeaderNotAvailable(f"{state.topic}-{state.partition} has no leader")
        if self._routing.missing_since_ms(state.topic) is not None:
            error = UnknownTopic(f"topic {state.topic} does not exist any more")
        state.attempts.on_failure(error, now_ms, self._random)
        if is_final(error, state.attempts, now_ms):
            state.on_failed(error)

    def _locate(self, state: PartitionFetch, now_ms: int) -> tuple[Leader | None, bool]:
        leader = self._routing.leader(state.topic, state.partition)
        settings = self.settings
        if settings.read_from == "leader" or state.position is None or now_ms < state.leader_only_until_ms:
            return leader, True
        replica = self._routing.replica(state.topic, state.partition, self._rack)
        return replica, replica is not None and leader is not None and replica.broker_id == leader.broker_id

    def _requests(self, group: _Group, max_bytes: int, now_ms: int) -> Iterable[Request]:
        if group.lookups:
            wanted = [state.offsets_request() for state in group.lookups]
            entries = [Entry(state, state.generation, True) for state in group.lookups]
            yield self._begin(Request(group.leader, Offsets(wanted), entries, now_ms, 0))
        polls = self._polls.setdefault(group.leader.url, _Polls())
        if not group.fetches or polls.count >= POLLS_MAX:
            return
        if polls.count == 0:
            is_suspect = self._routing.is_suspect(group.leader.url, now_ms)
            polls.end_ms = now_ms + (0 if is_suspect else self.settings.max_wait_ms)
        polls.count += 1
        wait_ms = max(_WAIT_MIN_MS, polls.end_ms - now_ms)
        message = Fetch(
            [state.fetch_request(max_bytes, epoch) for state, epoch, _ in group.fetches],
            max_wait_ms=wait_ms,
            max_bytes=FETCH_BYTES,
            any_replica=self.settings.read_from == "any",
            max_lag_ms=self.settings.max_lag_ms,
        )
        entries = [Entry(state, state.generation, is_leader) for state, _, is_leader in group.fetches]
        yield self._begin(Request(group.leader, message, entries, now_ms, wait_ms))

    def _begin(self, request: Request) -> Request:
        for entry in request.entries:
            entry.state.request = request
        return request

    def next_wake_ms(self, now_ms: int) -> int | None:
        """When ``plan`` should be called next, if nothing else happens before."""
        wake: int | None = None
        for state in self.states.values():
            if state.request is not None or state.paused or state.error is not None:
                continue
            due_ms = max(state.not_before_ms, state.attempts.retry_at_ms if state.attempts.tries else 0)
            if due_ms > now_ms and (wake is None or due_ms < wake):
                wake = due_ms
        return wake

    # --- answers ----------------------------------------------------------------------------------

    def on_done(self, request: Request) -> list[Entry]:
        """The request is over, however it went; returns the entries its outcome still matters
        to."""
        current = request.current()
        for entry in current:
            entry.state.request = None
        if isinstance(request.message, Fetch) and not request.is_over:
            self._polls[request.leader.url].count -= 1
        request.is_over = True
        return current

    def on_fetched(self, request: Request, reply: FetchReply, now_ms: int) -> list[tuple[PartitionFetch, MinilogError]]:
        """Take over a reply; returns the partitions that failed, for the caller to look after the
        metadata."""
        self.arrived = []
        results = {(result.topic, result.partition): result for result in reply.partitions}
        full = [result for result in reply.partitions if len(result.batches)]
        is_empty_early = not full and now_ms - request.sent_ms < request.wait_ms // 2
        failed: list[tuple[PartitionFetch, MinilogError]] = []
        for entry in self.on_done(request):
            state = entry.state
            try:
                self._take_result(state, results.get((state.topic, state.partition)), len(full) == 1)
            except MinilogError as error:
                self.on_failure(entry, error, now_ms)
                failed.append((state, error))
            else:
                if is_empty_early:
                    state.not_before_ms = now_ms + _WAIT_MIN_MS
        return failed

    def _take_result(self, state: PartitionFetch, result: FetchResult | None, is_alone: bool) -> None:
        if result is None:
            raise InternalError(f"the broker said nothing about {state.topic}-{state.partition}")
        if result.problem is not None:
            raise result.problem.error()
        batches = owned_batches(result, is_alone)
        state.on_fetched(result, batches)
        if batches:
            self.arrived.append(arrived(state, batches))

    def on_offsets(
        self, request: Request, reply: OffsetsReply, now_ms: int
    ) -> list[tuple[PartitionFetch, MinilogError]]:
        """The same for a lookup of offsets."""
        results = {(result.topic, result.partition): result for result in reply.partitions}
        failed: list[tuple[PartitionFetch, MinilogError]] = []
        for entry in self.on_done(request):
            state = entry.state
            try:
                state.on_offsets(resolved(results.get((state.topic, state.partition)), state))
            except MinilogError as error:
                self.on_failure(entry, error, now_ms)
                failed.append((state, error))
        return failed

    def give_up(self, entry: Entry, error: MinilogError, now_ms: int) -> None:
        """What becomes of its request does not matter to this entry any more."""
        entry.state.request = None
        self.on_failure(entry, error, now_ms)

    def on_failure(self, entry: Entry, error: MinilogError, now_ms: int) -> None:
        """What the entry asked for was refused."""
        state = entry.state
        if not entry.is_leader:
            state.leader_only_until_ms = now_ms + _LEADER_ONLY_MS
            return
        state.attempts.on_failure(error, now_ms, self._random)
        if isinstance(error, LogTruncated):
            state.on_truncated(error)
        elif isinstance(error, OffsetOutOfRange) and self.settings.out_of_range != "raise":
            self._reset(state, error)
        elif is_final(error, state.attempts, now_ms):
            state.on_failed(error)

    def _reset(self, state: PartitionFetch, error: OffsetOutOfRange) -> None:
        """The application chose where to go on. What is at hand already is handed out first."""
        if state.is_ahead:
            return
        choice = self.settings.out_of_range
        _log.warning("%s-%s: %s; going on at the %s", state.topic, state.partition, error.detail, choice)
        state.on_out_of_range(choice)

    # --- handing out ------------------------------------------------------------------------------

    def next_state(self, now_ms: int, as_columns: bool = False) -> PartitionFetch | None:
        """The partition whose turn it is to hand out records, None when none has any.

        Raises what has stopped a partition whose turn it is, once all that came before has been
        handed out."""
        for key, state in self._in_turn():
            if state.has_records and state.fill(as_columns):
                return state
            if state.is_stopped:
                self._to_the_end(key)
                state.raise_error(now_ms)
        return None

    def take(self, count_max: int, now_ms: int, as_columns: bool = False) -> Sequence[AnyRecord]:
        """Up to ``count_max`` records, as a list or as columns. What one partition hands out is in
        order. ``taken`` says how far each came.

        Raises what ``next_state`` does, instead of the first record only: nothing that was taken is
        dropped for it."""
        parts: list[Sequence[AnyRecord]] = []
        count = 0
        self.taken = []
        state = self.next_state(now_ms, as_columns)
        while state is not None:
            handed = state.take(count_max - count)
            self._note_taken(state, handed)
            self.end_turn(state)
            parts.append(handed)
            count += len(handed)
            state = self._next_with_records(as_columns) if count < count_max else None
        return joined(parts) if as_columns else list(chain.from_iterable(parts))

    def _note_taken(self, state: PartitionFetch, handed: Sequence[AnyRecord]) -> None:
        last = handed[-1]
        offset = last.offset + 1 if state.position is None else state.position
        self.taken.append(Taken(state, offset, last.leader_epoch, state.generation, last.offset, len(handed)))

    def _next_with_records(self, as_columns: bool) -> PartitionFetch | None:
        return next((state for _, state in self._in_turn() if state.has_records and state.fill(as_columns)), None)

    def _in_turn(self) -> Iterator[tuple[PartitionKey, PartitionFetch]]:
        return ((key, self.states[key]) for key in self._turn)

    def end_turn(self, state: PartitionFetch) -> None:
        key = (state.topic, state.partition)
        if state.index >= len(state.records) and key in self._turn:
            self._to_the_end(key)

    def _to_the_end(self, key: PartitionKey) -> None:
        del self._turn[key]
        self._turn[key] = None

    @property
    def is_unresolved(self) -> bool:
        """Some partition's start is unknown although nothing is known to be wrong with it."""
        return any(state.is_unknown and state.attempts.tries < 3 for state in self.states.values())

    def raise_unreachable(self, now_ms: int) -> None:
        """Tell, now and then, of a partition that is tried in vain for long. One that nobody tries
        to read is none."""
        limit_ms = self.settings.unreachable_limit_ms
        tried = (state for state in self.states.values() if not state.paused and state.error is None)
        state = next((state for state in tried if state.attempts.failing_for_ms(now_ms) >= limit_ms), None)
        if state is None or now_ms - self._unreachable_told_ms < limit_ms:
            return
        self._unreachable_told_ms = now_ms
        raise unreachable(state, limit_ms)

    def put_back(self, unread: Iterable[AnyRecord]) -> list[PartitionFetch]:
        """``unread``, the last that was handed out of each of its partitions, comes again. Returns
        these partitions, as far as they are read still."""
        by_key: dict[PartitionKey, list[AnyRecord]] = {}
        for record in unread:
            by_key.setdefault((record.topic, record.partition), []).append(record)
        read = [key for key in by_key if key in self.states]
        for key in read:
            self.states[key].put_back(by_key[key])
        return [self.states[key] for key in read]

    def raise_errors(self, now_ms: int) -> None:
        """Raise what stopped a partition that has handed out everything before it."""
        for key, state in self._in_turn():
            if state.is_stopped:
                self._to_the_end(key)
                state.raise_error(now_ms)
