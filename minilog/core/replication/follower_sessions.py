"""FollowerSessions: the leader's side of replica fetching: what each follower asked for and has not
been told yet.

Owns: one FollowerSession per following broker, with the position of every partition it fetches from
here, and the follower's request while it is parked. Appends and high-watermark moves only mark
partitions. The answer is put together once at the end of the turn, so one answer carries everything
a turn produced.

Invariants
* One session per follower; (broker epoch, session id) only grows, a late copy of an older opening
  is refused (R5, R35). Sequence numbers are consecutive. Anything else is refused with
  INVALID_FETCH_SESSION.
* A position is counted (``LeaderState.on_fetch``) once, when it arrives, and only by a leader of
  its epoch. One that names an epoch this broker has not reached yet waits until it has (no error,
  no retry loop). One that cannot count (it diverges, R2) is answered so and forgotten: no data is
  sent to it until the follower names another.
* A request is answered exactly once: with data, at its deadline, or when a newer request or session
  replaces it.
* An answer takes along every high watermark and log start that moved: what it does not mention has
  not changed, and what it cannot speak for it calls untold. Followers judge by that how stale they
  are, and retention waits for them.
* A position, and a mark of what is to be told, is about one topic id: another topic of that name
  does not answer for it.
* A follower whose log begins too late is asked for its position again at every tick, however quiet
  the partition: whether it still lacks something, or has been waited for long enough, is found out
  when it names one.
* A long poll never keeps a follower from naming a partition whose leader changed meanwhile: it is
  ended early.
"""

from __future__ import annotations

from minilog.core.effects import Effect, Reply
from minilog.core.replication.follower import FollowerState
from minilog.core.replication.follower_session import NO_ANSWER, FollowerSession, ParkedReplicaFetch, SentAnswer
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica, Replicas
from minilog.errors import CorruptRange, FencedLeaderEpoch, InvalidFetchSession, MinilogError, OffsetOutOfRange
from minilog.wire.journal.metadata_records import NO_LEADER
from minilog.wire.messages import (
    NOTHING,
    Problem,
    ReplicaFetch,
    ReplicaFetchPartition,
    ReplicaFetchReply,
    ReplicaFetchResult,
)
from minilog.wire.topic_partition import TopicPartition

EARLY_ENDS_MAX = 50
"""How many long polls of a follower end early after a role began, one per tick, until it has named
the partition."""


class FollowerSessions:
    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._by_broker: dict[int, FollowerSession] = {}
        self.answers_count = 0
        self._called_back: dict[int, int] = {}
        """Followers whose next answer is sent at once, until they have come back after one later
        than this number."""

    def of(self, broker_id: int) -> FollowerSession | None:
        return self._by_broker.get(broker_id)

    def followed(self, broker_id: int, partition: TopicPartition) -> SentAnswer:
        """That broker surely followed this one after it, in the present leader epoch of the
        partition. NO_ANSWER: it is not known."""
        session = self._by_broker.get(broker_id)
        return NO_ANSWER if session is None or self._led(session, partition) is None else session.followed

    def call_back(self, broker_id: int) -> None:
        """Somebody waits for evidence that this follower still follows: what it waits for ends now,
        so that it asks again. However many wait: it is one answer, and none before it has come
        back."""
        self._called_back[broker_id] = self.answers_count
        session = self._by_broker.get(broker_id)
        if session is not None:
            session.ends_early = True

    def _is_called_back(self, session: FollowerSession) -> bool:
        if session.followed.number > self._called_back.get(session.broker_id, -1):
            self._called_back.pop(session.broker_id, None)
            return False
        return True

    # --- marks ------------------------------------------------------------------------------------

    def on_append(self, partition: TopicPartition) -> None:
        for session in self._by_broker.values():
            if partition in session.partitions and partition not in session.fresh:
                session.dirty[partition] = None

    def on_high_watermark(self, partition: TopicPartition) -> None:
        for session in self._by_broker.values():
            if partition in session.partitions:
                session.stale[partition] = None

    def on_role_changed(self, partition: TopicPartition) -> None:
        """Positions that waited for this epoch can be counted now, and those of older epochs
        refused."""
        for session in self._by_broker.values():
            if partition in session.partitions:
                session.fresh[partition] = None
                session.dirty.pop(partition, None)
            if self._is_unnamed(session, partition):
                session.expected_partitions[partition] = EARLY_ENDS_MAX
                session.ends_early = True

    def _is_unnamed(self, session: FollowerSession, partition: TopicPartition) -> bool:
        """This broker leads the partition to that follower, which has not asked for it in this
        epoch."""
        replica, entry = self._replicas.get(partition), session.partitions.get(partition)
        if replica is None or not isinstance(replica.role, LeaderState):
            return False
        named = entry is not None and entry.leader_epoch >= replica.leader_epoch
        return session.broker_id in replica.role.followers and not named

    def _ends_early(self, session: FollowerSession) -> bool:
        """Asked once per tick while a request is parked."""
        for partition, ends_left in list(session.expected_partitions.items()):
            if ends_left == 0 or not self._is_unnamed(session, partition):
                del session.expected_partitions[partition]
            else:
                session.expected_partitions[partition] -= 1
        return bool(session.expected_partitions)

    # --- requests ---------------------------------------------------------------------------------

    def on_request(
        self, request_id: int, request: ReplicaFetch, deadline_ms: int, now_ms: int
    ) -> tuple[FollowerSession | None, list[Effect]]:
        """Take a request into its session and park it. A refused one is answered at once."""
        effects: list[Effect] = []
        session = self._by_broker.get(request.broker_id)
        if request.sequence == 0:
            if session is not None and (request.broker_epoch, request.session_id) <= session.order:
                return None, [_refuse(request_id, request)]
            effects += self.close(request.broker_id)
            session, before = FollowerSession(request), session
            self._by_broker[request.broker_id] = session
            self._on_replaced(before, request)
        elif (
            session is None
            or session.order != (request.broker_epoch, request.session_id)
            or session.next_sequence != request.sequence
        ):
            return None, [_refuse(request_id, request)]
        effects += self._unpark(session)
        for topic, partition in request.forgotten:
            self._on_forgotten(session, TopicPartition(topic, partition))
        session.take(request)
        session.ends_early = self._is_called_back(session)
        session.parked = ParkedReplicaFetch(request_id, now_ms, deadline_ms)
        return session, effects

    def _on_replaced(self, before: FollowerSession | None, request: ReplicaFetch) -> None:
        """A new session that does not name a partition has forgotten it."""
        if before is not None:
            named = {TopicPartition(entry.topic, entry.partition) for entry in request.partitions}
            for partition in before.partitions:
                if partition not in named:
                    self._on_forgotten(before, partition)

    def _on_forgotten(self, session: FollowerSession, partition: TopicPartition) -> None:
        """It does not follow here any more, so it is not about to be in sync either."""
        leader = self._led(session, partition)
        if leader is not None:
            leader.on_forgotten(session.broker_id)

    def _led(self, session: FollowerSession, partition: TopicPartition) -> LeaderState | None:
        """The role that answers for the position this session has of a partition: of its topic, in
        its epoch."""
        entry, replica = session.partitions.get(partition), self._replicas.get(partition)
        if entry is None or replica is None or not isinstance(replica.role, LeaderState):
            return None
        is_same = (replica.topic_id, replica.leader_epoch) == (entry.topic_id, entry.leader_epoch)
        return replica.role if is_same else None

    def close(self, broker_id: int) -> list[Effect]:
        session = self._by_broker.pop(broker_id, None)
        return [] if session is None else self._unpark(session)

    def _unpark(self, session: FollowerSession) -> list[Effect]:
        parked, session.parked = session.parked, None
        if parked is None:
            return []
        error = InvalidFetchSession("a newer request of the same follower has replaced this one")
        return [Reply(parked.request_id, Problem.of(error))]

    def on_disconnect(self, request_id: int) -> None:
        for session in self._by_broker.values():
            if session.parked is not None and session.parked.request_id == request_id:
                session.parked = None

    # --- counting ---------------------------------------------------------------------------------

    def count(self, session: FollowerSession, now_ms: int, only: TopicPartition | None = None) -> list[LeaderState]:
        """Give fresh positions, or that of one partition, to their leaders; returns the leaders
        whose progress moved."""
        counted = []
        for partition in list(session.fresh) if only is None else [only] if only in session.fresh else []:
            entry = session.partitions[partition]
            replica = self._replicas.get(partition)
            if replica is None or replica.topic_id != entry.topic_id or _is_to_come(replica, entry):
                continue
            del session.fresh[partition]
            leader = self._count(session, replica, entry, now_ms)
            if leader is None:
                session.forget(partition)
            else:
                session.dirty[partition] = None
                session.lacking.pop(partition, None)
                if leader.followers[session.broker_id].lacks_since_ms is not None:
                    session.lacking[partition] = None
                counted.append(leader)
        return counted

    def _count(
        self, session: FollowerSession, replica: Replica, entry: ReplicaFetchPartition, now_ms: int
    ) -> LeaderState | None:
        role = replica.role
        try:
            if not isinstance(role, LeaderState) or session.broker_id not in role.followers:
                raise FencedLeaderEpoch(f"{replica.partition}: I do not lead it to you in epoch {entry.leader_epoch}")
            if session.next_sequence == 1:
                role.log_start.on_session(session.broker_id)
            diverging = role.on_fetch(session.broker_id, session.broker_epoch, entry, now_ms)
        except MinilogError as error:
            session.unsent_results.append(_result(replica, entry, problem=Problem.of(error)))
            return None
        if diverging is not None:
            session.unsent_results.append(_result(replica, entry, diverging=diverging))
            return None
        return role

    # --- answering --------------------------------------------------------------------------------

    def answer_ready(self, now_ms: int, unsure_ms: int) -> list[Effect]:
        """Answer every parked request that has data, a verdict or a divergence to carry, or must
        end early."""
        effects: list[Effect] = []
        for session in self._by_broker.values():
            if session.parked is not None and (session.dirty or session.unsent_results or session.ends_early):
                results = self._collect(session)
                if results or session.ends_early:
                    results += self._collect_stale(session)
                    effects.append(self._answer(session, results, now_ms, unsure_ms))
        return effects

    def answer_late(self, now_ms: int, unsure_ms: int) -> list[Effect]:
        """On the tick: carry high watermarks that found no data to ride with, end what waited long
        enough or should ask anew."""
        effects: list[Effect] = []
        for session in self._by_broker.values():
            parked = session.parked
            if parked is None:
                continue
            session.stale.update(session.lacking)
            results = self._collect(session) + self._collect_stale(session)
            if results or parked.deadline_ms <= now_ms or self._ends_early(session):
                effects.append(self._answer(session, results, now_ms, unsure_ms))
        return effects

    def _answer(
        self, session: FollowerSession, results: list[ReplicaFetchResult], now_ms: int, unsure_ms: int
    ) -> Reply:
        parked, session.parked = session.parked, None
        assert parked is not None
        untold: list[tuple[str, int]] = [*session.fresh, *session.dirty]
        held_ms = now_ms - parked.arrived_ms
        self.answers_count += 1
        session.answered = SentAnswer(now_ms, self.answers_count)
        reply = ReplicaFetchReply(session.session_id, session.next_sequence - 1, results, held_ms, unsure_ms, untold)
        return Reply(parked.request_id, reply)

    def _collect(self, session: FollowerSession) -> list[ReplicaFetchResult]:
        results, session.unsent_results = session.unsent_results, []
        room = session.max_bytes
        for partition in list(session.dirty):
            if room <= 0:
                break
            del session.dirty[partition]
            result = self._read(session, partition, room)
            if result is not None:
                room -= len(result.batches)
                session.stale.pop(partition, None)
                results.append(result)
        return results

    def _collect_stale(self, session: FollowerSession) -> list[ReplicaFetchResult]:
        """High watermarks alone, of partitions whose position is counted. The others wait."""
        results = []
        for partition in [p for p in session.stale if p not in session.fresh]:
            del session.stale[partition]
            result = self._read(session, partition, 0)
            if result is not None:
                results.append(result)
        return results

    def _read(self, session: FollowerSession, partition: TopicPartition, room: int) -> ReplicaFetchResult | None:
        """One partition's result. With no room only its high watermark. None when there is nothing
        new to say."""
        leader = self._led(session, partition)
        if leader is None or partition in session.fresh:
            return None
        entry, replica = session.partitions[partition], self._replicas[partition]
        leader.log_start.on_answer(session.broker_id)
        if room == 0:
            return _result(replica, entry)
        end_offset = replica.log.end_offset
        if entry.fetch_offset >= end_offset:
            return None
        try:
            leader.check_position(entry)  # retention may have been there since
            batches = replica.log.read(entry.fetch_offset, room, end_offset)
        except (CorruptRange, OffsetOutOfRange) as error:
            return _result(replica, entry, problem=Problem.of(error))
        return _result(replica, entry, batches=memoryview(batches))


def _result(
    replica: Replica,
    entry: ReplicaFetchPartition,
    *,
    batches: memoryview = NOTHING,
    diverging: tuple[int, int] | None = None,
    problem: Problem | None = None,
) -> ReplicaFetchResult:
    role = replica.role
    return ReplicaFetchResult(
        entry.topic,
        entry.topic_id,
        entry.partition,
        entry.leader_epoch,
        entry.fetch_offset,
        role.high_watermark,
        role.log_start.published if isinstance(role, LeaderState) else replica.log.start_offset,
        isinstance(role, LeaderState) and role.high_watermark_known,
        batches,
        diverging,
        problem,
        replica.log.swept_end if len(batches) else -1,
        replica.log.written_at(entry.fetch_offset) if len(batches) else None,
    )


def _is_to_come(replica: Replica, entry: ReplicaFetchPartition) -> bool:
    """The epoch the follower names has not begun here yet, or its election is not over as far as is
    known here."""
    if replica.leader_epoch < entry.leader_epoch:
        return True
    is_open = isinstance(replica.role, FollowerState) and replica.role.leader == NO_LEADER
    return is_open and replica.leader_epoch == entry.leader_epoch


def _refuse(request_id: int, request: ReplicaFetch) -> Reply:
    error = InvalidFetchSession(
        f"broker {request.broker_id}: fetch session {request.session_id} sequence {request.sequence} is not the expected one; open a new session"
    )
    return Reply(request_id, Problem.of(error))
