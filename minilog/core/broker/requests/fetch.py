"""Consumer fetches and offset queries on their way through a broker, and the long polls among them.

Owns the parked fetches and their deadlines. A parked fetch waits on every partition it names and is
looked at again whenever one of their high watermarks moves or a role changes. It ends once (R34):
with enough bytes, with as many as the answer can hold, with an error to tell, at its deadline, or
because its client went away.

Invariant: what was found for a parked fetch is read once more, for its answer. Each look at it goes
on where the one before ended. Otherwise who waits for much has all of it read at every commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from minilog.config import KIB
from minilog.core.broker.lookup import Lookup
from minilog.core.broker.requests.consumer_read import find_offset, read
from minilog.core.broker.state import LocalState
from minilog.core.broker.turn import Turn
from minilog.core.deadlines import Deadlines
from minilog.core.effects import Effect, Reply
from minilog.core.replication.leader import LeaderState
from minilog.errors import (
    InvalidRequest,
    MinilogError,
    NotLeader,
    Overloaded,
)
from minilog.wire.batch import peek
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import (
    LATEST,
    Fetch,
    FetchPartition,
    FetchReply,
    FetchResult,
    Offsets,
    OffsetsPartition,
    OffsetsReply,
    OffsetsResult,
    Problem,
)
from minilog.wire.topic_partition import TopicPartition

PATIENT_BYTES: Final = 64 * KIB
PATIENCE_MS: Final = 250
"""A long poll that lacks more than PATIENT_BYTES is looked at so often, and not at every commit: it
waits for much, and a thousand such looks would hold a turn."""
TURN_LOOKS: Final = 128
"""At so many partitions one turn looks for those that wait. Each look is a read of the log."""


def _at_its_end(now_ms: int) -> list[Effect]:
    """Of each turn more of them are looked at."""
    return []


class Found(NamedTuple):
    """What there is for one partition of a fetch, up to ``end_offset`` of the log as of that leader
    epoch."""

    leader_epoch: int
    end_offset: int
    bytes_total: int


class ParkedFetch:
    """A consumer's long poll. It waits on every partition it names and ends once (R34)."""

    __slots__ = ("deadline_ms", "found", "partitions", "request", "request_id")

    def __init__(self, request_id: int, request: Fetch, deadline_ms: int, found: list[Found]) -> None:
        self.request_id, self.request, self.deadline_ms, self.found = request_id, request, deadline_ms, found
        self.partitions = [TopicPartition(p.topic, p.partition) for p in request.partitions]

    @property
    def bytes_found(self) -> int:
        return sum(found.bytes_total for found in self.found)

    @property
    def is_patient(self) -> bool:
        enough_bytes = min(self.request.min_bytes, self.request.max_bytes)
        return enough_bytes - self.bytes_found > PATIENT_BYTES

    def rest(self) -> Fetch:
        """What the answer still lacks, and has room for."""
        request, bytes_found = self.request, self.bytes_found
        entries = [
            replace(
                entry, offset=found.end_offset, last_epoch=-1, max_bytes=max(1, entry.max_bytes - found.bytes_total)
            )
            for entry, found in zip(request.partitions, self.found, strict=True)
        ]
        room, least = request.max_bytes - bytes_found, request.min_bytes - bytes_found
        return replace(request, partitions=entries, max_bytes=room, min_bytes=least)

    def add(self, more: Sequence[Found]) -> bool:
        """False: the answer does not simply grow by that. A role has changed, or not all of it has
        room."""
        pairs = list(zip(self.found, more, strict=True))
        is_same = all(old.leader_epoch == new.leader_epoch for old, new in pairs)
        self.found = [new._replace(bytes_total=old.bytes_total + new.bytes_total) for old, new in pairs]
        limits = [entry.max_bytes for entry in self.request.partitions]
        return is_same and all(f.bytes_total <= limit for f, limit in zip(self.found, limits, strict=True))


def _found(request: Fetch, results: Sequence[FetchResult]) -> list[Found]:
    return [
        Found(result.leader_epoch, _end_of(entry, result), len(result.batches))
        for entry, result in zip(request.partitions, results, strict=True)
    ]


def _end_of(entry: FetchPartition, result: FetchResult) -> int:
    at, end_offset = 0, entry.offset
    while at < len(result.batches):
        batch = peek(result.batches, at)
        at, end_offset = at + batch.bytes_total, batch.end_offset
    return end_offset


def _is_full(found: Sequence[Found], results: Sequence[FetchResult]) -> bool:
    """Of a partition there is more than the answer can hold. It will not become more by waiting."""
    return any(f.end_offset < (r.high_watermark or 0) for f, r in zip(found, results, strict=True))


def _bound(request: Fetch, results: list[FetchResult]) -> Fetch:
    """The same request about the very topics it was looked up for: one that waits does not go over
    to a successor."""
    entries = [replace(e, topic_id=r.topic_id) for e, r in zip(request.partitions, results, strict=True)]
    return replace(request, partitions=entries)


class FetchRequests:
    def __init__(self, state: LocalState, lookup: Lookup, turn: Turn) -> None:
        self._state, self._lookup, self._turn = state, lookup, turn
        self.deadlines = Deadlines()
        self._parked: dict[int, ParkedFetch] = {}
        self._waiting: dict[TopicPartition, dict[int, ParkedFetch]] = {}
        """By partition, whether or not a replica of it is here now."""
        self._woken: dict[int, ParkedFetch] = {}
        self._patient: dict[TopicPartition, dict[int, ParkedFetch]] = {}
        """Those in ``_waiting`` that no commit wakes."""
        self._moved: set[TopicPartition] = set()
        """Where there was something since the patient ones were looked at."""
        self._look_ms = 0

    # --- fetch ------------------------------------------------------------------------------------

    def on_fetch(self, request_id: int, request: Fetch, now_ms: int) -> list[Effect]:
        self._check(request)
        results, enough = self._collect(request, now_ms)
        if enough or request.max_wait_ms <= 0:
            return [Reply(request_id, FetchReply(results))]
        if len(self.deadlines) >= self._state.settings.limits.parked_requests_max:
            raise Overloaded(f"{len(self.deadlines)} fetches already wait here, the limit; retry later")
        bound, found = _bound(request, results), _found(request, results)
        self._park(ParkedFetch(request_id, bound, now_ms + request.max_wait_ms, found))
        return []

    def _check(self, request: Fetch) -> None:
        limits = self._state.settings.limits
        if not 1 <= len(request.partitions) <= limits.partitions_max:
            raise InvalidRequest(
                f"a fetch names 1 to {limits.partitions_max} partitions, this one {len(request.partitions)}"
            )
        if not 0 <= request.max_wait_ms <= limits.wait_ms_max:
            raise InvalidRequest(f"max_wait_ms={request.max_wait_ms} is not allowed; use 0 to {limits.wait_ms_max}")
        if request.max_bytes < 1 or any(p.max_bytes < 1 or p.offset < 0 for p in request.partitions):
            raise InvalidRequest("max_bytes must be at least 1 and offsets at least 0 in every partition of a fetch")

    def _collect(self, request: Fetch, now_ms: int) -> tuple[list[FetchResult], bool]:
        """The answer as of now, and whether there is reason to send it: enough bytes, all that it
        can hold, or anything that went wrong."""
        room = min(request.max_bytes, self._state.settings.limits.fetch_bytes_max)
        bytes_found, failed = 0, False
        results = []
        for entry in request.partitions:
            try:
                replica = self._lookup.find(entry.topic, entry.partition, entry.topic_id)
                if not request.any_replica and isinstance(replica.role, LeaderState):
                    self._lookup.check_not_isolated(replica, now_ms)
                result = read(replica, entry, request, room - bytes_found, now_ms, self._state.unsure_ms(now_ms))
            except MinilogError as error:
                problem = Problem.of(error)
                result = FetchResult(
                    entry.topic, entry.partition, problem, topic_id=self._lookup.topic_id_of(entry.topic)
                )
            if result.problem is not None and result.problem.code == NotLeader.code:
                elsewhere = self._lookup.not_leader(TopicPartition(entry.topic, entry.partition), NO_LEADER)
                result.problem = Problem(elsewhere.code, result.problem.detail, elsewhere.definite, elsewhere.info)
            bytes_found += len(result.batches)
            failed = failed or result.problem is not None
            results.append(result)
        enough = failed or bytes_found >= request.min_bytes
        return results, enough or _is_full(_found(request, results), results)

    # --- parked -----------------------------------------------------------------------------------

    def _park(self, parked: ParkedFetch) -> None:
        self.deadlines.add(parked.deadline_ms, parked.request_id, parked)
        self._parked[parked.request_id] = parked
        self._queue(parked)

    def _queue(self, parked: ParkedFetch) -> None:
        queues = self._patient if parked.is_patient else self._waiting
        for partition in parked.partitions:
            queues.setdefault(partition, {})[parked.request_id] = parked

    def _unqueue(self, parked: ParkedFetch) -> None:
        for queues in (self._waiting, self._patient):
            for partition in parked.partitions:
                waiting = queues.get(partition, {})
                waiting.pop(parked.request_id, None)
                if not waiting:
                    queues.pop(partition, None)

    def _unpark(self, parked: ParkedFetch) -> None:
        self.deadlines.remove(parked.deadline_ms, parked.request_id)
        self._parked.pop(parked.request_id, None)
        self._woken.pop(parked.request_id, None)
        self._unqueue(parked)

    def wake(self, partition: TopicPartition) -> None:
        """Look at this partition's long polls when the turn ends, at those that wait for much
        later."""
        if partition in self._waiting:
            self._woken.update(self._waiting[partition])
        if partition in self._patient:
            self._moved.add(partition)

    def wake_patient(self, now_ms: int) -> None:
        """Look at those that wait for much, if it is time to."""
        if not self._moved or now_ms < self._look_ms:
            return
        self._look_ms = now_ms + PATIENCE_MS
        moved, self._moved = self._moved, set()
        for partition in moved:
            self._woken.update(self._patient.get(partition, {}))

    def answer_woken(self, now_ms: int) -> list[Effect]:
        """At the end of a turn: as many as it has time for (R42), the others in later ones."""
        effects: list[Effect] = []
        room = TURN_LOOKS
        while self._woken and room > 0:
            parked = self._woken.pop(next(iter(self._woken)))
            room -= len(parked.partitions)
            was_patient = parked.is_patient
            effects += self._answer_if_due(parked, now_ms)
            if was_patient != parked.is_patient and parked.request_id in self._parked:
                self._unqueue(parked)
                self._queue(parked)
        if self._woken:
            self._turn.leave(_at_its_end)
        return effects

    def _answer_if_due(self, parked: ParkedFetch, now_ms: int) -> list[Effect]:
        if not self._is_due(parked, now_ms):
            return []
        results, enough = self._collect(parked.request, now_ms)
        parked.found = _found(parked.request, results)
        if not enough:
            return []
        self._unpark(parked)
        return [Reply(parked.request_id, FetchReply(results))]

    def _is_due(self, parked: ParkedFetch, now_ms: int) -> bool:
        """Whether the answer is to be read: so that nobody has to look at what was found before."""
        if not parked.bytes_found:
            return True
        rest = parked.rest()
        results, enough = self._collect(rest, now_ms)
        return not parked.add(_found(rest, results)) or enough

    def expire(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        for parked in list(self.deadlines.expire(now_ms)):
            assert isinstance(parked, ParkedFetch)
            self._unpark(parked)
            effects.append(Reply(parked.request_id, FetchReply(self._collect(parked.request, now_ms)[0])))
        return effects

    def on_disconnect(self, request_id: int) -> None:
        parked = self._parked.get(request_id)
        if parked is not None:
            self._unpark(parked)

    # --- offsets ----------------------------------------------------------------------------------

    def on_offsets(self, request: Offsets, now_ms: int) -> OffsetsReply:
        return OffsetsReply([self._offset(query, now_ms) for query in request.partitions])

    def _offset(self, query: OffsetsPartition, now_ms: int) -> OffsetsResult:
        try:
            replica = self._lookup.find(query.topic, query.partition, query.topic_id)
            if not isinstance(replica.role, LeaderState):
                raise self._lookup.not_leader(replica.partition, replica.role.leader)
            self._lookup.check_not_isolated(replica, now_ms)
            if query.at < min(LATEST, -2):
                raise InvalidRequest(f"at={query.at} is not allowed; use a time in ms, -1 (latest) or -2 (earliest)")
            return find_offset(replica, query)
        except MinilogError as error:
            problem = Problem.of(error)
            return OffsetsResult(query.topic, query.partition, problem, topic_id=self._lookup.topic_id_of(query.topic))
