"""Consumer fetches and offset queries on their way through a broker, and the long polls among them.

Owns the parked fetches and their deadlines. A parked fetch waits on every partition it names and is
looked at again whenever one of their high watermarks moves or a role changes. It ends once (R34):
with enough bytes, with an error to tell, at its deadline, or because its client went away.
"""

from __future__ import annotations

from msgspec.structs import replace

from minilog.core.broker.consumer_read import find_offset, read
from minilog.core.broker.lookup import Lookup
from minilog.core.broker.state import LocalState
from minilog.core.deadlines import Deadlines
from minilog.core.effects import Effect, Reply
from minilog.core.replication.leader import LeaderState
from minilog.errors import (
    InvalidRequest,
    MinilogError,
    NotLeader,
    Overloaded,
)
from minilog.wire.messages import (
    LATEST,
    Fetch,
    FetchReply,
    FetchResult,
    Offsets,
    OffsetsPartition,
    OffsetsReply,
    OffsetsResult,
    Problem,
)
from minilog.wire.metadata_records import NO_LEADER
from minilog.wire.topic_partition import TopicPartition


class ParkedFetch:
    """A consumer's long poll. It waits on every partition it names and ends once (R34)."""

    __slots__ = ("deadline_ms", "partitions", "request", "request_id")

    def __init__(self, request_id: int, request: Fetch, deadline_ms: int) -> None:
        self.request_id, self.request, self.deadline_ms = request_id, request, deadline_ms
        self.partitions = [TopicPartition(p.topic, p.partition) for p in request.partitions]


def _bound(request: Fetch, results: list[FetchResult]) -> Fetch:
    """The same request about the very topics it was looked up for: one that waits does not go over
    to a successor."""
    entries = [replace(e, topic_id=r.topic_id) for e, r in zip(request.partitions, results, strict=True)]
    return replace(request, partitions=entries)


class FetchRequests:
    def __init__(self, state: LocalState, lookup: Lookup) -> None:
        self._state, self._lookup = state, lookup
        self.deadlines = Deadlines()
        self._parked: dict[int, ParkedFetch] = {}
        self._waiting: dict[TopicPartition, dict[int, ParkedFetch]] = {}
        """By partition, whether or not a replica of it is here now."""
        self._woken: dict[int, ParkedFetch] = {}

    # --- fetch ------------------------------------------------------------------------------------

    def on_fetch(self, request_id: int, request: Fetch, now_ms: int) -> list[Effect]:
        self._check(request)
        results, enough = self._collect(request, now_ms)
        if enough or request.max_wait_ms <= 0:
            return [Reply(request_id, FetchReply(results))]
        if len(self.deadlines) >= self._state.settings.limits.parked_requests_max:
            raise Overloaded(f"{len(self.deadlines)} fetches already wait here, the limit; retry later")
        self._park(ParkedFetch(request_id, _bound(request, results), now_ms + request.max_wait_ms))
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
        """The answer as of now, and whether there is reason to send it: enough bytes or anything
        that went wrong."""
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
        return results, failed or bytes_found >= request.min_bytes

    # --- parked -----------------------------------------------------------------------------------

    def _park(self, parked: ParkedFetch) -> None:
        self.deadlines.add(parked.deadline_ms, parked.request_id, parked)
        self._parked[parked.request_id] = parked
        for partition in parked.partitions:
            self._waiting.setdefault(partition, {})[parked.request_id] = parked

    def _unpark(self, parked: ParkedFetch) -> None:
        self.deadlines.remove(parked.deadline_ms, parked.request_id)
        self._parked.pop(parked.request_id, None)
        self._woken.pop(parked.request_id, None)
        for partition in parked.partitions:
            waiting = self._waiting.get(partition, {})
            waiting.pop(parked.request_id, None)
            if not waiting:
                self._waiting.pop(partition, None)

    def wake(self, partition: TopicPartition) -> None:
        """Look at this partition's long polls when the turn ends."""
        if partition in self._waiting:
            self._woken.update(self._waiting[partition])

    def answer_woken(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        woken, self._woken = self._woken, {}
        for parked in woken.values():
            results, enough = self._collect(parked.request, now_ms)
            if enough:
                self._unpark(parked)
                effects.append(Reply(parked.request_id, FetchReply(results)))
        return effects

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
