"""A leader whose followers ask by hand."""

from __future__ import annotations

from collections.abc import Sequence

from minilog.core.effects import Effect, Reply
from minilog.core.replication.follower_session import FollowerSession
from minilog.core.replication.follower_sessions import FollowerSessions
from minilog.core.replication.leader import LeaderState
from minilog.core.replication.replica import Replica
from minilog.wire.batch import split
from minilog.wire.messages import (
    Problem,
    ReplicaFetch,
    ReplicaFetchPartition,
    ReplicaFetchReply,
    ReplicaFetchResult,
)
from minilog.wire.topic_partition import TopicPartition
from tests.unit.core.builders import (
    LAG_MAX_MS,
    TOPIC,
    TOPIC_ID,
    extend,
    leader_of,
    log_of,
    memory_log,
    partition_state,
    replica_of,
)

FIRST = TopicPartition(TOPIC, 0)


WAIT_MS = 500


class Leading:
    """Broker 1 and its sessions, as BrokerCore drives them: count, advance, answer at the end of
    each turn."""

    def __init__(self, *leaders: LeaderState) -> None:
        self.replicas: dict[TopicPartition, Replica] = {each.partition: replica_of(each) for each in leaders}
        self.sessions = FollowerSessions(self.replicas)
        self.replies: dict[int, Problem | ReplicaFetchReply] = {}
        self.next_id = 1
        self.now_ms = self.unsure_ms = 0

    @property
    def leader(self) -> LeaderState:
        role = self.replicas[FIRST].role
        assert isinstance(role, LeaderState)
        return role

    def fetch(self, request: ReplicaFetch) -> int:
        request_id, self.next_id = self.next_id, self.next_id + 1
        session, effects = self.sessions.on_request(request_id, request, self.now_ms + WAIT_MS, self.now_ms)
        if session is not None:
            self.count(session)
        self.finish(effects)
        return request_id

    def count(self, session: FollowerSession) -> None:
        for leader in self.sessions.count(session, self.now_ms):
            self.advance(leader)

    def advance(self, leader: LeaderState) -> None:
        before = leader.high_watermark
        leader.advance(self.now_ms, LAG_MAX_MS)
        if leader.high_watermark != before:
            self.sessions.on_high_watermark(leader.partition)

    def append(self, count: int = 1, partition: int = 0) -> None:
        key = TopicPartition(TOPIC, partition)
        extend(memory_log(self.replicas[key].role), self.replicas[key].leader_epoch, count, synced=False)
        self.sessions.on_append(key)
        self.finish([])

    def flush(self, partition: int = 0) -> None:
        replica = self.replicas[TopicPartition(TOPIC, partition)]
        memory_log(replica.role).sync()
        assert isinstance(replica.role, LeaderState)
        self.advance(replica.role)
        self.finish([])

    def become(self, role: LeaderState) -> None:
        self.replicas[role.partition] = replica_of(role)
        self.sessions.on_role_changed(role.partition)
        session = self.sessions.of(2)
        assert session is not None
        self.count(session)
        self.finish([])

    def tick(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.finish(self.sessions.answer_late(now_ms, self.unsure_ms))

    def finish(self, effects: Sequence[Effect]) -> None:
        for effect in [*effects, *self.sessions.answer_ready(self.now_ms, self.unsure_ms)]:
            assert isinstance(effect, Reply)
            assert effect.request_id not in self.replies, "answered twice"
            assert isinstance(effect.response, Problem | ReplicaFetchReply)
            self.replies[effect.request_id] = effect.response

    def results(self, request_id: int) -> list[ReplicaFetchResult]:
        reply = self.replies[request_id]
        assert isinstance(reply, ReplicaFetchReply)
        return reply.partitions

    def sent(self, request_id: int) -> dict[int, list[int]]:
        """Base offsets by partition, of those whose result carries data."""
        return {r.partition: offsets(r) for r in self.results(request_id) if len(r.batches)}

    def refusal(self, request_id: int) -> str:
        reply = self.replies[request_id]
        assert isinstance(reply, Problem)
        return reply.code


def request(
    *entries: ReplicaFetchPartition,
    sequence: int = 0,
    session_id: int = 1,
    broker_epoch: int = 7,
    max_bytes: int = 1 << 20,
    forgotten: Sequence[tuple[str, int]] = (),
) -> ReplicaFetch:
    return ReplicaFetch(2, broker_epoch, 1, session_id, sequence, WAIT_MS, max_bytes, list(entries), list(forgotten))


def entry(partition: int, fetch_offset: int, last_epoch: int = 5, leader_epoch: int = 5) -> ReplicaFetchPartition:
    return ReplicaFetchPartition(TOPIC, TOPIC_ID, partition, leader_epoch, fetch_offset, last_epoch)


def leading(records: int = 3, *, isr: Sequence[int] = (1, 2), partitions: int = 1) -> Leading:
    leaders = [
        leader_of(partition_state(replicas=[1, 2], isr=isr, partition=p), log_of((5, records), high_watermark=records))
        for p in range(partitions)
    ]
    return Leading(*leaders)


def settled(broker: Leading, *entries: ReplicaFetchPartition) -> Leading:
    """A session is open with these positions and the follower has been told all there is to tell;
    next is sequence 1."""
    broker.fetch(request(*entries))
    broker.tick(broker.now_ms + 20)
    return broker


def offsets(found: ReplicaFetchResult) -> list[int]:
    return [batch.base_offset for batch in split(found.batches, 1 << 20, stored=True)]


def next_leader(partition: int = 0) -> LeaderState:
    """The same broker leads on in epoch 6."""
    log = log_of((5, 3), high_watermark=3)
    return leader_of(partition_state(replicas=[1, 2], leader_epoch=6, partition=partition), log)
